"""Stage `dataset`: export the labels to Parquet, and check them.

The check compares store, files and tables.
"""

import argparse

from data.errors import PictuneError
from data.runs import RunFolder
from data.tables.verification import verify
from pipelines.run.campaign import export_labels, open_store
from pipelines.settings.config import Settings


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage."""
    parser.add_argument(
        "--check",
        action="store_true",
        help="only check; exit status 1 and a line for each thing that is wrong",
    )


def main(
    run: RunFolder,
    settings: Settings,  # noqa: ARG001 - every stage is called alike
    *,
    check: bool = False,
) -> int:
    """Export, then check; return 1 after a line for each error, or 0 without errors.

    Raises:
        PictuneError: there are no labels.
    """
    if not run.has_store:
        raise PictuneError(
            f"{run.store_file}: no labels yet; run `make label` or `make simulate` first"
        )
    with open_store(run) as store:
        written = "labels" if check else export_labels(store, run)
        faults = verify(store, run)
    for fault in faults:
        print(fault)
    if faults:
        print(f"dataset: {len(faults)} faults")
        return 1
    print(f"dataset: {written}: all of it agrees with the store and the files")
    return 0
