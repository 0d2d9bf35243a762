"""Stage `export`: the run's images and labels in a format that other people's tools read."""

from pathlib import Path

from data.formats.latest import Latest
from data.formats.registry import export_to
from data.runs import RunFolder
from pipelines.config import Settings
from pipelines.tasks import export_labels, open_store


def main(run: RunFolder, settings: Settings, *, target_format: str, target: Path) -> None:
    """Exports to Parquet, then writes the folder `target` from that."""
    with open_store(run) as store:
        export_labels(store, run, settings)
    exported = export_to(target_format, Latest(run), target)
    for what, count in exported.left_out.items():
        if count:
            print(f"export: {count} {what} left out, {target_format} has no place for them")
    print(f"export: {exported.rows} rows in {target}")
