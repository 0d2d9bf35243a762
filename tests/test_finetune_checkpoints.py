"""A run that was stopped and continued ends exactly where an uninterrupted one ends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune.labels.weighted_batches import WeightedData
from finetune.learning.checkpoints import load_latest, save_checkpoint
from finetune.learning.method import Method
from finetune.learning.training import TrainState
from finetune.learning.validation import Validation
from finetune.methods import ddpo, dpok, nft, preference, reward_gradient, reward_weighted
from finetune.settings.ddpo import DDPOConfig
from finetune.settings.dpok import DPOKConfig
from finetune.settings.method import MethodConfig
from finetune.settings.nft import NFTConfig
from finetune.settings.reward_gradient import RewardGradientConfig
from finetune.settings.reward_weighted import RewardWeightedConfig
from finetune.settings.validation import ValidationConfig
from tests.support.small_labels import SMALL as SMALL_LABELS
from tests.support.small_labels import small_labels
from tests.support.small_training import NO_SAMPLES, open_with_adapter, seeded, training_of

VALIDATION = ValidationConfig(every=2, images_per_prompt=2)
SMALL = {
    "iterations": 4,
    "images_per_prompt": 3,
    "micro_batch": 4,
    "prompts_per_iteration": 1,
    "validation": VALIDATION,
}
RWL = RewardWeightedConfig(
    updates=4,
    batch=4,
    report_every=1,
    validation=VALIDATION,
)
METHODS: dict[str, tuple[Method[Any], MethodConfig]] = {
    "dpok": (dpok.METHOD, DPOKConfig.model_validate(SMALL | {"replay_iterations": 1})),
    "ddpo": (ddpo.METHOD, DDPOConfig.model_validate(SMALL)),
    "rwl": (reward_weighted.METHOD, RWL),
    "preference": (preference.METHOD, SMALL_LABELS.model_copy(update={"verdicts": "kto"})),
    "nft": (nft.METHOD, NFTConfig.model_validate(SMALL | {"std_floor": 1e-4, "old_decay": 0.5})),
    "reward_gradient": (
        reward_gradient.METHOD,
        RewardGradientConfig.model_validate(
            SMALL
            | {
                "truncation": "random",
                "steps_back": 3,
                "pretraining_weight": 0.1,
                "validation": VALIDATION.model_dump(),
            }
        ),
    ),
}


class Run:
    """One method on a fresh model, whose state can be saved and loaded."""

    def __init__(self, folder: Path, name: str) -> None:
        self.method, config = METHODS[name]
        self.generator = seeded()
        self.model = open_with_adapter(folder, generator=self.generator)
        latents = torch.randn(6, 4, 8, 8, generator=seeded(3))
        data = WeightedData(latents, ["a cat", "a dog"] * 3, torch.linspace(0, 1, 6))
        self.training = training_of(
            self.model,
            config,
            reward=contrast,
            generator=self.generator,
            data=small_labels() if name == "preference" else data,
        )
        self.state: TrainState = self.method.start(self.training)

    def steps(self) -> Iterator[Any]:
        """Train to the end, and yield metrics."""
        return self.method.train(self.training, self.state)


def contrast(images: Tensor, _: object) -> Tensor:
    """Reward light beside dark."""
    return images.flatten(1).std(1)


def flatten(value: Any) -> list[Any]:
    """Return nested values in one list that can be compared."""
    if isinstance(value, dict):
        return [item for key in sorted(value, key=str) for item in [key, *flatten(value[key])]]
    if isinstance(value, list | tuple):
        return [item for part in value for item in flatten(part)]
    return [value.tolist()] if isinstance(value, Tensor) else [value]


@pytest.mark.parametrize("method", METHODS)
def test_stopped_and_continued_equals_uninterrupted(
    sd_folder: Path, tmp_path: Path, method: str
) -> None:
    whole = Run(sd_folder, method)
    list(whole.steps())
    first = Run(sd_folder, method)
    for metrics in first.steps():
        if metrics.step == 2:
            save_checkpoint(tmp_path, first.state, first.generator)
            break
    second = Run(sd_folder, method)
    assert load_latest(tmp_path, second.state, second.generator)
    assert [metrics.step for metrics in second.steps()] == [3, 4]
    assert flatten(second.state.weights()) == flatten(whole.state.weights())
    assert flatten(second.state.state_dict()) == flatten(whole.state.state_dict())
    assert torch.equal(second.generator.get_state(), whole.generator.get_state())


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    sd_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(sd_folder, "rwl")
    assert not load_latest(tmp_path, run.state, run.generator)
    place = tmp_path
    for _ in run.steps():
        place = save_checkpoint(tmp_path, run.state, run.generator)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000003", "step-0000004"]
    (place / "weights.safetensors").write_bytes(b"damaged")
    resumed = Run(sd_folder, "rwl")
    assert load_latest(tmp_path, resumed.state, resumed.generator)
    assert resumed.state.step == 3
    assert "damaged" in caplog.text


def test_the_best_weights_are_kept_and_restored(sd_folder: Path) -> None:
    run = Run(sd_folder, "rwl")
    base = run.model.adapter.state()
    for step, reward in enumerate([0.5, 0.7, 0.7, 0.6]):
        run.state.step = step
        run.state.record_validation(Validation(torch.tensor([reward]), {}, VALIDATION, NO_SAMPLES))
        for weight in run.model.adapter.parameters().values():
            weight.data.add_(1.0)
    run.state.restore_best()
    for name, kept in run.model.adapter.state().items():
        torch.testing.assert_close(kept, base[name] + 1.0)
