"""Agreement on marks, against figures computed by hand."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.quality.regions import (
    box_f1,
    cohens_kappa,
    iou,
    map_correlations,
    presence_f1,
    region_agreement,
)
from data.regions import LABELS_REGIONS, Mark, box_of, map_of
from tests.support.data_campaign import START

QUARTER, HALF = (0.0, 0.0, 0.25, 1.0), (0.0, 0.0, 0.5, 1.0)


def box(x0: float, y0: float, x1: float, y1: float) -> Mark:
    return Mark(kind="box", aspect="artifact", x0=x0, y0=y0, x1=x1, y1=y1)


def seen(one: str, other: str, marked: str) -> list[tuple[str, str, bool, bool]]:
    """Return a pair of raters' marking of images, as "10 01": the first alone, the second alone."""
    return [(one, other, image[0] == "1", image[1] == "1") for image in marked.split()]


@pytest.mark.parametrize(
    ("marked", "f1", "kappa"),
    [
        ("11 10 01 00", 0.5, 0),  # equal on half, as by chance
        ("11 11 01 00", 0.8, 0.5),  # equal on 3/4, by chance on 1/2 * 3/4 + 1/2 * 1/4
        ("10 01", 0, -1),
        ("00 00", None, None),
        ("11 11", 1, None),
    ],
)
def test_presence_of_two_raters(marked: str, f1: float | None, kappa: float | None) -> None:
    pairs = seen("anna", "ben", marked)
    assert presence_f1((a, b) for _, _, a, b in pairs) == f1
    assert cohens_kappa(pairs) == (kappa if kappa is None else pytest.approx(kappa))


def test_kappa_is_the_mean_of_pairs_weighted_by_their_images() -> None:
    pairs = seen("anna", "ben", "11 11 01 00") + seen("anna", "cleo", "10 01")
    assert cohens_kappa(pairs + seen("ben", "cleo", "11 11 11")) == pytest.approx(
        (4 * 0.5 + 2 * -1) / 6
    )


def test_boxes_match_once_at_a_least_overlap() -> None:
    ours, theirs = (0.0, 0.0, 0.5, 0.5), (0.25, 0.0, 0.75, 0.5)
    assert iou(ours, theirs) == pytest.approx(1 / 3)
    assert iou(ours, (0.5, 0.5, 1, 1)) == 0
    assert [box_f1([([ours], [theirs])], least) for least in (0.1, 0.5)] == [1, 0]
    assert box_f1([([ours], [ours, ours]), ([], [theirs])], 0.5) == pytest.approx(2 / 4)
    # the best overlap goes first, though the first box overlaps both of theirs
    assert box_f1([([theirs, ours], [ours, (0.55, 0.0, 1.0, 0.5)])], 0.1) == 1
    assert box_f1([([], [])], 0.1) is None


def test_a_point_counts_as_the_box_around_its_disc_within_the_image() -> None:
    point = Mark(kind="point", aspect="artifact", x0=0.5, y0=0)
    assert box_of(point, height=100, width=200) == pytest.approx((0.45, 0, 0.55, 0.1))


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([HALF, HALF], [1, 1]),
        ([HALF, (0.5, 0.0, 1.0, 1.0)], [-1, -1]),
        ([HALF, QUARTER], [3**-0.5, 3**-0.5]),  # (1/4 - 1/8) / sqrt(1/4 * 3/16)
        ([HALF, None], [0, 0]),
        ([HALF, (0.0, 0.0, 1.0, 1.0)], []),  # the whole image varies nowhere
        # without anna: one third on the half, two thirds on the quarter: r = sqrt(9 / 11)
        ([HALF, HALF, QUARTER], [(9 / 11) ** 0.5, (9 / 11) ** 0.5, 3**-0.5]),
    ],
)
def test_maps_of_one_rater_and_the_others_correlate(
    looks: list[Any], expected: list[float]
) -> None:
    given = [[box(*edges)] if edges else [] for edges in looks]
    assert map_correlations(given, ratio=0.5) == pytest.approx(expected)


def test_a_map_counts_three_raters_at_most() -> None:
    masks = [np.arange(4) < number for number in (1, 2, 4, 4)]
    assert map_of(masks).tolist() == pytest.approx([1, 1, 2 / 3, 2 / 3])


def label(
    rater: str, image: str, *marks: Mark, source: str = "human", task: str = ""
) -> list[dict[str, Any]]:
    about = {"label_id": f"{rater} {image}{task}", "submission_id": "", "revision": 1}
    about |= {"task_id": task or image, "prompt_id": "p", "rater_id": rater, "image_id": image}
    about |= {"label": "bad", "source": source, "submitted_at": START}
    kinds = [mark.model_dump() for mark in marks] or [{"kind": "none"}]
    return [about | kind | {"mark_no": number} for number, kind in enumerate(kinds)]


def test_people_are_compared_on_images_that_two_looked_at_once() -> None:
    point = Mark(kind="point", aspect="misaligned", x0=0.5, y0=0.5)
    same = box(*box_of(point, 8, 8)).model_copy(update={"aspect": "misaligned"})
    rows = [
        *label("anna", "one", point, box(*HALF)),
        *label("ben", "one", same),
        *label("anna", "two"),
        *label("ben", "two"),
        *label("anna", "alone", point),
        *label("ben", "alone", point, task="repeat"),
        *label("admin", "alone", point, source="adjudicator"),
        *label("bot", "two", point, source="simulated"),
        *label("ben", "gone", point),
    ]
    marks = pa.Table.from_pylist(rows, schema=LABELS_REGIONS).to_pylist()
    sizes = dict.fromkeys(("one", "two", "alone"), (8, 8))
    found = region_agreement(marks, {"repeat"}, sizes)
    assert found is not None
    assert (found["source"], found["n_images"]) == ("human", 2)
    every, artifact, misaligned = found["aspects"]
    assert [row["aspect"] for row in found["aspects"]] == ["any", "artifact", "misaligned"]
    assert (every["n_pairs"], every["presence_f1"], every["kappa"]) == (2, 1, 1)
    assert every["box_f1"] == [pytest.approx(2 / 3)] * 2
    assert (artifact["presence_f1"], artifact["kappa"], artifact["box_f1"]) == (0, 0, [0, 0])
    assert (misaligned["box_f1"], misaligned["n_maps"]) == ([1, 1], 2)
    assert 0.7 < misaligned["map_cc"] < 1  # a disc within its square
    assert region_agreement([], {"repeat"}, sizes) is None
