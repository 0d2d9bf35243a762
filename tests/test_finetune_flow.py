"""Families of flows: schedule and steps of flows, and models against their stock pipelines."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from data.errors import PictuneError
from finetune.model.denoising import (
    denoising_target,
    noised_pairs,
    spread_timesteps,
)
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampler import draw, sample_trajectories
from finetune.model.sampling import (
    clean_latents,
    log_prob,
    noise_per_output,
    step_distribution,
    velocity_per_output,
)
from finetune.model.schedule import FlowSchedule
from finetune.settings.model import AdapterSettings
from finetune.settings.sampler import Sampler
from tests.support.small_training import perturb, seeded
from tests.support.tiny_flow import write_tiny_flux, write_tiny_sd3
from tests.support.tiny_language import LANGUAGE_WRITERS

OPTIONAL = Path(sys.prefix) / "optional"
"""Folder in which `make setup` puts torchao: apart, as whatever process finds it imports it."""


class Layout(NamedTuple):
    """A folder, and what the stock pipeline needs to be told to open it."""

    folder: Path
    left_out: dict[str, None]
    name: str = ""


WRITERS: dict[str, Callable[[Path], Path]] = {
    "sd3": write_tiny_sd3,
    "sd3 without T5": partial(write_tiny_sd3, with_t5=False),
    "sd3 of wide CLIPs": partial(write_tiny_sd3, t5_width=24),
    "flux dev": write_tiny_flux,
    "flux schnell": partial(write_tiny_flux, guidance_embeds=False),
    **LANGUAGE_WRITERS,
}
_BOTH_SIDES = ("attn.to_q", "attn.add_k_proj", "attn.to_add_out")
_FLUX_1 = (*_BOTH_SIDES, "ff.net.2", "ff_context.net.0.proj")
LAYERS = {
    "sd3": _FLUX_1,
    "flux": _FLUX_1,
    "z-image": ("attention.to_q", "feed_forward.w3"),
    "klein": (
        *(*_BOTH_SIDES, "ff.linear_in", "ff_context.linear_out"),
        *(
            "single_transformer_blocks.0.attn.to_qkv_mlp_proj",
            "single_transformer_blocks.0.attn.to_out",
        ),
    ),
    "qwen-image": (*_BOTH_SIDES, "img_mlp.net.0.proj", "txt_mlp.net.2"),
}
"""Some layers with a LoRA, by the first word of the layout."""


@pytest.fixture(scope="module", params=WRITERS)
def layout(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    folder = WRITERS[request.param](tmp_path_factory.mktemp("flow") / "model")
    without = request.param == "sd3 without T5"
    left_out = {"text_encoder_3": None, "tokenizer_3": None} if without else {}
    return Layout(folder, left_out, request.param)


def open_flow(layout: Layout, **settings: Any) -> DiffusionModel:
    return DiffusionModel.from_pretrained(layout.folder, **{"image_size": 16} | settings)


def stock_image(layout: Layout, model: DiffusionModel, guidance: float, **more: Any) -> Tensor:
    """Return the image that the stock pipeline draws from seed 5 in four steps."""
    stock = DiffusionPipeline.from_pretrained(layout.folder, **layout.left_out)
    if lora := more.pop("lora", None):
        stock.load_lora_weights(lora)
    height, width = model.image_size
    arguments = model.family.stock_arguments(guidance) | {"height": height, "width": width} | more
    images: Tensor = stock(
        prompt="a dog", num_inference_steps=4, generator=seeded(5), output_type="pt", **arguments
    ).images
    return images


def schedule_of(steps: int = 6, **settings: Any) -> FlowSchedule:
    scheduler = FlowMatchEulerDiscreteScheduler(**{"shift": 3.0} | settings)
    training_sigmas = scheduler.sigmas.flip(0)
    scheduler.set_timesteps(steps)
    return FlowSchedule.of(scheduler, training_sigmas)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_every_layout_draws_the_image_of_its_stock_pipeline(
    layout: Layout, guidance: float
) -> None:
    for size in (16, 32):
        model = open_flow(layout, image_size=size)
        images = stock_image(layout, model, guidance)
        sampler = Sampler(steps=4, guidance=guidance, eta=0.0)
        found = draw(model, ["a dog"], sampler, seeds=[5])
        assert found.shape == (1, 3, size, size)
        torch.testing.assert_close(found, images, rtol=0, atol=1e-5)


def test_a_lora_adapts_both_sides_of_the_attention_and_loads_into_the_stock_pipeline(
    layout: Layout, tmp_path: Path
) -> None:
    model = open_flow(layout)
    model.add_adapter(AdapterSettings(rank=2), generator=seeded())
    names = set(model.adapter.parameters())
    for part in LAYERS[layout.name.split()[0]]:
        assert any(part in name for name in names), part
    sampler = Sampler(steps=4, guidance=1.0, eta=0.0)
    untuned = draw(model, ["a dog"], sampler, seeds=[5])
    perturb(model)
    tuned = draw(model, ["a dog"], sampler, seeds=[5])
    assert (tuned - untuned).abs().max() > 1e-3
    with model.adapter_off():
        assert torch.equal(draw(model, ["a dog"], sampler, seeds=[5]), untuned)
    model.adapter.save(tmp_path)
    images = stock_image(layout, model, 1.0, lora=tmp_path)
    torch.testing.assert_close(tuned, images, rtol=0, atol=1e-5)
    reopened = open_flow(layout)
    reopened.load_adapter(tmp_path)
    torch.testing.assert_close(draw(reopened, ["a dog"], sampler, seeds=[5]), tuned)


def test_images_survive_encoding_and_decoding_like_the_stock_vae(layout: Layout) -> None:
    model = open_flow(layout)
    images = torch.rand(2, 3, 16, 16, generator=seeded(1))
    latents, vae = model.encode_images(images), model.pipeline.vae
    if layout.name.startswith("klein"):
        stock = model.pipeline._encode_vae_image(2 * images - 1, None)
    elif layout.name == "qwen-image":
        mode = vae.encode(2 * images.unsqueeze(2) - 1).latent_dist.mode().squeeze(2)
        mean, std = (
            torch.tensor(one).view(-1, 1, 1)
            for one in (vae.config.latents_mean, vae.config.latents_std)
        )
        stock = (mode - mean) / std
    else:
        mode = vae.encode(2 * images - 1).latent_dist.mode()
        stock = (mode - vae.config.shift_factor) * vae.config.scaling_factor
    torch.testing.assert_close(latents, stock)


def test_prompts_of_different_length_in_a_batch_draw_the_images_that_each_draws_alone(
    layout: Layout,
) -> None:
    model, sampler = open_flow(layout), Sampler(steps=2, guidance=3.0, eta=0.0)
    prompts = ["a dog", "two cats on a table, and a bird above them"]
    together = draw(model, prompts, sampler, seeds=[5, 6])
    for image, prompt, seed in zip(together, prompts, (5, 6), strict=True):
        alone = draw(open_flow(layout), [prompt], sampler, seeds=[seed])[0]
        torch.testing.assert_close(image, alone, rtol=0, atol=1e-5)


def test_gradient_checkpointing_gives_the_same_gradients(layout: Layout) -> None:
    gradients = list[list[Tensor]]()
    for is_on in (False, True):
        model = open_flow(layout)
        model.add_adapter(AdapterSettings(rank=2), generator=seeded())
        perturb(model)
        if is_on:
            model.checkpoint_gradients()
        assert model.network.is_gradient_checkpointing == is_on
        cond, latents = model.encode_prompts(["a dog"]), torch.ones(1, *model.latent_shape)
        output = model.predict(0.5 * latents, torch.tensor([500.0]), cond, cond, 1.0)
        model.decode(output).square().mean().backward()
        weights = model.adapter.parameters().values()
        gradients.append([one.grad for one in weights if one.grad is not None])
    assert any(one.abs().max() > 0 for one in gradients[0])
    torch.testing.assert_close(gradients[1], gradients[0])


def test_the_first_ratio_of_a_stochastic_chain_is_one(layout: Layout) -> None:
    model = open_flow(layout)
    model.add_adapter(AdapterSettings(rank=2), generator=seeded())
    sampler = Sampler(steps=4, guidance=2.0, eta=0.7, stochastic_share=0.5)
    cond = model.encode_prompts(["a dog", "a cat"])
    chains = sample_trajectories(model, cond, sampler, generator=seeded(2), batch=2)
    schedule, uncond = model.schedule(4), model.encode_prompts([""]).expand_as(cond)
    for i, timestep in enumerate(chains.timesteps[:2]):
        before, at = chains.latents[:, i], timestep.expand(2)
        output = model.predict(before, at, cond, uncond, 2.0)
        mean, std = step_distribution(schedule, output, at, before, eta=0.7)
        assert std.min() > 0
        again = log_prob(chains.latents[:, i + 1], mean, std)
        assert torch.equal(again.detach(), chains.log_probs[:, i])
    assert not chains.log_probs[:, 2:].any()


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.7, 1.0])
def test_step_and_log_prob_are_those_of_the_published_flow_cps(eta: float) -> None:
    schedule = schedule_of()
    sample, output, drawn = torch.randn(3, 6, 4, 8, 8, generator=seeded()).unbind()
    mean, std = step_distribution(schedule, output, schedule.timesteps, sample, eta=eta)
    following = mean + std * drawn
    found = log_prob(following, mean, std)
    for i in range(6):
        sigma, after = float(schedule.sigmas[i]), float(schedule.sigmas[i + 1])
        deviation = after * math.sin(eta * math.pi / 2)
        image = sample[i] - sigma * output[i]
        noise = sample[i] + (1 - sigma) * output[i]
        expected = (1 - after) * image + math.sqrt(after**2 - deviation**2) * noise
        torch.testing.assert_close(mean[i], expected, rtol=1e-5, atol=1e-5)
        assert float(std[i]) == pytest.approx(deviation, abs=1e-7)
        if deviation > 0:
            # It leaves out the constants of the Gaussian and its scale.
            published = -(following[i] - expected).square().mean()
            constants = math.log(deviation) + 0.5 * math.log(2 * math.pi)
            density = published / (2 * deviation**2) - constants
            torch.testing.assert_close(found[i], density, rtol=1e-4, atol=1e-4)
        else:
            assert found[i] == 0


def test_eta_0_is_the_euler_step_and_eta_1_the_stochastic_one_of_diffusers() -> None:
    sample, output = torch.randn(2, 1, 4, 8, 8, generator=seeded()).unbind()
    for eta, is_stochastic in ((0.0, False), (1.0, True)):
        stock = FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=is_stochastic)
        stock.set_timesteps(6)
        schedule = schedule_of()
        for timestep in stock.timesteps:
            mean, std = step_distribution(schedule, output, timestep, sample, eta=eta)
            noise = torch.randn(sample.shape, generator=seeded(7))
            expected = stock.step(output, timestep, sample, generator=seeded(7)).prev_sample
            torch.testing.assert_close(mean + std * noise, expected, rtol=1e-4, atol=1e-5)


def test_noised_images_lead_back_to_the_image_through_target_and_step() -> None:
    schedule = schedule_of()
    image, noise = torch.randn(2, 6, 4, 8, 8, generator=seeded()).unbind()
    at = schedule.timesteps
    noisy = schedule.add_noise(image, noise, at)
    share = (at / 1000).view(-1, 1, 1, 1)
    torch.testing.assert_close(noisy, (1 - share) * image + share * noise)
    target = denoising_target(schedule, image, noise, at)
    torch.testing.assert_close(target, noise - image)
    found = clean_latents(schedule, target, at, noisy)
    torch.testing.assert_close(found, image, rtol=1e-4, atol=1e-5)
    mean, _ = step_distribution(schedule, target, at, noisy, eta=0.0)
    after = torch.cat([at[1:], torch.zeros(1)])
    expected = schedule.add_noise(image, noise, after)
    torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-5)


def test_factors_of_outputs_are_those_of_the_formulas_and_finite_at_pure_noise() -> None:
    schedule = schedule_of()
    at = schedule.timesteps
    latents, output, other = torch.randn(3, 6, 4, 8, 8, generator=seeded()).unbind()
    noise = [latents + (1 - (at / 1000).view(-1, 1, 1, 1)) * one for one in (output, other)]
    factor = noise_per_output(schedule, at)
    torch.testing.assert_close(factor * (output - other), noise[0] - noise[1], rtol=1e-4, atol=1e-5)
    assert torch.equal(velocity_per_output(schedule, at), torch.ones(6, 1, 1, 1))


def test_training_draws_from_the_shifted_schedule_evenly() -> None:
    schedule = schedule_of()
    times = spread_timesteps(schedule, 1000, generator=seeded()).sort().values
    assert torch.equal(times, schedule.training_timesteps)
    shares = torch.arange(1, 1001) / 1000
    expected = 1000 * 3 * shares / (1 + 2 * shares)
    torch.testing.assert_close(times, expected, rtol=1e-4, atol=1e-3)
    pairs = noised_pairs(3, 4, schedule, generator=seeded())
    assert pairs[:, 0].bincount().tolist() == [4, 4, 4]


def test_larger_images_stay_longer_in_noise_where_the_schedule_says_so(tmp_path: Path) -> None:
    layout = Layout(write_tiny_flux(tmp_path / "model"), {})
    small, large = (open_flow(layout, image_size=size).schedule(4) for size in (16, 64))
    assert (large.timesteps[1:] > small.timesteps[1:]).all()
    assert (large.training_timesteps[:-1] > small.training_timesteps[:-1]).all()


def test_8_bits_without_torchao_get_one_clear_line(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(PictuneError, match=r'run\.weights: "int8" needs torchao'):
        open_flow(layout, weights="int8")


def test_the_size_must_be_one_that_the_network_draws(layout: Layout) -> None:
    with pytest.raises(PictuneError, match=r"run\.image_size: 18 pixels .* multiple of 4"):
        open_flow(layout, image_size=18)


def test_the_size_must_be_one_that_sd3_has_positions_for(tmp_path: Path) -> None:
    sd3, flux = (Layout(WRITERS[name](tmp_path / name), {}) for name in ("sd3", "flux dev"))
    with pytest.raises(PictuneError, match=r"run\.image_size: 36 pixels .* give at most 32$"):
        open_flow(sd3, image_size=36)
    assert open_flow(flux, image_size=36).image_size == (36, 36)  # its positions are computed


def test_one_step_is_refused_by_a_schedule_that_ends_above_no_noise(tmp_path: Path) -> None:
    layout = Layout(LANGUAGE_WRITERS["qwen-image"](tmp_path / "model"), {})
    with pytest.raises(PictuneError, match=r"sampler\.steps: 1; this model needs 2 or more"):
        open_flow(layout).schedule(1)


def test_weights_in_half_precision_draw_nearly_the_same_and_train(layout: Layout) -> None:
    model, half = open_flow(layout), open_flow(layout, weights="bf16")
    sampler = Sampler(steps=4, guidance=1.0, eta=0.0)
    found, expected = (draw(one, ["a dog"], sampler, seeds=[5]) for one in (half, model))
    assert (found - expected).abs().mean() < 0.02
    half.add_adapter(AdapterSettings(rank=2), generator=seeded())
    cond = half.encode_prompts(["a dog"])
    latents = torch.randn(1, *half.latent_shape, generator=seeded(3))
    half.predict(latents, torch.tensor([700.0]), cond, cond, 1.0).square().mean().backward()
    weights = half.adapter.parameters().values()
    assert {one.dtype for one in weights} == {torch.float32}
    assert any(one.grad is not None and one.grad.abs().max() > 0 for one in weights)


@pytest.mark.parametrize(
    "layout", ["sd3", "flux dev", "z-image", "klein", "qwen-image"], indirect=True
)
def test_weights_in_8_bits_draw_nearly_the_same_and_train(layout: Layout) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(OPTIONAL), str(Path.cwd())))}
    command = [sys.executable, "-m", "tests.support.in_8_bits", str(layout.folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["weights"] == ["Int8Tensor"]
    assert 0 < found["difference"] < 0.02
    assert found["tuned difference"] < 0.2 * found["moved by"]
    assert found["trained"] > 10
