"""A side network starts neutral, leaves the base alone, trains, and opens in stock diffusers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from torch import Tensor

from data.errors import PictuneError
from finetune.learning.checkpoints import load_latest, save_checkpoint
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampler import draw
from finetune.model.side_network import SIDE_FILE
from finetune.settings.adapter_kinds import kind_of
from finetune.settings.model import AdapterSettings
from finetune.settings.sampler import Sampler
from tests.support.small_methods import METHODS, Run
from tests.support.small_training import open_with_adapter, perturb, seeded
from tests.support.stock import ddim
from tests.support.tiny_diffusion import LAYOUTS, write_tiny_diffusion
from tests.support.tiny_flow import write_tiny_flux, write_tiny_sd3

SIDE = AdapterSettings(kind="side")
SAMPLER = Sampler(steps=4, guidance=3.0, eta=0.0)
WRITERS: dict[str, Callable[[Path], Path]] = {
    **LAYOUTS,
    "sd1 of clean predictions": partial(write_tiny_diffusion, prediction="sample"),
    "sd3": write_tiny_sd3,
    "flux dev": write_tiny_flux,
    "flux schnell": partial(write_tiny_flux, guidance_embeds=False),
}


def drawn(model: DiffusionModel, strength: float = 1.0, prompt: str = "a dog") -> Tensor:
    """Return an image at a strength of the adapter."""
    with model.adapter.at_strength(strength):
        return draw(model, [prompt], SAMPLER, seeds=[5])


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_draws_with_a_side_network_as_stock_diffusers_does_with_the_lines_of_the_card(
    layout: str, tmp_path: Path
) -> None:
    folder = WRITERS[layout](tmp_path / "model")
    base = DiffusionModel.from_pretrained(folder, image_size=16)
    untuned = draw(base, ["a dog"], SAMPLER, seeds=[5])
    model = DiffusionModel.from_pretrained(folder, image_size=16)
    model.add_adapter(SIDE, generator=seeded())
    assert torch.equal(drawn(model, 2.0), untuned)
    perturb(model, 0.05)
    model.adapter.save(tmp_path / "side")
    assert torch.equal(drawn(model, 0.0), untuned)
    base.load_adapter(tmp_path / "side")
    for strength in (1.0, 1.5):
        tuned = drawn(model, strength)
        assert (tuned - untuned).abs().max() > 1e-2
        assert torch.equal(drawn(base, strength), tuned)
        stock = DiffusionPipeline.from_pretrained(folder)
        if "sd3" not in layout and "flux" not in layout:
            stock.scheduler = ddim(stock)
        code = kind_of(tmp_path / "side").code(tmp_path / "side", strength)
        exec(code, {"pipeline": stock, "torch": torch})  # the lines that the card has
        arguments = model.family.stock_arguments(3.0) | {"height": 16, "width": 16}
        for _ in range(2):  # the second call must not keep the first one's prompt
            images = [
                stock(
                    prompt,
                    num_inference_steps=4,
                    generator=seeded(5),
                    output_type="pt",
                    **arguments,
                ).images
                for prompt in ("four wolves", "a dog")
            ]
        expected = torch.cat([drawn(model, strength, "four wolves"), tuned])
        torch.testing.assert_close(torch.cat(images), expected, rtol=0, atol=1e-4)
        assert not torch.equal(images[0], images[1])


def test_the_correction_comes_after_guidance_times_the_strength(sd_folder: Path) -> None:
    model = open_with_adapter(sd_folder, SIDE)
    perturb(model)
    cond, uncond = model.encode_prompts(["a dog", "a cat"]), model.encode_prompts(["", ""])
    at = (torch.randn(2, *model.latent_shape, generator=seeded(3)), torch.tensor([10, 900]))
    with model.adapter_off(), torch.no_grad():
        base = model.predict(*at, cond, uncond, 3.0)
    found = {}
    for strength in (0.0, 0.5, 1.0, 2.0):
        with model.adapter.at_strength(strength), torch.no_grad():
            found[strength] = model.predict(*at, cond, uncond, 3.0) - base
    assert torch.equal(found[0.0], torch.zeros_like(base))
    assert found[1.0].abs().max() > 1e-2
    for strength, correction in found.items():
        torch.testing.assert_close(correction, strength * found[1.0])
    with torch.no_grad():
        corrected = model.adapter.corrected(base, *at, cond)
    torch.testing.assert_close(corrected - base, found[1.0])


@pytest.mark.parametrize("kind", ["lora", "side"])
def test_losses_of_a_side_network_have_the_samplers_guidance_and_those_of_a_lora_none(
    sd_folder: Path, kind: str
) -> None:
    model = Run(sd_folder, "rwl", adapter=AdapterSettings(kind=kind)).model
    cond, uncond = model.encode_prompts(["a dog"]), model.encode_prompts([""])
    at = (torch.randn(1, *model.latent_shape, generator=seeded(3)), torch.tensor([500]))
    guidance = {"lora": 1.0, "side": Sampler().guidance}[kind]
    expected = model.predict(*at, cond, uncond, guidance)
    assert torch.equal(model.predict_denoising(*at, cond), expected)
    assert not torch.equal(model.predict(*at, cond, uncond, 1.5), expected)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_resumes_it_exactly_and_leaves_the_base_alone(
    sd_folder: Path, tmp_path: Path, method: str
) -> None:
    base = DiffusionModel.from_pretrained(sd_folder).network.state_dict()
    whole, first, second = (Run(sd_folder, method, adapter=SIDE) for _ in range(3))
    untrained = whole.model.adapter.state()
    steps = list(whole.steps())
    if hasattr(steps[0], "first_ratio_gap"):
        assert [metrics.first_ratio_gap for metrics in steps] == [0.0] * len(steps)
    for metrics in first.steps():
        if metrics.step == 2:
            save_checkpoint(tmp_path, first.state, first.generator)
            break
    assert load_latest(tmp_path, second.state, second.generator)
    list(second.steps())
    resumed = second.state.weights()
    for name, weight in whole.state.weights().items():
        assert torch.equal(resumed[name], weight), name
    trained = whole.model.adapter.state()
    assert all(not torch.equal(trained[name], one) for name, one in untrained.items())
    tuned = whole.model.network.state_dict()
    assert base.keys() == tuned.keys()
    assert all(torch.equal(tuned[name], weight) for name, weight in base.items())


def test_its_size_is_the_share_of_the_bases_parameters_and_training_starts_from_a_file(
    sd_folder: Path, tmp_path: Path
) -> None:
    def size(model: DiffusionModel) -> int:
        return sum(one.numel() for one in model.adapter.parameters().values())

    small = open_with_adapter(sd_folder, SIDE)
    assert 200_000 < size(small) < 300_000
    embedded = open_with_adapter(Path("models/emoji-sd"), SIDE.model_copy(update={"share": 0.2}))
    base = sum(one.numel() for one in embedded.network.parameters())
    assert 0.15 * base < size(embedded) <= 0.2 * base

    perturb(small)
    file = small.adapter.save(tmp_path)
    again = open_with_adapter(sd_folder, SIDE.model_copy(update={"start": str(tmp_path)}))
    assert torch.equal(drawn(again), drawn(small))
    assert again.adapter.save(tmp_path / "again").read_bytes() == file.read_bytes()
    with pytest.raises(PictuneError, match=f"{SIDE_FILE}: does not fit this model .*for another"):
        embedded.load_adapter(tmp_path)
    embedded = DiffusionModel.from_pretrained("models/emoji-sd")
    embedded.add_adapter(SIDE.model_copy(update={"share": 0.2}), generator=seeded())
    embedded.adapter.save(tmp_path / "large")
    start = SIDE.model_copy(update={"start": str(tmp_path / "large"), "share": 0.1})
    with pytest.raises(PictuneError, match=f"{SIDE_FILE}: its size is not that of the setting"):
        DiffusionModel.from_pretrained("models/emoji-sd").add_adapter(start, generator=seeded())


def test_its_first_weights_hang_on_the_generator_alone(sd_folder: Path) -> None:
    model, first = DiffusionModel.from_pretrained(sd_folder), list[Tensor]()
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 1, 2):
            torch.manual_seed(len(first))
            before = torch.get_rng_state()
            model.add_adapter(SIDE, generator=seeded(seed))
            assert torch.equal(torch.get_rng_state(), before)
            first.append(model.adapter.state()["conv_in.weight"])
            model.adapter.remove()
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_a_broken_file_gets_one_clear_line(sd_folder: Path, tmp_path: Path) -> None:
    model = open_with_adapter(sd_folder, SIDE)
    next(iter(model.adapter.parameters().values())).data.fill_(torch.nan)
    file = model.adapter.save(tmp_path)
    with pytest.raises(PictuneError, match=f"{SIDE_FILE}: NaN or infinity in"):
        model.load_adapter(tmp_path)
    with safe_open(file, "pt") as opened:
        assert list(opened.metadata()) == ["config"]
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(PictuneError, match=f"{SIDE_FILE}: does not fit this model") as told:
        model.load_adapter(tmp_path)
    assert "\n" not in str(told.value)
