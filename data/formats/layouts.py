"""Layouts of a folder that say which images are better, without a table.

- `good/` and `bad/`: a verdict on each image in them and in their subfolders.
- `w/` and `l/` (win and lose): files of the same name are a ranking of two images.
- `cat_w.png` and `cat_l.png`: the same, by the end of the name.
- `ranks.json`: a list of rankings as `{"prompt": "...", "images": ["a.png", "b.png"],
  "ranks": [1, 2], "rater": "anna"}`. Without `ranks`, the best image comes first.
- `cat.png` and `cat.mask.png`: the image is bad where its mask is white, one mark for each white
  part; a black mask says good. Images without a mask have no label.

The prompt of `cats/one.png` is the text of `cats/one.txt`, otherwise of the nearest `prompt.txt`:
in `cats/`, then in the folder. A caption `one.txt` in the folder serves a pair as well.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from data.errors import PictuneError
from data.formats.records import (
    BadRow,
    Record,
    Records,
    Row,
    SourceImage,
    SourceLabel,
    check_link,
    converted,
    marked,
    read_json_rows,
)
from data.image_files import read_image
from data.regions import ARTIFACT, MOST_MARKS

MASK = ".mask"
"""End of the name, without the suffix, of an image's mask."""

WHITE = 128
"""Least gray value, of 255, of a mask's pixel that is wrong."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
ENDS = re.compile(r"[_.-]([wl])$")
"""End of the name, without the suffix, of the better (w) and the worse (l) image of a pair."""
RANKS_FILE = "ranks.json"
PROMPT_FILE = "prompt.txt"


@dataclass(frozen=True)
class _File(Row):
    """A folder whose files take the place of rows; a column is a file, relative to it."""

    def bad(self, column: str, reason: str) -> BadRow:
        """Return the error that names the file."""
        return BadRow(f"{self.path / column}: {reason}")


def images_in(folder: Path) -> list[Path]:
    """Return the image files in the folder and its subfolders, without hidden ones, by name.

    Raises:
        PictuneError: a file is a link out of the folder.
    """
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    for file in files:
        check_link(file, folder)
    return files


def caption(folder: Path, image: Path, name: str | None = None) -> tuple[Path, str] | None:
    """Return the caption file of an image in the folder and its text; None if there is none.

    `name` is the name of the image's pair, if it has one.

    Raises:
        PictuneError: the file is a link out of the folder.
        BadRow: the file is empty or is not UTF-8.
    """
    places = [image.with_suffix(".txt"), image.with_name(PROMPT_FILE), folder / PROMPT_FILE]
    if name is not None:
        places.insert(1, folder / f"{name}.txt")
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        return None
    check_link(file, folder)
    row = _File(folder, 0, {})
    column = str(file.relative_to(folder))
    try:
        text = " ".join(file.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise row.bad(column, "is not UTF-8 text; save it as UTF-8") from error
    if not text:
        raise row.bad(column, "is empty; write the image's prompt into it")
    return file, text


def _record(folder: Path, images: Sequence[Path], name: str | None = None) -> Record:
    """Return the record of images of one prompt, without a task."""
    found = [caption(folder, image, name) for image in images]
    texts = {text: file for file, text in filter(None, found)}
    columns = [str(image.relative_to(folder)) for image in images]
    row = _File(folder, 0, {str(file.relative_to(folder)): text for text, file in texts.items()})
    if not texts:
        own = images[0].with_suffix(".txt").name
        raise row.bad(
            columns[0],
            f"has no prompt; write it into {own} beside the image, or into {PROMPT_FILE} for all "
            "images of a folder",
        )
    if len(texts) > 1:
        raise row.bad(columns[0], f"has another prompt than {columns[-1]}, which it is paired with")
    return Record(
        row=row,
        prompt=next(iter(texts)),
        images=tuple(
            SourceImage(column=column, content=image)
            for column, image in zip(columns, images, strict=True)
        ),
    )


def by_names(folder: Path) -> Records:
    """Read pairs by the ends of their names; other images have no labels.

    Raises:
        PictuneError: the folder has no images.
    """
    images = images_in(folder)
    if not images:
        raise PictuneError(
            f"{folder}: holds no CSV file, no {RANKS_FILE} and no images; give a folder that has "
            "some as FROM="
        )
    sides: dict[str, list[tuple[str, Path]]] = {"w": [], "l": [], "": []}
    for image in images:
        end = ENDS.search(image.stem)
        name = image.with_name(image.stem[: end.start()] if end else image.stem)
        sides[end[1] if end else ""].append((str(name.relative_to(folder)), image))
    yield from converted(sides[""], lambda named: _record(folder, [named[1]]))
    yield from _pairs(folder, sides["w"], sides["l"])


def _verdicts(folder: Path) -> Records:
    for verdict in ("good", "bad"):
        yield from converted(images_in(folder / verdict), partial(_verdict, folder, verdict))


def _verdict(folder: Path, verdict: str, image: Path) -> Record:
    labels = (SourceLabel(answer=verdict, rater=None),)
    return replace(_record(folder, [image]), kind="binary", labels=labels)


def _pairs_of_folders(folder: Path) -> Records:
    better, worse = (
        [(str(one.relative_to(side).with_suffix("")), one) for one in images_in(side)]
        for side in (folder / "w", folder / "l")
    )
    return _pairs(folder, better, worse)


def _pairs(
    folder: Path, better: Sequence[tuple[str, Path]], worse: Sequence[tuple[str, Path]]
) -> Records:
    """Yield a ranking of two images for each name; each side has names and their files."""
    pairs: dict[str, tuple[list[Path], list[Path]]] = {}
    for side, named in enumerate((better, worse)):
        for name, file in named:
            pairs.setdefault(name, ([], []))[side].append(file)

    def ranking(name: str) -> Record:
        win, lose = pairs[name]
        if len(win) != 1 or len(lose) != 1:
            odd = (win if len(win) > 1 or not lose else lose)[-1]
            raise BadRow(
                f"{odd}: is one of {len(win)} better and {len(lose)} worse images of the name "
                f"{name}; a pair has one of each"
            )
        labels = (SourceLabel(answer=(1, 2), rater=None),)
        return replace(_record(folder, [*win, *lose], name), kind="ranking", labels=labels)

    yield from converted(sorted(pairs), ranking)


def _rankings(folder: Path) -> Records:
    check_link(folder / RANKS_FILE, folder)
    return read_json_rows(folder / RANKS_FILE, ("images",), _ranking)


def _ranking(row: Row) -> Record:
    images = row.images("images", row.listed("images", str))
    ranks = list(range(1, len(images) + 1))
    if row.has("ranks"):
        ranks = row.listed("ranks", int, length=len(images))
    prompt = row.optional_text("prompt")
    if prompt is None:
        files = [image.content for image in images if isinstance(image.content, Path)]
        prompt = _record(row.path.parent, files).prompt if files else row.text("prompt")
    label = SourceLabel(answer=tuple(ranks), rater=row.optional_text("rater"))
    return Record(row=row, prompt=prompt, images=images, kind="ranking", labels=(label,))


def _masks_in(folder: Path) -> list[Path]:
    return [image for image in images_in(folder) if image.stem.endswith(MASK)]


def _masked(folder: Path) -> Records:
    masks = {str(mask.with_suffix("").with_suffix("")): mask for mask in _masks_in(folder)}
    images = [image for image in images_in(folder) if not image.stem.endswith(MASK)]
    lost = masks.keys() - {str(image.with_suffix("")) for image in images}
    for name in sorted(lost):
        yield BadRow(f"{masks[name]}: is the mask of no image; put {name}.png beside it")

    def record(image: Path) -> Record:
        mask = masks.get(str(image.with_suffix("")))
        plain = _record(folder, [image])
        if mask is None:
            return plain
        return replace(plain, kind="binary", labels=(marked(_marks(mask, image)),))

    yield from converted(images, record)


def _marks(mask: Path, image: Path) -> list[dict[str, object]]:
    """Return a box around each connected white part of a mask."""
    from scipy import ndimage  # noqa: PLC0415 - takes a moment to load

    try:
        sizes = [read_image(path, "save it as PNG").size for path in (mask, image)]
        is_white = np.asarray(read_image(mask, "save it as PNG").convert("L")) >= WHITE
    except PictuneError as error:
        raise BadRow(str(error)) from error
    if sizes[0] != sizes[1]:
        (width, height), (other, tall) = sizes
        raise BadRow(f"{mask}: has {width} x {height} pixels, but its image has {other} x {tall}")
    numbered, count = ndimage.label(is_white, structure=np.ones((3, 3)))
    if count > MOST_MARKS:
        raise BadRow(
            f"{mask}: has {count} white parts, more than {MOST_MARKS}; join or remove some"
        )
    height, width = is_white.shape
    return [
        {"kind": "box", "aspect": ARTIFACT}
        | {"x0": across.start / width, "x1": across.stop / width}
        | {"y0": down.start / height, "y1": down.stop / height}
        for down, across in ndimage.find_objects(numbered)
    ]


LAYOUTS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], Records]]] = {
    RANKS_FILE: (lambda folder: (folder / RANKS_FILE).is_file(), _rankings),
    "good/ and bad/": (
        lambda folder: (folder / "good").is_dir() or (folder / "bad").is_dir(),
        _verdicts,
    ),
    "w/ and l/": (
        lambda folder: (folder / "w").is_dir() or (folder / "l").is_dir(),
        _pairs_of_folders,
    ),
    "masks": (lambda folder: bool(_masks_in(folder)), _masked),
}
"""For each layout, whether a folder has it, and the function that reads it."""
