"""A run whose images by several models were compared, made in one transaction.

Strength, taste of raters and luck of prompts are known, so that what is found can be checked.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from math import exp
from pathlib import Path
from typing import Literal

import pyarrow as pa
from PIL import Image, ImageDraw

from data.comparisons import Axis
from data.feedback import NewTask
from data.files import sha256_of
from data.kinds.comparison import ComparisonAnswer
from data.runs import RunFolder
from data.schema import IMAGES, PROMPTS, prompt_id, write_table
from data.store.imported import ImportedLabel
from data.tables.parquet import export
from labeling_app.campaign.comparisons import CompareConfig, ComparedImage, plan_comparisons
from tests.support.data_campaign import START, open_store

STRENGTHS = {"base": -0.6, "rwl": 0.5, "dpok": 0.1}
"""Log-odds."""
ANIMALS = ("rabbit", "wolf", "cat", "dog", "lion", "tiger")
KINDS = {"count": "Four {}s in the park.", "color": "A green colored {}.", "place": "A {} at sea."}
COLORS = {"base": (160, 160, 160), "rwl": (60, 130, 220), "dpok": (200, 80, 70)}


def write_comparison_run(
    root: Path,
    *,
    strengths: Mapping[str, float] = STRENGTHS,
    axes: Sequence[Axis] = ("overall", "appeal"),
    raters: int = 8,
    by_chance: int = 1,
    overlap: int = 3,
    source: Literal["human", "simulated"] = "human",
    skips: bool = False,
    seed: int = 0,
) -> RunFolder:
    """Write images and comparisons on the axes, and export them.

    The last `by_chance` of the raters answer at random. With `skips`, all skip all.
    """
    run, rng = RunFolder(root), random.Random(seed)
    prompts = {text.format(animal): kind for kind, text in KINDS.items() for animal in ANIMALS}
    images = {
        (prompt, model): _image(run, rng, prompt, model)
        for prompt in prompts
        for model in strengths
    }
    rows = [
        {"prompt_id": prompt_id(text), "prompt": text, "category": kind}
        for text, kind in prompts.items()
    ]
    write_table(pa.Table.from_pylist(rows, schema=PROMPTS), PROMPTS, run.prompts_table)
    table = pa.Table.from_pylist(list(images.values()), schema=IMAGES)
    write_table(table, IMAGES, run.images_table)
    ids = {key: str(row["image_id"]) for key, row in images.items()}
    crowd = _Crowd(rng, strengths, raters - by_chance, source)
    crowd.model_of = {image_id: model for (_, model), image_id in ids.items()}
    crowd.luck = {image_id: rng.gauss(0, 0.5) for image_id in crowd.model_of}
    config = CompareConfig(axes=tuple(axes), overlap=overlap)
    drawn = [ComparedImage(ids[one], one[0], 0, one[1]) for one in ids]
    tasks = plan_comparisons(drawn, config, list(strengths)).tasks
    labels = [
        crowd.answer(task, rater)
        for task in tasks
        for rater in rng.sample(range(raters), min(overlap, raters))
    ]
    if skips:
        skipped = ComparisonAnswer(outcome="skip", reason="no idea")
        labels = [replace(one, answer=skipped) for one in labels]
    with open_store(root) as store:
        store.import_labels(tasks, labels, finish=lambda: None)
        export(store, run)
    return run


class _Crowd:
    def __init__(
        self,
        rng: random.Random,
        strengths: Mapping[str, float],
        honest: int,
        source: Literal["human", "simulated"],
    ) -> None:
        self.rng, self.strengths, self.source = rng, strengths, source
        self.honest = honest
        self.luck: dict[str, float] = {}
        self.moment: datetime = START
        self.model_of: dict[str, str] = {}

    def answer(self, task: NewTask, rater: int) -> ImportedLabel:
        n = len(task.image_ids)
        order = tuple(self.rng.sample(range(n), n))
        self.moment += timedelta(seconds=self.rng.randrange(5, 60))
        return ImportedLabel(
            submission_id=f"{self.rng.getrandbits(64):x}",
            rater=f"rater{rater}",
            source=self.source,
            task=task,
            answer=self._answer(task, order, honest=rater < self.honest),
            shown_order=order,
            submitted_at=self.moment,
            time_on_task_ms=4000,
        )

    def _answer(self, task: NewTask, order: tuple[int, ...], *, honest: bool) -> ComparisonAnswer:
        worth = [
            self.strengths[self.model_of[image]] + self.luck[image] if honest else 0.0
            for image in task.image_ids
        ]
        drawn = self.rng.random()
        if drawn < 0.03:
            return ComparisonAnswer(outcome="skip", reason="cannot tell")
        if drawn < 0.12:
            return ComparisonAnswer(outcome="both_bad" if drawn < 0.05 else "tie")
        left = 0.2 if order[0] == 0 else -0.2
        first = self.rng.random() < 1 / (1 + exp(-(worth[0] - worth[1] + left)))
        remark = "odd ears <i>?</i>" if drawn > 0.97 else None
        return ComparisonAnswer(
            outcome="preferred", preferred=task.image_ids[0 if first else 1], comment=remark
        )


def _image(run: RunFolder, rng: random.Random, prompt: str, model: str) -> dict[str, object]:
    number = rng.getrandbits(24)
    path = run.images_dir / f"{number:06x}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (64, 64), COLORS.get(model, (90, 90, 90)))
    corner = rng.randrange(8, 30)
    ImageDraw.Draw(picture).ellipse((corner, corner, corner + 24, corner + 24), fill=number)
    picture.save(path)
    facts = {"width": 64, "height": 64, "format": "png", "model_id": "m", "created_at": START}
    return facts | {
        "image_id": sha256_of(path),
        "path": f"images/{path.name}",
        "prompt_id": prompt_id(prompt),
        "prompt": prompt,
        "seed": number,
        "adapter_hash": None if model == "base" else f"hash of {model}",
        "origin": "comparison",
    }
