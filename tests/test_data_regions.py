"""Marks on images: their form, the words they name and the pixels they cover."""

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from data.feedback import Claim
from data.kinds.verdict import BinaryAnswer
from data.regions import Mark, mask_of, read_regions, words_of
from data.store.tables import labels
from data.tables.parquet import export, read_manifest
from data.tables.verification import verify
from tests.support.data_campaign import Campaign, submission

BOX = Mark(kind="box", aspect="artifact", x0=0.25, y0=0.5, x1=0.5, y1=1, severity=2)
POINT = Mark(kind="point", aspect="misaligned", x0=0.5, y0=0, word_indexes=(0, 1), comment="no cat")


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


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return Campaign(tmp_path / "mine")


def mark(campaign: Campaign, rater: str, *answers: tuple[Mark, ...] | None) -> list[Claim]:
    """Let a rater find the next images bad, with these marks."""
    store, rater_id, claims = campaign.store, campaign.store.add_rater(rater), []
    for number, marks in enumerate(answers):
        claim = store.claim(rater_id, kind="binary")
        assert claim is not None
        claims.append(claim)
        answer = BinaryAnswer(verdict="bad", comment='say "marks":', marks=marks)
        store.submit(submission(claim, rater_id, f"{rater} {number}", answer))
    return claims


def test_each_mark_of_a_live_label_is_a_row_and_so_is_finding_nothing(campaign: Campaign) -> None:
    one, two, _ = mark(campaign, "anna", (BOX, POINT), (), None)
    mark(campaign, "ben", (BOX,))
    campaign.store.undo(campaign.store.add_rater("ben"))
    mark(campaign, "cleo", (BOX,))
    campaign.store.raters.set_status(campaign.store.add_rater("cleo"), "left_out")
    export(campaign.store, campaign.run)
    assert verify(campaign.store, campaign.run) == []
    rows = read_regions(campaign.run.latest).to_pylist()
    assert [(row["image_id"], row["mark_no"], row["kind"]) for row in rows] == [
        (one.task.image_ids[0], 1, "box"),
        (one.task.image_ids[0], 2, "point"),
        (two.task.image_ids[0], 0, "none"),
    ]
    names = list(Mark.model_fields)
    assert [{name: row[name] for name in names} for row in rows[:2]] == [
        given.model_dump() | {"word_indexes": list(given.word_indexes)} for given in (BOX, POINT)
    ]
    assert {row["label"] for row in rows} == {"bad"}
    assert {row[name] for row in rows[2:] for name in names} == {"none", None}


def test_a_run_without_marks_has_no_file_of_them(campaign: Campaign) -> None:
    mark(campaign, "anna", None)
    files = export(campaign.store, campaign.run).files
    assert "latest/labels_regions.parquet" not in files
    assert read_regions(campaign.run.latest).num_rows == 0
    mark(campaign, "ben", (BOX,))
    export(campaign.store, campaign.run)
    assert read_manifest(campaign.run).files["latest/labels_regions.parquet"].rows == 1
    campaign.store.undo(campaign.store.add_rater("ben"))
    assert "latest/labels_regions.parquet" not in export(campaign.store, campaign.run).files


def test_verify_finds_a_mark_that_differs_even_if_it_is_not_the_labels_last(
    campaign: Campaign,
) -> None:
    mark(campaign, "anna", (BOX, POINT))
    export(campaign.store, campaign.run)
    moved = BinaryAnswer(verdict="bad", marks=(BOX.model_copy(update={"x0": 0.125}), POINT))
    with campaign.store.database.write() as connection:
        connection.execute(sa.update(labels).values(answer_json=moved.model_dump_json()))
    faults = "\n".join(verify(campaign.store, campaign.run))
    assert "labels_regions.parquet: differs from the store" in faults
