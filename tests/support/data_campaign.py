"""A small labeling campaign for the tests of `data`.

It has a clock that is set by hand, a store, and a run folder with images.
"""

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import pyarrow as pa
import sqlalchemy as sa
from PIL import Image

from data.feedback import Claim, NewTask, Receipt, Source, Submission
from data.files import sha256_of
from data.kinds.comparison import ComparisonAnswer
from data.kinds.kind import Answer
from data.kinds.ranking import RankingAnswer
from data.kinds.verdict import BinaryAnswer
from data.runs import RunFolder
from data.schema import IMAGES, PROMPTS, prompt_id, write_table
from data.store.feedback_store import FeedbackStore
from data.store.imported import ImportedLabel
from data.store.tables import labels

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Clock:
    """Clock that stands still until it is moved."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def open_store(folder: Path, clock: Clock | None = None) -> FeedbackStore:
    return FeedbackStore.open(
        f"sqlite:///{folder / 'labels' / 'feedback.db'}",
        clock=clock or Clock(),
        rng=random.Random(0),
    )


def binary_tasks(count: int, overlap: int = 1) -> list[NewTask]:
    return [
        NewTask(kind="binary", prompt="a cat", image_ids=(f"image{number}",), overlap=overlap)
        for number in range(count)
    ]


def good_answer(claim: Claim) -> Answer:
    """Return good, or the images ranked in the order that they have in the task.

    In a comparison the first one is better.
    """
    if claim.task.kind == "comparison":
        return ComparisonAnswer(outcome="preferred", preferred=claim.task.image_ids[0])
    if claim.task.kind == "binary":
        return BinaryAnswer(verdict="good")
    return RankingAnswer(
        ranks={image_id: rank for rank, image_id in enumerate(claim.task.image_ids, start=1)}
    )


def submission(claim: Claim, rater_id: str, name: str, answer: Answer | None = None) -> Submission:
    return Submission(
        submission_id=name,
        task_id=claim.task.task_id,
        rater_id=rater_id,
        answer=answer or good_answer(claim),
        time_on_task_ms=1000,
    )


def given_elsewhere(
    submission_id: str,
    task: NewTask,
    answer: Answer,
    source: Source = "imported",
    rater: str | None = None,
) -> ImportedLabel:
    """Return an imported label; without `rater` its submission id is its rater's name, too."""
    return ImportedLabel(
        submission_id=submission_id,
        rater=rater or submission_id,
        source=source,
        task=task,
        answer=answer,
        shown_order=tuple(range(len(task.image_ids))),
    )


def claimed(store: FeedbackStore, rater_id: str) -> Claim:
    claim = store.claim(rater_id)
    assert claim is not None
    return claim


def count_reported(store: FeedbackStore) -> tuple[int, int]:
    """Count the images that wait for a decision, and the images that are removed."""
    removed = [image.removed for image in store.reports.images()]
    return removed.count(False), removed.count(True)


def answer_all(store: FeedbackStore, rater_id: str) -> list[Receipt]:
    receipts = []
    while (claim := store.claim(rater_id)) is not None:
        name = str(uuid5(NAMESPACE_OID, rater_id + claim.task.task_id))
        receipts.append(store.submit(submission(claim, rater_id, name)))
    return receipts


def answer_at_once(store: FeedbackStore, n_raters: int) -> Counter[str]:
    """Let raters answer all tasks, each in a thread; return the number of labels by task id."""
    raters = [store.add_rater(f"rater{number}") for number in range(n_raters)]
    with ThreadPoolExecutor(n_raters) as pool:
        receipts = list(pool.map(lambda rater: answer_all(store, rater), raters))
    with store.database.read() as connection:
        per_task = Counter(connection.scalars(sa.select(labels.c.task_id)))
    assert per_task.total() == sum(map(len, receipts))
    return per_task


@dataclass
class Campaign:
    """A run folder with images of one prompt, and tasks about each image and about all together."""

    root: Path
    n_images: int = 3
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.run = RunFolder(self.root)
        self.image_ids = [self._write_image(number) for number in range(self.n_images)]
        prompt = {"prompt_id": prompt_id("a cat"), "prompt": "a cat"}
        prompts = [prompt | {"category": "object", "split": "train"}]
        write_table(pa.Table.from_pylist(prompts, schema=PROMPTS), PROMPTS, self.run.prompts_table)
        rows = [self._image_row(number, image_id) for number, image_id in enumerate(self.image_ids)]
        write_table(pa.Table.from_pylist(rows, schema=IMAGES), IMAGES, self.run.images_table)
        self.store = open_store(self.root, self.clock)
        self.store.add_tasks(
            [
                NewTask(kind="binary", prompt="a cat", image_ids=(image_id,), overlap=2)
                for image_id in self.image_ids
            ]
        )
        self.store.add_tasks(
            [NewTask(kind="ranking", prompt="a cat", image_ids=tuple(self.image_ids))]
        )

    def _write_image(self, number: int) -> str:
        path = self.run.images_dir / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number % 256).save(path)
        return sha256_of(path)

    @staticmethod
    def _image_row(number: int, image_id: str) -> dict[str, object]:
        facts = {
            "width": 8,
            "height": 8,
            "format": "png",
            "model_id": "m",
            "model_hash": "h",
            "steps": 1,
            "guidance": 1.0,
            "eta": 0.0,
        }
        where = {
            "image_id": image_id,
            "path": f"images/{number}.png",
            "prompt_id": prompt_id("a cat"),
            "prompt": "a cat",
        }
        return facts | where | {"seed": number, "scheduler": "DDIMScheduler", "created_at": START}
