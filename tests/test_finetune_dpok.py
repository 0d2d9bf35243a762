"""DPOK's loss and training: its first update, value function and guards."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from data.errors import PictuneError
from finetune.learning.drawing import PromptStatistics
from finetune.learning.method import Method
from finetune.learning.rollout import Prediction, Step, choose_transitions, collect
from finetune.learning.training import rate_schedule
from finetune.methods import ddpo, dpok, policy_gradient
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampling import gaussian_kl, noise_per_output, step_distribution
from finetune.model.schedule import DiffusionSchedule
from finetune.settings.ddpo import DDPOConfig
from finetune.settings.dpok import DPOKConfig
from finetune.settings.model import Precision
from finetune.settings.sampler import Sampler
from finetune.settings.validation import ValidationConfig
from tests.support.small_training import open_with_adapter, seeded, trained, training_of

SMALL = DPOKConfig(
    iterations=2,
    images_per_prompt=3,
    micro_batch=4,
    validation=ValidationConfig(every=2, images_per_prompt=2),
)


def test_kl_equals_torch_distributions() -> None:
    mean, ref_mean = torch.randn(2, 4, 3, 5, 5, generator=seeded()).unbind()
    std = torch.tensor([0.1, 1.0, 2.0, 0.5]).view(4, 1, 1, 1)
    expected = kl_divergence(Normal(mean, std), Normal(ref_mean, std))
    torch.testing.assert_close(gaussian_kl(mean, ref_mean, std), expected.sum((1, 2, 3)))
    per_dimension = gaussian_kl(mean, ref_mean, std, reduction="mean")
    torch.testing.assert_close(per_dimension, expected.mean((1, 2, 3)))
    assert gaussian_kl(mean, ref_mean, torch.zeros(4, 1, 1, 1)).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_noise_error_is_the_kl_without_its_weight_for_every_prediction(prediction: str) -> None:
    scheduler = DDIMScheduler(
        prediction_type=prediction, beta_schedule="scaled_linear", clip_sample=False
    )
    scheduler.set_timesteps(10)
    schedule = DiffusionSchedule.of(scheduler)
    timesteps = torch.tensor([900, 400, 100])
    latents, output, reference = torch.randn(3, 3, 4, 5, 5, generator=seeded()).unbind()
    difference = noise_per_output(schedule, timesteps) * (output - reference)
    error = difference.square().flatten(1).mean(1)
    mean, std = step_distribution(schedule, output, timesteps, latents, eta=1.0)
    ref_mean, _ = step_distribution(schedule, reference, timesteps, latents, eta=1.0)
    at, before = scheduler.alphas_cumprod[timesteps], scheduler.alphas_cumprod[timesteps - 100]
    variance = std.flatten().square()
    per_noise = (1 - before - variance).sqrt() - (before * (1 - at) / at).sqrt()
    expected = per_noise.square() / (2 * variance) * error
    kl = gaussian_kl(mean, ref_mean, std, reduction="mean")
    torch.testing.assert_close(kl, expected, rtol=1e-3, atol=1e-7)


def test_the_published_codes_loss_is_hard_clamp_and_noise_error() -> None:
    mean, ref_mean, output, ref_output = torch.randn(4, 3, 4, 5, 5, generator=seeded()).unbind()
    std = torch.tensor([0.5, 1.0, 2.0]).view(3, 1, 1, 1)
    factor = torch.tensor([0.3, 2.0, 5.0]).view(3, 1, 1, 1)
    # The first two ratios are beyond the range on the worsening side: PPO keeps these.
    log_probs, advantages = torch.tensor([0.5, -0.5, 0.0]), torch.tensor([-1.0, 2.0, 3.0])
    policy, reference = Prediction(mean, std, output), Prediction(ref_mean, std, ref_output)
    step = Step(log_probs, torch.zeros(3), policy, reference, factor)
    ours = DPOKConfig(clip_range=0.1, kl_weight=0.5)
    theirs = ours.model_copy(update={"surrogate": "hard_clamp", "kl": "noise_error"})
    clamped = torch.tensor([-1.1, 1.8, 3.0])
    noise_error = (factor * (output - ref_output)).square().mean()
    expected = -clamped.mean() + 0.5 * noise_error
    torch.testing.assert_close(dpok.loss(step, advantages, theirs), expected)
    least = torch.minimum(log_probs.exp() * advantages, clamped)
    expected = -least.mean() + 0.5 * ((mean - ref_mean) / std).square().mean() / 2
    torch.testing.assert_close(dpok.loss(step, advantages, ours), expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_first_update_has_unit_ratio_and_no_kl(velocity_folder: Path, precision: Precision) -> None:
    model = open_with_adapter(velocity_folder, precision=precision)
    config = SMALL.model_copy(update={"iterations": 1, "updates": 1})
    (metrics,) = trained(dpok.METHOD, training_of(model, config))
    assert metrics.first_ratio_gap == 0
    assert metrics.ratio_max == metrics.ratio_mean == 1
    assert metrics.kl == 0
    assert metrics.clip_fraction == 0
    assert metrics.gradient_norm > 0


def test_value_function_learns_to_predict_the_reward_of_each_prompt(
    velocity_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_gradient, "STATISTICS_WINDOW", 1)
    settings = {
        "images_per_prompt": 8,
        "micro_batch": 16,
    }
    config = SMALL.model_copy(update=settings)
    training = training_of(open_with_adapter(velocity_folder), config, prompts=["a cat"])
    algorithm = policy_gradient.PolicyGradient(dpok.loss, needs_reference=True, critic=dpok.critic)
    state = policy_gradient.start(algorithm, training)
    assert state.value is not None
    state.value = replace(state.value, steps=60)
    rollout = collect(training, state.statistics)
    updates = [
        policy_gradient.update(algorithm, training, state, rollout, learning_rate=2.5e-4)
        for _ in range(2)
    ]
    first, second = (update["value_explained_variance"] for update in updates)
    assert first == 0
    assert second is not None
    assert second > 0.5


def test_transitions_are_distinct_and_omit_the_deterministic_steps() -> None:
    stochastic_steps = Sampler(steps=10, stochastic_share=0.8).stochastic_steps
    pairs = choose_transitions(6, stochastic_steps, 0.5, generator=seeded())
    assert len(pairs) == len({tuple(pair) for pair in pairs.tolist()}) == 6 * 4
    assert pairs[:, 1].max() <= 7
    assert pairs[:, 0].bincount().tolist() == [4] * 6


def test_advantages_compare_each_reward_with_its_own_prompt() -> None:
    statistics = PromptStatistics(window=4, std_floor=0.1)
    prompts, rewards = ["easy", "hard", "easy", "hard"], torch.tensor([0.9, 0.1, 0.7, 0.3])
    advantages = statistics.normalize(prompts, rewards)
    torch.testing.assert_close(advantages, torch.tensor([1.0, -1.0, -1.0, 1.0]))
    settled = statistics.normalize(["easy"] * 4, torch.full((4,), 0.8))
    assert settled.abs().max() < 1e-5


@pytest.mark.parametrize(
    ("bad", "message"),
    [(torch.full((4,), float("nan")), "finite"), (torch.zeros(3), "one number per image")],
)
def test_a_broken_reward_is_named(velocity_folder: Path, bad: Tensor, message: str) -> None:
    training = training_of(open_with_adapter(velocity_folder), SMALL, reward=lambda *_: bad)
    with pytest.raises(PictuneError, match=message):
        next(trained(dpok.METHOD, training))


def test_a_sampler_without_noise_is_refused(velocity_folder: Path) -> None:
    training = training_of(open_with_adapter(velocity_folder), SMALL, sampler=Sampler(eta=0))
    with pytest.raises(PictuneError, match=r"sampler\.eta: is 0, and policy gradients need noise"):
        dpok.METHOD.start(training)


DDPO = {
    "iterations": 2,
    "images_per_prompt": 4,
    "micro_batch": 4,
    "validation": ValidationConfig(every=2, images_per_prompt=1),
}


def tuned(folder: Path, method: Method[Any], **settings: object) -> dict[str, Tensor]:
    """Return the adapters after training."""
    generator = seeded()
    model = open_with_adapter(folder, generator=generator)
    config = method.config.model_validate(DDPO | settings)
    list(trained(method, training_of(model, config, generator=generator)))
    return model.adapter.state()


def test_ddpo_is_dpok_without_kl_and_value_function(velocity_folder: Path) -> None:
    alone = tuned(velocity_folder, ddpo.METHOD)
    bare = tuned(velocity_folder, dpok.METHOD, kl_weight=0.0, baseline="prompt_mean")
    whole = tuned(velocity_folder, dpok.METHOD, kl_weight=1.0)
    assert all(torch.equal(weight, bare[name]) for name, weight in alone.items())
    assert not all(torch.equal(weight, whole[name]) for name, weight in alone.items())


def test_ddpo_never_uses_the_reference_and_logs_no_kl(
    velocity_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: DiffusionModel) -> None:
        raise AssertionError

    model = open_with_adapter(velocity_folder)
    monkeypatch.setattr(DiffusionModel, "adapter_off", refuse)
    training = training_of(model, DDPOConfig.model_validate(DDPO), prompts=["a cat"])
    first, second = trained(ddpo.METHOD, training)
    assert first.kl is second.kl is None
    assert first.value_explained_variance is None
    assert first.first_ratio_gap == second.first_ratio_gap == 0


def test_a_decaying_learning_rate_rises_over_the_warmup_and_falls_to_nothing(
    velocity_folder: Path,
) -> None:
    assert [rate_schedule(step, warmup=2, total=4) for step in range(5)] == [
        0.5,
        0.75,
        0.5,
        0.25,
        0.0,
    ]
    assert [rate_schedule(step, warmup=2, total=None) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]
    for decay, last in ((True, 5e-4), (False, 1e-3)):
        settings = {"learning_rate": 1e-3, "warmup": 0, "decay": decay}
        config = DDPOConfig.model_validate(DDPO | settings)
        training = training_of(open_with_adapter(velocity_folder), config, prompts=["a cat"])
        rates = [metrics.learning_rate for metrics in trained(ddpo.METHOD, training)]
        assert rates == [1e-3, last]
