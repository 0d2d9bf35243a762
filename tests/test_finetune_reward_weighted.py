"""The losses of reward-weighted likelihood against plain formulas."""

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor
from torch.nn import functional

from data.errors import PictuneError
from finetune.labels.weighted_batches import WeightedData, draw_batch, weighted_images
from finetune.learning.method import Training
from finetune.learning.reward_fn import RewardFn
from finetune.methods.reward_weighted import METHOD
from finetune.model.diffusion import DiffusionModel
from finetune.settings.reward_weighted import RewardWeightedConfig
from finetune.settings.sampler import Sampler
from finetune.settings.validation import ValidationConfig
from tests.support.small_training import open_with_adapter, seeded, trained, training_of

SMALL = RewardWeightedConfig(
    updates=3,
    batch=4,
    report_every=2,
    warmup=0,
    validation=ValidationConfig(every=100, images_per_prompt=1),
)


def randn(*shape: int) -> Tensor:
    """Return noise that is the same each time."""
    return torch.randn(shape, generator=seeded())


def small_data(rewards: list[float]) -> WeightedData:
    """Return random latents of two prompts with these rewards."""
    prompts = ["a cat", "a dog"] * (len(rewards) // 2)
    return WeightedData(randn(len(rewards), 4, 8, 8), prompts, torch.tensor(rewards))


def brightness(images: Tensor, _: object) -> Tensor:
    """Reward light images."""
    return images.mean((1, 2, 3))


def reward_weighted(
    model: DiffusionModel,
    data: WeightedData,
    config: RewardWeightedConfig = SMALL,
    *,
    reward: RewardFn = brightness,
    generator: torch.Generator | None = None,
) -> Training[Any]:
    """Return a training on the data with two sampler steps and seed 1."""
    return training_of(
        model,
        config,
        prompts=list(dict.fromkeys(data.prompts)),
        reward=reward,
        sampler=Sampler(steps=2),
        generator=generator or seeded(1),
        data=data,
    )


def test_loop_with_equal_rewards_and_no_pretraining_is_plain_denoising(sd_folder: Path) -> None:
    model, data = open_with_adapter(sd_folder), small_data([1.0, 1.0])
    settings = {
        "weighting": "raw",
        "pretraining_weight": 0.0,
        "caption_dropout": 0.0,
        "updates": 1,
    }
    training = reward_weighted(model, data, SMALL.model_copy(update=settings))
    (metrics,) = trained(METHOD, training)
    generator = seeded(1)
    chosen = torch.multinomial(torch.full((2,), 0.5), 4, replacement=True, generator=generator)
    latents = data.latents[chosen]
    noise = torch.randn(latents.shape, generator=generator)
    timesteps = (1000 * torch.rand(4, generator=generator)).long()
    cond = model.encode_prompts([data.prompts[i] for i in chosen])
    noisy = model.schedule(2).add_noise(latents, noise, timesteps)
    with torch.no_grad(), model.adapter_off():
        prediction = model.predict(noisy, timesteps, cond, cond, 1.0)
    assert metrics.loss == pytest.approx(functional.mse_loss(prediction, noise).item(), rel=1e-5)
    assert metrics.pretraining_loss is None


def test_kl_o_is_zero_and_has_no_gradient_while_the_model_is_the_base(sd_folder: Path) -> None:
    data, found = small_data([1.0, 0.2]), {}
    for kl in ("none", "kl-o"):
        settings = {"updates": 1, "kl": kl, "gamma": 5.0, "pretraining_weight": 0.0}
        config = SMALL.model_copy(update=settings)
        training = reward_weighted(open_with_adapter(sd_folder), data, config)
        (found[kl],) = trained(METHOD, training)
    assert found["kl-o"].kl_loss == 0
    assert found["kl-o"].gradient_norm == found["none"].gradient_norm


@pytest.mark.parametrize("power", [0.0, 2.0])
def test_timesteps_are_drawn_with_the_density_that_the_power_names(
    sd_folder: Path, power: float
) -> None:
    model, data = open_with_adapter(sd_folder), small_data([0.1, 0.9, 0.4, 0.6])
    config = SMALL.model_copy(update={"batch": 4000, "timestep_power": power})
    images, schedule = weighted_images(data, None, config, device=model.device), model.schedule(2)
    batch = draw_batch(images, config, schedule, generator=seeded(1))
    places = (batch.timesteps + 0.5) / len(schedule.training_timesteps)
    assert kstest(places.numpy(), lambda u: u ** (power + 1)).pvalue > 0.01


@pytest.mark.parametrize(("share", "warned"), [(0.05, True), (0.25, False)])
def test_weights_on_few_images_are_warned_of(
    sd_folder: Path, share: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config = SMALL.model_copy(update={"updates": 1, "weighting": "top", "top_share": share})
    data = small_data([i / 80 for i in range(80)])
    (metrics,) = trained(METHOD, reward_weighted(open_with_adapter(sd_folder), data, config))
    assert metrics.effective_sample_size == pytest.approx(share)
    assert ("5 % of 80 images really count" in caplog.text) == warned


def test_without_a_positive_weight_there_is_one_clear_line(sd_folder: Path) -> None:
    config = SMALL.model_copy(update={"weighting": "raw"})
    model, data = open_with_adapter(sd_folder), small_data([0.0, -1.0])
    training = reward_weighted(model, data, config, reward=lambda images, _: images)
    with pytest.raises(PictuneError, match="above 0"):
        next(trained(METHOD, training))


def test_data_of_different_lengths_are_refused() -> None:
    with pytest.raises(PictuneError, match="3 latents, 2 prompts"):
        WeightedData(randn(3, 4, 8, 8), ["a", "b"], torch.ones(2))
