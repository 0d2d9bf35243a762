"""The losses of reward-weighted likelihood against plain formulas."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from scipy.stats import kstest
from torch import Tensor
from torch.nn import functional

from finetune.labels.weighted_batches import draw_batch, weighted_images
from finetune.methods.reward_weighted import METHOD, batch_losses
from finetune.model.denoising import denoising_target, timestep_weights, weighted_denoising_loss
from finetune.model.processes import SINGLE_PROCESS, Processes
from finetune.model.schedule import DiffusionSchedule
from finetune.settings.reward_weighted import RewardWeightedConfig
from finetune.settings.validation import ValidationConfig
from tests.support.small_reward_weighted import (
    SMALL,
    randn,
    reward_weighted,
    small_data,
)
from tests.support.small_training import open_with_adapter, perturb, seeded, trained


def test_unit_weights_give_the_plain_denoising_error_and_scale_with_it() -> None:
    prediction, target = randn(2, 5, 4, 8, 8).unbind()
    plain = functional.mse_loss(prediction, target)
    torch.testing.assert_close(weighted_denoising_loss(prediction, target, torch.ones(5)), plain)
    threefold = weighted_denoising_loss(prediction, target, torch.full((5,), 3.0))
    torch.testing.assert_close(threefold, 3 * plain)


def test_loop_with_equal_rewards_and_no_pretraining_is_plain_denoising(sd_folder: Path) -> None:
    model, data = open_with_adapter(sd_folder), small_data([1.0, 1.0])
    settings = {
        "weighting": "raw",
        "pretraining_weight": 0.0,
        "min_snr": 0.0,
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


def test_kl_o_adds_the_squared_difference_to_the_base(sd_folder: Path) -> None:
    data = small_data([1.0, 0.2, 0.4, 0.9])
    alone = {"pretraining_weight": 0.0, "updates": 1, "learning_rate": 0.0}
    losses = {}
    for kl in ("none", "kl-o"):
        model = open_with_adapter(sd_folder)
        perturb(model)
        config = SMALL.model_copy(update=alone | {"kl": kl, "gamma": 3.0})
        (losses[kl],) = trained(METHOD, reward_weighted(model, data, config))
    assert losses["none"].kl_loss is None
    assert losses["kl-o"].kl_loss is not None
    assert losses["kl-o"].kl_loss > 0
    assert losses["kl-o"].loss == losses["none"].loss
    assert losses["kl-o"].gradient_norm != losses["none"].gradient_norm


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


@pytest.mark.parametrize("count", [2, 5])
def test_the_processes_parts_of_a_batch_add_up_to_it(sd_folder: Path, count: int) -> None:
    model, data = open_with_adapter(sd_folder), small_data([0.1, 0.9, 0.4, 0.6])
    perturb(model)
    config = SMALL.model_copy(update={"kl": "kl-o", "gamma": 2.0})
    images = weighted_images(data, data, config, device=model.device)
    schedule = model.schedule(2)
    batch = draw_batch(images, config, schedule, generator=seeded(1))
    parameters = list(model.adapter.parameters().values())

    def losses_and_gradient(processes: Processes) -> tuple[Tensor, Tensor]:
        rows, weight = processes.share(len(batch.latents), 1), images.mean_weight
        if not len(rows):
            return torch.zeros(3), torch.zeros(sum(p.numel() for p in parameters))
        losses = batch_losses(model, schedule, batch, rows, config, mean_weight=weight)
        stacked = torch.stack(losses)
        gradient = torch.autograd.grad(stacked.sum(), parameters)
        return stacked.detach(), torch.cat([part.flatten() for part in gradient])

    whole, gradient = losses_and_gradient(SINGLE_PROCESS)
    parts = [losses_and_gradient(Processes(rank, count)) for rank in range(count)]
    assert (whole > 0).all()
    torch.testing.assert_close(sum(losses for losses, _ in parts), whole)
    torch.testing.assert_close(sum(part for _, part in parts), gradient)
    assert all(not torch.equal(losses, whole) for losses, _ in parts)


def test_micro_batches_add_up_to_the_batch(sd_folder: Path) -> None:
    model, data, rows = open_with_adapter(sd_folder), small_data([0.1, 0.9, 0.4, 0.6]), []
    perturb(model)
    predict = model.predict

    def noted(latents: Tensor, *rest: Any, **named: Any) -> Tensor:
        rows.append(len(latents))
        return predict(latents, *rest, **named)

    model.predict = noted  # type: ignore[method-assign]
    validation = ValidationConfig(images_per_prompt=1)
    found = []
    for micro_batch in (8, 3):
        before = model.adapter.state()
        settings = {"updates": 1, "batch": 8, "micro_batch": micro_batch, "validation": validation}
        config = SMALL.model_copy(update=settings)
        (metrics,) = trained(METHOD, reward_weighted(model, data, config))
        model.adapter.set_state(before)
        found.append(metrics)
    assert rows.count(8) == 1
    assert rows.count(3) == 2
    for name in ("loss", "pretraining_loss", "gradient_norm"):
        assert getattr(found[1], name) == pytest.approx(getattr(found[0], name), rel=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weighs_the_same_image_error_alike_for_every_prediction(prediction: str) -> None:
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction,
    )
    scheduler.set_timesteps(10)
    schedule = DiffusionSchedule.of(scheduler)
    timesteps = torch.tensor([10, 300, 600, 990])
    alphas = scheduler.alphas_cumprod[timesteps]
    snr = alphas / (1 - alphas)
    # The same error in the image appears this much larger or smaller in the predicted quantity.
    error = {"epsilon": snr, "v_prediction": 1 / (1 - alphas), "sample": torch.ones(4)}[prediction]
    weighted = timestep_weights(schedule, timesteps, 5.0) * error
    torch.testing.assert_close(weighted, snr.clamp(max=5.0), rtol=1e-4, atol=1e-6)
    # Not weighted, as by default, the noisiest steps count as much as the others.
    default = RewardWeightedConfig().min_snr
    assert timestep_weights(schedule, timesteps, default).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_target_gives_back_the_image_through_the_samplers_formula(prediction: str) -> None:
    scheduler = DDIMScheduler(prediction_type=prediction, clip_sample=False)
    scheduler.set_timesteps(10)
    latents, noise = randn(2, 1, 4, 8, 8).unbind()
    timestep = torch.tensor([400])
    target = denoising_target(DiffusionSchedule.of(scheduler), latents, noise, timestep)
    noisy = scheduler.add_noise(latents, noise, timestep)
    found = scheduler.step(target, 400, noisy).pred_original_sample
    torch.testing.assert_close(found, latents, rtol=1e-3, atol=1e-4)
