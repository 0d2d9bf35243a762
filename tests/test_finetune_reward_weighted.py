"""Reward-weighted likelihood: its loss and weights against plain formulas, and its loop."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.nn import functional

from data.errors import PictuneError
from finetune.diffusion import DiffusionModel, LoraSettings
from finetune.reward_weighted import (
    RewardWeightedConfig,
    WeightedData,
    denoising_target,
    effective_sample_size,
    sample_weights,
    timestep_weights,
    train,
    weighted_denoising_loss,
)
from finetune.training import ValidationConfig
from tests.tiny_diffusion import write_tiny_diffusion

SMALL = RewardWeightedConfig(
    updates=3, batch=4, steps=2, report_every=2, warmup=0, validation=ValidationConfig(every=100, images_per_prompt=1)
)


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def small_data(rewards: list[float]) -> WeightedData:
    return WeightedData(randn(len(rewards), 4, 8, 8), ["a cat", "a dog"] * (len(rewards) // 2), torch.tensor(rewards))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_diffusion(tmp_path_factory.mktemp("tiny") / "model")


def open_model(folder: Path) -> DiffusionModel:
    model = DiffusionModel.from_pretrained(folder)
    model.add_lora(LoraSettings(rank=2), generator=torch.Generator().manual_seed(0))
    return model


def test_unit_weights_give_the_plain_denoising_error_and_scale_with_it() -> None:
    prediction, target = randn(2, 5, 4, 8, 8).unbind()
    plain = functional.mse_loss(prediction, target)
    torch.testing.assert_close(weighted_denoising_loss(prediction, target, torch.ones(5)), plain)
    torch.testing.assert_close(weighted_denoising_loss(prediction, target, torch.full((5,), 3.0)), 3 * plain)


def test_loop_with_equal_rewards_and_no_pretraining_is_plain_denoising(folder: Path) -> None:
    model, data = open_model(folder), small_data([1.0, 1.0])
    config = SMALL.model_copy(update={"weighting": "raw", "pretraining_weight": 0.0, "min_snr": None, "caption_dropout": 0.0, "updates": 1})
    (metrics,) = train(model, data, lambda images, _: images.mean((1, 2, 3)), config, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    chosen = torch.multinomial(torch.full((2,), 0.5), 4, replacement=True, generator=generator)
    latents = data.latents[chosen]
    noise = torch.randn(latents.shape, generator=generator)
    timesteps = torch.randint(1000, (4,), generator=generator)
    cond = model.encode_prompts([data.prompts[i] for i in chosen])
    with torch.no_grad(), model.adapters_off():
        prediction = model.predict(model.scheduler(2).add_noise(latents, noise, timesteps), timesteps, cond, cond, 1.0)
    assert metrics.loss == pytest.approx(functional.mse_loss(prediction, noise).item(), rel=1e-5)
    assert metrics.pretraining_loss is None


def test_raw_weights_are_the_rewards_above_zero() -> None:
    assert sample_weights(torch.tensor([-1.0, 0.0, 0.5]), ["a"] * 3, weighting="raw").tolist() == [0.0, 0.0, 0.5]


def test_raw_weights_plus_beta_are_the_chi_squared_optimum() -> None:
    rewards, beta = torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 0.3
    tuned = rewards + beta
    tuned = tuned / tuned.sum()
    penalty = rewards.mean() + beta

    def objective(q: Tensor) -> Tensor:
        return (q * rewards).sum() - penalty / 2 * ((q * 50 - 1).square() / 50).sum()

    for seed in range(5):
        change = torch.randn(50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert objective(tuned + 1e-3 * (change - change.mean())) < objective(tuned)


@pytest.mark.parametrize("weighting", ["exp", "top"])
def test_every_prompt_has_mean_weight_one(weighting: Literal["exp", "top"]) -> None:
    rewards = torch.tensor([0.9, 0.1, 0.5, 0.2, 0.8, 0.0])
    weights = sample_weights(rewards, ["a", "b"] * 3, weighting=weighting, temperature=0.3, top_share=0.5)
    torch.testing.assert_close(weights[0::2].mean(), torch.tensor(1.0))
    torch.testing.assert_close(weights[1::2].mean(), torch.tensor(1.0))
    assert weights[0] == weights[0::2].max()


def test_top_takes_each_prompts_best() -> None:
    weights = sample_weights(torch.tensor([0.9, 0.1, 0.5, 0.2]), ["a", "b", "a", "b"], weighting="top", top_share=0.5)
    assert weights.tolist() == [2.0, 0.0, 0.0, 2.0]


def test_effective_sample_size_counts_the_images_that_weigh() -> None:
    assert effective_sample_size(torch.ones(8)) == 1.0
    assert effective_sample_size(torch.tensor([1.0, 1.0, 0.0, 0.0])) == 0.5


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weighs_the_same_image_error_alike_for_every_prediction(prediction: str) -> None:
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type=prediction)
    timesteps = torch.tensor([10, 300, 600, 990])
    alphas = scheduler.alphas_cumprod[timesteps]
    snr = alphas / (1 - alphas)
    # The same error in the image appears this much larger or smaller in the predicted quantity.
    error = {"epsilon": snr, "v_prediction": 1 / (1 - alphas), "sample": torch.ones(4)}[prediction]
    torch.testing.assert_close(timestep_weights(scheduler, timesteps, 5.0) * error, snr.clamp(max=5.0), rtol=1e-4, atol=1e-6)
    assert timestep_weights(scheduler, timesteps, None).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_target_gives_back_the_image_through_the_samplers_formula(prediction: str) -> None:
    scheduler = DDIMScheduler(prediction_type=prediction, clip_sample=False)
    scheduler.set_timesteps(10)
    latents, noise = randn(2, 1, 4, 8, 8).unbind()
    timestep = torch.tensor([400])
    target = denoising_target(scheduler, latents, noise, timestep)
    noisy = scheduler.add_noise(latents, noise, timestep)
    torch.testing.assert_close(scheduler.step(target, 400, noisy).pred_original_sample, latents, rtol=1e-3, atol=1e-4)


def test_loop_reports_and_keeps_the_best_weights(folder: Path) -> None:
    model = open_model(folder)
    history = list(
        train(model, small_data([0.1, 0.9, 0.4, 0.3]), lambda images, _: images.mean((1, 2, 3)), SMALL, generator=torch.Generator())
    )
    assert [metrics.step for metrics in history] == [2, 3]
    assert history[0].validation_reward is None
    assert history[1].validation_reward is not None
    assert all(metrics.pretraining_loss and 0 < metrics.effective_sample_size <= 1 for metrics in history)


def test_nothing_to_learn_from_is_said(folder: Path) -> None:
    config = SMALL.model_copy(update={"weighting": "raw"})
    with pytest.raises(PictuneError, match="above 0"):
        next(train(open_model(folder), small_data([0.0, -1.0]), lambda images, _: images, config, generator=torch.Generator()))
    with pytest.raises(PictuneError, match="3 latents, 2 prompts"):
        WeightedData(randn(3, 4, 8, 8), ["a", "b"], torch.ones(2))
