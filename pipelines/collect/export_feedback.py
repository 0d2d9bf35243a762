"""Stage `export`: write the run's images and labels in the format of another tool."""

import argparse
from pathlib import Path

from data.formats.latest import Latest
from data.formats.registry import FORMATS, export_to
from data.runs import RunFolder
from pipelines.flags import add_format, add_path
from pipelines.run.campaign import export_labels, open_store
from pipelines.settings.config import Settings


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage."""
    writable = [name for name, one in FORMATS.items() if one.write is not None]
    add_format(parser, "target_format", writable)
    meaning = "the folder to write, new or empty"
    add_path(parser, "--to", "DIR", meaning, required=True, dest="target")


def main(run: RunFolder, settings: Settings, *, target_format: str, target: Path) -> None:  # noqa: ARG001 - every stage is called alike
    """Export to Parquet, then convert the tables to the folder `target`."""
    with open_store(run) as store:
        export_labels(store, run)
    exported = export_to(target_format, Latest(run), target)
    for what, count in exported.omitted.items():
        if count:
            print(f"export: {count} {what} left out, {target_format} has no place for them")
    print(f"export: {exported.rows} rows in {target}")
