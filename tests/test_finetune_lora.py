"""LoRA: it starts neutral, saves, loads into stock diffusers, or is refused in one line."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from data.errors import PictuneError
from finetune.model.diffusion import DiffusionModel
from finetune.model.lora import LORA_FILE, write_kohya
from finetune.model.sampler import draw, sample_trajectories
from finetune.model.sampling import step_distribution
from finetune.settings.model import AdapterSettings
from finetune.settings.sampler import Sampler
from tests.support.small_training import draw_by_stock, open_with_adapter, perturb, seeded
from tests.support.stock import ddim
from tests.support.tiny_diffusion import LAYOUTS
from tests.support.tiny_flow import write_tiny_sd3

SAMPLER = Sampler(steps=4, guidance=3.0, eta=0.0)
RANK_4 = AdapterSettings(rank=4)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Return latents, timesteps and prompt embeddings, the same each time."""
    generator = seeded(2)
    latents = torch.randn(3, 4, 8, 8, generator=generator)
    return latents, torch.tensor([1, 500, 999]), torch.randn(3, 16, 32, generator=generator)


@torch.no_grad()
def predict(model: DiffusionModel) -> Tensor:
    """Return the prediction of the inputs without guidance."""
    latents, timesteps, cond = inputs()
    return model.predict(latents, timesteps, cond, cond, 1.0)


def gradients(model: DiffusionModel) -> list[Tensor | None]:
    """Return the gradients of the matrices that start at zero."""
    return [weight.grad for name, weight in model.adapter.parameters().items() if "lora_B" in name]


def test_adapters_off_is_the_pretrained_model(sd_folder: Path) -> None:
    model = open_with_adapter(sd_folder, AdapterSettings())
    before = predict(model)
    perturb(model)
    assert (predict(model) - before).abs().max() > 1e-3
    with model.adapter_off():
        assert torch.equal(predict(model), before)
    assert all(weight.requires_grad for weight in model.adapter.parameters().values())


def test_only_the_adapters_train(sd_folder: Path) -> None:
    model = open_with_adapter(sd_folder, AdapterSettings(feed_forward=False))
    weights = model.pipeline.unet.named_parameters()
    trainable = {name for name, weight in weights if weight.requires_grad}
    assert trainable == set(model.adapter.parameters())
    assert all(".attn" in name for name in trainable)
    latents, timesteps, cond = inputs()
    model.predict(latents, timesteps, cond, cond, 2.0).square().mean().backward()
    assert all(one is not None and one.abs().max() > 0 for one in gradients(model))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("strength", [1.0, 1.5])
def test_a_lora_of_every_layout_loads_into_its_stock_pipeline_and_draws_the_same(
    layouts: dict[str, Path], layout: str, strength: float, tmp_path: Path
) -> None:
    model = open_with_adapter(layouts[layout], AdapterSettings(rank=4, alpha=2.0))
    untuned = draw(model, ["a dog"], SAMPLER, seeds=[5])
    perturb(model)
    model.adapter.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LORA_FILE]
    stock = DiffusionPipeline.from_pretrained(layouts[layout])
    stock.load_lora_weights(tmp_path, adapter_name="pictune")
    stock.set_adapters("pictune", adapter_weights=strength)
    stock.scheduler = ddim(stock)
    images = draw_by_stock(stock, 5)
    assert (images - untuned).abs().max() > 1e-3
    reopened = DiffusionModel.from_pretrained(layouts[layout])
    reopened.load_adapter(tmp_path)
    for one in (model, reopened):
        with one.adapter.at_strength(strength):
            found = draw(one, ["a dog"], SAMPLER, seeds=[5])
        torch.testing.assert_close(found, images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_lora_with_the_names_of_kohya_draws_the_same_in_stock_diffusers(
    layouts: dict[str, Path], layout: str, tmp_path: Path
) -> None:
    model = open_with_adapter(layouts[layout], AdapterSettings(rank=4, alpha=2.0))
    perturb(model)
    model.adapter.save(tmp_path)
    write_kohya(tmp_path, tmp_path / "for" / "kohya.safetensors")
    names = {name.split(".", 1)[1] for name in load_file(tmp_path / "for" / "kohya.safetensors")}
    assert names == {"lora_down.weight", "lora_up.weight", "alpha"}
    stock = DiffusionPipeline.from_pretrained(layouts[layout])
    stock.load_lora_weights(tmp_path / "for", weight_name="kohya.safetensors")
    stock.scheduler = ddim(stock)
    found = draw(model, ["a dog"], SAMPLER, seeds=[5])
    torch.testing.assert_close(found, draw_by_stock(stock, 5), rtol=0, atol=1e-5)


def test_a_lora_of_a_transformer_has_no_names_of_kohya(tmp_path: Path) -> None:
    open_with_adapter(write_tiny_sd3(tmp_path / "model")).adapter.save(tmp_path)
    with pytest.raises(PictuneError, match=f"{LORA_FILE}: kohya's names are for UNets"):
        write_kohya(tmp_path, tmp_path / "kohya.safetensors")
    assert not (tmp_path / "kohya.safetensors").exists()


def test_equal_adapters_give_equal_files_in_every_process(sd_folder: Path, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from finetune.settings.model import AdapterSettings
from tests.support.small_training import open_with_adapter
model = open_with_adapter(Path(sys.argv[1]), AdapterSettings())
for place in sys.argv[2:]:
    model.adapter.save(Path(place))
"""
    places = {seed: [tmp_path / f"{seed}-{number}" for number in range(6)] for seed in "12"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, sd_folder, *saved],
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        for seed, saved in places.items()
    ]
    assert [process.wait() for process in processes] == [0, 0]
    files = [place / LORA_FILE for saved in places.values() for place in saved]
    assert len({path.read_bytes() for path in files}) == 1
    with safe_open(files[0], "pt") as file:
        assert json.loads(file.metadata()["lora_adapter_metadata"])["unet.r"] == 8
        assert file.metadata()["format"] == "pt"


@pytest.mark.parametrize(
    "other", [{"rank": 2}, {"rank": 4, "alpha": 8.0}, {"rank": 4, "feed_forward": False}]
)
def test_a_start_of_other_settings_is_refused(
    sd_folder: Path, tmp_path: Path, other: dict[str, Any]
) -> None:
    open_with_adapter(sd_folder, RANK_4).adapter.save(tmp_path)
    message = f"{LORA_FILE}: its rank, scale or layers are not those of the settings `adapter`"
    with pytest.raises(PictuneError, match=message):
        open_with_adapter(
            sd_folder, AdapterSettings.model_validate(other | {"start": str(tmp_path)})
        )


def test_lora_state_of_other_settings_is_refused(sd_folder: Path) -> None:
    state = open_with_adapter(sd_folder, AdapterSettings(rank=2)).adapter.state()
    with pytest.raises(PictuneError, match="another shape or other layers"):
        open_with_adapter(sd_folder, AdapterSettings()).adapter.set_state(state)


def test_a_folder_without_a_lora_is_refused(sd_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PictuneError, match="finetune"):
        DiffusionModel.from_pretrained(sd_folder).load_adapter(tmp_path)


def test_a_lora_that_is_not_finite_gets_one_clear_line(sd_folder: Path, tmp_path: Path) -> None:
    model = open_with_adapter(sd_folder, AdapterSettings())
    next(iter(model.adapter.parameters().values())).data.fill_(torch.nan)
    file = model.adapter.save(str(tmp_path))
    with pytest.raises(PictuneError, match=f"{LORA_FILE}: NaN or infinity in"):
        DiffusionModel.from_pretrained(sd_folder).load_adapter(str(tmp_path))
    assert file == tmp_path / LORA_FILE


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("change", "reason"),
    [("renamed", "is missing|is no layer of this model"), ("removed", "is missing")],
)
def test_a_lora_with_a_renamed_or_missing_tensor_gets_one_clear_line(
    layouts: dict[str, Path], layout: str, tmp_path: Path, change: str, reason: str
) -> None:
    file = open_with_adapter(layouts[layout], RANK_4).adapter.save(tmp_path)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    weights = load_file(file)
    name = sorted(weights)[3]
    moved = weights.pop(name)
    if change == "renamed":
        weights[name.replace("to_", "into_")] = moved
    for kept in (metadata, {"format": "pt"}):  # with and without peft's settings of the LoRA
        save_file(weights, file, kept)
        with pytest.raises(PictuneError, match=f"{LORA_FILE}: .* ({reason}) ") as told:
            DiffusionModel.from_pretrained(layouts[layout]).load_adapter(tmp_path)
        assert "\n" not in str(told.value)


def test_an_adapter_for_the_first_steps_leaves_the_others_to_the_base(
    sd_folder: Path, tmp_path: Path
) -> None:
    model = open_with_adapter(sd_folder, AdapterSettings(rank=2, steps_share=0.5))
    perturb(model, 0.3)
    cond, uncond = model.encode_prompts(["a dog"]), model.encode_prompts([""])
    schedule, latents = model.schedule(4), torch.randn(1, *model.latent_shape, generator=seeded(7))
    for step, timestep in enumerate(schedule.timesteps):
        with torch.no_grad(), nullcontext() if step < 2 else model.adapter_off():
            output = model.predict(latents, timestep[None], cond, uncond, SAMPLER.guidance)
        latents, _ = step_distribution(schedule, output, timestep, latents, eta=0.0)

    def drawn() -> Tensor:
        return draw(model, ["a dog"], SAMPLER, seeds=[7])

    by_hand = model.decode(latents)
    assert torch.equal(drawn(), by_hand)
    with model.adapter_off():
        assert (drawn() - by_hand).abs().max() > 1e-3
    model.adapter.save(tmp_path)
    model.load_adapter(tmp_path)
    assert torch.equal(drawn(), by_hand)
    model.load_mix({tmp_path: 1.0})
    assert torch.equal(drawn(), by_hand)
    chains = sample_trajectories(model, cond, SAMPLER, generator=seeded(7), batch=1)
    assert torch.equal(model.decode(chains.latents[:, -1]), by_hand)
    model.load_adapter(tmp_path)
    model.adapter.steps_share = 1.0
    assert (drawn() - by_hand).abs().max() > 1e-3
