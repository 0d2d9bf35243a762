"""Steps of the sampler against stock diffusers and torch.distributions, and reproducible images."""

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from finetune.model.diffusion import DiffusionModel
from finetune.model.sampler import (
    draw,
    draw_latents,
    padded_batches,
    sample_trajectories,
)
from finetune.model.sampling import log_prob, step_distribution
from finetune.model.schedule import DiffusionSchedule
from finetune.settings.sampler import Sampler, SamplerOverrides
from tests.support.small_training import seeded

SAMPLER = Sampler(steps=4)


@pytest.fixture(scope="module")
def model(sd_folder: Path) -> DiffusionModel:
    return DiffusionModel.from_pretrained(sd_folder)


def scheduler_of(**settings: object) -> DDIMScheduler:
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, **settings
    )
    scheduler.set_timesteps(7)
    return scheduler


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("set_alpha_to_one", [True, False])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_step_equals_the_stock_scheduler(
    prediction: str, set_alpha_to_one: bool, spacing: str, eta: float
) -> None:
    scheduler = scheduler_of(
        prediction_type=prediction,
        clip_sample=False,
        set_alpha_to_one=set_alpha_to_one,
        timestep_spacing=spacing,
        steps_offset=1,
    )
    schedule = DiffusionSchedule.of(scheduler)
    generator = seeded()
    for timestep in scheduler.timesteps:
        output, sample, noise = torch.randn(3, 2, 4, 8, 8, generator=generator).unbind()
        mean, std = step_distribution(schedule, output, timestep, sample, eta=eta)
        for drawn in (torch.zeros_like(noise), noise):
            stock = scheduler.step(output, timestep, sample, eta=eta, variance_noise=drawn)
            expected = stock.prev_sample
            torch.testing.assert_close(mean + std * drawn, expected, rtol=1e-5, atol=1e-5)


def test_log_prob_of_half_precision_is_computed_in_float32() -> None:
    sample, mean = torch.randn(2, 3, 4, 8, 8, generator=seeded()).bfloat16().unbind()
    std = torch.full((3, 1, 1, 1), 0.1)
    assert torch.equal(log_prob(sample, mean, std), log_prob(sample.float(), mean.float(), std))


def test_deterministic_last_step_has_no_log_prob_and_no_gradient() -> None:
    scheduler = scheduler_of(set_alpha_to_one=True, clip_sample=False)
    schedule = DiffusionSchedule.of(scheduler)
    output = torch.randn(1, 4, 8, 8, generator=seeded()).requires_grad_()
    last, sample = scheduler.timesteps[-1], torch.zeros(1, 4, 8, 8)
    mean, std = step_distribution(schedule, output, last, sample, eta=1.0)
    assert std.item() == 0
    value = log_prob(torch.ones(1, 4, 8, 8), mean, std)
    value.sum().backward()
    assert value.item() == 0
    assert output.grad is not None
    assert output.grad.abs().max() == 0


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_an_image_depends_on_its_seed_and_not_on_its_neighbors(
    model: DiffusionModel, eta: float
) -> None:
    sampler = Sampler(steps=3, eta=eta)
    together = draw(model, ["a", "b", "a", "c"], sampler, seeds=[1, 2, 3, 1], batch=4)
    alone = draw(model, ["a"], sampler, seeds=[3])
    torch.testing.assert_close(together[2:3], alone, rtol=0, atol=1e-5)
    assert (together[0] - together[2]).abs().max() > 0.01
    assert together.min() >= 0
    assert together.max() <= 1


def test_drawing_is_noisy_in_its_first_steps_alone_where_the_share_says_so(
    model: DiffusionModel,
) -> None:
    def drawn(eta: float, share: float = 1.0) -> Tensor:
        sampler = Sampler(steps=4, eta=eta, stochastic_share=share)
        return next(draw_latents(model, ["a"], sampler, seeds=[3]))

    assert torch.equal(drawn(1.0, 1.0), drawn(1.0))
    assert torch.equal(drawn(0.0, 0.5), drawn(0.0))
    assert not torch.equal(drawn(1.0, 0.5), drawn(1.0))
    cond, half = model.encode_prompts(["a"]), Sampler(steps=4, stochastic_share=0.5)
    chain = sample_trajectories(model, cond, half, generator=seeded(3), batch=1)
    torch.testing.assert_close(drawn(1.0, 0.5), chain.latents[:, -1])


@pytest.mark.parametrize(("share", "steps"), [(1.0, 10), (0.8, 8), (0.55, 6), (0.01, 1)])
def test_a_share_of_the_steps_is_rounded_and_at_least_one(share: float, steps: int) -> None:
    assert Sampler(steps=10, stochastic_share=share).stochastic_steps == steps


def test_a_methods_settings_override_the_runs_sampler_and_no_others() -> None:
    run = Sampler(steps=7, guidance=3.0, eta=0.5)
    overridden = run.overridden(SamplerOverrides(guidance=0.0, stochastic_share=0.2))
    assert overridden == Sampler(steps=7, guidance=0.0, eta=0.5, stochastic_share=0.2)
    assert run.overridden(SamplerOverrides()) == run


@pytest.mark.parametrize(("guidance", "expected"), [(1.0, 1), (2.0, 2)])
def test_guidance_of_one_skips_the_unconditional_half(
    model: DiffusionModel, guidance: float, expected: int
) -> None:
    rows: list[int] = []
    unet = model.pipeline.unet
    handle = unet.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    draw(model, ["a"], Sampler(steps=1, guidance=guidance, eta=0.0), seeds=[0])
    handle.remove()
    assert rows == [expected]


def test_padding_repeats_rows_up_to_the_batch() -> None:
    parts = [(part.tolist(), real) for part, real in padded_batches(torch.arange(5), 3)]
    assert parts == [([0, 1, 2], 3), ([3, 4, 3], 2)]
