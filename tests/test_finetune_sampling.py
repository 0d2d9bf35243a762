"""Steps of the sampler against stock diffusers and torch.distributions; images that depend on their seeds alone."""

import pytest
import torch
from diffusers import DDIMScheduler
from torch.distributions import Normal, kl_divergence

from finetune.diffusion import DiffusionModel
from finetune.dpok import gaussian_kl
from finetune.reward_weighted import denoising_target
from finetune.sampling import (
    draw,
    draw_latents,
    log_prob,
    padded_batches,
    sample_trajectories,
    step_distribution,
)
from tests.tiny_diffusion import write_tiny_diffusion


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    return DiffusionModel.from_pretrained(
        write_tiny_diffusion(tmp_path_factory.mktemp("tiny") / "model")
    )


def scheduler_of(**settings: object) -> DDIMScheduler:
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, **settings
    )
    scheduler.set_timesteps(7)
    return scheduler


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("clip_sample", [True, False])
@pytest.mark.parametrize("set_alpha_to_one", [True, False])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_step_equals_the_stock_scheduler(
    prediction: str, clip_sample: bool, set_alpha_to_one: bool, spacing: str, eta: float
) -> None:
    scheduler = scheduler_of(
        prediction_type=prediction,
        clip_sample=clip_sample,
        set_alpha_to_one=set_alpha_to_one,
        timestep_spacing=spacing,
        steps_offset=1,
    )
    generator = torch.Generator().manual_seed(0)
    for timestep in scheduler.timesteps:
        output, sample, noise = torch.randn(3, 2, 4, 8, 8, generator=generator).unbind()
        mean, std = step_distribution(scheduler, output, timestep, sample, eta=eta)
        for drawn in (torch.zeros_like(noise), noise):
            stock = scheduler.step(
                output, timestep, sample, eta=eta, variance_noise=drawn
            ).prev_sample
            torch.testing.assert_close(mean + std * drawn, stock, rtol=1e-5, atol=1e-5)


def test_a_vector_of_timesteps_gives_each_row_its_own_step() -> None:
    scheduler = scheduler_of(set_alpha_to_one=False, clip_sample=False)
    output, sample = torch.randn(2, 7, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    mean, std = step_distribution(scheduler, output, scheduler.timesteps, sample, eta=1.0)
    for i, timestep in enumerate(scheduler.timesteps):
        one_mean, one_std = step_distribution(
            scheduler, output[i : i + 1], timestep, sample[i : i + 1], eta=1.0
        )
        assert torch.equal(mean[i : i + 1], one_mean)
        assert torch.equal(std[i : i + 1], one_std)


def test_log_prob_is_the_mean_of_torch_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    sample, mean = torch.randn(2, 5, 4, 8, 8, generator=generator).unbind()
    std = torch.rand(5, 1, 1, 1, generator=generator) + 0.1
    torch.testing.assert_close(
        log_prob(sample, mean, std), Normal(mean, std).log_prob(sample).mean((1, 2, 3))
    )


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("clip_sample", [True, False])
def test_log_prob_of_a_step_is_that_of_the_stock_step_under_the_closed_form_deviation(
    prediction: str, clip_sample: bool
) -> None:
    scheduler = scheduler_of(
        prediction_type=prediction, clip_sample=clip_sample, set_alpha_to_one=False, steps_offset=1
    )
    alphas, stride = scheduler.alphas_cumprod, 1000 // 7
    generator = torch.Generator().manual_seed(0)
    for timestep in scheduler.timesteps:
        output, sample, noise, drawn = torch.randn(4, 3, 4, 8, 8, generator=generator).unbind()
        at, before = (
            alphas[timestep],
            alphas[max(int(timestep) - stride, 0)],
        )  # set_alpha_to_one=False ends at the first training step
        deviation = ((1 - before) / (1 - at) * (1 - at / before)).sqrt()
        stock = scheduler.step(
            output, timestep, sample, eta=1.0, variance_noise=torch.zeros_like(noise)
        ).prev_sample
        following = stock + 0.5 * deviation * drawn
        expected = Normal(stock, deviation).log_prob(following).mean((1, 2, 3))
        mean, std = step_distribution(scheduler, output, timestep, sample, eta=1.0)
        torch.testing.assert_close(log_prob(following, mean, std), expected, rtol=1e-4, atol=1e-4)


def test_kl_of_a_step_is_a_weight_times_the_squared_difference_of_the_predicted_noise() -> None:
    scheduler = scheduler_of(
        prediction_type="epsilon", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    output, reference, sample = torch.randn(
        3, 7, 4, 8, 8, generator=torch.Generator().manual_seed(0)
    ).unbind()
    steps = scheduler.timesteps
    mean, std = step_distribution(scheduler, output, steps, sample, eta=1.0)
    ref_mean, _ = step_distribution(scheduler, reference, steps, sample, eta=1.0)
    at, before = (
        scheduler.alphas_cumprod[(steps - shift).clamp(min=0)].double().view(-1, 1, 1, 1)
        for shift in (0, 1000 // 7)
    )
    variance = (1 - before) / (1 - at) * (1 - at / before)
    # mean = sqrt(before) * (x - sqrt(1 - at) eps) / sqrt(at) + sqrt(1 - before - variance) eps, so eps enters with this factor
    factor = (1 - before - variance).sqrt() - (before * (1 - at) / at).sqrt()
    weighted = (factor.square() / (2 * variance) * (output - reference).double().square()).float()
    torch.testing.assert_close(
        gaussian_kl(mean, ref_mean, std), weighted.sum((1, 2, 3)), rtol=1e-3, atol=1e-4
    )
    expected = kl_divergence(Normal(mean, std), Normal(ref_mean, std)).mean((1, 2, 3))
    torch.testing.assert_close(
        gaussian_kl(mean, ref_mean, std, reduction="mean"), expected, rtol=1e-4, atol=1e-6
    )


def test_the_same_image_predicted_in_any_way_gives_the_same_step() -> None:
    image, noise = torch.randn(2, 7, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    steps = []
    for prediction in ("epsilon", "v_prediction", "sample"):
        scheduler = scheduler_of(
            prediction_type=prediction, clip_sample=False, set_alpha_to_one=False, steps_offset=1
        )
        sample = scheduler.add_noise(image, noise, scheduler.timesteps)
        output = denoising_target(scheduler, image, noise, scheduler.timesteps)
        steps.append(step_distribution(scheduler, output, scheduler.timesteps, sample, eta=1.0))
    for mean, std in steps[1:]:
        torch.testing.assert_close(mean, steps[0][0], rtol=1e-3, atol=1e-3)
        assert torch.equal(std, steps[0][1])


def test_log_prob_of_half_precision_is_computed_in_float32() -> None:
    sample, mean = (
        torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16().unbind()
    )
    std = torch.full((3, 1, 1, 1), 0.1)
    assert torch.equal(log_prob(sample, mean, std), log_prob(sample.float(), mean.float(), std))


def test_deterministic_last_step_has_no_log_prob_and_no_gradient() -> None:
    scheduler = scheduler_of(set_alpha_to_one=True, clip_sample=False)
    output = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mean, std = step_distribution(
        scheduler, output, scheduler.timesteps[-1], torch.zeros(1, 4, 8, 8), eta=1.0
    )
    assert std.item() == 0
    value = log_prob(torch.ones(1, 4, 8, 8), mean, std)
    value.sum().backward()
    assert value.item() == 0
    assert output.grad is not None
    assert output.grad.abs().max() == 0


def test_trajectories_store_the_log_prob_of_the_stored_samples(model: DiffusionModel) -> None:
    cond = model.encode_prompts(["a cat", "a dog", "a cat"])
    chains = sample_trajectories(
        model,
        cond,
        steps=4,
        guidance=2.0,
        eta=1.0,
        generator=torch.Generator().manual_seed(0),
        batch=2,
    )
    assert chains.latents.shape == (3, 5, 4, 8, 8)
    scheduler, uncond = model.scheduler(4), model.encode_prompts([""]).expand_as(cond)
    for i, timestep in enumerate(chains.timesteps):
        with torch.no_grad():
            output = model.predict(chains.latents[:, i], timestep.expand(3), cond, uncond, 2.0)
        mean, std = step_distribution(scheduler, output, timestep, chains.latents[:, i], eta=1.0)
        torch.testing.assert_close(
            chains.log_probs[:, i],
            log_prob(chains.latents[:, i + 1], mean, std),
            rtol=1e-4,
            atol=1e-4,
        )


def test_later_steps_are_deterministic_and_carry_no_log_prob(model: DiffusionModel) -> None:
    cond = model.encode_prompts(["a cat", "a dog"])
    generator = torch.Generator().manual_seed(0)
    chains = sample_trajectories(
        model,
        cond,
        steps=4,
        guidance=2.0,
        eta=1.0,
        generator=generator,
        stochastic_steps=2,
        batch=2,
    )
    assert (chains.log_probs[:, :2] != 0).all()
    assert (chains.log_probs[:, 2:] == 0).all()
    scheduler, uncond = model.scheduler(4), model.encode_prompts([""]).expand_as(cond)
    for i in (2, 3):
        with torch.no_grad():
            output = model.predict(
                chains.latents[:, i], chains.timesteps[i].expand(2), cond, uncond, 2.0
            )
        mean, _ = step_distribution(
            scheduler, output, chains.timesteps[i], chains.latents[:, i], eta=0.0
        )
        torch.testing.assert_close(chains.latents[:, i + 1], mean)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_an_image_depends_on_its_seed_and_not_on_its_neighbours(
    model: DiffusionModel, eta: float
) -> None:
    together = draw(
        model, ["a", "b", "a", "c"], seeds=[1, 2, 3, 1], steps=3, guidance=2.0, eta=eta, batch=4
    )
    alone = draw(model, ["a"], seeds=[3], steps=3, guidance=2.0, eta=eta)
    torch.testing.assert_close(together[2:3], alone, rtol=0, atol=1e-5)
    assert (together[0] - together[2]).abs().max() > 0.01
    assert together.min() >= 0
    assert together.max() <= 1


def test_drawing_is_noisy_in_its_first_steps_alone_where_that_is_asked_for(
    model: DiffusionModel,
) -> None:
    def drawn(eta: float, stochastic_steps: int | None = None) -> torch.Tensor:
        return next(
            draw_latents(
                model,
                ["a"],
                seeds=[3],
                steps=4,
                guidance=2.0,
                eta=eta,
                stochastic_steps=stochastic_steps,
            )
        )

    assert torch.equal(drawn(1.0, 4), drawn(1.0))
    assert torch.equal(drawn(1.0, 0), drawn(0.0))
    generator = torch.Generator().manual_seed(3)
    cond = model.encode_prompts(["a"])
    chain = sample_trajectories(
        model,
        cond,
        steps=4,
        guidance=2.0,
        eta=1.0,
        generator=generator,
        stochastic_steps=2,
        batch=1,
    )
    torch.testing.assert_close(drawn(1.0, 2), chain.latents[:, -1])


def test_drawing_equals_the_stock_pipeline_with_ddim(model: DiffusionModel) -> None:
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(5))
    stock = model.pipeline
    kept, stock.scheduler = stock.scheduler, model.scheduler(4)
    images = stock(
        "a dog",
        num_inference_steps=4,
        guidance_scale=3.0,
        latents=noise,
        height=16,
        width=16,
        output_type="pt",
    ).images
    stock.scheduler = kept
    torch.testing.assert_close(
        draw(model, ["a dog"], seeds=[5], steps=4, guidance=3.0), images, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(("guidance", "expected"), [(1.0, 1), (2.0, 2)])
def test_guidance_of_one_skips_the_unconditional_half(
    model: DiffusionModel, guidance: float, expected: int
) -> None:
    rows: list[int] = []
    handle = model.pipeline.unet.register_forward_pre_hook(
        lambda _, inputs: rows.append(len(inputs[0]))
    )
    draw(model, ["a"], seeds=[0], steps=1, guidance=guidance)
    handle.remove()
    assert rows == [expected]


def test_padding_repeats_rows_up_to_the_batch() -> None:
    parts = [(part.tolist(), real) for part, real in padded_batches(torch.arange(5), 3)]
    assert parts == [([0, 1, 2], 3), ([3, 4, 3], 2)]


def test_unset_timesteps_are_refused() -> None:
    with pytest.raises(ValueError, match="set_timesteps"):
        step_distribution(
            DDIMScheduler(), torch.zeros(1, 4, 2, 2), 1, torch.zeros(1, 4, 2, 2), eta=1.0
        )
