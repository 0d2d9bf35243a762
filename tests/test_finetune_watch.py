"""The watch: each moment counts for one part, the innermost."""

from typing import Any

import pytest

from finetune.watch import Watch, shares
from pipelines.run.metrics_log import time_spent


class Hands:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_a_part_counts_by_itself_alone_from_lap_to_lap_and_ends_with_an_error() -> None:
    hands = Hands()
    watch = Watch(hands)
    hands.time += 1
    with watch.part("drawing"):
        hands.time += 2
        with watch.part("decoding"):
            hands.time += 4
        with watch.part("reward"):
            hands.time += 8
        hands.time += 16
    hands.time += 32
    assert watch.lap() == {"drawing": 18, "decoding": 4, "reward": 8, "other": 33}

    def fail() -> None:
        with watch.part("training"):
            hands.time += 3
            assert watch.lap() == {"training": 3}
            hands.time += 4
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    hands.time += 2
    assert watch.lap() == {"training": 4, "other": 2}
    assert watch.lap() == {}


def test_shares_are_one_together_and_the_largest_comes_first() -> None:
    found = shares({"drawing": 1.0, "training": 3.0})
    assert found == {"training": 0.75, "drawing": 0.25}
    assert list(found) == ["training", "drawing"]
    assert shares({}) == {}


def test_the_sum_of_all_lines_weighs_them_by_their_time() -> None:
    lines: list[dict[str, Any]] = [
        {"step": 0, "validation_reward": 0.5},
        {"step": 1, "seconds_in_all": 10.0, "share_of_time": {"training": 1.0}},
        {"step": 2, "seconds_in_all": 90.0, "share_of_time": {"drawing": 0.9, "training": 0.1}},
    ]
    assert time_spent(lines) == "0:01:40 in all, drawing 81%, training 19%"
    assert time_spent(lines[:1]) == "0:00:00 in all"
