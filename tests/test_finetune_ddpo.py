"""DDPO: the loop of DPOK without its KL and value function."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune.learning.method import Method
from finetune.learning.training import rate_schedule
from finetune.methods import ddpo, dpok
from finetune.model.diffusion import DiffusionModel
from finetune.settings.ddpo import DDPOConfig
from finetune.settings.validation import ValidationConfig
from tests.support.small_training import open_with_adapter, seeded, trained, training_of

SMALL = {
    "iterations": 2,
    "images_per_prompt": 4,
    "micro_batch": 4,
    "validation": ValidationConfig(every=2, images_per_prompt=1),
}


def tuned(folder: Path, method: Method[Any], **settings: object) -> dict[str, Tensor]:
    """Return the adapters after training."""
    generator = seeded()
    model = open_with_adapter(folder, generator=generator)
    config = method.config.model_validate(SMALL | settings)
    list(trained(method, training_of(model, config, generator=generator)))
    return model.adapter.state()


def test_ddpo_is_dpok_without_kl_and_value_function(velocity_folder: Path) -> None:
    alone = tuned(velocity_folder, ddpo.METHOD)
    bare = tuned(velocity_folder, dpok.METHOD, kl_weight=0.0, baseline="prompt_mean")
    whole = tuned(velocity_folder, dpok.METHOD, kl_weight=1.0)
    assert all(torch.equal(weight, bare[name]) for name, weight in alone.items())
    assert not all(torch.equal(weight, whole[name]) for name, weight in alone.items())


def test_ddpo_never_uses_the_reference_and_logs_no_kl(
    velocity_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: DiffusionModel) -> None:
        raise AssertionError

    model = open_with_adapter(velocity_folder)
    monkeypatch.setattr(DiffusionModel, "adapter_off", refuse)
    training = training_of(model, DDPOConfig.model_validate(SMALL), prompts=["a cat"])
    first, second = trained(ddpo.METHOD, training)
    assert first.kl is second.kl is None
    assert first.value_explained_variance is None
    assert first.first_ratio_gap == second.first_ratio_gap == 0


def test_a_decaying_learning_rate_rises_over_the_warmup_and_falls_to_nothing(
    velocity_folder: Path,
) -> None:
    assert [rate_schedule(step, warmup=2, total=4) for step in range(5)] == [
        0.5,
        0.75,
        0.5,
        0.25,
        0.0,
    ]
    assert [rate_schedule(step, warmup=2, total=None) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]
    config = DDPOConfig.model_validate(SMALL | {"learning_rate": 1e-3, "warmup": 0, "decay": True})
    training = training_of(open_with_adapter(velocity_folder), config, prompts=["a cat"])
    rates = [metrics.learning_rate for metrics in trained(ddpo.METHOD, training)]
    assert rates == [1e-3, 5e-4]
