"""Model folders: those that open, and one clear line for each that does not."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from data.errors import PictuneError
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampler import draw
from finetune.settings.sampler import Sampler

TWO_STEPS = Sampler(steps=2, eta=0.0)
PARTS = ["unet", "vae", "text_encoder", "tokenizer", "scheduler"]


def refused(folder: Path, match: str) -> None:
    """Check that the folder is refused with one line that matches."""
    with pytest.raises(PictuneError, match=match) as error:
        DiffusionModel.from_pretrained(folder)
    assert "\n" not in str(error.value)


def test_weights_of_half_precision_alone_are_read(layouts: dict[str, Path], tmp_path: Path) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(layouts["sdxl"]).to(torch.float16)
    pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    half = DiffusionModel.from_pretrained(tmp_path / "half")
    assert half.pipeline.unet.dtype == torch.float32
    whole = DiffusionModel.from_pretrained(layouts["sdxl"])
    drawn, expected = (draw(model, ["a"], TWO_STEPS, seeds=[0]) for model in (half, whole))
    torch.testing.assert_close(drawn, expected, rtol=0, atol=0.02)


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
    refused(broken, f"without {part}/")


@pytest.mark.parametrize(
    ("left", "line"),
    [
        ("flax_model.msgpack", "unet/ has Flax weights only"),
        ("model.bin", "safetensors"),
        ("model.safetensors", "could not be opened"),
    ],
)
def test_weights_that_are_not_whole_safetensors_get_one_clear_line(
    sd_folder: Path, tmp_path: Path, left: str, line: str
) -> None:
    broken = shutil.copytree(sd_folder, tmp_path / "model")
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    weights.rename(weights.with_name(f"diffusion_pytorch_{left}"))
    refused(broken, line)


def test_a_model_that_edits_images_is_refused(sd_folder: Path, tmp_path: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(
        sd_folder, safety_checker=None, requires_safety_checker=False
    )
    unet = type(pipeline.unet).from_config(pipeline.unet.config, in_channels=9)
    unet.save_pretrained(shutil.copytree(sd_folder, tmp_path / "model") / "unet")
    refused(tmp_path / "model", "its unet takes 9 channels and its VAE gives 4")


@pytest.mark.parametrize("change", [float("nan"), float("inf"), None])
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_a_weight_that_is_not_finite_or_missing_is_named(
    layouts: dict[str, Path], tmp_path: Path, part: str, change: float | None
) -> None:
    broken = shutil.copytree(layouts["sdxl"], tmp_path / "model")
    (file,) = (broken / part).glob("*.safetensors")
    weights = load_file(file)
    name, count = max(weights), len(weights)
    found = rf"NaN or infinity in {name} \(1 of {count} weights\)"
    if change is None:
        del weights[name]
        found = rf"its file has no weight {name} \(1 of {count} are"
    else:
        weights[name].view(-1)[-1] = change
    save_file(weights, file, metadata={"format": "pt"})
    refused(broken, rf"model: {part}: {found}")


def rescaled(folder: Path, **settings: object) -> Path:
    """Give the folder a schedule whose last step is pure noise (Lin et al. 2023, arXiv 2305.08891).

    Return the folder.
    """
    file = folder / "scheduler" / "scheduler_config.json"
    ending = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    file.write_text(json.dumps(json.loads(file.read_text()) | ending | settings))
    return folder


def test_noise_cannot_be_predicted_from_pure_noise(sd_folder: Path, tmp_path: Path) -> None:
    folder = rescaled(shutil.copytree(sd_folder, tmp_path / "model"))
    refused(folder, r"its schedule ends in pure noise.*v_prediction")
    velocity = DiffusionModel.from_pretrained(rescaled(folder, prediction_type="v_prediction"))
    sampler = Sampler(steps=2, guidance=1.0, eta=0.0)
    assert draw(velocity, ["a dog"], sampler, seeds=[0]).isfinite().all()


def test_other_pipelines_and_missing_folders_are_refused(sd_folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(sd_folder, tmp_path / "model")
    index = other / "model_index.json"
    index.write_text(json.dumps({"_class_name": "FluxFillPipeline"}))
    refused(other, "FluxFillPipeline")
    for text in ("[" * 100_000, f"[{'9' * 5000}]", '{"_class_name": '):
        index.write_text(text)
        refused(other, r"model_index\.json.*; download the model again")
    index.unlink()
    refused(other, r"model_index\.json")
    refused(tmp_path / "nothing", "no such model folder")
