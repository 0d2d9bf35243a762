"""ImageReward (Xu et al. 2023, arXiv 2304.05977): rankings of four to nine images of a prompt.

Experts gave the rankings; the files do not say which expert. Two formats are read: `test.json` of
ImageReward's code, with one ranking in a row, and the Parquet metadata of ImageRewardDB, with one
image in a row.
"""

from itertools import groupby
from pathlib import Path
from typing import Any

from data.formats.records import (
    Record,
    Records,
    Row,
    SourceImage,
    SourceLabel,
    converted,
    parquet_rows,
    ranking_record,
    read_json_rows,
    source_files,
)


def read(source: Path) -> Records:
    """Read the rankings of a JSON or Parquet file, or of all Parquet files in a folder."""
    if source.suffix == ".json":
        required = ("prompt", "generations", "ranking")
        yield from read_json_rows(source, required, _record_of_test)
        return
    required = ("prompt_id", "prompt", "rank")
    optional = ("image", "image_path", "classification", "image_amount_in_total")
    for path in source_files(source, ".parquet"):
        rows = parquet_rows(path, required, optional)
        # an image's rank is relative to the other images of its prompt; their rows follow each
        # other
        groups = groupby(rows, key=lambda row: str(row.values["prompt_id"]))
        yield from converted((list(group) for _, group in groups), _record_of_database)


def _record_of_test(row: Row) -> Record:
    paths = row.listed("generations", str)
    ranks = row.listed("ranking", int, length=len(paths))
    label = SourceLabel(answer=tuple(ranks), rater=None)
    return ranking_record(row, "generations", paths, [label])


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
        split=first.split_of_file,
    )


def _image(row: Row) -> SourceImage:
    image: Any = row.values.get("image")
    if isinstance(image, dict) and isinstance(image.get("bytes"), bytes):
        return SourceImage(column="image", content=image["bytes"])
    return row.image("image_path", row.text("image_path"))
