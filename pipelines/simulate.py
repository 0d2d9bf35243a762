"""Stage `simulate`: raters with a state answer in people's place, through the same claim and submit as the browser.

The oracle tells them how well a picture fits its prompt; nothing else of a run ever hears of it until the evaluation.
"""

import random

from tqdm import tqdm

from data.errors import PictuneError
from data.parquet import MANIFEST
from data.runs import RunFolder
from labeling_app.simulated import SimulatedRaterConfig, simulate
from labeling_app.tasks import TasksConfig
from pipelines.config import Settings
from pipelines.judge import judge_of
from pipelines.pictures import load_pictures
from pipelines.record import StageFolder
from pipelines.tasks import (
    add_planned_tasks,
    export_labels,
    image_files,
    images_digest,
    open_store,
    plan_digest,
)
from pipelines.world.oracle import Oracle
from pipelines.world.prompts import Requirement
from pipelines.world.scenes import Reading

BATCH = 64
"""Pictures judged at once."""


def main(run: RunFolder, settings: Settings) -> None:
    """Answers every open task, then exports."""
    files = image_files(run)
    inputs, outputs = (
        {"images": images_digest(run), "tasks": plan_digest(settings)},
        (run.latest / MANIFEST,),
    )
    stage = StageFolder(
        run, settings, run.labels_dir, "simulate", ("run", "simulate"), inputs, outputs
    )
    if stage.is_done:
        print(f"simulate: done, labels in {run.latest}")
        return
    folder = judge_of(settings.run)
    if folder is None:
        raise PictuneError(
            f"run.judge: no judge knows the images of {settings.run.model}, so nothing can stand for raters; "
            "name a judge's folder there, or let people label with `make label`"
        )
    oracle = Oracle.from_pretrained(folder)
    ids = list(files)
    readings: dict[str, Reading] = {}
    for start in tqdm(range(0, len(ids), BATCH), desc="judge", unit="batch", disable=None):
        part = ids[start : start + BATCH]
        readings |= zip(part, oracle.read(load_pictures([files[i] for i in part])), strict=True)

    def judge(image_id: str, prompt: str) -> float:
        return Requirement.parse(prompt).score(readings[image_id])

    rng = random.Random(settings.run.seed)
    with open_store(run, settings.table("tasks", TasksConfig)) as store:
        add_planned_tasks(store, run, settings)
        with stage.working():
            progress = store.progress(source="simulated")
            answers = simulate(
                store, judge, settings.table("simulate", SimulatedRaterConfig), rng=rng
            )
            for _ in tqdm(
                answers,
                total=progress.total - progress.done,
                desc="simulate",
                unit="label",
                disable=None,
            ):
                pass
            written = export_labels(store, run, settings)
    print(f"simulate: {written}")
