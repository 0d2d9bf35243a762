"""Stage `import`: images, prompts and labels from other people's files into the run, which may be a new one."""

from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from data.formats.landing import import_records
from data.formats.registry import FORMATS
from data.runs import RunFolder
from pipelines.config import Settings
from pipelines.tasks import export_labels, open_store


def main(run: RunFolder, settings: Settings, *, source_format: str, source: Path) -> None:
    """Adds what is new of `source`, a file or folder in the format `source_format`, then exports."""
    read = FORMATS[source_format].read
    assert read is not None
    records = tqdm(read(source), desc="import", unit="row", disable=None)
    with open_store(run) as store:
        new = import_records(records, source_format, run, store, now=datetime.now(UTC))
        written = export_labels(store, run, settings)
    added = new.feedback
    counts = f"{new.images} new images, {new.prompts} prompts, {added.tasks} tasks, {added.labels} labels, {added.raters} raters"
    print(f"import: {counts}; {written}")
