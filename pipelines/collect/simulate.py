"""Stage `simulate`: simulated raters answer in place of people.

They claim tasks and submit answers as the browser does. The oracle measures how well an image fits
its prompt; no other stage before the evaluation uses the oracle.
"""

import hashlib
import random
from collections.abc import Mapping
from pathlib import Path

from data.errors import PictuneError
from data.regions import Mark
from data.runs import RunFolder
from data.tables.parquet import MANIFEST
from labeling_app.campaign.simulated import SimulatedRaterConfig, simulate
from labeling_app.campaign.tasks import TasksConfig
from pipelines.interruption import ends_at_once
from pipelines.progress import progress
from pipelines.run.campaign import (
    add_planned_tasks,
    export_labels,
    image_files,
    images_digest,
    open_store,
    plan_digest,
)
from pipelines.run.judge import judge_folder
from pipelines.run.record import StageFolder
from pipelines.settings.config import Settings
from world.faults import faults
from world.prompts import Requirement
from world.scenes import Reading

BATCH = 64
"""Number of images per call of the oracle."""


def main(run: RunFolder, settings: Settings) -> None:
    """Answer every open task, then export.

    Raises:
        PictuneError: there is no judge for images of the run's model.
    """
    files = image_files(run)
    inputs = {"images": images_digest(run), "tasks": plan_digest(settings), **_comparisons(run)}
    outputs = (run.latest / MANIFEST,)
    stage = StageFolder(
        run, settings, run.labels_dir, "simulate", ("run", "simulate"), inputs, outputs
    )
    if stage.is_done:
        print(f"simulate: done, labels in {run.latest}")
        return
    folder = judge_folder(settings.run)
    if folder is None:
        raise PictuneError(
            f"run.judge: no judge knows the images of {settings.run.model}, "
            "so nothing can stand for raters; "
            "name a judge's folder there, or let people label with `make label`"
        )
    readings = _readings(folder, files)

    def judge(image_id: str, prompt: str) -> float:
        return Requirement.parse(prompt).score(readings[image_id])

    def marks(image_id: str, prompt: str) -> list[Mark]:
        return faults(prompt, readings[image_id])

    tasks = settings.table("tasks", TasksConfig)
    marker = None if tasks.marks == "off" else marks
    rng = random.Random(settings.run.seed)
    config = settings.table("simulate", SimulatedRaterConfig)
    with open_store(run, tasks) as store:
        add_planned_tasks(store, run, settings)
        with stage.working():
            answered = store.progress(source="simulated")
            answers = simulate(store, judge, config, rng=rng, marker=marker)
            open_tasks = answered.total - answered.done
            for _ in progress(answers, "simulate", "label", total=open_tasks):
                pass
            written = export_labels(store, run)
    print(f"simulate: {written}")


def _comparisons(run: RunFolder) -> dict[str, str]:
    """Return a hash of the planned comparisons, by its name; empty without comparisons."""
    with open_store(run) as store:
        task_ids = store.comparisons.task_ids()
    digest = hashlib.sha256("\n".join(task_ids).encode()).hexdigest()
    return {"comparisons": digest} if task_ids else {}


def _readings(folder: Path, files: Mapping[str, Path]) -> dict[str, Reading]:
    """Return the reading of each image by the oracle of `folder`, by image id."""
    with ends_at_once():
        from pipelines.run.image_io import load_images  # noqa: PLC0415 - loads torch
        from world.oracle import Oracle  # noqa: PLC0415 - loads torch

    oracle, ids = Oracle.from_pretrained(folder), list(files)
    readings: dict[str, Reading] = {}
    for start in progress(range(0, len(ids), BATCH), "judge", "batch"):
        part = ids[start : start + BATCH]
        readings |= zip(part, oracle.read(load_images([files[i] for i in part])), strict=True)
    return readings
