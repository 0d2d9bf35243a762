"""open-image-preferences: the flat export of an Argilla dataset to Parquet.

A row is one pair of images, with all its raters in parallel lists. A row names images by their
address. They are searched beside the file, under their path in the hub's repository, and never
downloaded.
"""

from pathlib import Path
from typing import Any

from data.formats.records import Ranks, Record, Records, Row, SourceImage, SourceLabel, read_parquet

RESPONSES = "preference.responses"
USERS = f"{RESPONSES}.users"
STATUS = f"{RESPONSES}.status"
RANKS_BY_RESPONSE: dict[str, Ranks] = {
    "image_1": (1, 2),
    "image_2": (2, 1),
    "both_good": (1, 1),
    "both_bad": (1, 1),
}
""""Both good" and "both bad" are ties; the label's comment tells them apart."""


def read(source: Path) -> Records:
    """Read the rows of a Parquet file, or of all Parquet files in a folder."""
    required = ("images", RESPONSES, USERS, STATUS)
    optional = ("category", "model_1", "model_2")
    return read_parquet(source, required, optional, _record)


def _record(row: Row) -> Record:
    shown: Any = row.values["images"]
    if not isinstance(shown, dict):
        raise row.bad("images", "has no image_1, image_2 and prompt")
    flat = Row(row.path, row.number, {f"images.{name}": value for name, value in shown.items()})
    responses = row.listed(RESPONSES, str) if row.has(RESPONSES) else []
    users = row.listed(USERS, str, length=len(responses)) if responses else []
    statuses = row.listed(STATUS, str, length=len(responses)) if responses else []
    given = zip(responses, users, statuses, strict=True)
    return Record(
        row=row,
        prompt=flat.text("images.prompt"),
        images=(_image(row, flat, 1), _image(row, flat, 2)),
        kind="ranking",
        labels=tuple(_label(row, *one) for one in given if one[2] in ("submitted", "discarded")),
        category=row.optional_text("category"),
        split=row.split_of_file,
    )


def _image(row: Row, flat: Row, number: int) -> SourceImage:
    column = f"images.image_{number}"
    address = flat.text(column)
    facts = {
        "model_id": row.optional_text(f"model_{number}"),
        "source_uri": address if "://" in address else None,
    }
    return flat.image(column, address, facts)


def _label(row: Row, response: str, user: str, status: str) -> SourceLabel:
    if status == "discarded":
        return SourceLabel(answer=(None, None), rater=user, remarks={"reason": "discarded"})
    if response not in RANKS_BY_RESPONSE:
        known = ", ".join(RANKS_BY_RESPONSE)
        raise row.bad(RESPONSES, f"has {response!r}, which is not one of {known}")
    comment = response if response.startswith("both") else None
    remarks = {"comment": comment}
    return SourceLabel(answer=RANKS_BY_RESPONSE[response], rater=user, remarks=remarks)
