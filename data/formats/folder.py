"""A folder of images, with or without labels, as people keep them.

- One CSV file with `file` (or `file_name`), `prompt`, one of the columns of `ANSWERS`, and `rater`.
  `label` is `good`, `bad` or `skip`. `rank` (1 is best) and `rating` (more is better) order the
  images of a prompt by a rater; a column `group` separates several rankings of a prompt. A line
  without an answer is an image without a label. Further columns: `category`, `split`, `FACT_TYPES`.
- Any layout of `data.formats.layouts`: `good/` and `bad/`, pairs, `ranks.json`, images alone.

An image without a prompt in the file has its caption file's text.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.errors import PictuneError
from data.formats.layouts import LAYOUTS, by_names, caption
from data.formats.records import (
    BadRow,
    Record,
    Records,
    Row,
    SourceLabel,
    check_link,
    converted,
    csv_rows,
)

FACT_TYPES: dict[str, Callable[[str], object]] = {
    "model_id": str,
    "seed": int,
    "steps": int,
    "guidance": float,
    "scheduler": str,
    "source_uri": str,
    "license": str,
}
ANSWERS = ("label", "rank", "rating")
VERDICTS = {"good": "good", "bad": "bad", "skip": "skip", "1": "good", "0": "bad"}


def read(source: Path) -> Records:
    """Read a CSV file, or the only kind of labels that a folder has."""
    if not source.exists():
        raise PictuneError(
            f"{source}: no such file; give a folder of images, or its CSV file, as FROM="
        )
    if not source.is_dir():
        yield from _read_csv(source)
        return
    found = {path.name: _read_csv for path in sorted(source.glob("*.csv"))}
    layouts = {name: read for name, (is_there, read) in LAYOUTS.items() if is_there(source)}
    if len(found) + len(layouts) > 1:
        raise PictuneError(
            f"{source}: holds {', '.join([*found, *layouts])}, each of which may say what the "
            "labels are; keep one of them there, and import the others on their own"
        )
    for name, read_file in found.items():
        check_link(source / name, source)
        yield from read_file(source / name)
    for read_layout in layouts.values():
        yield from read_layout(source)
    if not found and not layouts:
        yield from by_names(source)


def _read_csv(path: Path) -> Records:
    with path.open(encoding="utf-8", errors="replace") as file:
        column = "file_name" if "file_name" in file.readline() else "file"
    lines = converted(csv_rows(path, (column,)), lambda row: _line(row, column))
    return _with_rankings(lines)


@dataclass(frozen=True)
class _Line:
    """One line of the file."""

    record: Record
    """Its image, with the verdict on it, if any."""
    place: float | None
    """Place of the image in a ranking, smaller is better; None for a line without one."""
    rater: str | None

    @property
    def ranking(self) -> tuple[str, str | None, str | None]:
        """Prompt, group and rater: lines with the same ones are one ranking."""
        return self.record.prompt, self.record.row.optional_text("group"), self.rater


def _with_rankings(lines: Iterable[_Line | BadRow]) -> Records:
    """Yield the records of the lines, then one record for each ranking."""
    rankings: dict[tuple[str, str | None, str | None], list[_Line]] = {}
    for line in lines:
        if isinstance(line, BadRow):
            yield line
        elif line.place is None:
            yield line.record
        else:
            rankings.setdefault(line.ranking, []).append(line)
    yield from converted(rankings.values(), _ranking)


def _line(row: Row, column: str) -> _Line:
    image = row.image(column, row.text(column), _facts(row))
    assert isinstance(image.content, Path)
    prompt = row.optional_text("prompt")
    if prompt is None:
        found = caption(row.path.parent, image.content)
        if found is None:
            file = image.content.with_suffix(".txt").name
            raise row.bad("prompt", f"is empty, and there is no caption {file}")
        _, prompt = found
    given = [name for name in ANSWERS if row.optional_text(name) is not None]
    if len(given) > 1:
        raise row.bad(given[1], f"is given as well as {given[0]}; keep one of them in a line")
    rater = row.optional_text("rater")
    record = Record(
        row=row,
        prompt=prompt,
        images=(image,),
        category=row.optional_text("category"),
        split=row.own_split,
    )
    if given == ["label"]:
        said = row.text("label").strip().lower()
        if said not in VERDICTS:
            raise row.bad("label", f"is {said!r}, not one of {', '.join(VERDICTS)}")
        label = SourceLabel(answer=VERDICTS[said], rater=rater)
        return _Line(replace(record, kind="binary", labels=(label,)), None, rater)
    place = None
    if given:
        number = _number(row, given[0])
        place = number if given == ["rank"] else -number
    return _Line(record, place, rater)


@dataclass(frozen=True)
class _Lines(Row):
    """The lines of a ranking; the fault of an image names its own line."""

    lines: Mapping[str, Row]
    """Line by the column of its image."""

    def bad(self, column: str, reason: str) -> BadRow:
        """Return the error that names the image's line, otherwise the ranking's first line."""
        line = self.lines.get(column)
        return super().bad(column, reason) if line is None else line.bad("file", reason)


def _ranking(lines: Sequence[_Line]) -> Record:
    first, places = (
        lines[0].record,
        sorted({line.place for line in lines if line.place is not None}),
    )
    if len(lines) == 1:
        raise first.row.bad("(answer)", "ranks the only image of this prompt by this rater")
    seen = set[object]()
    for line in lines:
        (image,) = line.record.images
        if image.content in seen:
            raise line.record.row.bad("file", "has a rank by this rater in an earlier line")
        seen.add(image.content)
    rows = {f"line {line.record.row.number}": line.record.row for line in lines}
    ranks = tuple(places.index(line.place) + 1 for line in lines if line.place is not None)
    return replace(
        first,
        row=_Lines(first.row.path, first.row.number, first.row.values, rows),
        images=tuple(
            replace(line.record.images[0], column=column)
            for column, line in zip(rows, lines, strict=True)
        ),
        kind="ranking",
        labels=(SourceLabel(answer=ranks, rater=lines[0].rater),),
    )


def _number(row: Row, column: str) -> float:
    text = row.text(column)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise row.bad(column, f"is {text!r}, not a number")
    return number


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
