"""DDPO: the loop of DPOK without its KL and value function."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from finetune.ddpo import DDPOConfig
from finetune.diffusion import DiffusionModel, LoraSettings
from finetune.dpok import DPOKConfig
from finetune.policy_gradient import PolicyGradientConfig, train
from finetune.training import ValidationConfig, schedule
from tests.tiny_diffusion import write_tiny_diffusion

SMALL = {
    "iterations": 2,
    "images_per_prompt": 4,
    "steps": 3,
    "micro_batch": 4,
    "validation": ValidationConfig(every=2, images_per_prompt=1),
}


def redness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    assert len(prompts) == len(images)
    return images[:, 0].mean((1, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_diffusion(
        tmp_path_factory.mktemp("tiny") / "model", prediction="v_prediction"
    )


def tuned(folder: Path, config: PolicyGradientConfig) -> dict[str, Tensor]:
    """The adapters after training."""
    generator = torch.Generator().manual_seed(0)
    model = DiffusionModel.from_pretrained(folder)
    model.add_lora(LoraSettings(rank=2), generator=generator)
    list(train(model, ["a cat", "a dog"], redness, config, generator=generator))
    return model.lora_state()


def test_ddpo_is_dpok_without_kl_and_value_function(folder: Path) -> None:
    ddpo = tuned(folder, DDPOConfig.model_validate(SMALL))
    bare = tuned(
        folder, DPOKConfig.model_validate(SMALL | {"kl_weight": 0.0, "baseline": "prompt_mean"})
    )
    whole = tuned(folder, DPOKConfig.model_validate(SMALL | {"kl_weight": 1.0}))
    assert all(torch.equal(weight, bare[name]) for name, weight in ddpo.items())
    assert not all(torch.equal(weight, whole[name]) for name, weight in ddpo.items())


def test_ddpo_never_asks_the_reference_and_logs_no_kl(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: DiffusionModel) -> None:
        raise AssertionError

    model = DiffusionModel.from_pretrained(folder)
    model.add_lora(LoraSettings(rank=2), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(DiffusionModel, "adapters_off", refuse)
    first, second = train(
        model,
        ["a cat"],
        redness,
        DDPOConfig.model_validate(SMALL),
        generator=torch.Generator().manual_seed(0),
    )
    assert first.kl is second.kl is None
    assert first.value_explained_variance is None
    assert first.first_ratio_gap == second.first_ratio_gap == 0


def test_a_decaying_learning_rate_rises_over_the_warmup_and_falls_to_nothing(folder: Path) -> None:
    assert [schedule(step, warmup=2, total=4) for step in range(5)] == [0.5, 0.75, 0.5, 0.25, 0.0]
    assert [schedule(step, warmup=2, total=None) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]
    model, generator = DiffusionModel.from_pretrained(folder), torch.Generator().manual_seed(0)
    config = DDPOConfig.model_validate(SMALL | {"learning_rate": 1e-3, "warmup": 0, "decay": True})
    model.add_lora(LoraSettings(rank=2), generator=generator)
    assert [
        metrics.learning_rate
        for metrics in train(model, ["a cat"], redness, config, generator=generator)
    ] == [1e-3, 5e-4]
