"""A folder of unlabeled images with a CSV file of their prompts.

The columns are `file_name` and `prompt`; optional columns are `category`, `split` and the keys of
`FACT_TYPES`.
"""

from collections.abc import Callable
from pathlib import Path

from data.errors import PictuneError
from data.formats.records import Record, Records, Row, check_link, converted, csv_rows

FACT_TYPES: dict[str, Callable[[str], object]] = {
    "model_id": str,
    "seed": int,
    "steps": int,
    "guidance": float,
    "scheduler": str,
    "source_uri": str,
    "license": str,
}


def read(source: Path) -> Records:
    """Read the rows of a CSV file, or of the only CSV file in a folder."""
    path = source
    if source.is_dir():
        files = sorted(source.glob("*.csv"))
        if len(files) != 1:
            raise PictuneError(
                f"{source}: holds {len(files)} .csv files; "
                "give the one that lists the images as FROM="
            )
        (path,) = files
        check_link(path, source)
    elif not source.is_file():
        raise PictuneError(
            f"{source}: no such file; give a CSV file, or the folder that holds one, as FROM="
        )
    yield from converted(csv_rows(path, ("file_name", "prompt")), _record)


def _record(row: Row) -> Record:
    return Record(
        row=row,
        prompt=row.text("prompt"),
        images=(row.image("file_name", row.text("file_name"), _facts(row)),),
        category=row.optional_text("category"),
        split=row.own_split,
    )


def _facts(row: Row) -> dict[str, object]:
    facts: dict[str, object] = {}
    for name, kind in FACT_TYPES.items():
        text = row.optional_text(name)
        if text is not None:
            try:
                facts[name] = kind(text)
            except ValueError as error:
                raise row.bad(name, f"is {text!r}, not a number") from error
    return facts
