"""DiffusionNFT's loss against the paper's formulas, and its loop."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from finetune.learning.drawing import prompts_of
from finetune.learning.reward_fn import RewardFn
from finetune.methods.nft import METHOD, collect, nft_loss, optimality, start
from finetune.model.denoising import NoiseLevels, noise_images, noised_pairs
from finetune.model.sampler import draw
from finetune.model.schedule import DiffusionSchedule, Prediction
from finetune.settings.model import AdapterSettings
from finetune.settings.nft import NFTConfig
from finetune.settings.sampler import Sampler
from finetune.settings.validation import ValidationConfig
from tests.support.small_training import open_with_adapter, seeded, trained, training_of

SMALL = NFTConfig(
    iterations=2,
    images_per_prompt=2,
    noise_levels=2,
    updates=2,
    micro_batch=4,
    std_floor=1e-4,
    validation=ValidationConfig(every=2, images_per_prompt=2),
)
SAMPLER = Sampler(steps=4, guidance=1.0)


def randn(count: int, seed: int = 0) -> Tensor:
    """Return `count` batches of 6 predictions, [count, 6, 4, 5, 5]."""
    return torch.randn(count, 6, 4, 5, 5, generator=seeded(seed))


def per_image(values: Tensor) -> Tensor:
    """Return the mean over each image's dimensions, [6]."""
    return values.flatten(1).mean(1)


def brightness(images: Tensor, _: Sequence[str]) -> Tensor:
    """Reward light images."""
    return images.mean((1, 2, 3))


@pytest.mark.parametrize("beta", [0.1, 1.0, 2.0])
def test_loss_is_the_advantage_times_the_error_and_a_pull_to_the_old_policy(beta: float) -> None:
    prediction, old, target = randn(3)
    clip, advantages = 5.0, torch.tensor([-6.0, -2.0, 0.0, 0.5, 3.0, 9.0])
    r = optimality(advantages, clip)
    torch.testing.assert_close(r, torch.tensor([0.0, 0.3, 0.5, 0.55, 0.8, 1.0]))
    d, e = prediction - old, old - target
    signed = 2 * advantages.clamp(-clip, clip) * per_image(d * e)
    expected = signed + clip * beta * per_image(d.square()) + clip / beta * per_image(e.square())
    found = clip * nft_loss(prediction, old, target, r, beta)
    torch.testing.assert_close(found, expected.mean())


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_loss_is_the_published_one_on_velocities_without_its_own_normalization(
    beta: float,
) -> None:
    prediction, old, target = randn(3)
    r, t = torch.rand(6, generator=seeded(1)), torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
    # The published code: flow matching, x_t = (1 - t) x0 + t noise, the velocity is noise - x0.
    t = t.view(-1, 1, 1, 1)
    noise = randn(1, seed=2)[0]
    clean = noise - target
    noisy = (1 - t) * clean + t * noise
    positive = beta * prediction + (1 - beta) * old
    negative = (1 + beta) * old - beta * prediction
    errors = [
        per_image((noisy - t * one - clean).square() / t.square()) for one in (positive, negative)
    ]
    expected = (r * errors[0] / beta + (1 - r) * errors[1] / beta).mean()
    torch.testing.assert_close(nft_loss(prediction, old, target, r, beta), expected)


def output(prediction_type: str, guess: Tensor, noisy: Tensor, a: Tensor) -> Tensor:
    """Return the output of a UNet that takes `guess` for the clean latents."""
    noise = (noisy - a.sqrt() * guess) / (1 - a).sqrt()
    velocity = a.sqrt() * noise - (1 - a).sqrt() * guess
    return {"epsilon": noise, "v_prediction": velocity, "sample": guess}[prediction_type]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_every_parametrization_has_the_loss_on_clean_latents_times_snr_plus_1(
    sd_folder: Path, prediction_type: Prediction
) -> None:
    model, r = open_with_adapter(sd_folder), torch.rand(6, generator=seeded(1))
    clean, policy, old, noise = torch.randn(4, 6, 4, 8, 8, generator=seeded())
    times = torch.tensor([999, 800, 500, 300, 50, 5])
    schedule = replace(model.schedule(4), prediction_type=prediction_type)
    assert isinstance(schedule, DiffusionSchedule)
    batch = noise_images(model, schedule, clean, ["a"] * 6, NoiseLevels(times, noise))
    a, target = schedule.alphas[times].view(-1, 1, 1, 1), batch.per_output * batch.target
    mine, others = (
        batch.per_output * output(prediction_type, guess, batch.noisy, a) for guess in (policy, old)
    )
    for row in range(6):
        i = slice(row, row + 1)
        snr = float(a[row] / (1 - a[row]))
        expected = (snr + 1) * nft_loss(policy[i], old[i], clean[i], r[i], 0.4)
        found = nft_loss(mine[i], others[i], target[i], r[i], 0.4)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


def test_each_image_has_a_timestep_of_every_part_of_the_schedule(sd_folder: Path) -> None:
    schedule = open_with_adapter(sd_folder).schedule(4)
    pairs = noised_pairs(50, 4, schedule, generator=seeded())
    assert pairs[:, 0].bincount().tolist() == [4] * 50
    assert not torch.equal(pairs[:, 0], pairs[:, 0].sort().values)
    for image in range(50):
        parts = pairs[pairs[:, 0] == image, 1] // 250
        assert sorted(parts.tolist()) == [0, 1, 2, 3]
    assert 0 <= int(pairs[:, 1].min()) < 20
    assert 980 < int(pairs[:, 1].max()) < 1000


def test_prompts_get_their_turn_equally_often_and_never_twice_in_an_iteration() -> None:
    prompts = list("abcdefg")
    drawn = [prompts_of(prompts, 3, step) for step in range(7)]
    assert all(len(set(some)) == 3 for some in drawn)
    assert sorted(prompt for some in drawn for prompt in some) == sorted(prompts * 3)
    assert prompts_of(prompts, 9, 0) == prompts


def gained_brightness(folder: Path, reward: RewardFn) -> float:
    """Return the gain in brightness of a training on a reward, in spreads of the untuned model."""
    config = NFTConfig(
        iterations=6,
        images_per_prompt=32,
        noise_levels=4,
        updates=4,
        micro_batch=64,
        std_floor=1e-3,
        kl_weight=0.0,
        validation=ValidationConfig(every=6, images_per_prompt=64),
    )
    generator = seeded()
    model = open_with_adapter(folder, AdapterSettings(), generator=generator)
    training = training_of(
        model, config, prompts=["light"], reward=reward, sampler=SAMPLER, generator=generator
    )
    texts, seeds = ["light"] * 64, range(64)

    def of_new_images() -> Tensor:
        return brightness(draw(model, texts, training.sampler, seeds=seeds, batch=64), texts)

    before = of_new_images()
    list(trained(METHOD, training))
    return float((of_new_images().mean() - before.mean()) / before.std())


@pytest.mark.slow
def test_training_on_brightness_raises_it_and_training_on_noise_does_not(
    velocity_folder: Path,
) -> None:
    chance = seeded(5)

    def noise(images: Tensor, _: Sequence[str]) -> Tensor:
        return torch.rand(len(images), generator=chance)

    gain = gained_brightness(velocity_folder, brightness)
    by_chance = gained_brightness(velocity_folder, noise)
    assert gain > 0.8
    assert abs(by_chance) < 0.3 * gain, f"{by_chance} beside {gain}"


def test_the_old_policy_draws_and_follows_at_its_rate(velocity_folder: Path) -> None:
    for decay in (0.0, 0.75):
        model = open_with_adapter(velocity_folder)
        training = training_of(model, SMALL.model_copy(update={"old_decay": decay, "decay": False}))
        state = start(training)
        before = state.old
        metrics = METHOD.train(training, state)
        assert next(metrics).gap > 0
        tuned = model.adapter.state()
        assert any(not torch.equal(weight, before[name]) for name, weight in tuned.items())
        for name, weight in state.old.items():
            assert torch.equal(weight, decay * before[name] + (1 - decay) * tuned[name])
        state.old = before
        drawn = collect(replace(training, generator=seeded(9)), state)
        assert all(
            torch.equal(weight, tuned[name]) for name, weight in model.adapter.state().items()
        )
        untuned = training_of(open_with_adapter(velocity_folder), SMALL, generator=seeded(9))
        expected = collect(untuned, start(untuned))
        assert torch.equal(drawn.latents, expected.latents)


def test_one_update_an_iteration_never_feels_the_pull_to_the_last_policy(
    velocity_folder: Path,
) -> None:
    for decay in (0.0, 0.5):
        changes = {"updates": 1, "old_decay": decay, "decay": False}
        training = training_of(open_with_adapter(velocity_folder), SMALL.model_copy(update=changes))
        first, second = trained(METHOD, training)
        assert first.gap == 0
        assert (second.gap == 0) == (decay == 0)


def test_without_a_pull_the_base_is_never_asked(
    velocity_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_with_adapter(velocity_folder)
    monkeypatch.setattr(model, "adapter_off", None)
    (metrics,) = trained(
        METHOD, training_of(model, SMALL.model_copy(update={"kl_weight": 0.0, "iterations": 1}))
    )
    assert metrics.kl_loss is None
    assert metrics.validation_reward is not None
    assert set(metrics.reward_by_prompt) == {"a cat", "a dog"}
