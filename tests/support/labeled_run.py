"""A run with labels of every kind, made in one transaction.

They are by people and a simulated rater, with gold, ties, skips, comments and disputed images.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from data.comparisons import Axis
from data.feedback import NewTask, Source
from data.files import sha256_of
from data.kinds.comparison import ComparisonAnswer
from data.kinds.kind import Answer
from data.kinds.ranking import RankingAnswer
from data.kinds.verdict import BinaryAnswer
from data.regions import Mark
from data.runs import RunFolder
from data.schema import IMAGES, PROMPTS, prompt_id, write_table
from data.sessions import TurnAnswer
from data.store.feedback_store import FeedbackStore
from data.store.imported import ImportedLabel
from data.tables.parquet import export
from tests.support.data_campaign import START, open_store
from tests.support.session_turns import small_turns

PROMPTS_BY_CATEGORY = {
    "color": "A green colored rabbit.",
    "count": "Four wolves in the park.",
    "composition": "A cat and a dog.",
    "place": "A dog on the moon, seen from <b>far</b> away & above.",
}
AXES: tuple[Axis, ...] = ("overall", "appeal")
RATERS = ("anna", "ben", "cleo", "dora")


def write_labeled_run(
    root: Path,
    *,
    per_prompt: int = 4,
    seed: int = 0,
    raters: Sequence[str] = RATERS,
    axes: Sequence[Axis] = AXES,
) -> RunFolder:
    """Write the run; without `axes` nobody compares models, and of the raters Dora is simulated."""
    run = RunFolder(root)
    rng = random.Random(seed)
    images = {
        prompt: [_image(run, rng, prompt) for _ in range(per_prompt)]
        for prompt in [*PROMPTS_BY_CATEGORY.values(), "Something else."]
    }
    rows = [
        {"prompt_id": prompt_id(text), "prompt": text, "category": name}
        for name, text in PROMPTS_BY_CATEGORY.items()
    ]
    rows.append({"prompt_id": prompt_id("Something else."), "prompt": "Something else."})
    write_table(pa.Table.from_pylist(rows, schema=PROMPTS), PROMPTS, run.prompts_table)
    write_table(
        pa.Table.from_pylist([row for part in images.values() for row in part], schema=IMAGES),
        IMAGES,
        run.images_table,
    )
    with open_store(root) as store:
        _label(
            store,
            rng,
            {prompt: [str(row["image_id"]) for row in part] for prompt, part in images.items()},
            raters,
            axes,
        )
        shown = [str(row["image_id"]) for row in images["A cat and a dog."]]
        _hold_sessions(store, rng, shown, [one for one in raters if one != "cleo"])
        export(store, run)
    return run


def _image(run: RunFolder, rng: random.Random, prompt: str) -> dict[str, object]:
    number = rng.getrandbits(24)
    path = run.images_dir / f"{number:06x}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (number >> 16, number >> 8 & 255, number & 255)).save(path)
    facts = {
        "width": 16,
        "height": 16,
        "format": "png",
        "model_id": "m",
        "seed": number,
        "created_at": START,
    }
    return facts | {
        "image_id": sha256_of(path),
        "path": f"images/{path.name}",
        "prompt_id": prompt_id(prompt),
        "prompt": prompt,
    }


def _label(
    store: FeedbackStore,
    rng: random.Random,
    images: dict[str, list[str]],
    raters: Sequence[str],
    axes: Sequence[Axis],
) -> None:
    tasks, labels = [], []
    moment = START
    for prompt, image_ids in images.items():
        for number, image_id in enumerate(image_ids):
            is_gold = number == 0
            tasks.append(
                NewTask(
                    kind="binary",
                    prompt=prompt,
                    image_ids=(image_id,),
                    overlap=4,
                    gold=BinaryAnswer(verdict="good") if is_gold else None,
                    gold_source="us" if is_gold else None,
                )
            )
        tasks.append(NewTask(kind="ranking", prompt=prompt, image_ids=tuple(image_ids), overlap=4))
    for task in tasks:
        for rater in raters:
            moment += timedelta(seconds=rng.randrange(30, 400))
            labels.append(_answered(rng, task, rater, moment))
    compared = [_comparison(prompt, ids, axis) for prompt, ids in images.items() for axis in axes]
    for task in compared:
        for rater in raters:
            moment += timedelta(seconds=rng.randrange(30, 400))
            labels.append(_answered(rng, task, rater, moment))
    store.import_labels([*tasks, *compared], labels, finish=lambda: None)


def _hold_sessions(
    store: FeedbackStore, rng: random.Random, image_ids: Sequence[str], raters: Sequence[str]
) -> None:
    """Hold a session of two turns with each rater."""

    def known(prompts: Sequence[str], _seeds: object) -> list[list[str]]:
        return [[rng.choice(image_ids)] for _ in prompts]

    turns = replace(small_turns(store.sessions), draw=known)
    for name in raters:
        source: Source = "simulated" if name == "dora" else "human"
        turns.store.begin(name, store.add_rater(name, source=source), "A cat and a dog.")
        for number in (1, 2):
            shown = turns.next_turn(name, rng).shown
            answer = TurnAnswer(
                chosen=rng.choice(shown),
                progress="better" if number == 2 else None,
                stops=number == 2,
                time_on_task_ms=rng.randrange(1000, 60_000),
            )
            turns.store.save_answer(name, number, answer, answer_id=f"{name} {number}")


def _comparison(prompt: str, image_ids: list[str], axis: Axis) -> NewTask:
    return NewTask(
        kind="comparison",
        prompt=prompt,
        image_ids=tuple(image_ids[:2]),
        overlap=4,
        axis=axis,
        models=("base", "rwl"),
    )


def _answered(rng: random.Random, task: NewTask, rater: str, moment: datetime) -> ImportedLabel:
    verdicts: tuple[Any, ...] = ("good", "bad", "skip", "unsafe")
    verdict = rng.choices(verdicts, (55, 35, 8, 2))[0]
    answer: Answer = BinaryAnswer(
        verdict=verdict,
        comment="two tails <i>?</i>" if rng.random() < 0.1 else None,
        marks=_marks(task, rater) if verdict in ("good", "bad") else None,
    )
    if task.kind == "ranking":
        answer = RankingAnswer(
            ranks={image_id: rng.choice((1, 2, 3, None)) for image_id in task.image_ids}
        )
    if task.kind == "comparison":
        outcomes = ["preferred", "preferred", "preferred", "tie", "both_bad", "skip"]
        outcome = rng.choice(outcomes)
        preferred = rng.choice(task.image_ids) if outcome == "preferred" else None
        answer = ComparisonAnswer.model_validate({"outcome": outcome, "preferred": preferred})
    seconds = rng.lognormvariate(1.0, 0.6)
    return ImportedLabel(
        submission_id=f"{rng.getrandbits(64):x}",
        rater=rater,
        source="simulated" if rater == "dora" else "human",
        task=task,
        answer=answer,
        shown_order=tuple(rng.sample(range(len(task.image_ids)), len(task.image_ids))),
        submitted_at=moment,
        time_on_task_ms=int(seconds * 1000),
        active_ms=int(seconds * 900) if rater != "ben" else None,
    )


def _marks(task: NewTask, rater: str) -> tuple[Mark, ...] | None:
    """Return marks near a place of the image's own; Cleo was not asked, and Ben gives points."""
    rng, near = random.Random(task.image_ids[0]), random.Random(task.image_ids[0] + rater)
    if rater == "cleo":
        return None
    if rng.random() < 0.4 or near.random() < 0.2:
        return ()
    x, y = (rng.uniform(0.2, 0.7) + near.uniform(0, 0.1) for _ in range(2))
    aspect = near.choice(("artifact", "misaligned"))
    words = (1,) if aspect == "misaligned" else ()
    if rater == "ben":
        return (Mark(kind="point", aspect=aspect, x0=x, y0=y, word_indexes=words),)
    x0, y0, x1, y1 = x - 0.1, y - 0.1, x + 0.1, y + 0.1
    return (Mark(kind="box", aspect=aspect, x0=x0, y0=y0, x1=x1, y1=y1, word_indexes=words),)
