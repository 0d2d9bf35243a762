"""Stage `dataset`: exports the labels to Parquet and checks that store, files and tables agree."""

from data.errors import PictuneError
from data.parquet import verify
from data.runs import RunFolder
from pipelines.config import Settings
from pipelines.tasks import export_labels, open_store


def main(run: RunFolder, settings: Settings) -> None:  # noqa: ARG001 - every stage is called alike
    """Exports, then verifies.

    Raises:
        PictuneError: there are no labels, or something does not agree; each fault is printed first.
    """
    if not run.store_file.exists():
        raise PictuneError(f"{run.store_file}: no labels yet; run `make label` or `make simulate` first")
    with open_store(run) as store:
        written = export_labels(store, run)
        faults = verify(store, run)
    for fault in faults:
        print(fault)
    if faults:
        raise PictuneError(f"{run.root}: {len(faults)} faults, listed above; bring the missing files back or remove the labels' tasks")
    print(f"dataset: {written}, all of it agrees with the store and the files")
