from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.functional import jacobian

from reward.learning.objective import (
    binary_cross_entropy_loss,
    binary_loss,
    bradley_terry_loss,
    davidson_loss,
    plackett_luce_loss,
    prompt_classification_loss,
    rao_kupper_loss,
)

ONE = torch.ones(1)
logits = st.floats(-8, 8, width=32)
shares = st.sampled_from([0.0, 0.5, 1.0])


def test_lee_et_al_by_formula() -> None:
    rewards = torch.tensor([[0.8, 0.2, 0.1]])
    mse = binary_loss(rewards[:, 0], torch.tensor([1.0]), ONE)
    auxiliary = prompt_classification_loss(
        rewards, torch.ones(1, 3, dtype=torch.bool), ONE, temperature=2.0
    )
    assert mse.item() == pytest.approx(0.04, abs=1e-6)
    assert torch.exp(-auxiliary).item() == pytest.approx(0.408913, abs=1e-6)
    assert auxiliary.item() == pytest.approx(0.894252, abs=1e-6)
    assert (mse + 0.5 * auxiliary).item() == pytest.approx(0.487126, abs=1e-6)


def test_absent_wrong_prompts_do_not_count_and_bounded_rewards_have_a_floor() -> None:
    best = torch.tensor([[1.0] + [0.0] * 11])
    present = torch.arange(12)[None] < 10
    floor = prompt_classification_loss(best, present, ONE, temperature=2.0)
    assert 1.86 < floor < 1.87


def test_mean_target_has_the_gradient_of_all_raters() -> None:
    rewards = torch.tensor([0.3, 0.6])
    one_by_one = jacobian(
        lambda r: binary_loss(r[[0, 0, 0, 1]], torch.tensor([1.0, 0, 1, 0]), torch.ones(4)), rewards
    )
    joined = jacobian(
        lambda r: binary_loss(r, torch.tensor([2 / 3, 0]), torch.tensor([3.0, 1.0])), rewards
    )
    torch.testing.assert_close(one_by_one, joined)


@settings(deadline=None)  # another process may keep the cores busy
@given(a=logits, b=logits, shift=logits, label=shares)
def test_bradley_terry_knows_only_the_difference(
    a: float, b: float, shift: float, label: float
) -> None:
    a_, b_, label_ = torch.tensor([a]), torch.tensor([b]), torch.tensor([label])
    loss = bradley_terry_loss(a_, b_, label_, ONE)
    torch.testing.assert_close(
        bradley_terry_loss(a_ + shift, b_ + shift, label_, ONE), loss, atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(bradley_terry_loss(b_, a_, 1 - label_, ONE), loss)
    of_win, of_loss = (torch.log1p(torch.exp(torch.tensor([m]).double())) for m in (b - a, a - b))
    torch.testing.assert_close(loss, (label * of_win + (1 - label) * of_loss).mean().float())


def _of_ranks(logits: list[float], ranks: Sequence[float]) -> Tensor:
    """The Plackett-Luce loss of one ranking."""
    return plackett_luce_loss(
        torch.tensor([logits]),
        torch.tensor([ranks]).float(),
        torch.ones(1, len(ranks), dtype=torch.bool),
        ONE,
    )


def test_binary_cross_entropy_is_that_of_the_labels_one_by_one() -> None:
    logits_, good = torch.tensor([0.3, -1.2]), torch.tensor([2 / 3, 0.0])
    joined = binary_cross_entropy_loss(logits_, good, torch.tensor([3.0, 1.0]))
    p = torch.sigmoid(logits_)
    torch.testing.assert_close(joined, -(2 * p[0].log() + (1 - p[0]).log() + (1 - p[1]).log()) / 4)


@pytest.mark.parametrize("loss", [davidson_loss, rao_kupper_loss])
@settings(deadline=None)  # another process may keep the cores busy
@given(a=logits, b=logits, shift=logits, tie=st.floats(-3, 3, width=32))
def test_losses_with_ties_are_of_probabilities_of_three_outcomes(
    loss: Callable[..., Tensor], a: float, b: float, shift: float, tie: float
) -> None:
    a_, b_, tie_ = torch.tensor([a]), torch.tensor([b]), torch.tensor(tie)
    won, tied, lost = (loss(a_, b_, torch.tensor([y]), ONE, tie_) for y in (1.0, 0.5, 0.0))
    close = partial(torch.testing.assert_close, atol=1e-4, rtol=1e-4)
    close(torch.stack([won, tied, lost]).neg().exp().sum(), torch.tensor(1.0))
    close(loss(b_, a_, torch.tensor([0.0]), ONE, tie_), won)
    close(loss(a_ + shift, b_ + shift, ONE, ONE, tie_), won)
    close(loss(a_, b_, ONE, ONE, torch.tensor(-25.0)), bradley_terry_loss(a_, b_, ONE, ONE))


def test_losses_with_ties_by_formula() -> None:
    a, b, nought = torch.tensor([2.0]).log(), torch.tensor([1.0]).log(), torch.tensor(0.0)
    root = 2**0.5
    for loss, wanted in (
        (davidson_loss, [2 / (3 + root), root / (3 + root), 1 / (3 + root)]),
        (rao_kupper_loss, [2 / 4, 3 * 2 / (4 * 5), 1 / 5]),  # theta = 2
    ):
        losses = [loss(a, b, torch.tensor([label]), ONE, nought) for label in (1.0, 0.5, 0.0)]
        assert [each.neg().exp().item() for each in losses] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("threshold", [1e-3, 1.0, 44.0, 45.0, 100.0, 1000.0])
@pytest.mark.parametrize("margin", [0.0, 7.5, -300.0])
def test_rao_kupper_is_that_of_double_precision_at_every_threshold(
    threshold: float, margin: float
) -> None:
    def of(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        values = torch.tensor([margin, 0.0], dtype=dtype, requires_grad=True)
        exact = torch.tensor(threshold, dtype=torch.float64).expm1().log().clamp(max=threshold)
        tie = exact.to(dtype).requires_grad_()
        labels, ones = torch.tensor([1.0, 0.5, 0.0], dtype=dtype), torch.ones(3, dtype=dtype)
        loss = rao_kupper_loss(values[:1].expand(3), values[1:].expand(3), labels, ones, tie)
        slopes = torch.autograd.grad(loss, [values, tie])
        return loss, torch.cat([each.flatten() for each in slopes])

    (loss, gradient), (wanted, slope) = of(torch.float32), of(torch.float64)
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("loss", [davidson_loss, rao_kupper_loss])
def test_the_tie_parameter_learns_how_many_ties_there_are(loss: Callable[..., Tensor]) -> None:
    tie, equal = torch.zeros((), requires_grad=True), torch.zeros(10)
    labels = torch.tensor([0.5] * 8 + [1.0, 0.0])
    optimizer = torch.optim.Adam([tie], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        loss(equal, equal, labels, torch.ones(10), tie).backward()
        optimizer.step()
    chance_of_a_tie = loss(ONE, ONE, torch.tensor([0.5]), ONE, tie.detach()).neg().exp()
    assert chance_of_a_tie.item() == pytest.approx(0.8, abs=1e-3)


def test_plackett_luce_chances_of_all_orders_sum_to_one() -> None:
    scores, orders = [0.3, -1.0, 2.0, 0.0], list(permutations(range(4)))
    # A mean over the three choices; the last image is no choice.
    chances = torch.stack([torch.exp(-3 * _of_ranks(scores, list(order))) for order in orders])
    torch.testing.assert_close(chances.sum(), torch.tensor(1.0), atol=1e-5, rtol=1e-5)
    assert orders[int(chances.argmax())] == (1, 3, 0, 2)


def test_plackett_luce_by_formula() -> None:
    e = torch.tensor([0.5, -0.2, 0.1]).exp()
    first, second = -(e[1] / e.sum()).log(), -(e[0] / (e[0] + e[2])).log()
    torch.testing.assert_close(_of_ranks([0.5, -0.2, 0.1], [2, 1, 3]), (first + second) / 2)
    tied = (
        -(e[1] / e.sum()).log() - (e[0] / e.sum()).log()
    ) / 2  # both first places are chosen among all three
    torch.testing.assert_close(_of_ranks([0.5, -0.2, 0.1], [1, 1, 2]), tied)


@settings(deadline=None)  # another process may keep the cores busy
@given(a=logits, b=logits, shift=logits, label=shares)
def test_plackett_luce_of_two_images_is_bradley_terry(
    a: float, b: float, shift: float, label: float
) -> None:
    pairwise = bradley_terry_loss(torch.tensor([a]), torch.tensor([b]), torch.tensor([label]), ONE)
    torch.testing.assert_close(
        _of_ranks([a + shift, b + shift], [1 - label, label]), pairwise, atol=1e-4, rtol=1e-4
    )


def test_images_that_a_ranking_does_not_have_do_not_count() -> None:
    scores = torch.tensor([[0.5, -0.2, 9.0], [0.1, 0.2, 0.3]], requires_grad=True)
    present = torch.tensor([[True, True, False], [True, True, True]])
    ranks, weights = torch.tensor([[1.0, 2, 0], [1, 2, 3]]), torch.tensor([1.0, 3.0])
    loss = plackett_luce_loss(scores, ranks, present, weights)
    torch.testing.assert_close(
        loss, (_of_ranks([0.5, -0.2], [1, 2]) + 3 * _of_ranks([0.1, 0.2, 0.3], [1, 2, 3])) / 4
    )
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert scores.grad[0, 2] == 0
