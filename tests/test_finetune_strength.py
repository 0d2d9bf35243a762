"""The strength of an adapter: as in stock diffusers, and the weakest that is as good is chosen."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from finetune.learning.strength import choose_strength, weakest_as_good
from finetune.learning.validation import Validation, Validator
from finetune.model.sampler import draw
from finetune.settings.sampler import Sampler
from finetune.settings.validation import Measure, ValidationConfig
from tests.support.small_training import (
    NO_SAMPLES,
    open_with_adapter,
    perturb,
    redness,
)

SAMPLER = Sampler(steps=4, guidance=3.0, eta=0.0)


def validations(
    rewards: Mapping[float, Sequence[float]],
    diversities: Mapping[float, float] | None = None,
    stop_on: tuple[Measure, ...] = (),
) -> dict[float, Validation]:
    """Validations of these rewards by strength."""
    return {
        strength: Validation(
            torch.tensor(values),
            {"diversity": (diversities or {}).get(strength, 0.4)},
            ValidationConfig(stop_on=stop_on),
            NO_SAMPLES,
        )
        for strength, values in rewards.items()
    }


def test_the_weakest_strength_that_cannot_be_told_from_the_best_is_chosen() -> None:
    found = weakest_as_good(
        validations(
            {
                0.0: [0.1, 0.5, 0.3, 0.7],
                0.5: [0.2, 0.6, 0.4, 0.8],  # always 0.1 behind the best
                0.75: [0.38, 0.6, 0.6, 0.8],  # ahead twice, behind twice
                1.0: [0.3, 0.7, 0.5, 0.9],
            }
        )
    )
    assert found.strength == 0.75
    assert [one.strength for one in found.tried] == [0.0, 0.5, 0.75, 1.0]
    assert [one.reward for one in found.tried] == pytest.approx([0.4, 0.5, 0.595, 0.6])
    assert [one.behind for one in found.tried] == pytest.approx([0.2, 0.1, 0.005, 0.0], abs=1e-6)
    errors = [0.0, 0.0, torch.tensor([-0.08, 0.1, -0.1, 0.1]).std().item() / 2, 0.0]
    assert [one.standard_error for one in found.tried] == pytest.approx(errors, abs=1e-6)
    assert found.tried[1].diversity == 0.4


def test_the_base_is_never_chosen_and_a_single_image_is_enough() -> None:
    assert weakest_as_good(validations({0.0: [0.9], 0.5: [0.1], 1.0: [0.2]})).strength == 1.0
    assert weakest_as_good(validations({0.0: [0.5], 0.5: [0.5], 1.0: [0.5]})).strength == 0.5


def test_a_strength_to_which_a_guard_objects_is_not_chosen() -> None:
    rewards = {0.0: [0.1, 0.1], 0.5: [0.2, 0.2], 1.0: [0.3, 0.3], 1.5: [0.9, 0.9]}
    collapsing = {0.5: 0.39, 1.0: 0.3, 1.5: 0.1}
    assert weakest_as_good(validations(rewards, collapsing)).strength == 1.5
    guarded = weakest_as_good(validations(rewards, collapsing, ("diversity",)))
    assert guarded.strength == 1.0
    assert guarded.tried[-1].behind == pytest.approx(-0.6)
    everywhere = dict.fromkeys((0.5, 1.0, 1.5), 0.1)
    assert weakest_as_good(validations(rewards, everywhere, ("diversity",))).strength == 1.5


def test_the_strength_is_as_trained_again_after_an_interrupted_block(sd_folder: Path) -> None:
    model = open_with_adapter(sd_folder)
    perturb(model)
    tuned = draw(model, ["a dog"], SAMPLER, seeds=[5])
    with pytest.raises(KeyboardInterrupt), model.adapter.at_strength(0.5):
        raise KeyboardInterrupt
    assert torch.equal(draw(model, ["a dog"], SAMPLER, seeds=[5]), tuned)


def test_the_adapter_of_the_model_is_validated_at_0_and_1_as_well(sd_folder: Path) -> None:
    model = open_with_adapter(sd_folder)
    config = ValidationConfig(images_per_prompt=2)
    validator = Validator(model, ["a cat", "a dog"], redness, config, SAMPLER)
    untuned = validator().reward
    perturb(model, 0.3)
    choice = choose_strength(validator, [0.5])
    rewards = {one.strength: one.reward for one in choice.tried}
    assert list(rewards) == [0.0, 0.5, 1.0]
    assert rewards[0.0] == untuned
    assert rewards[1.0] == validator().reward
    assert len(set(rewards.values())) == 3
