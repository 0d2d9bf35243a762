"""The guards: monitors, early stopping, and the errors where numbers are no longer finite."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data.errors import PictuneError
from finetune.learning.monitors import Monitor, diversity, saturation, sharpness, summary
from finetune.learning.rollout import collect
from finetune.learning.training import TrainState
from finetune.learning.validation import SAMPLED_PROMPTS, SAMPLES_PER_PROMPT, Validation, Validator
from finetune.methods import ddpo, policy_gradient
from finetune.model.diffusion import DiffusionModel
from finetune.settings.ddpo import DDPOConfig
from finetune.settings.model import AdapterSettings
from finetune.settings.sampler import Sampler
from finetune.settings.validation import Limits, Measure, ValidationConfig, ValidationRules
from tests.support.small_methods import Run
from tests.support.small_training import NO_SAMPLES, open_with_adapter, redness, seeded, training_of

LIMITS = Limits(saturation=2.0, sharpness=2.0, diversity=0.5, disagreement=3.0)
UNTUNED = {"saturation": 0.2, "sharpness": 0.1, "diversity": 0.4, "disagreement": 0.05}
SMALL = {"images_per_prompt": 2, "micro_batch": 4, "prompts_per_iteration": 2}
SAMPLER = Sampler(steps=2)


@pytest.fixture(scope="module")
def model(sd_folder: Path) -> DiffusionModel:
    return open_with_adapter(sd_folder)


def test_saturation_is_0_for_gray_and_1_for_pure_colors() -> None:
    gray, red = torch.full((3, 4, 4), 0.5), torch.zeros(3, 4, 4)
    red[0] = 0.7
    pale = torch.stack([torch.full((4, 4), 1.0), torch.full((4, 4), 0.5), torch.full((4, 4), 0.75)])
    found = saturation(torch.stack([gray, red, pale]))
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 0.5]))


def test_sharpness_falls_when_an_image_is_blurred() -> None:
    sharp = torch.rand(1, 3, 16, 16, generator=seeded())
    blurred = torch.nn.functional.avg_pool2d(sharp, 3, stride=1, padding=1)
    assert sharpness(blurred) < 0.5 * sharpness(sharp)
    assert sharpness(torch.full((1, 3, 8, 8), 0.3)).item() == pytest.approx(0, abs=1e-6)


def test_diversity_is_the_mean_cosine_distance_within_a_prompt() -> None:
    embeddings = torch.tensor(
        [[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0], [5.0, 5.0], [1.0, 1.0], [0.3, 0.9]]
    )
    prompts = ["a", "a", "a", "b", "b", "alone"]
    expected = ((1 + 2 + 1) / 3 + 0) / 2
    assert diversity(embeddings, prompts) == pytest.approx(expected, abs=1e-6)
    assert diversity(embeddings[:2], ["a", "b"]) is None


@pytest.mark.parametrize(("measure", "fine", "beyond"), [
    ("saturation", [0.11, 0.39], [0.09, 0.41]),
    ("sharpness", [0.06, 0.19], [0.04, 0.21]),
    ("diversity", [0.21, 2.0], [0.19]),
    ("disagreement", [0.0, 0.14], [0.16]),
])  # fmt: skip
def test_each_measure_has_its_limits(
    measure: Measure, fine: list[float], beyond: list[float]
) -> None:
    for value in fine:
        assert not LIMITS.exceeded(UNTUNED | {measure: value}, UNTUNED)
    for value in beyond:
        assert set(LIMITS.exceeded(UNTUNED | {measure: value}, UNTUNED)) == {measure}


def test_a_measure_that_the_untuned_model_does_not_have_is_not_judged() -> None:
    assert not LIMITS.exceeded({"disagreement": 1.0, "diversity": 0.0}, {"disagreement": 0.0})


def test_a_monitor_without_models_measures_pixels_alone() -> None:
    images, prompts = torch.rand(2, 3, 8, 8, generator=seeded()), ["a", "a"]
    of_pixels = set(summary(Monitor().measure(images, prompts), prompts))
    assert of_pixels == {"saturation", "sharpness"}
    full = Monitor(lambda images: images.flatten(1), lambda images, _: images.std((1, 2, 3)))
    found = set(summary(full.measure(images, prompts), prompts))
    assert found == {"saturation", "sharpness", "diversity", "disagreement"}


def history(
    model: DiffusionModel,
    found: Sequence[tuple[float, float]],
    *,
    stop_on: tuple[Measure, ...] = (),
    patience: int | None = None,
) -> TrainState:
    """Return the state after validations of these rewards and diversities."""
    optimizer = torch.optim.AdamW(list(model.adapter.parameters().values()))
    state = TrainState(model=model, optimizer=optimizer)
    config, rules = ValidationConfig(stop_on=stop_on), ValidationRules(patience=patience)
    for step, (reward, spread) in enumerate(found):
        state.step = step
        rewards = torch.tensor([reward], dtype=torch.float64)
        monitors = {"diversity": spread}
        state.record_validation(Validation(rewards, monitors, config, NO_SAMPLES, rules=rules))
    return state


def test_patience_stops_when_the_reward_has_not_risen_for_so_long(model: DiffusionModel) -> None:
    rising = [(0.5, 1), (0.6, 1), (0.6, 1)]
    assert history(model, rising, patience=2).stopped == ""
    assert "2 validations" in history(model, [*rising, (0.5, 1)], patience=2).stopped
    falling = [(0.6, 1), (0.5, 1), (0.4, 1), (0.3, 1)]
    assert history(model, falling).stopped == ""


def test_a_measure_beyond_its_limit_is_warned_of_and_stops_only_where_asked(
    model: DiffusionModel, caplog: pytest.LogCaptureFixture
) -> None:
    collapsing = [(0.5, 0.4), (0.6, 0.3), (0.9, 0.1)]
    assert history(model, collapsing[:2]).stopped == ""
    assert not caplog.records
    assert history(model, collapsing).stopped == ""
    warning = "diversity is 0.25 times the untuned model's (0.1 from 0.4, at least 0.6)"
    assert f"step 2: {warning}" in caplog.text
    stopped = history(model, collapsing, stop_on=("diversity",))
    assert "diversity" in stopped.stopped
    assert stopped.best == (1, 0.6)  # not the collapsed weights, though their reward is the highest
    assert history(model, collapsing).best == (2, 0.9)
    assert history(model, collapsing, stop_on=("sharpness",)).stopped == ""


def test_guards_compare_with_the_untuned_model_where_training_starts_from_an_adapter(
    sd_folder: Path, tmp_path: Path
) -> None:
    first = open_with_adapter(sd_folder)
    for weight in first.adapter.parameters().values():
        weight.data.add_(0.3)
    first.adapter.save(tmp_path)
    seen: list[Tensor] = []

    def embed(images: Tensor) -> Tensor:
        seen.append(images)
        return images.flatten(1)

    config, monitor = ValidationConfig(every=5, images_per_prompt=2), Monitor(embed)
    parts = {"prompts": ["a cat"], "watched": ["a lion"], "monitor": monitor, "sampler": SAMPLER}
    changes = {"adapter": AdapterSettings(rank=2, start=str(tmp_path)), "iterations": 1}
    run = Run(sd_folder, "ddpo", redness, parts=parts, validation=config, **changes)
    list(run.steps())
    base = DiffusionModel.from_pretrained(sd_folder)
    untuned = Validator(base, ["a lion"], redness, config, SAMPLER, monitor)()
    assert run.state.untuned == pytest.approx(untuned.monitors)
    assert not torch.equal(seen[0], seen[1])  # the untuned model, then the start


def test_the_monitor_sees_a_batch_at_a_time(sd_folder: Path) -> None:
    counts: list[int] = []

    def embed(images: Tensor) -> Tensor:
        counts.append(len(images))
        return images.flatten(1)

    def validated(batch: int) -> Validation:
        config, monitor = ValidationConfig(images_per_prompt=5), Monitor(embed)
        model = DiffusionModel.from_pretrained(sd_folder)
        return Validator(model, ["a lion"], redness, config, SAMPLER, monitor, batch=batch)()

    found = validated(2)
    assert counts == [2, 2, 1]
    assert found.monitors == pytest.approx(validated(5).monitors, rel=1e-3)


def test_samples_are_the_first_images_of_the_first_prompts(sd_folder: Path) -> None:
    seen: list[Tensor] = []

    def reward(images: Tensor, prompts: Sequence[str]) -> Tensor:
        seen.append(images)
        return redness(images, prompts)

    prompts = [f"{number} lions" for number in range(SAMPLED_PROMPTS + 1)]
    config = ValidationConfig(images_per_prompt=SAMPLES_PER_PROMPT + 1)
    model = DiffusionModel.from_pretrained(sd_folder)
    samples = Validator(model, prompts, reward, config, SAMPLER)().samples
    images = torch.cat(seen).unflatten(0, (len(prompts), -1))
    assert torch.equal(samples, (images[:-1, :-1] * 255).round().byte())
    for count, kept in ((1, 1), (SAMPLES_PER_PROMPT + 1, SAMPLES_PER_PROMPT)):
        few = ValidationConfig(images_per_prompt=count)
        samples = Validator(model, prompts[:2], None, few, SAMPLER)().samples
        assert samples.shape[:2] == (2, kept)


def test_a_loss_that_is_not_finite_names_step_and_prompt(sd_folder: Path) -> None:
    model = open_with_adapter(sd_folder)
    config = DDPOConfig.model_validate(SMALL | {"updates": 1})
    prompts = ["a cat", "a broken dog"]
    training = training_of(model, config, prompts=prompts, sampler=SAMPLER)
    algorithm = policy_gradient.PolicyGradient(ddpo.loss)
    state = policy_gradient.start(algorithm, training)
    rollout = collect(training, state.statistics)
    rollout.latents[rollout.prompts.index("a broken dog")] = torch.nan
    before = model.adapter.state()
    message = "not finite in step 1, for 'a broken dog'; lower learning_rate"
    with pytest.raises(PictuneError, match=message):
        policy_gradient.update(algorithm, training, state, rollout, learning_rate=1e-3)
    assert all(torch.equal(weight, before[name]) for name, weight in model.adapter.state().items())
