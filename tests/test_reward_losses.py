import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd.functional import jacobian

from reward.losses import binary_loss, bradley_terry_loss, prompt_classification_loss

ONE = torch.ones(1)
logits = st.floats(-8, 8, width=32)
shares = st.sampled_from([0.0, 0.5, 1.0])


def test_lee_et_al_by_formula() -> None:
    rewards = torch.tensor([[0.8, 0.2, 0.1]])
    mse = binary_loss(rewards[:, 0], torch.tensor([1.0]), ONE)
    auxiliary = prompt_classification_loss(rewards, torch.ones(1, 3, dtype=torch.bool), ONE, temperature=2.0)
    assert mse.item() == pytest.approx(0.04, abs=1e-6)
    assert torch.exp(-auxiliary).item() == pytest.approx(0.408913, abs=1e-6)
    assert auxiliary.item() == pytest.approx(0.894252, abs=1e-6)
    assert (mse + 0.5 * auxiliary).item() == pytest.approx(0.487126, abs=1e-6)


def test_prompt_classification_of_bounded_rewards_has_a_floor() -> None:
    best = torch.tensor([[1.0] + [0.0] * 9])
    floor = prompt_classification_loss(best, torch.ones(1, 10, dtype=torch.bool), ONE, temperature=2.0)
    assert 1.86 < floor < 1.87


def test_absent_wrong_prompts_do_not_count() -> None:
    padded = prompt_classification_loss(torch.tensor([[0.8, 0.2, 0.9]]), torch.tensor([[True, True, False]]), ONE, 2.0)
    short = prompt_classification_loss(torch.tensor([[0.8, 0.2]]), torch.tensor([[True, True]]), ONE, 2.0)
    assert torch.equal(padded, short)


def test_mean_target_has_the_gradient_of_all_raters() -> None:
    rewards = torch.tensor([0.3, 0.6])
    one_by_one = jacobian(lambda r: binary_loss(r[[0, 0, 0, 1]], torch.tensor([1.0, 0, 1, 0]), torch.ones(4)), rewards)
    joined = jacobian(lambda r: binary_loss(r, torch.tensor([2 / 3, 0]), torch.tensor([3.0, 1.0])), rewards)
    torch.testing.assert_close(one_by_one, joined)


@given(a=logits, b=logits, shift=logits, label=shares)
def test_bradley_terry_knows_only_the_difference(a: float, b: float, shift: float, label: float) -> None:
    a_, b_, label_ = torch.tensor([a]), torch.tensor([b]), torch.tensor([label])
    loss = bradley_terry_loss(a_, b_, label_, ONE)
    torch.testing.assert_close(bradley_terry_loss(a_ + shift, b_ + shift, label_, ONE), loss, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(bradley_terry_loss(b_, a_, 1 - label_, ONE), loss)


def test_a_tie_is_best_explained_by_equal_logits() -> None:
    margins = torch.linspace(-3, 3, 61)
    losses = [bradley_terry_loss(margin[None], torch.zeros(1), torch.tensor([0.5]), ONE) for margin in margins]
    assert margins[torch.stack(losses).argmin()].abs() < 1e-6


def test_a_ranking_counts_the_same_whatever_its_size() -> None:
    members = torch.zeros(4, 4)  # [members, pairs]: three pairs of one ranking, one of another
    label, weight = torch.tensor([1.0, 1, 1, 0]), torch.tensor([1 / 3, 1 / 3, 1 / 3, 1])
    logits_0 = members.clone().requires_grad_()
    bradley_terry_loss(logits_0, members, label, weight).backward()
    assert logits_0.grad is not None
    torch.testing.assert_close(logits_0.grad[:, :3].sum(1), -logits_0.grad[:, 3])
