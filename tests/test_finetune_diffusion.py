"""Diffusion models: prompts, prediction, drawing and the VAE, against the stock pipelines."""

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from data.errors import PictuneError
from finetune.model.diffusion import DiffusionModel, arithmetic
from finetune.model.sampler import draw
from finetune.settings.model import AdapterSettings
from finetune.settings.sampler import Sampler
from tests.support.small_training import open_with_adapter, perturb, seeded
from tests.support.stock import ddim
from tests.support.tiny_diffusion import LAYOUTS


@torch.no_grad()
def predict(model: DiffusionModel) -> Tensor:
    """Return a prediction without guidance, of the same inputs each time."""
    generator = seeded(2)
    latents = torch.randn(3, 4, 8, 8, generator=generator)
    cond = torch.randn(3, 16, 32, generator=generator)
    return model.predict(latents, torch.tensor([1, 500, 999]), cond, cond, 1.0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_every_layout_draws_the_image_of_its_stock_pipeline_with_ddim(
    layouts: dict[str, Path], layout: str, guidance: float
) -> None:
    model = DiffusionModel.from_pretrained(layouts[layout])
    stock = DiffusionPipeline.from_pretrained(layouts[layout])
    stock.scheduler = ddim(stock)
    images = stock(
        "a dog",
        num_inference_steps=4,
        guidance_scale=guidance,
        latents=torch.randn((1, 4, 8, 8), generator=seeded(5)),
        height=16,
        width=16,
        output_type="pt",
    ).images
    sampler = Sampler(steps=4, guidance=guidance, eta=0.0)
    torch.testing.assert_close(
        draw(model, ["a dog"], sampler, seeds=[5]), images, rtol=0, atol=1e-5
    )


def test_prompts_are_encoded_as_by_the_pipeline_and_once(sd_folder: Path) -> None:
    model = DiffusionModel.from_pretrained(sd_folder)
    calls: list[int] = []
    model.pipeline.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    embeddings = model.encode_prompts(["a cat", "a dog", "a cat"])
    model.encode_prompts(["a dog"])
    assert len(calls) == 1
    assert torch.equal(embeddings[0], embeddings[2])
    expected, _ = model.pipeline.encode_prompt("a dog", "cpu", 1, False)
    torch.testing.assert_close(embeddings[1:2], expected)


def test_large_images_pass_the_vae_a_few_at_a_time(sd_folder: Path) -> None:
    model = DiffusionModel.from_pretrained(sd_folder)
    rows: list[int] = []
    for part in (model.pipeline.vae.decoder, model.pipeline.vae.encoder):
        part.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    images = model.decode(torch.zeros(5, 4, 64, 64))
    assert model.encode_images(images).shape == (5, 4, 64, 64)
    assert rows == [4, 1, 4, 1]


@pytest.mark.parametrize(
    ("device", "has", "expected"),
    [
        ("cpu", {"avx512_bf16": True}, "bf16"),
        ("cpu", {"avx512_f": True, "avx512_bf16": False, "amx_bf16": True}, "bf16"),
        ("cpu", {"avx512_f": True}, "fp32"),
        ("cuda", {"avx512_bf16": False}, "bf16"),
        ("cuda", {"avx512_bf16": True, "none": True}, "fp32"),
        ("mps", {"avx512_bf16": True}, "fp32"),
    ],
)
def test_the_arithmetic_that_suits_a_device(
    device: str, has: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_supported(including_emulation: bool = True) -> bool:
        return including_emulation or "none" not in has

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert arithmetic("auto", torch.device(device)) == expected
    assert arithmetic("fp16", torch.device(device)) == "fp16"


def test_inside_exact_the_arithmetic_is_that_of_the_weights(sd_folder: Path) -> None:
    model = open_with_adapter(sd_folder, AdapterSettings())
    perturb(model)
    full = predict(model)
    model.precision = "bf16"
    rounded = predict(model)
    with model.exact():
        torch.testing.assert_close(predict(model), full, rtol=0, atol=1e-6)
    assert (rounded - full).abs().max() > 1e-4
    torch.testing.assert_close(predict(model), rounded, rtol=0, atol=0)


def test_images_that_are_not_finite_are_not_drawn(sd_folder: Path) -> None:
    model = DiffusionModel.from_pretrained(sd_folder)
    model.pipeline.unet.conv_out.bias.fill_(torch.inf)  # as half precision overflows
    sampler = Sampler(steps=2, guidance=1.0, eta=0.0)
    with pytest.raises(PictuneError, match="the image that it draws is NaN; use precision fp32"):
        draw(model, ["a dog"], sampler, seeds=[0])


def test_more_steps_than_the_model_has_are_refused(sd_folder: Path) -> None:
    model = DiffusionModel.from_pretrained(sd_folder)
    assert len(model.schedule(1000).timesteps) == 1000
    with pytest.raises(PictuneError, match=r"sampler\.steps: 1001; this model has 1000, give no"):
        model.schedule(1001)


def test_offloaded_text_encoders_are_on_the_device_only_while_they_encode(
    sd_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = DiffusionModel.from_pretrained(sd_folder, device="meta", offload_encoders=True)
    encoder = model.pipeline.text_encoder
    assert encoder.device.type == "cpu"
    assert {model.network.device.type, model.pipeline.vae.device.type} == {"meta"}
    moves = list[str]()
    monkeypatch.setattr(encoder, "to", lambda place: moves.append(str(place)))

    def encode(prompts: list[str], device: torch.device) -> Tensor:
        moves.append(f"{prompts} on {device}")
        return torch.zeros(len(prompts), 2, 2)

    monkeypatch.setattr(model.family, "encode", encode)  # a move to "meta" would lose the weights
    model.encode_prompts(["a dog", "a dog"])
    model.encode_prompts(["a dog"])  # kept from before
    assert moves == ["meta", "['a dog'] on meta", "cpu"]
