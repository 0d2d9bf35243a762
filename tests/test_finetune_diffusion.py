"""Folders that open and folders that do not; LoRA that starts neutral, saves, and loads into stock diffusers."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from data.errors import PictuneError
from finetune.diffusion import LORA_FILE, DiffusionModel, LoraSettings
from finetune.sampling import draw
from tests.tiny_diffusion import write_tiny_diffusion, write_tiny_sd2, write_tiny_sdxl

LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "sd1": write_tiny_diffusion,
    "sd2": write_tiny_sd2,
    "sdxl": write_tiny_sdxl,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_diffusion(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write(tmp_path_factory.mktemp(name) / "model") for name, write in LAYOUTS.items()}


def with_lora(folder: Path, settings: LoraSettings | None = None) -> DiffusionModel:
    model = DiffusionModel.from_pretrained(folder)
    model.add_lora(settings or LoraSettings(), generator=torch.Generator().manual_seed(0))
    return model


def perturb(model: DiffusionModel) -> None:
    generator = torch.Generator().manual_seed(1)
    for weight in model.lora_parameters().values():
        weight.data.add_(0.1 * torch.randn(weight.shape, generator=generator))


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return (
        torch.randn(3, 4, 8, 8, generator=generator),
        torch.tensor([1, 500, 999]),
        torch.randn(3, 16, 32, generator=generator),
    )


@torch.no_grad()
def predict(model: DiffusionModel) -> Tensor:
    latents, timesteps, cond = inputs()
    return model.predict(latents, timesteps, cond, cond, 1.0)


def test_fresh_lora_changes_nothing(folder: Path) -> None:
    assert torch.equal(predict(with_lora(folder)), predict(DiffusionModel.from_pretrained(folder)))


def test_adapters_off_is_the_pretrained_model(folder: Path) -> None:
    model = with_lora(folder)
    before = predict(model)
    perturb(model)
    assert (predict(model) - before).abs().max() > 1e-3
    with model.adapters_off():
        assert torch.equal(predict(model), before)
    assert all(weight.requires_grad for weight in model.lora_parameters().values())


def test_only_the_adapters_train(folder: Path) -> None:
    model = with_lora(folder, LoraSettings(feed_forward=False))
    trainable = {
        name for name, weight in model.pipeline.unet.named_parameters() if weight.requires_grad
    }
    assert trainable == set(model.lora_parameters())
    assert all(".attn" in name for name in trainable)
    latents, timesteps, cond = inputs()
    model.predict(latents, timesteps, cond, cond, 2.0).square().mean().backward()
    gradients = [
        weight.grad for name, weight in model.lora_parameters().items() if "lora_B" in name
    ]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_every_layout_draws_what_its_stock_pipeline_draws_with_ddim(
    layouts: dict[str, Path], layout: str, guidance: float
) -> None:
    model = DiffusionModel.from_pretrained(layouts[layout])
    stock = DiffusionPipeline.from_pretrained(layouts[layout])
    stock.scheduler = model.scheduler(4)
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(5))
    images = stock(
        "a dog",
        num_inference_steps=4,
        guidance_scale=guidance,
        latents=noise,
        height=16,
        width=16,
        output_type="pt",
    ).images
    torch.testing.assert_close(
        draw(model, ["a dog"], seeds=[5], steps=4, guidance=guidance), images, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_lora_of_every_layout_loads_into_its_stock_pipeline_and_draws_the_same(
    layouts: dict[str, Path], layout: str, tmp_path: Path
) -> None:
    model = with_lora(layouts[layout], LoraSettings(rank=4))
    untuned = draw(model, ["a dog"], seeds=[5], steps=4, guidance=3.0)
    perturb(model)
    tuned = draw(model, ["a dog"], seeds=[5], steps=4, guidance=3.0)
    assert (tuned - untuned).abs().max() > 1e-3
    model.save_lora(tmp_path)
    stock = DiffusionPipeline.from_pretrained(layouts[layout])
    stock.load_lora_weights(tmp_path)
    stock.scheduler = model.scheduler(4)
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(5))
    images = stock(
        "a dog",
        num_inference_steps=4,
        guidance_scale=3.0,
        latents=noise,
        height=16,
        width=16,
        output_type="pt",
    ).images
    torch.testing.assert_close(tuned, images, rtol=0, atol=1e-5)
    stock.unload_lora_weights()
    reopened = DiffusionModel.from_pretrained(layouts[layout])
    reopened.load_lora(tmp_path)
    torch.testing.assert_close(
        draw(reopened, ["a dog"], seeds=[5], steps=4, guidance=3.0), tuned, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_adapters_of_every_layout_get_a_gradient(layouts: dict[str, Path], layout: str) -> None:
    model = with_lora(layouts[layout])
    cond = model.encode_prompts(["a cat", "a dog"])
    latents = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    uncond = model.encode_prompts([""]).expand_as(cond)
    model.predict(latents, torch.tensor([10, 900]), cond, uncond, 2.0).square().mean().backward()
    gradients = [
        weight.grad for name, weight in model.lora_parameters().items() if "lora_B" in name
    ]
    assert gradients
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


def test_the_pooled_embedding_of_sdxl_is_the_last_row_and_the_empty_prompt_is_zero(
    layouts: dict[str, Path],
) -> None:
    model = DiffusionModel.from_pretrained(layouts["sdxl"])
    packed, empty = model.encode_prompts(["a dog", ""])
    stock = StableDiffusionXLPipeline.from_pretrained(layouts["sdxl"])
    tokens, without, pooled, without_pooled = stock.encode_prompt(
        "a dog", device=torch.device("cpu")
    )
    torch.testing.assert_close(packed[:-1], tokens[0])
    torch.testing.assert_close(packed[-1, :24], pooled[0])
    assert (
        packed[-1, 24:].abs().max()
        == without.abs().max()
        == without_pooled.abs().max()
        == empty.abs().max()
        == 0
    )


def test_weights_of_half_precision_alone_are_read(layouts: dict[str, Path], tmp_path: Path) -> None:
    StableDiffusionXLPipeline.from_pretrained(layouts["sdxl"]).to(torch.float16).save_pretrained(
        tmp_path / "half", variant="fp16"
    )
    model = DiffusionModel.from_pretrained(tmp_path / "half")
    assert model.pipeline.unet.dtype == torch.float32
    drawn, whole = (
        draw(m, ["a"], seeds=[0], steps=2, guidance=2.0)
        for m in (model, DiffusionModel.from_pretrained(layouts["sdxl"]))
    )
    torch.testing.assert_close(drawn, whole, rtol=0, atol=0.02)


@pytest.mark.parametrize("alpha", [None, 2.0])
def test_saved_lora_reproduces_the_prediction_in_stock_diffusers(
    folder: Path, tmp_path: Path, alpha: float | None
) -> None:
    model = with_lora(folder, LoraSettings(rank=4, alpha=alpha))
    perturb(model)
    model.save_lora(tmp_path / "lora")
    assert [path.name for path in (tmp_path / "lora").iterdir()] == [LORA_FILE]
    stock = StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, requires_safety_checker=False
    )
    stock.load_lora_weights(tmp_path / "lora")
    latents, timesteps, cond = inputs()
    with torch.no_grad():
        expected = stock.unet(latents, timesteps, cond).sample
    assert (predict(model) - expected).abs().max() < 1e-5
    reopened = DiffusionModel.from_pretrained(folder)
    reopened.load_lora(tmp_path / "lora")
    assert (predict(reopened) - expected).abs().max() < 1e-5


def test_equal_adapters_give_equal_files_in_every_process(folder: Path, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from tests.test_finetune_diffusion import with_lora
model = with_lora(Path(sys.argv[1]))
for place in sys.argv[2:]:
    model.save_lora(Path(place))
"""
    places = [[tmp_path / f"{seed}-{number}" for number in range(6)] for seed in "12"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, folder, *saved], env=os.environ | {"PYTHONHASHSEED": seed}
        )
        for saved, seed in zip(places, "12", strict=True)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    files = [place / LORA_FILE for saved in places for place in saved]
    assert len({path.read_bytes() for path in files}) == 1
    with safe_open(files[0], "pt") as file:
        assert json.loads(file.metadata()["lora_adapter_metadata"])["unet.r"] == 8
        assert file.metadata()["format"] == "pt"


def test_loading_replaces_the_present_lora(folder: Path, tmp_path: Path) -> None:
    fresh, other = with_lora(folder), with_lora(folder)
    fresh.save_lora(tmp_path)
    perturb(other)
    other.load_lora(tmp_path)
    assert torch.equal(predict(other), predict(fresh))


def test_training_starts_from_a_saved_lora(folder: Path, tmp_path: Path) -> None:
    earlier, untuned = (
        with_lora(folder, LoraSettings(rank=4)),
        DiffusionModel.from_pretrained(folder),
    )
    perturb(earlier)
    earlier.save_lora(tmp_path)
    model = with_lora(folder, LoraSettings(rank=4, start=str(tmp_path)))
    assert torch.equal(predict(model), predict(earlier))
    assert all(weight.requires_grad for weight in model.lora_parameters().values())
    with model.adapters_off():
        assert torch.equal(predict(model), predict(untuned))


@pytest.mark.parametrize(
    "other", [{"rank": 2}, {"rank": 4, "alpha": 8.0}, {"rank": 4, "feed_forward": False}]
)
def test_a_start_of_other_settings_is_refused(
    folder: Path, tmp_path: Path, other: dict[str, Any]
) -> None:
    with_lora(folder, LoraSettings(rank=4)).save_lora(tmp_path)
    with pytest.raises(
        PictuneError,
        match=f"{LORA_FILE}: its rank, scale or layers are not those of the settings `lora`",
    ):
        with_lora(folder, LoraSettings.model_validate(other | {"start": str(tmp_path)}))


def test_lora_state_of_other_settings_is_refused(folder: Path) -> None:
    state = with_lora(folder, LoraSettings(rank=2)).lora_state()
    with pytest.raises(PictuneError, match="rank"):
        with_lora(folder).set_lora_state(state)


def test_prompts_are_encoded_as_by_the_pipeline_and_once(folder: Path) -> None:
    model = DiffusionModel.from_pretrained(folder)
    calls: list[int] = []
    model.pipeline.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    embeddings = model.encode_prompts(["a cat", "a dog", "a cat"])
    model.encode_prompts(["a dog"])
    assert len(calls) == 1
    assert torch.equal(embeddings[0], embeddings[2])
    expected, _ = model.pipeline.encode_prompt("a dog", "cpu", 1, False)
    torch.testing.assert_close(embeddings[1:2], expected)


def test_latents_and_images_have_the_models_own_size(folder: Path) -> None:
    model = DiffusionModel.from_pretrained(folder)
    images = model.decode(
        torch.randn(3, *model.latent_shape, generator=torch.Generator().manual_seed(0)), batch=2
    )
    assert images.shape == (3, 3, 16, 16)
    assert model.encode_images(images, batch=2).shape == (3, *model.latent_shape)


def test_large_images_pass_the_vae_a_few_at_a_time(folder: Path) -> None:
    model = DiffusionModel.from_pretrained(folder)
    rows: list[int] = []
    for part in (model.pipeline.vae.decoder, model.pipeline.vae.encoder):
        part.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    images = model.decode(torch.zeros(5, 4, 64, 64))
    assert model.encode_images(images).shape == (5, 4, 64, 64)
    assert rows == [4, 1, 4, 1]


def test_half_precision_arithmetic_still_gives_float32(folder: Path) -> None:
    model = DiffusionModel.from_pretrained(folder, precision="bf16")
    assert predict(model).dtype == torch.float32
    assert 0 < (predict(model) - predict(DiffusionModel.from_pretrained(folder))).abs().max() < 0.1


def test_inside_exact_the_arithmetic_is_that_of_the_weights(folder: Path) -> None:
    model = with_lora(folder)
    perturb(model)
    full = predict(model)
    model.precision = "bf16"
    rounded = predict(model)
    with model.exact():
        torch.testing.assert_close(predict(model), full, rtol=0, atol=1e-6)
    assert (rounded - full).abs().max() > 1e-4
    torch.testing.assert_close(predict(model), rounded, rtol=0, atol=0)


PARTS = ["unet", "vae", "text_encoder", "tokenizer", "scheduler"]


@pytest.mark.parametrize(
    ("layout", "part"),
    [("sd1", part) for part in PARTS]
    + [("sdxl", part) for part in [*PARTS, "text_encoder_2", "tokenizer_2"]],
)
def test_a_folder_without_a_part_gets_one_clear_line(
    layouts: dict[str, Path], tmp_path: Path, layout: str, part: str
) -> None:
    broken = shutil.copytree(layouts[layout], tmp_path / "model")
    shutil.rmtree(broken / part)
    with pytest.raises(PictuneError, match=f"without {part}/") as error:
        DiffusionModel.from_pretrained(broken)
    assert "\n" not in str(error.value)


def test_flax_weights_are_named(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "model")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").rename(
        broken / "unet" / "diffusion_flax_model.msgpack"
    )
    with pytest.raises(PictuneError, match="unet/ has Flax weights only"):
        DiffusionModel.from_pretrained(broken)


def test_a_model_that_edits_pictures_is_refused(folder: Path, tmp_path: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, requires_safety_checker=False
    )
    unet = type(pipeline.unet).from_config(pipeline.unet.config, in_channels=9)
    unet.save_pretrained(shutil.copytree(folder, tmp_path / "model") / "unet")
    with pytest.raises(PictuneError, match="UNet takes 9 channels and its VAE gives 4"):
        DiffusionModel.from_pretrained(tmp_path / "model")


def test_weights_that_would_be_unpickled_are_refused(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "model")
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(PictuneError, match="safetensors"):
        DiffusionModel.from_pretrained(broken)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_weights_that_are_no_numbers_get_one_clear_line(
    layouts: dict[str, Path], tmp_path: Path, part: str, value: float
) -> None:
    broken = shutil.copytree(layouts["sdxl"], tmp_path / "model")
    (file,) = (broken / part).glob("*.safetensors")
    weights = load_file(file)
    name = max(weights)
    weights[name].view(-1)[-1] = value
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(
        PictuneError,
        match=rf"model: {part}: NaN or infinity in {name} \(1 of {len(weights)} weights\)",
    ) as error:
        DiffusionModel.from_pretrained(broken)
    assert "\n" not in str(error.value)


def test_a_lora_that_is_no_numbers_gets_one_clear_line(folder: Path, tmp_path: Path) -> None:
    model = with_lora(folder)
    next(iter(model.lora_parameters().values())).data.fill_(torch.nan)
    file = model.save_lora(str(tmp_path))
    with pytest.raises(PictuneError, match=f"{LORA_FILE}: NaN or infinity in"):
        DiffusionModel.from_pretrained(folder).load_lora(str(tmp_path))
    assert file == tmp_path / LORA_FILE


def test_images_that_are_no_numbers_are_not_drawn(folder: Path) -> None:
    model = DiffusionModel.from_pretrained(folder)
    model.pipeline.unet.conv_out.bias.fill_(torch.inf)  # as half precision overflows
    with pytest.raises(PictuneError, match="the image that it draws is NaN; use precision fp32"):
        draw(model, ["a dog"], seeds=[0], steps=2, guidance=1.0)


def rescaled(folder: Path, **settings: object) -> Path:
    """The folder with a schedule whose last step is pure noise (Lin et al. 2023, arXiv 2305.08891)."""
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(
        json.dumps(
            json.loads(file.read_text())
            | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
            | settings
        )
    )
    return folder


def test_noise_cannot_be_predicted_from_pure_noise(folder: Path, tmp_path: Path) -> None:
    model = rescaled(shutil.copytree(folder, tmp_path / "model"))
    with pytest.raises(
        PictuneError, match=r"its schedule ends in pure noise.*v_prediction"
    ) as error:
        DiffusionModel.from_pretrained(model)
    assert "\n" not in str(error.value)
    velocity = DiffusionModel.from_pretrained(rescaled(model, prediction_type="v_prediction"))
    assert draw(velocity, ["a dog"], seeds=[0], steps=2, guidance=1.0).isfinite().all()


def test_truncated_weights_get_one_clear_line(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "model")
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(PictuneError, match="could not be opened") as error:
        DiffusionModel.from_pretrained(broken)
    assert "\n" not in str(error.value)


def test_other_pipelines_and_missing_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "model")
    (other / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusion3Pipeline"}))
    with pytest.raises(PictuneError, match="StableDiffusion3Pipeline"):
        DiffusionModel.from_pretrained(other)
    for text in ("[" * 100_000, f"[{'9' * 5000}]", '{"_class_name": '):
        (other / "model_index.json").write_text(text)
        with pytest.raises(PictuneError, match=r"model_index\.json.*; download the model again"):
            DiffusionModel.from_pretrained(other)
    (other / "model_index.json").unlink()
    with pytest.raises(PictuneError, match=r"model_index\.json"):
        DiffusionModel.from_pretrained(other)
    with pytest.raises(PictuneError, match="no such model folder"):
        DiffusionModel.from_pretrained(tmp_path / "nothing")
    with pytest.raises(PictuneError, match="finetune"):
        DiffusionModel.from_pretrained(folder).load_lora(tmp_path)
