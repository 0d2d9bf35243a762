"""The order that `label.order = "diverse"` asks for."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data.errors import PictuneError
from data.store.overview import labeled_images
from pipelines.campaign import open_store
from pipelines.config import Settings, check
from pipelines.diversity import RIDGE, diverse_first, greedy_log_determinant
from tests.support.data_campaign import submission
from tests.support.look_alikes import KINDS, LookAlikes


@pytest.fixture
def campaign(tmp_path: Path) -> LookAlikes:
    return LookAlikes(tmp_path / "runs" / "first")


def settings(**reward: object) -> Settings:
    return check({"reward": reward}, ("run", "label"), "test")


def by_trying_all(vectors: NDArray[np.float64], count: int, chosen: list[int]) -> list[int]:
    """Return the rows that raise the log-determinant most, one after the other."""
    found: list[int] = []
    for _ in range(count):
        values = {}
        for row in set(range(len(vectors))) - {*chosen, *found}:
            some = vectors[[*chosen, *found, row]]
            values[row] = np.linalg.slogdet(some @ some.T + RIDGE * np.eye(len(some)))[1]
        found.append(max(values, key=lambda row: values[row]))
    return found


@pytest.mark.parametrize("chosen", [[], [3], [1, 4, 7, 9, 10, 12]])
def test_the_greedy_order_is_what_trying_all_finds(chosen: list[int]) -> None:
    vectors = np.random.default_rng(0).normal(size=(14, 4))  # more rows than dimensions
    found = greedy_log_determinant(vectors, 7, chosen=chosen)
    assert found == by_trying_all(vectors, 7, chosen)
    rest = greedy_log_determinant(vectors, 100, chosen=chosen)
    assert sorted(rest) == sorted(set(range(14)) - set(chosen))
    assert rest[:7] == found
    assert rest[3:] == greedy_log_determinant(vectors, 100, chosen=[*chosen, *rest[:3]])


def test_images_that_look_alike_come_last(campaign: LookAlikes) -> None:
    priorities = diverse_first(campaign.run, settings(), set())
    order = sorted(priorities, key=lambda image_id: -priorities[image_id])
    assert sorted(order) == sorted(campaign.image_ids)
    assert {campaign.kind(image_id) for image_id in order[:KINDS]} == set(range(KINDS))
    assert max(priorities.values()) == 1
    assert min(priorities.values()) > 0


def test_labeled_images_count_as_chosen(campaign: LookAlikes) -> None:
    labeled = {campaign.image_ids[0], campaign.image_ids[5]}
    priorities = diverse_first(campaign.run, settings(), labeled)
    order = sorted(priorities, key=lambda image_id: -priorities[image_id])
    assert set(order) == set(campaign.image_ids) - labeled
    assert {campaign.kind(image_id) for image_id in order[:2]} == {2, 3}
    assert diverse_first(campaign.run, settings(), set(campaign.image_ids)) == {}


def test_no_more_than_a_bounded_number_is_put_in_order(
    campaign: LookAlikes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.diversity.MOST", 5)
    assert len(diverse_first(campaign.run, settings(), set())) == 5


def test_images_of_live_labels_are_labeled(campaign: LookAlikes) -> None:
    with open_store(campaign.run) as store:
        ann = store.add_rater("Ann")
        assert labeled_images(store) == set()
        claim = store.claim(ann, kind="binary")
        assert claim is not None
        store.submit(submission(claim, ann, "first"))
        assert labeled_images(store) == set(claim.task.image_ids)
        store.undo(ann)
        assert labeled_images(store) == set()


def test_what_the_order_needs_is_named_in_one_line(campaign: LookAlikes) -> None:
    with pytest.raises(PictuneError, match=r'"diverse": reward.backbone should be') as wrong:
        diverse_first(campaign.run, settings(backbone=3), set())
    assert "\n" not in str(wrong.value)
    with pytest.raises(PictuneError, match="nowhere: no such"):
        diverse_first(campaign.run, settings(backbone="nowhere"), set())
    (campaign.root / "images" / "3.png").unlink()
    with pytest.raises(PictuneError, match=r"3\.png: cannot be read as an image"):
        diverse_first(campaign.run, settings(), set())
