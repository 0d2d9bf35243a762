"""Another kind of adapter, defined here alone: the biases of the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from finetune.learning.checkpoints import load_latest, save_checkpoint
from finetune.model.adapter import Adapter
from finetune.model.diffusion import DiffusionModel
from finetune.model.family import Family
from finetune.model.sampler import draw
from finetune.settings.adapter_kinds import ADAPTERS, AdapterKind, kind_of
from finetune.settings.model import AdapterSettings
from finetune.settings.sampler import Sampler
from tests.support.small_methods import Run
from tests.support.small_training import open_with_adapter, perturb

FILE = "biases.safetensors"
PLACE = f"{__name__}:Biases"
SAMPLER = Sampler(steps=4, guidance=3.0)


class Biases(Adapter):
    """The biases of a network, trained as they are."""

    def __init__(self, network: nn.Module) -> None:
        """Train the network's biases from their present values on."""
        named = network.named_parameters()
        self.biases = {name: one for name, one in named if name.endswith(".bias")}
        self.base = {name: one.detach().clone() for name, one in self.biases.items()}
        for one in self.biases.values():
            one.requires_grad_(True)

    @classmethod
    def add(cls, family: Family, settings: AdapterSettings, *, generator: torch.Generator) -> Self:
        """Add fresh ones."""
        assert (settings.kind, generator.device.type) == ("biases", "cpu")
        return cls(family.network)

    @classmethod
    def load(cls, family: Family, folder: Path) -> Self:
        """Add saved ones."""
        biases = cls(family.network)
        biases.set_state(load_file(folder / FILE))
        return biases

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the biases."""
        return self.biases

    def off(self) -> Any:
        """Take the base's biases."""
        return self.at_strength(0.0)

    @contextmanager
    def at_strength(self, strength: float) -> Iterator[None]:
        """Go this far from the base's biases to the present ones."""
        present = {name: one.data for name, one in self.biases.items()}
        for name, one in self.biases.items():
            one.data = torch.lerp(self.base[name], present[name], strength)
        try:
            yield
        finally:
            for name, one in self.biases.items():
                one.data = present[name]

    def save(self, folder: str | Path) -> Path:
        """Write the biases by name."""
        file = Path(folder) / FILE
        file.parent.mkdir(exist_ok=True)
        save_file(self.state(), file)
        return file

    def remove(self) -> None:
        """Give the network its own biases."""
        for name, one in self.biases.items():
            one.requires_grad_(False)
            one.data = self.base[name]

    def leave_casts_to_autocast(self, is_on: bool) -> None:
        """Biases cast nothing."""
        assert not is_on


@pytest.fixture(autouse=True)
def _biases_are_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = AdapterKind("Biases", FILE, "read({folder!r})", "read({folder!r}, {strength:g})", PLACE)
    monkeypatch.setitem(ADAPTERS, "biases", kind)


def run_of(folder: Path, method: str) -> Run:
    """Return a training of a fresh model's biases."""
    return Run(folder, method, adapter=AdapterSettings(kind="biases"))


def drawn(model: DiffusionModel, strength: float = 1.0) -> Tensor:
    """Return an image at a strength of the adapter."""
    with model.adapter.at_strength(strength):
        return draw(model, ["a dog"], SAMPLER, seeds=[5])


@pytest.mark.parametrize("method", ["nft", "rwl"])
def test_biases_alone_are_trained_resumed_drawn_at_half_strength_and_saved(
    sd_folder: Path, tmp_path: Path, method: str
) -> None:
    base = DiffusionModel.from_pretrained(sd_folder)
    whole, first, second = (run_of(sd_folder, method) for _ in range(3))
    steps = [metrics.step for metrics in whole.steps()]
    for metrics in first.steps():
        if metrics.step == 2:
            save_checkpoint(tmp_path / "checkpoints", first.state, first.generator)
            break
    assert load_latest(tmp_path / "checkpoints", second.state, second.generator)
    assert [metrics.step for metrics in second.steps()] == [one for one in steps if one > 2]
    _assert_equal(second.state.weights(), whole.state.weights())

    untuned, tuned = base.network.state_dict(), whole.model.network.state_dict()
    moved = {name for name, weight in tuned.items() if not torch.equal(weight, untuned[name])}
    assert moved
    assert moved <= set(whole.model.adapter.parameters())
    none, half, full = (drawn(whole.model, strength) for strength in (0.0, 0.5, 1.0))
    assert torch.equal(none, draw(base, ["a dog"], SAMPLER, seeds=[5]))
    assert not torch.equal(half, none)
    assert not torch.equal(half, full)

    whole.model.adapter.save(tmp_path)
    base.load_adapter(tmp_path)
    assert torch.equal(draw(base, ["a dog"], SAMPLER, seeds=[5]), full)
    assert kind_of(tmp_path).code(tmp_path, 0.5) == f"read({str(tmp_path)!r}, 0.5)"


def test_an_adapter_of_another_kind_takes_the_place_of_the_present_one(
    sd_folder: Path, tmp_path: Path
) -> None:
    biases, lora = run_of(sd_folder, "rwl").model, open_with_adapter(sd_folder)
    for model, folder in ((biases, "biases"), (lora, "lora")):
        perturb(model)
        model.adapter.save(tmp_path / folder)
    own, expected = (
        drawn(biases),
        drawn(lora),
    )
    biases.load_adapter(tmp_path / "lora")
    assert torch.equal(drawn(biases), expected)
    biases.load_adapter(tmp_path / "biases")
    assert torch.equal(drawn(biases), own)


def test_an_unknown_kind_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="is none of lora, side, biases"):
        AdapterSettings(kind="side_network")


def _assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())
