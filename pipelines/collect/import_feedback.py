"""Stage `import`: import images, prompts and labels from files of other tools into a run."""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from data.errors import PictuneError
from data.formats.landing import read_records
from data.formats.registry import FORMATS
from data.runs import RunFolder
from pipelines.flags import add_format, add_path
from pipelines.progress import progress
from pipelines.run.campaign import export_labels, open_store
from pipelines.settings.config import Settings


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage."""
    readable = [name for name, one in FORMATS.items() if one.read is not None]
    add_format(parser, "source_format", readable)
    meaning = "the file or folder to import"
    add_path(parser, "--from", "PATH", meaning, required=True, dest="source")
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out rows that are wrong, and say which; else nothing is imported",
    )


def main(
    run: RunFolder,
    settings: Settings,  # noqa: ARG001 - every stage is called alike
    *,
    source_format: str,
    source: Path,
    skip_bad: bool = False,
) -> None:
    """Add the new rows of `source`, a file or folder in the format `source_format`, then export.

    The run may be new. With `skip_bad`, bad rows are skipped.

    Raises:
        PictuneError: there are no rows, or no valid rows, or bad rows without `skip_bad`.
    """
    read = FORMATS[source_format].read
    assert read is not None
    records = progress(read(source), "import", "row")
    with read_records(records, source_format, run, now=datetime.now(UTC)) as batch:
        if not batch.rows:
            raise PictuneError(f"{source}: holds no rows; give a file with some as FROM=")
        if skip_bad or batch.n_bad > 1:
            _list(batch.bad, batch.n_bad)
        if not skip_bad or batch.n_bad == batch.rows:
            batch.refuse_bad()
        with open_store(run) as store:
            new = batch.add_to(store)
            written = export_labels(store, run)
    added = new.feedback
    left_out = f", {batch.n_bad} bad rows left out" if batch.n_bad else ""
    print(
        f"import: {new.images} new images, {new.prompts} prompts, {added.tasks} tasks, "
        f"{added.labels} labels, {added.raters} raters{left_out}; {written}"
    )


def _list(faults: Sequence[str], number: int) -> None:
    """Write the errors of bad rows; `number` is the number of all bad rows."""
    for fault in faults:
        print(f"import: {fault}", file=sys.stderr)
    if number > len(faults):
        print(f"import: ... and {number - len(faults)} more bad rows", file=sys.stderr)
