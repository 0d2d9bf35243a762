"""Marks on images: their form, the words they name and the pixels they cover."""

import numpy as np
import pytest
from pydantic import ValidationError

from data.regions import Mark, mask_of, words_of


def test_a_box_covers_each_pixel_that_it_touches() -> None:
    box = Mark(kind="box", aspect="artifact", x0=0.25, y0=0.5, x1=0.5, y1=0.55)
    expected = np.zeros((4, 8), bool)
    expected[2, 2:4] = True
    np.testing.assert_array_equal(mask_of([box], 4, 8), expected)


def test_a_point_covers_a_disc_of_a_twentieth_of_the_longer_side() -> None:
    point = Mark(kind="point", aspect="artifact", x0=0.5, y0=0.5)
    mask = mask_of([point], 40, 80)
    down, across = np.nonzero(mask)
    assert (down.min(), down.max(), across.min(), across.max()) == (16, 23, 36, 43)
    assert mask.sum() == pytest.approx(np.pi * 4**2, rel=0.1)
    corner = Mark(kind="point", aspect="artifact", x0=1, y0=1)
    assert mask_of([corner], 4, 4)[3, 3]
    assert not mask_of([], 4, 4).any()


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ({"kind": "point", "x0": 0.1, "y0": 0.1, "x1": 0.2}, "a point has x0 and y0 alone"),
        ({"kind": "box", "x0": 0.1, "y0": 0.1}, "a box needs x0 below x1"),
        ({"kind": "box", "x0": 0.2, "y0": 0.1, "x1": 0.1, "y1": 0.2}, "a box needs x0 below x1"),
        ({"kind": "point", "x0": 1.5, "y0": 0.1}, "less than or equal to 1"),
        ({"kind": "point", "x0": 0.5, "y0": float("nan")}, "less than or equal to 1"),
        ({"kind": "point", "x0": 0.5, "y0": 0.5, "severity": 4}, "1, 2 or 3"),
    ],
)
def test_a_mark_that_no_image_can_have_is_refused(edges: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Mark.model_validate({"aspect": "artifact", **edges})


def test_the_words_of_a_prompt_are_those_between_punctuation() -> None:
    words = words_of('A cat, a "big" dog: two!')
    assert words == ["A", "cat", "a", "big", "dog", "two"]
