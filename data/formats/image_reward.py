"""ImageReward (Xu et al. 2023, arXiv 2304.05977): rankings of four to nine images of a prompt.

They are by experts whom the files do not tell apart. Two files are read: the `test.json` of its
code, one ranking a row, and the metadata of ImageRewardDB as Parquet, one image a row.
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from data.formats.reading import (
    find_image,
    json_rows,
    listed_images,
    parquet_rows,
    source_files,
    split_of,
)
from data.formats.records import BadRow, Record, Row, SourceImage, SourceLabel, made


def read(source: Path) -> Iterator[Record | BadRow]:
    """Read the rankings of a JSON or Parquet file, or of all Parquet files in a folder."""
    if source.suffix == ".json":
        yield from made(json_rows(source, ("prompt", "generations", "ranking")), _record_of_test)
        return
    required = ("prompt_id", "prompt", "rank")
    optional = ("image", "image_path", "classification", "image_amount_in_total")
    for path in source_files(source, ".parquet"):
        rows = parquet_rows(path, required, optional)
        # an image's rank is relative to the others of its prompt, whose rows follow each other
        groups = groupby(rows, key=lambda row: str(row.values["prompt_id"]))
        yield from made((list(group) for _, group in groups), _record_of_database)


def _record_of_test(row: Row) -> Record:
    paths = row.listed("generations", str)
    ranks = row.listed("ranking", int, length=len(paths))
    return Record(
        row=row,
        prompt=row.text("prompt"),
        images=listed_images(row, "generations", paths),
        kind="ranking",
        labels=(SourceLabel(answer=tuple(ranks), rater=None),),
        split=split_of(row.path),
    )


def _record_of_database(rows: list[Row]) -> Record:
    first = rows[0]
    prompt = first.text("prompt")
    for row in rows:
        if row.text("prompt") != prompt:
            raise row.bad(
                "prompt", f"is another one than in row {first.number}, which has the same prompt_id"
            )
    if first.has("image_amount_in_total"):
        total = first.integer("image_amount_in_total")
        if total != len(rows):
            reason = f"is {total}, but {len(rows)} rows in a row are of this prompt"
            raise first.bad("image_amount_in_total", reason)
    return Record(
        row=first,
        prompt=prompt,
        images=tuple(_image(row) for row in rows),
        kind="ranking",
        labels=(SourceLabel(answer=tuple(row.integer("rank") for row in rows), rater=None),),
        category=first.optional_text("classification"),
        split=split_of(first.path),
    )


def _image(row: Row) -> SourceImage:
    image: Any = row.values.get("image")
    if isinstance(image, dict) and isinstance(image.get("bytes"), bytes):
        return SourceImage(column="image", content=image["bytes"])
    content = find_image(row, "image_path", row.text("image_path"))
    return SourceImage(column="image_path", content=content)
