"""A run folder that imports and exports, and sources in every format that can be imported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from data.files import sha256_of
from data.formats.landing import Imported, import_records
from data.formats.latest import Latest
from data.formats.registry import FORMATS, export_to
from data.runs import RunFolder
from data.tables.parquet import export
from tests.support import exchange_files as files
from tests.support.data_campaign import START, Clock, open_store

Contents = dict[str, Any]
TOO_LARGE_PNG = files.large_png(13_000, 13_000)
PICK_A_PIC_ROWS = [
    files.pick_a_pic_row(1, 2, 1.0),
    files.pick_a_pic_row(2, 3, 0.5, user_id=8),
    files.pick_a_pic_row(4, 5, None),
]
SOURCES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "ranks.json": ("folder", files.folder_with_ranks),
    "folder": ("folder", files.folder_with_csv),
    "Pick-a-Pic": (
        "pick-a-pic",
        lambda folder: files.write_pick_a_pic(folder / "train-0.parquet", PICK_A_PIC_ROWS).parent,
    ),
}


class ExchangeRun:
    """A run folder that imports and exports."""

    def __init__(self, root: Path) -> None:
        self.run = RunFolder(root)
        self.clock = Clock()

    def take(self, source_format: str, source: Path) -> Imported:
        read = FORMATS[source_format].read
        assert read is not None
        with open_store(self.run.root, self.clock) as store:
            imported = import_records(read(source), source_format, self.run, store, now=START)
            export(store, self.run)
        return imported

    def take_pairs(self, *rows: files.Row) -> Imported:
        """Import rows of Pick-a-Pic from a file beside the run."""
        source = self.run.root.parent / "pairs.parquet"
        return self.take("pick-a-pic", files.write_pick_a_pic(source, rows))

    def give(self, target_format: str, target: Path) -> Path:
        export_to(target_format, Latest(self.run), target)
        return target

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.run.latest / f"{name}.parquet")

    def contents(self) -> Contents:
        """Return all that the run contains, except the raters' ids and the times of its making."""
        latest = Latest(self.run)
        volatile = ("label_id", "rater_id", "revision")
        labels = latest.labels
        by_rater: dict[str, set[str]] = {}
        for label in labels:
            by_rater.setdefault(label["rater_id"], set()).add(label["submission_id"])
        return {
            "images": {
                key: {k: v for k, v in row.items() if k != "path"}
                for key, row in latest.images.items()
            },
            "prompts": latest.prompts,
            "tasks": {
                row["task_id"]: {k: v for k, v in row.items() if k != "created_at"}
                for row in latest.tasks
            },
            "labels": {
                row["submission_id"]: {k: v for k, v in row.items() if k not in volatile}
                for row in labels
            },
            "raters": sorted(map(sorted, by_rater.values())),
        }

    def files(self) -> dict[str, str]:
        """Return the run's files with their hashes, without the store's own."""
        files = (path for path in self.run.root.rglob("*") if path.is_file())
        exported = [path for path in files if "feedback.db" not in path.name]
        return {str(path.relative_to(self.run.root)): sha256_of(path) for path in exported}


def pairs_in(path: Path) -> list[Any]:
    """Return what the rows of a Pick-a-Pic file say, in a fixed order, whatever their own ids."""
    ids = ("best_image_uid", "image_0_uid", "image_1_uid", "ranking_id", "user_id")
    rows = []
    for row in pq.read_table(path).to_pylist():
        row["best"] = [row["best_image_uid"] == row[f"image_{n}_uid"] for n in (0, 1)]
        made_anew = [*ids, "num_example_per_prompt", "__index_level_0__"]
        made_anew += [] if row["has_label"] else ["are_different", "created_at"]
        rows.append({name: value for name, value in row.items() if name not in made_anew})
    return sorted(rows, key=repr)
