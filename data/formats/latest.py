"""The last export of a run with its image files: the input of exporters to other formats."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.errors import PictuneError
from data.kinds.registry import KINDS
from data.runs import RunFolder
from data.schema import IMAGES, PROMPTS, TASKS, read_table

TableRow = dict[str, Any]


@dataclass(frozen=True)
class Exported:
    """Numbers of the rows that an export wrote and omitted."""

    rows: int
    omitted: Mapping[str, int] = field(default_factory=dict)
    """Number of omitted rows by the reason why the format cannot hold them."""


@dataclass(frozen=True)
class Latest:
    """The tables of `labels/latest/` as rows; each is read when it is first used."""

    run: RunFolder

    @cached_property
    def folder(self) -> Path:
        """The folder of the tables, resolved once.

        The link moves with each export, and tables of two exports must not be mixed.
        """
        return self.run.latest.resolve()

    @cached_property
    def images(self) -> dict[str, TableRow]:
        """Rows of IMAGES by image id."""
        return {row["image_id"]: row for row in self.rows("images", IMAGES)}

    @cached_property
    def prompts(self) -> dict[str, TableRow]:
        """Rows of PROMPTS by prompt id."""
        return {row["prompt_id"]: row for row in self.rows("prompts", PROMPTS)}

    @cached_property
    def tasks(self) -> list[TableRow]:
        """Rows of TASKS."""
        return self.rows("tasks", TASKS)

    @cached_property
    def by_kind(self) -> dict[str, list[TableRow]]:
        """Rows of the tables of labels, by the name of the kind of task."""
        return {name: kind.read(self.folder).to_pylist() for name, kind in KINDS.items()}

    @property
    def labels(self) -> list[TableRow]:
        """The labels of all kinds."""
        return [row for rows in self.by_kind.values() for row in rows]

    def file(self, image_id: str) -> Path:
        """Return the path of the image's file.

        Raises:
            PictuneError: the run does not have the image.
        """
        image = self.images.get(image_id)
        path: Path = self.run.root / (image["path"] if image else "")
        if not path.is_file():
            raise PictuneError(
                f"image {image_id}: labels refer to it but {self.run.root} does not have it; "
                "put the file back"
            )
        return path

    def rows(self, name: str, schema: pa.Schema) -> list[TableRow]:
        """Return the rows of the table `name`."""
        rows: list[TableRow] = read_table(self.folder / f"{name}.parquet", schema).to_pylist()
        return rows
