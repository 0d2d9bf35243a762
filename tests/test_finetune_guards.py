"""The guards: monitors against hand-made pictures, early stopping, and what is said when numbers are no longer finite."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data.errors import PictuneError
from finetune.ddpo import DDPOConfig
from finetune.diffusion import BASE, DiffusionModel, LoraSettings
from finetune.monitors import Limits, Measure, Monitor, diversity, saturation, sharpness, summary
from finetune.policy_gradient import PolicyState, improve, start, train
from finetune.rollout import collect
from finetune.training import TrainState, Validation, ValidationConfig, validate
from tests.tiny_diffusion import write_tiny_diffusion

LIMITS = Limits(saturation=2.0, sharpness=2.0, diversity=0.5, disagreement=3.0)
UNTUNED = {"saturation": 0.2, "sharpness": 0.1, "diversity": 0.4, "disagreement": 0.05}
SMALL = {"images_per_prompt": 2, "steps": 2, "micro_batch": 4, "prompts_per_iteration": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_diffusion(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> DiffusionModel:
    model = DiffusionModel.from_pretrained(folder)
    model.add_lora(LoraSettings(rank=2), generator=torch.Generator().manual_seed(0))
    return model


def redness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    assert len(prompts) == len(images)
    return images[:, 0].mean((1, 2))


def test_saturation_is_0_for_grey_and_1_for_pure_colours() -> None:
    grey, red = torch.full((3, 4, 4), 0.5), torch.zeros(3, 4, 4)
    red[0] = 0.7
    pale = torch.stack([torch.full((4, 4), 1.0), torch.full((4, 4), 0.5), torch.full((4, 4), 0.75)])
    torch.testing.assert_close(
        saturation(torch.stack([grey, red, pale])), torch.tensor([0.0, 1.0, 0.5])
    )


def test_sharpness_falls_when_a_picture_is_blurred() -> None:
    sharp = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
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
    assert all(not LIMITS.exceeded(UNTUNED | {measure: value}, UNTUNED) for value in fine)
    assert all(
        set(LIMITS.exceeded(UNTUNED | {measure: value}, UNTUNED)) == {measure} for value in beyond
    )


def test_what_the_untuned_model_has_none_of_is_not_judged() -> None:
    assert not LIMITS.exceeded({"disagreement": 1.0, "diversity": 0.0}, {"disagreement": 0.0})


def test_a_monitor_without_models_measures_pixels_alone() -> None:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert set(summary(Monitor().measure(images, ["a", "a"]), ["a", "a"])) == {
        "saturation",
        "sharpness",
    }
    full = Monitor(lambda images: images.flatten(1), lambda images, _: images.std((1, 2, 3)))
    assert set(summary(full.measure(images, ["a", "a"]), ["a", "a"])) == {
        "saturation",
        "sharpness",
        "diversity",
        "disagreement",
    }


def history(
    model: DiffusionModel, config: ValidationConfig, found: Sequence[tuple[float, float]]
) -> TrainState:
    """A state after validations of these rewards and diversities."""
    state = TrainState(
        model=model, optimizer=torch.optim.AdamW(list(model.lora_parameters().values()))
    )
    for step, (reward, spread) in enumerate(found):
        state.step = step
        state.record_validation(Validation(reward, {"diversity": spread}, config))
    return state


def test_patience_stops_when_the_reward_has_not_risen_for_so_long(model: DiffusionModel) -> None:
    config = ValidationConfig(patience=2)
    assert history(model, config, [(0.5, 1), (0.6, 1), (0.6, 1)]).stopped == ""
    assert (
        "2 validations" in history(model, config, [(0.5, 1), (0.6, 1), (0.6, 1), (0.5, 1)]).stopped
    )
    assert (
        history(model, ValidationConfig(), [(0.6, 1), (0.5, 1), (0.4, 1), (0.3, 1)]).stopped == ""
    )


def test_a_measure_beyond_its_limit_is_warned_of_and_stops_only_where_asked(
    model: DiffusionModel, caplog: pytest.LogCaptureFixture
) -> None:
    collapsing = [(0.5, 0.4), (0.6, 0.3), (0.9, 0.1)]
    assert history(model, ValidationConfig(), collapsing[:2]).stopped == ""
    assert not caplog.records
    assert history(model, ValidationConfig(), collapsing).stopped == ""
    assert (
        "step 2: diversity is 0.25 times the untuned model's (0.1 from 0.4, at least 0.6)"
        in caplog.text
    )
    stopped = history(model, ValidationConfig(stop_on=("diversity",)), collapsing)
    assert "diversity" in stopped.stopped
    assert stopped.best == (1, 0.6)  # not the collapsed weights, though their reward is the highest
    assert history(model, ValidationConfig(), collapsing).best == (2, 0.9)
    assert history(model, ValidationConfig(stop_on=("sharpness",)), collapsing).stopped == ""


def online(
    folder: Path,
    validation: ValidationConfig,
    reward: Callable[[Tensor, Sequence[str]], Tensor],
    monitor: Monitor,
    *,
    iterations: int = 6,
    start_lora: str = BASE,
) -> PolicyState:
    generator = torch.Generator().manual_seed(0)
    model = DiffusionModel.from_pretrained(folder)
    lora = LoraSettings(rank=2, start=start_lora)
    model.add_lora(lora, generator=generator)
    config = DDPOConfig.model_validate(
        SMALL | {"iterations": iterations, "validation": validation, "lora": lora}
    )
    state = start(model, config, generator=generator)
    list(
        train(
            model,
            ["a cat"],
            reward,
            config,
            generator=generator,
            state=state,
            validation_prompts=["a lion"],
            monitor=monitor,
        )
    )
    return state


def test_training_ends_early_on_held_out_prompts_and_keeps_their_best_weights(folder: Path) -> None:
    seen: list[float] = []

    def falling(images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Less at each validation; the held-out prompt is scored there alone."""
        if "a lion" in prompts:
            seen.append(-float(len(seen)))
            return torch.full((len(images),), seen[-1])
        return redness(images, prompts)

    state = online(
        folder, ValidationConfig(every=1, images_per_prompt=1, patience=2), falling, Monitor()
    )
    assert state.step == 2
    assert [reward for _, reward in state.validation] == [0.0, -1.0, -2.0]
    state.restore_best()
    assert all(
        bool((weight == 0).all())
        for name, weight in state.model.lora_state().items()
        if "lora_B" in name
    )


def test_collapsing_diversity_stops_the_training(folder: Path) -> None:
    shrinking = iter([1.0, 0.9, 0.1, 0.1])

    def embed(images: Tensor) -> Tensor:
        """Two embeddings whose distance shrinks from one validation to the next."""
        angle = next(shrinking)
        return torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]])[: len(images)]

    validation = ValidationConfig(every=1, images_per_prompt=2, stop_on=("diversity",))
    state = online(folder, validation, redness, Monitor(embed))
    assert state.step == 2
    assert state.stopped.startswith("diversity is")


def test_guards_compare_with_the_untuned_model_where_training_starts_from_a_lora(
    folder: Path, tmp_path: Path
) -> None:
    first = DiffusionModel.from_pretrained(folder)
    first.add_lora(LoraSettings(rank=2), generator=torch.Generator().manual_seed(0))
    for weight in first.lora_parameters().values():
        weight.data.add_(0.3)
    first.save_lora(tmp_path)
    seen: list[Tensor] = []

    def embed(images: Tensor) -> Tensor:
        seen.append(images)
        return images.flatten(1)

    validation = ValidationConfig(every=5, images_per_prompt=2)
    state = online(
        folder, validation, redness, Monitor(embed), iterations=1, start_lora=str(tmp_path)
    )
    untuned = validate(
        DiffusionModel.from_pretrained(folder),
        ["a lion"],
        redness,
        validation,
        steps=2,
        guidance=2.0,
        monitor=Monitor(embed),
    )
    assert state.untuned == pytest.approx(untuned.monitors)
    assert not torch.equal(seen[0], seen[1])  # the untuned model, then the start


def test_the_monitor_sees_a_batch_at_a_time(folder: Path) -> None:
    counts: list[int] = []

    def embed(images: Tensor) -> Tensor:
        counts.append(len(images))
        return images.flatten(1)

    config = ValidationConfig(images_per_prompt=5, batch=2)
    found = validate(
        DiffusionModel.from_pretrained(folder),
        ["a lion"],
        redness,
        config,
        steps=2,
        guidance=2.0,
        monitor=Monitor(embed),
    )
    assert counts == [2, 2, 1]
    whole = config.model_copy(update={"batch": 5})
    together = validate(
        DiffusionModel.from_pretrained(folder),
        ["a lion"],
        redness,
        whole,
        steps=2,
        guidance=2.0,
        monitor=Monitor(embed),
    )
    assert found.monitors == pytest.approx(together.monitors, rel=1e-3)


def test_a_loss_that_is_not_finite_names_step_and_prompt(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    model = DiffusionModel.from_pretrained(folder)
    model.add_lora(LoraSettings(rank=2), generator=generator)
    config = DDPOConfig.model_validate(SMALL)
    state = start(model, config, generator=generator)
    rollout = collect(
        model,
        ["a cat", "a broken dog"],
        redness,
        config,
        statistics=state.statistics,
        generator=generator,
    )
    rollout.trajectories.latents[rollout.prompts.index("a broken dog")] = torch.nan
    before = model.lora_state()
    with pytest.raises(
        PictuneError, match="not finite in step 1, for 'a broken dog'; lower learning_rate"
    ):
        improve(
            model, rollout, config.model_copy(update={"updates": 1}), state, generator=generator
        )
    assert all(torch.equal(weight, before[name]) for name, weight in model.lora_state().items())
