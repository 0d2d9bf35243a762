"""Marks on an image: where it is wrong, and in what way.

A mark is a point or a box in fractions of the image. The same form comes from raters, from other
tools' files and from predicted maps.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field, model_validator

from data.ids import Identifier, Remark
from data.schema import LABEL_IDENTITY, read_table, schema_of

ARTIFACT, MISALIGNED = "artifact", "misaligned"
"""Aspects that every campaign has: a flaw of the image, and a part that does not fit the prompt."""

POINT_RADIUS = 1 / 20
"""Radius of the disc that a point stands for, as a share of the image's longer side (RichHF-18K,
Liang et al. 2024, arXiv 2312.10240)."""

MOST_MARKS = 50
"""Most marks on an image by one rater."""

Fraction = Annotated[float, Field(ge=0, le=1)]

LABELS_REGIONS = schema_of(f"""
{LABEL_IDENTITY}
image_id      string    the image judged
label         string    the verdict that the marks belong to: good, bad or unsafe
mark_no       int16     counts the marks of a label from 1; 0 where nothing is marked
kind          string    point, box, or none: the rater was asked and found nothing to mark
aspect        string?   artifact, misaligned, or a name of the campaign's own; null for none
x0            float32?  left edge, or the point, as a fraction of the image's width
y0            float32?  upper edge, or the point, as a fraction of the image's height
x1            float32?  right edge; null for a point
y1            float32?  lower edge; null for a point
severity      int8?     1 slight, 2 clear, 3 severe; null where nobody said
word_indexes  int16s?   places, from 0, of the prompt's words that are wrong or missing
comment       string?   free text
source        string    human, simulated, imported or adjudicator
submitted_at  moment    when the label was saved
""")

REGIONS_TABLE = "labels_regions"
"""The file of the marks in an export, without the ending; an export without marks has none."""


class Mark(BaseModel, frozen=True, extra="forbid"):
    """One mark; edges in fractions of the original image, from its upper left corner."""

    kind: Literal["point", "box"]
    aspect: Identifier
    x0: Fraction
    y0: Fraction
    x1: Fraction | None = None
    y1: Fraction | None = None
    severity: Literal[1, 2, 3] | None = None
    word_indexes: tuple[Annotated[int, Field(ge=0, lt=1000)], ...] = ()
    """Places of the words of `words_of(prompt)` that are wrong or missing."""
    comment: Remark | None = None

    @model_validator(mode="after")
    def _has_its_edges(self) -> Self:
        edges = (self.x1, self.y1)
        if self.kind == "point" and edges != (None, None):
            raise ValueError("a point has x0 and y0 alone; leave x1 and y1 out, or send a box")
        if self.kind == "box" and not (
            self.x1 is not None and self.y1 is not None and self.x0 < self.x1 and self.y0 < self.y1
        ):
            raise ValueError("a box needs x0 below x1 and y0 below y1")
        return self


Marks = Annotated[tuple[Mark, ...], Field(max_length=MOST_MARKS)]
Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge."""


def words_of(prompt: str) -> list[str]:
    """Return the prompt's words that a mark can name, as RichHF-18K splits them."""
    return [word for word in re.split(r"""[,.?!":; ]+""", prompt) if word]


def regions_file(folder: Path) -> Path:
    """Return the file of marks of the export in `folder`, which may not exist."""
    return folder / f"{REGIONS_TABLE}.parquet"


def read_regions(folder: Path) -> pa.Table:
    """Read LABELS_REGIONS from the folder of an export; empty where nobody was asked for marks.

    Raises:
        PictuneError: the file is broken.
    """
    path = regions_file(folder)
    return read_table(path, LABELS_REGIONS) if path.exists() else LABELS_REGIONS.empty_table()


def mask_of(marks: Iterable[Mark], height: int, width: int) -> np.ndarray:
    """Return the pixels that the marks cover, as booleans of shape (height, width).

    A box covers each pixel that it touches. A point covers a disc of `POINT_RADIUS`, and at least
    the pixel that it lies in.
    """
    mask = np.zeros((height, width), bool)
    down, across = np.mgrid[:height, :width] + 0.5
    for mark in marks:
        left, top = mark.x0 * width, mark.y0 * height
        if mark.x1 is not None and mark.y1 is not None:
            right, bottom = np.ceil(mark.x1 * width), np.ceil(mark.y1 * height)
            mask[int(top) : int(bottom), int(left) : int(right)] = True
        else:
            radius = POINT_RADIUS * max(height, width)
            mask |= (across - left) ** 2 + (down - top) ** 2 <= radius**2
            mask[min(int(top), height - 1), min(int(left), width - 1)] = True
    return mask


def box_of(mark: Mark, height: int, width: int) -> Box:
    """Return the edges of a box, or of the box around a point's disc, as fractions of the image.

    `height` and `width` are the image's, in any unit.
    """
    if mark.x1 is not None and mark.y1 is not None:
        return mark.x0, mark.y0, mark.x1, mark.y1
    across, down = (POINT_RADIUS * max(height, width) / side for side in (width, height))
    left, top = max(mark.x0 - across, 0), max(mark.y0 - down, 0)
    return left, top, min(mark.x0 + across, 1), min(mark.y0 + down, 1)


def map_of(masks: Iterable[np.ndarray]) -> np.ndarray:
    """Return the map, 0 to 1, of the masks of several raters [H, W]: a third for each, at most 1.

    It is the map of RichHF-18K, where three raters marked each image.
    """
    thirds: np.ndarray = np.minimum(np.sum(list(masks), axis=0), 3) / 3
    return thirds
