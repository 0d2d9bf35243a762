"""Sends images of the playground to the run's raters: rankings of the models, and verdicts."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from data.files import sha256_of
from data.formats.landing import Imported, import_records
from data.formats.records import Record, Row, SourceImage
from data.runs import RunFolder
from data.schema import PLAYGROUND
from data.store.people.attempts import Limit
from labeling_app.campaign.tasks import LARGEST_RANKING, TasksConfig
from pipelines.play.settings import PlayConfig
from pipelines.play.studio import DrawnImage, VisitorError
from pipelines.run.campaign import open_store
from pipelines.run.image_plan import DrawnBy
from pipelines.run.model_hashes import weights_hash
from pipelines.settings.config import Settings

PRIORITY = 1.0
"""Priority of these tasks, above planned tasks, since a visitor waits for the answer."""
HOUR_S = 3600.0


def ask_raters(
    run: RunFolder, settings: Settings, rows: Sequence[Sequence[DrawnImage]], visitor: str
) -> Imported:
    """Add the images and their tasks to the run; existing ones are not added again.

    Args:
        run: the run, in its current round.
        settings: its settings.
        rows: the images of one seed each, one by every model.
        visitor: address of the visitor; the limit `play.asks_an_hour` holds per address.

    Raises:
        VisitorError: the run has no question about these images, or the visitor has asked too
            often.
        PictuneError: the images cannot be written.
    """
    records = list(_records(rows, run, settings))
    if not any(record.kind for record in records):
        raise VisitorError(
            "Nothing to ask: this run asks for no verdicts (tasks.binary_overlap is 0), "
            "and a ranking needs different images of one seed."
        )
    most = settings.table("play", PlayConfig).asks_an_hour
    with open_store(run) as store:
        wait_s = store.attempts.count([Limit(f"playground at {visitor}", most, HOUR_S)])
        if wait_s:
            raise VisitorError(
                f"Raters were asked {most} times from here within an hour: "
                f"ask again in {math.ceil(wait_s / 60)} min."
            )
        return import_records(records, PLAYGROUND, run, store, now=datetime.now(UTC))


def _records(
    rows: Sequence[Sequence[DrawnImage]], run: RunFolder, settings: Settings
) -> Iterator[Record]:
    """Yield a ranking of each row's distinct images, and verdicts if the run asks for them."""
    tasks, model = settings.table("tasks", TasksConfig), settings.run.model
    weights = weights_hash(model)  # reads all weights, so once
    for number, row in enumerate(rows, start=1):
        distinct = {sha256_of(one.file): one for one in row}.values()
        sources = [source_of(one, run, model, weights) for one in distinct]
        starts = range(0, len(sources), LARGEST_RANKING)
        rankings = [tuple(sources[start : start + LARGEST_RANKING]) for start in starts]
        asked = [("ranking", images, tasks.ranking_overlap) for images in rankings]
        asked = [one for one in asked if len(one[1]) > 1]
        if tasks.binary_overlap:
            asked += [("binary", (image,), tasks.binary_overlap) for image in sources]
        for kind, images, overlap in asked:
            yield Record(
                row=Row(path=Path(PLAYGROUND), number=number, values={}),
                prompt=row[0].prompt,
                images=images,
                kind=kind,
                task={"overlap": overlap, "priority": PRIORITY},
            )


def source_of(one: DrawnImage, run: RunFolder, model: str, weights: str) -> SourceImage:
    """Return the image with the facts that the run keeps of it; `weights` is the model's hash."""
    drawn_by = DrawnBy(model, weights, one.sampler, one.adapter_hash)
    own = {"round": run.round, "adapter_strength": one.strength, "origin": PLAYGROUND}
    facts = drawn_by.facts(one.seed, one.file) | own
    return SourceImage(column="image", content=one.file, facts=facts)
