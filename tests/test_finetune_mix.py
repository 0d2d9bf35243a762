"""A mix draws with several adapters: the laws of its weights, for LoRAs and side networks."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from data.errors import PictuneError
from finetune.model.diffusion import DiffusionModel
from finetune.model.lora import lora_layers
from finetune.model.sampler import draw
from finetune.settings.model import AdapterSettings
from finetune.settings.sampler import Sampler
from tests.support.small_training import open_with_adapter, perturb, seeded

SAMPLER = Sampler(steps=6, guidance=3.0, eta=1.0)
KINDS = {
    "first": AdapterSettings(rank=2),
    "second": AdapterSettings(rank=4, feed_forward=True),
    "side": AdapterSettings(kind="side"),
}


@pytest.fixture(scope="module")
def folders(sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two LoRAs of different layers and a side network, all of which change the images."""
    root = tmp_path_factory.mktemp("adapters")
    for number, (name, settings) in enumerate(KINDS.items()):
        model = open_with_adapter(sd_folder, settings)
        perturb(model, 0.05 if name == "side" else 0.3, generator=seeded(number))
        model.adapter.save(root / name)
    return {name: root / name for name in KINDS}


@pytest.fixture(scope="module")
def model(sd_folder: Path) -> DiffusionModel:
    return DiffusionModel.from_pretrained(sd_folder)


def drawn(model: DiffusionModel, seeds: range = range(4)) -> Tensor:
    return draw(model, ["a dog"] * len(seeds), SAMPLER, seeds=list(seeds), batch=4)


def predictions(model: DiffusionModel) -> Tensor:
    cond, uncond = model.encode_prompts(["a dog", "a cat"]), model.encode_prompts(["", ""])
    latents = torch.randn(2, *model.latent_shape, generator=seeded(3))
    with torch.no_grad():
        return model.predict(latents, torch.tensor([10, 900]), cond, uncond, 3.0)


@pytest.mark.parametrize("one_a_step", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_a_mix_of_one_adapter_and_of_weights_1_and_0_draw_as_that_adapter_bit_for_bit(
    model: DiffusionModel, folders: dict[str, Path], name: str, one_a_step: bool
) -> None:
    with model.adapter_off():
        base = drawn(model)
    model.load_adapter(folders[name])
    own = {strength: _at(model, strength) for strength in (1.0, 0.5)}
    assert (own[1.0] - base).abs().max() > 1e-2
    others = [other for other in KINDS if other != name]
    for weights in ({name: 1.0}, {name: 1.0} | dict.fromkeys(others, 0.0)):
        for order in (list(weights), list(reversed(weights))):
            mixed = {folders[one]: weights[one] for one in order}
            model.load_mix(mixed, one_a_step=one_a_step)
            for strength, expected in own.items():
                assert torch.equal(_at(model, strength), expected)
            assert torch.equal(_at(model, 0.0), base)
            with model.adapter_off():
                assert torch.equal(drawn(model), base)
    model.load_adapter(folders[name])
    assert torch.equal(drawn(model), own[1.0])


def _at(model: DiffusionModel, strength: float) -> Tensor:
    with model.at_strength(strength):
        return drawn(model)


def test_predictions_are_the_weighted_sum_and_the_base_takes_the_rest(
    model: DiffusionModel, folders: dict[str, Path]
) -> None:
    with model.adapter_off():
        base = predictions(model)
    alone = {}
    for name, folder in folders.items():
        model.load_adapter(folder)
        alone[name] = predictions(model)
    for weights in ((0.5, 0.2, 0.3), (0.25, 0.25, 0.0), (1.5, 0.5, 0.25)):
        model.load_mix(dict(zip(folders.values(), weights, strict=True)))
        parts = sum(w * one for w, one in zip(weights, alone.values(), strict=True))
        expected = parts + (1 - sum(weights)) * base
        torch.testing.assert_close(predictions(model), expected, rtol=0, atol=1e-5)


def test_one_adapter_a_step_is_one_pass_an_image_by_its_seed_alone(
    model: DiffusionModel, folders: dict[str, Path]
) -> None:
    rows: list[int] = []
    mix = {folders["first"]: 0.5, folders["side"]: 0.25}
    model.load_mix(mix, one_a_step=True)
    hook = model.network.register_forward_hook(lambda _, __, out: rows.append(len(out[0])))
    images = drawn(model)
    hook.remove()
    assert sum(rows) == 2 * 4 * SAMPLER.steps  # guidance doubles them
    assert torch.equal(drawn(model), images)
    torch.testing.assert_close(drawn(model, range(2, 4)), images[2:], rtol=0, atol=1e-4)
    model.load_mix(mix)
    assert (drawn(model) - images).abs().max() > 1e-2
    model.load_mix(mix, one_a_step=True)
    with pytest.raises(ValueError, match="predicts with choices alone"):
        predictions(model)


def test_its_mean_prediction_over_the_choices_is_the_sum(
    model: DiffusionModel, folders: dict[str, Path]
) -> None:
    weights = dict(zip(folders.values(), (0.5, 0.125, 0.25), strict=True))
    model.load_mix(weights)
    latents = torch.randn(1, *model.latent_shape, generator=seeded(3)).expand(8, -1, -1, -1)
    cond, uncond = model.encode_prompts(["a dog"] * 8), model.encode_prompts([""] * 8)
    given = (latents, torch.full((8,), 500), cond, uncond, 3.0)
    with torch.no_grad():
        expected = model.predict(*given)
        model.load_mix(weights, one_a_step=True)
        found = model.predict(*given, choices=torch.arange(8, dtype=torch.double) / 8)
    torch.testing.assert_close(found.mean(0), expected[0], rtol=0, atol=1e-5)


def test_a_mix_that_fails_leaves_no_adapter_behind(
    model: DiffusionModel, folders: dict[str, Path], tmp_path: Path
) -> None:
    with model.adapter_off():
        base = drawn(model)
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"broken")
    with pytest.raises(PictuneError, match="does not fit this model"):
        model.load_mix({folders["first"]: 0.5, tmp_path: 0.5})
    assert not lora_layers(model.network)
    assert torch.equal(drawn(model), base)
    with pytest.raises(ValueError, match="has no adapter"):
        model.adapter.parameters()
