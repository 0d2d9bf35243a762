"""Stage `import`: bring images, prompts and labels from other people's files into a run."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from data.formats.landing import import_records
from data.formats.registry import FORMATS
from data.runs import RunFolder
from pipelines.campaign import export_labels, open_store
from pipelines.config import Settings
from pipelines.flags import add_format
from pipelines.progress import progress


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage."""
    readable = [name for name, one in FORMATS.items() if one.read is not None]
    add_format(parser, "source_format", readable)
    parser.add_argument(
        "--from",
        required=True,
        type=Path,
        metavar="PATH",
        dest="source",
        help="the file or folder to import",
    )


def main(run: RunFolder, settings: Settings, *, source_format: str, source: Path) -> None:
    """Add what is new in `source`, a file or folder in the format `source_format`, then export.

    The run may be a new one.
    """
    read = FORMATS[source_format].read
    assert read is not None
    records = progress(read(source), "import", "row")
    with open_store(run) as store:
        new = import_records(records, source_format, run, store, now=datetime.now(UTC))
        written = export_labels(store, run, settings)
    added = new.feedback
    print(
        f"import: {new.images} new images, {new.prompts} prompts, {added.tasks} tasks, "
        f"{added.labels} labels, {added.raters} raters; {written}"
    )
