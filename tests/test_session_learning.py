"""The posterior over types, implicit Q-learning and off-policy estimates, against known answers."""

import itertools
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.sessions import Candidate
from reward.sessions.implicit_q import Transitions, expectile_loss, train_values
from reward.sessions.off_policy import Logged, estimate, estimates
from reward.sessions.slates import draw_slate, mean_slate_value, slate_chance
from reward.sessions.user_model import updated
from tests.support.session_turns import CANDIDATES, VALUES


def test_a_pick_moves_the_belief_by_bayes() -> None:
    utilities = np.array([[0.5, 0.5], [0.5 + math.log(3) / 10, 0.5]])
    # type 0 picks column 0 with probability 1/2, type 1 with 3/4
    belief = updated(np.array([0.6, 0.4]), utilities, 0, 10.0)
    assert belief == pytest.approx([0.3 / 0.6, 0.3 / 0.6])
    assert updated(belief, utilities, 1, 10.0) == pytest.approx([2 / 3, 1 / 3])
    assert updated(belief, np.ones((2, 2)), 0, 10.0) == pytest.approx(belief)


def slates(columns: int) -> list[tuple[Candidate, ...]]:
    """Return every slate of `CANDIDATES` of so many columns."""
    found = []
    for numbers in itertools.permutations(range(len(CANDIDATES)), columns):
        if len({CANDIDATES[number].category for number in numbers}) == columns:
            placed = list(CANDIDATES)
            for place, number in enumerate(numbers):
                placed[number] = replace(placed[number], place=place)
            found.append(tuple(placed))
    return found


def test_the_chance_of_a_logged_slate_is_what_drawing_it_states() -> None:
    rng = random.Random(0)
    for temperature in (1.0, 0.5):
        every = slates(2)
        chances = [slate_chance(one, VALUES, temperature=temperature) for one in every]
        assert sum(chances) == pytest.approx(1)
        drawn = draw_slate(CANDIDATES, VALUES, temperature=temperature, rng=rng, columns=2)
        stated = math.prod(one.chance for one in drawn if one.chance is not None)
        assert slate_chance(drawn, (5.0, 5.0, 5.0, 5.0), temperature=1) != pytest.approx(stated)
        assert slate_chance(drawn, VALUES, temperature=temperature) == pytest.approx(stated)
    best = draw_slate(CANDIDATES, VALUES, temperature=0, rng=rng, columns=2)
    assert slate_chance(best, VALUES, temperature=0) == 1
    assert slate_chance(best, VALUES[::-1], temperature=0) == 0


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_the_mean_value_of_slates_is_the_sum_over_all_of_them(columns: int) -> None:
    of = (3.0, -1.0, 0.25, 7.0)
    by_hand = 0.0
    for slate in slates(min(columns, 3)):
        shown = [of[k] for k, one in enumerate(slate) if one.place is not None]
        by_hand += slate_chance(slate, VALUES, temperature=0.7) * sum(shown) / len(shown)
    exact = mean_slate_value(CANDIDATES, VALUES, of, temperature=0.7, columns=columns)
    assert exact == pytest.approx(by_hand)


def test_an_expectile_weighs_what_is_above_and_what_is_below() -> None:
    assert expectile_loss(torch.tensor([2.0, -1.0]), 0.8).item() == pytest.approx(
        (0.8 * 4 + 0.2 * 1) / 2
    )


def test_implicit_q_learning_finds_the_optimum_of_a_known_process() -> None:
    """Two steps: `soon` earns 1 and then nothing, `later` 0 and then 3 by the better action.

    Optimal values with discount 0.5: f(begin, soon) = 1 and f(begin, later) = 0.5 * 3. Actions are
    drawn evenly, so that the mean of the second step is 1.5 and SARSA would find 0.75.
    """
    states, actions = torch.eye(3), torch.eye(2)
    begin, poor, rich = range(3)
    soon, later = range(2)
    rows = [
        (begin, soon, 1.0, poor, 1.0),
        (begin, later, 0.0, rich, 1.0),
        *((poor, action, 0.0, poor, 0.0) for action in (soon, later)),
        (rich, soon, 0.0, rich, 0.0),
        (rich, later, 3.0, rich, 0.0),
    ]
    at, did, earned, then, goes_on = map(torch.tensor, zip(*rows, strict=True))
    one = torch.ones(6, 1)
    turns = Transitions(states[at], actions[did][:, None], one, one, earned, states[then], goes_on)

    def learned(discount: float) -> list[float]:
        generator = torch.Generator().manual_seed(0)
        network = train_values(
            turns, discount=discount, expectile=0.99, updates=1500, generator=generator
        )
        with torch.no_grad():
            found: list[float] = network(states[begin], actions).tolist()
        return found

    assert learned(0.5) == pytest.approx([1.0, 1.5], abs=0.1)
    assert learned(0.0) == pytest.approx([1.0, 0.0], abs=0.05)


def test_a_pick_teaches_the_picked_candidate_and_none_teaches_the_mean() -> None:
    """Candidates earn 4, 0 and -2 where they are picked, and nothing picked earns their mean."""
    worth = torch.tensor([4.0, 0.0, -2.0])
    slates = torch.tensor([[0, 1], [1, 2], [0, 2], [2, 2]])
    shown = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    picked = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    rewards = (worth[slates] * picked).sum(1) / picked.sum(1)
    nothing = torch.zeros(4, 1)
    turns = Transitions(
        nothing, torch.eye(3)[slates], shown, picked, rewards, nothing, torch.zeros(4)
    )
    network = train_values(turns, discount=0.9, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = network(torch.zeros(1), torch.eye(3)).tolist()
    assert found == pytest.approx(worth.tolist(), abs=0.1)


def test_off_policy_estimates_are_those_by_hand() -> None:
    logged = Logged(
        ratios=np.array([[2.0, 0.5], [1.0, 3.0]]),
        rewards=np.array([[1.0, 4.0], [0.0, 2.0]]),
        slate_values=np.array([[0.5, 3.0], [0.5, 1.0]]),
        state_values=np.array([[1.0, 2.0], [2.0, 3.0]]),
    )
    weighted, robust = estimates(logged, np.ones((1, 2)), discount=0.5)
    # weights: turn 1: 2/3 and 1/3; turn 2: 1 and 3, that is 1/4 and 3/4
    assert weighted == pytest.approx([2 / 3 + 0.5 * (4 / 4 + 3 * 2 / 4)])
    first = 2 / 3 * 0.5 + 1 / 3 * -0.5 + (1 + 2) / 2
    second = 1 / 4 * 1 + 3 / 4 * 1 + (2 / 3 * 2 + 1 / 3 * 3)
    assert robust == pytest.approx([first + 0.5 * second])
    doubled = estimates(logged, np.array([[1.0, 0.0]]), discount=1.0)[0]
    assert doubled == pytest.approx([1 + 4])


def test_both_estimates_find_the_value_of_another_policy() -> None:
    """A bandit of two actions that earn 1 and 3, logged with chances 3/4 and 1/4, asked for 1/4.

    Its value under chances 1/4 and 3/4 is 2.5. A model of values that is wrong by 1 is corrected.
    """
    rng = np.random.default_rng(0)
    action = (rng.random((4000, 1)) < 0.25).astype(int)
    rewards = np.array([1.0, 3.0])[action] + rng.normal(0, 0.5, action.shape)
    ratios = np.array([1 / 3, 3.0])[action]
    wrong = np.array([2.0, 4.0])[action]
    logged = Logged(ratios, rewards, wrong, np.full(action.shape, 0.25 * 2 + 0.75 * 4))
    found = estimate(logged, discount=0.9, rng=rng)
    for one in (found.weighted, found.doubly_robust):
        assert one.value == pytest.approx(2.5, abs=0.1)
        assert one.interval is not None
        assert one.interval[0] < 2.5 < one.interval[1]
        assert one.interval[1] - one.interval[0] < 0.2
    assert found.effective_sessions == pytest.approx(4000 / (0.75 / 9 + 0.25 * 9), rel=0.1)


def test_sessions_that_the_policy_would_never_show_say_nothing() -> None:
    nothing = Logged(*np.zeros((4, 3, 2)))
    found = estimate(nothing, discount=0.9, rng=np.random.default_rng(0))
    assert found.weighted.value is found.doubly_robust.value is None
    assert found.effective_sessions == 0
