"""Sends images of the playground to the run's raters: rankings of the models, and verdicts."""

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from data.files import sha256_of
from data.formats.landing import Imported, import_records
from data.formats.records import Record, Row, SourceImage
from data.runs import RunFolder
from data.schema import PLAYGROUND
from data.store.people.attempts import Limit
from finetune.settings.sampler import Sampler
from labeling_app.campaign.tasks import LARGEST_RANKING, TasksConfig
from pipelines.play.settings import PlayConfig
from pipelines.play.studio import Picture, VisitorError
from pipelines.run.campaign import open_store
from pipelines.run.image_rows import DrawnBy
from pipelines.run.model_hashes import weights_hash
from pipelines.settings.config import Settings

PRIORITY = 1.0
"""Raters are asked about these images before the planned ones: somebody waits for the answer."""


HOUR_S = 3600.0


def ask_raters(
    run: RunFolder, settings: Settings, rows: Sequence[Sequence[Picture]], visitor: str
) -> Imported:
    """Add the images to the run, with their tasks; what is there already is not added again.

    Args:
        run: in its present round.
        settings: its settings.
        rows: the pictures of one seed each, one by every model.
        visitor: address of who asks; the limit of `play.asks_an_hour` is counted by it.

    Raises:
        VisitorError: nothing can be asked about them, or the visitor has asked too often.
        PictuneError: they cannot be written.
    """
    tasks = settings.table("tasks", TasksConfig)
    drawn_by = partial(DrawnBy, settings.run.model, weights_hash(settings.run.model))
    records = list(records_of(rows, drawn_by, run.round, tasks))
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


def records_of(
    rows: Sequence[Sequence[Picture]],
    drawn_by: Callable[[Sampler, str | None], DrawnBy],
    round_number: int,
    tasks: TasksConfig,
) -> Iterator[Record]:
    """Yield a ranking of each row's different images, and a verdict on each where the run has them.

    `drawn_by` is called with sampler and hash of the adapter.
    """
    for number, row in enumerate(rows, start=1):
        images = {sha256_of(one.file): one for one in row}
        sources = [_image(one, drawn_by, round_number) for one in images.values()]
        prompt = row[0].prompt
        origin = Row(path=Path(PLAYGROUND), number=number, values={})
        for start in range(0, len(sources), LARGEST_RANKING):
            ranked = tuple(sources[start : start + LARGEST_RANKING])
            if len(ranked) > 1:
                yield Record(
                    row=origin,
                    prompt=prompt,
                    images=ranked,
                    kind="ranking",
                    task={"overlap": tasks.ranking_overlap, "priority": PRIORITY},
                )
        for source in sources if tasks.binary_overlap else ():
            yield Record(
                row=origin,
                prompt=prompt,
                images=(source,),
                kind="binary",
                task={"overlap": tasks.binary_overlap, "priority": PRIORITY},
            )


def _image(
    one: Picture, drawn_by: Callable[[Sampler, str | None], DrawnBy], round_number: int
) -> SourceImage:
    facts = drawn_by(one.sampler, one.adapter_hash).facts(one.seed, one.file)
    own = {"round": round_number, "adapter_strength": one.strength, "origin": PLAYGROUND}
    return SourceImage(column="image", content=one.file, facts=facts | own)
