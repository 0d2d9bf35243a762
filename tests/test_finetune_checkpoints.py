"""A run that was stopped and continued ends exactly where an uninterrupted one ends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune import policy_gradient, reward_weighted
from finetune.ddpo import DDPOConfig
from finetune.diffusion import DiffusionModel, LoraSettings
from finetune.dpok import DPOKConfig
from finetune.training import TrainState, Validation, ValidationConfig, load_latest, save_checkpoint
from tests.tiny_diffusion import write_tiny_diffusion

VALIDATION = ValidationConfig(every=2, images_per_prompt=2)
SMALL = {
    "iterations": 4,
    "images_per_prompt": 3,
    "steps": 3,
    "micro_batch": 4,
    "prompts_per_iteration": 1,
    "validation": VALIDATION,
}
ONLINE = {
    "dpok": DPOKConfig.model_validate(SMALL | {"replay_iterations": 1}),
    "ddpo": DDPOConfig.model_validate(SMALL),
}
RWL = reward_weighted.RewardWeightedConfig(
    updates=4, batch=4, steps=2, report_every=1, validation=VALIDATION
)


class Run:
    """One method on a fresh model, whose state can be saved and loaded."""

    def __init__(self, folder: Path, method: str) -> None:
        self.method, self.generator = method, torch.Generator().manual_seed(0)
        self.model = DiffusionModel.from_pretrained(folder)
        self.model.add_lora(LoraSettings(rank=2), generator=self.generator)
        self.state: TrainState = (
            reward_weighted.start(self.model, RWL)
            if method == "rwl"
            else policy_gradient.start(self.model, ONLINE[method], generator=self.generator)
        )

    def steps(self) -> Iterator[Any]:
        if isinstance(self.state, policy_gradient.PolicyState):
            config = ONLINE[self.method]
            return policy_gradient.train(
                self.model,
                ["a cat", "a dog"],
                contrast,
                config,
                generator=self.generator,
                state=self.state,
            )
        assert isinstance(self.state, reward_weighted.RewardWeightedState)
        latents = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(3))
        data = reward_weighted.WeightedData(
            latents, ["a cat", "a dog"] * 3, torch.linspace(0, 1, 6)
        )
        return reward_weighted.train(
            self.model, data, contrast, RWL, generator=self.generator, state=self.state
        )


def contrast(images: Tensor, _: object) -> Tensor:
    return images.flatten(1).std(1)


def flatten(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [item for key in sorted(value, key=str) for item in [key, *flatten(value[key])]]
    if isinstance(value, list | tuple):
        return [item for part in value for item in flatten(part)]
    return [value.tolist()] if isinstance(value, Tensor) else [value]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_diffusion(tmp_path_factory.mktemp("tiny") / "model")


@pytest.mark.parametrize("method", [*ONLINE, "rwl"])
def test_stopped_and_continued_equals_uninterrupted(
    folder: Path, tmp_path: Path, method: str
) -> None:
    whole = Run(folder, method)
    list(whole.steps())
    first = Run(folder, method)
    for metrics in first.steps():
        if metrics.step == 2:
            save_checkpoint(tmp_path, first.state, first.generator)
            break
    second = Run(folder, method)
    assert load_latest(tmp_path, second.state, second.generator)
    assert [metrics.step for metrics in second.steps()] == [3, 4]
    assert flatten(second.state.weights()) == flatten(whole.state.weights())
    assert flatten(second.state.state_dict()) == flatten(whole.state.state_dict())
    assert torch.equal(second.generator.get_state(), whole.generator.get_state())


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(folder, "rwl")
    assert not load_latest(tmp_path, run.state, run.generator)
    place = tmp_path
    for _ in run.steps():
        place = save_checkpoint(tmp_path, run.state, run.generator)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000003", "step-0000004"]
    (place / "weights.safetensors").write_bytes(b"damaged")
    resumed = Run(folder, "rwl")
    assert load_latest(tmp_path, resumed.state, resumed.generator)
    assert resumed.state.step == 3
    assert "damaged" in caplog.text


def test_the_best_weights_are_kept_and_restored(folder: Path) -> None:
    run = Run(folder, "rwl")
    base = run.model.lora_state()
    for step, reward in enumerate([0.5, 0.7, 0.7, 0.6]):
        run.state.step = step
        run.state.record_validation(Validation(reward, {}, VALIDATION))
        for weight in run.model.lora_parameters().values():
            weight.data.add_(1.0)
    run.state.restore_best()
    for name, kept in run.model.lora_state().items():
        torch.testing.assert_close(kept, base[name] + 1.0)
