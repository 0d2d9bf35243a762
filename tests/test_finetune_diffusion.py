"""Folders that open and folders that do not; LoRA that starts neutral, saves, and loads into stock diffusers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from data.errors import PictuneError
from finetune.diffusion import LORA_FILE, DiffusionModel, LoraSettings
from tests.tiny_diffusion import write_tiny_diffusion


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_diffusion(tmp_path_factory.mktemp("tiny") / "model")


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
    return torch.randn(3, 4, 8, 8, generator=generator), torch.tensor([1, 500, 999]), torch.randn(3, 16, 32, generator=generator)


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
    trainable = {name for name, weight in model.pipeline.unet.named_parameters() if weight.requires_grad}
    assert trainable == set(model.lora_parameters())
    assert all(".attn" in name for name in trainable)
    latents, timesteps, cond = inputs()
    model.predict(latents, timesteps, cond, cond, 2.0).square().mean().backward()
    gradients = [weight.grad for name, weight in model.lora_parameters().items() if "lora_B" in name]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("alpha", [None, 2.0])
def test_saved_lora_reproduces_the_prediction_in_stock_diffusers(folder: Path, tmp_path: Path, alpha: float | None) -> None:
    model = with_lora(folder, LoraSettings(rank=4, alpha=alpha))
    perturb(model)
    model.save_lora(tmp_path / "lora")
    assert [path.name for path in (tmp_path / "lora").iterdir()] == [LORA_FILE]
    stock = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)
    stock.load_lora_weights(tmp_path / "lora")
    latents, timesteps, cond = inputs()
    with torch.no_grad():
        expected = stock.unet(latents, timesteps, cond).sample
    assert (predict(model) - expected).abs().max() < 1e-5
    reopened = DiffusionModel.from_pretrained(folder)
    reopened.load_lora(tmp_path / "lora")
    assert (predict(reopened) - expected).abs().max() < 1e-5


def test_loading_replaces_the_present_lora(folder: Path, tmp_path: Path) -> None:
    fresh, other = with_lora(folder), with_lora(folder)
    fresh.save_lora(tmp_path)
    perturb(other)
    other.load_lora(tmp_path)
    assert torch.equal(predict(other), predict(fresh))


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
    images = model.decode(torch.randn(3, *model.latent_shape, generator=torch.Generator().manual_seed(0)), batch=2)
    assert images.shape == (3, 3, 16, 16)
    assert model.encode_images(images, batch=2).shape == (3, *model.latent_shape)


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


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_folder_without_a_part_gets_one_clear_line(folder: Path, tmp_path: Path, part: str) -> None:
    broken = shutil.copytree(folder, tmp_path / "model")
    shutil.rmtree(broken / part)
    with pytest.raises(PictuneError, match=part) as error:
        DiffusionModel.from_pretrained(broken)
    assert "\n" not in str(error.value)


def test_weights_that_would_be_unpickled_are_refused(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "model")
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(PictuneError, match="safetensors"):
        DiffusionModel.from_pretrained(broken)


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
    (other / "model_index.json").unlink()
    with pytest.raises(PictuneError, match=r"model_index\.json"):
        DiffusionModel.from_pretrained(other)
    with pytest.raises(PictuneError, match="no such model folder"):
        DiffusionModel.from_pretrained(tmp_path / "nothing")
    with pytest.raises(PictuneError, match="finetune"):
        DiffusionModel.from_pretrained(folder).load_lora(tmp_path)
