"""Reward-weighted likelihood: its loss and weights against plain formulas, and its loop."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.nn import functional

from data.errors import PictuneError
from finetune.diffusion import DiffusionModel, LoraSettings
from finetune.processes import ALONE, Processes
from finetune.reward_weighted import (
    Metrics,
    RewardWeightedConfig,
    RewardWeightedState,
    WeightedData,
    _Batches,
    denoising_target,
    draw_round,
    start,
    timestep_weights,
    train,
    weighted_denoising_loss,
)
from finetune.training import ValidationConfig, load_latest, save_checkpoint
from tests.tiny_diffusion import write_tiny_diffusion

SMALL = RewardWeightedConfig(
    updates=3,
    batch=4,
    steps=2,
    report_every=2,
    warmup=0,
    validation=ValidationConfig(every=100, images_per_prompt=1),
)


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def small_data(rewards: list[float]) -> WeightedData:
    return WeightedData(
        randn(len(rewards), 4, 8, 8),
        ["a cat", "a dog"] * (len(rewards) // 2),
        torch.tensor(rewards),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_diffusion(tmp_path_factory.mktemp("tiny") / "model")


def open_model(folder: Path) -> DiffusionModel:
    model = DiffusionModel.from_pretrained(folder)
    model.add_lora(LoraSettings(rank=2), generator=torch.Generator().manual_seed(0))
    return model


def perturb(model: DiffusionModel) -> None:
    for weight in model.lora_parameters().values():
        weight.data.add_(0.1 * torch.randn(weight.shape, generator=seeded()))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def brightness(images: Tensor, _: object) -> Tensor:
    return images.mean((1, 2, 3))


def test_unit_weights_give_the_plain_denoising_error_and_scale_with_it() -> None:
    prediction, target = randn(2, 5, 4, 8, 8).unbind()
    plain = functional.mse_loss(prediction, target)
    torch.testing.assert_close(weighted_denoising_loss(prediction, target, torch.ones(5)), plain)
    torch.testing.assert_close(
        weighted_denoising_loss(prediction, target, torch.full((5,), 3.0)), 3 * plain
    )


def test_loop_with_equal_rewards_and_no_pretraining_is_plain_denoising(folder: Path) -> None:
    model, data = open_model(folder), small_data([1.0, 1.0])
    config = SMALL.model_copy(
        update={
            "weighting": "raw",
            "pretraining_weight": 0.0,
            "min_snr": 0.0,
            "caption_dropout": 0.0,
            "updates": 1,
        }
    )
    (metrics,) = train(model, data, brightness, config, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    chosen = torch.multinomial(torch.full((2,), 0.5), 4, replacement=True, generator=generator)
    latents = data.latents[chosen]
    noise = torch.randn(latents.shape, generator=generator)
    timesteps = torch.randint(1000, (4,), generator=generator)
    cond = model.encode_prompts([data.prompts[i] for i in chosen])
    with torch.no_grad(), model.adapters_off():
        prediction = model.predict(
            model.scheduler(2).add_noise(latents, noise, timesteps), timesteps, cond, cond, 1.0
        )
    assert metrics.loss == pytest.approx(functional.mse_loss(prediction, noise).item(), rel=1e-5)
    assert metrics.pretraining_loss is None


def test_kl_o_adds_the_squared_difference_to_the_base(folder: Path) -> None:
    data = small_data([1.0, 0.2, 0.4, 0.9])
    alone = {"pretraining_weight": 0.0, "updates": 1, "learning_rate": 0.0}
    losses = {}
    for kl in ("none", "kl-o"):
        model = open_model(folder)
        perturb(model)
        config = SMALL.model_copy(update=alone | {"kl": kl, "gamma": 3.0})
        (losses[kl],) = train(
            model, data, brightness, config, generator=torch.Generator().manual_seed(1)
        )
    assert losses["none"].kl_loss is None
    assert losses["kl-o"].kl_loss is not None
    assert losses["kl-o"].kl_loss > 0
    assert losses["kl-o"].loss == losses["none"].loss
    assert losses["kl-o"].gradient_norm != losses["none"].gradient_norm


def test_kl_o_is_zero_and_has_no_gradient_while_the_model_is_the_base(folder: Path) -> None:
    config = SMALL.model_copy(
        update={"updates": 1, "kl": "kl-o", "gamma": 5.0, "pretraining_weight": 0.0}
    )
    (penalised,) = train(
        open_model(folder),
        small_data([1.0, 0.2]),
        brightness,
        config,
        generator=torch.Generator().manual_seed(1),
    )
    plain_config = config.model_copy(update={"kl": "none"})
    (plain,) = train(
        open_model(folder),
        small_data([1.0, 0.2]),
        brightness,
        plain_config,
        generator=torch.Generator().manual_seed(1),
    )
    assert penalised.kl_loss == 0
    assert penalised.gradient_norm == plain.gradient_norm


@pytest.mark.parametrize("count", [2, 5])
def test_the_processes_parts_of_a_batch_add_up_to_it(folder: Path, count: int) -> None:
    model, data = open_model(folder), small_data([0.1, 0.9, 0.4, 0.6])
    perturb(model)
    batches = _Batches(model, data, data, SMALL.model_copy(update={"kl": "kl-o", "gamma": 2.0}))
    parameters = list(model.lora_parameters().values())

    def losses_and_gradient(processes: Processes) -> tuple[Tensor, Tensor]:
        losses, gradient = torch.zeros(3), [torch.zeros_like(parameter) for parameter in parameters]
        for part in batches.losses(seeded(), processes):
            gradient = [
                whole + own
                for whole, own in zip(
                    gradient, torch.autograd.grad(part.sum(), parameters), strict=True
                )
            ]
            losses += part.detach()
        return losses, torch.cat([part.flatten() for part in gradient])

    whole, gradient = losses_and_gradient(ALONE)
    parts = [losses_and_gradient(Processes(rank, count)) for rank in range(count)]
    assert (whole > 0).all()
    torch.testing.assert_close(sum(losses for losses, _ in parts), whole)
    torch.testing.assert_close(sum(part for _, part in parts), gradient)
    assert all(not torch.equal(losses, whole) for losses, _ in parts)


def test_micro_batches_add_up_to_the_batch(folder: Path) -> None:
    model, data, rows = open_model(folder), small_data([0.1, 0.9, 0.4, 0.6]), []
    perturb(model)
    predict = model.predict

    def noted(latents: Tensor, *rest: Any, **named: Any) -> Tensor:
        rows.append(len(latents))
        return predict(latents, *rest, **named)

    model.predict = noted  # type: ignore[method-assign]
    config = SMALL.model_copy(
        update={
            "updates": 1,
            "batch": 8,
            "validation": ValidationConfig(images_per_prompt=1, batch=1),
        }
    )
    found = []
    for micro_batch in (8, 3):
        before = model.lora_state()
        (metrics,) = train(
            model,
            data,
            brightness,
            config.model_copy(update={"micro_batch": micro_batch}),
            generator=seeded(),
        )
        model.set_lora_state(before)
        found.append(metrics)
    assert rows.count(8) == 1
    assert rows.count(3) == 2
    for name in ("loss", "pretraining_loss", "gradient_norm"):
        assert getattr(found[1], name) == pytest.approx(getattr(found[0], name), rel=1e-5)


def test_a_step_that_is_not_finite_names_its_prompts(folder: Path) -> None:
    data = WeightedData(torch.full((2, 4, 8, 8), float("nan")), ["a cat", "a cat"], torch.ones(2))
    with pytest.raises(PictuneError, match=r"not finite in step 1, for .*'a cat'"):
        next(train(open_model(folder), data, brightness, SMALL, generator=seeded()))


def test_kl_o_alone_pulls_back_to_the_base(folder: Path) -> None:
    model = open_model(folder)
    perturb(model)
    update = {
        "updates": 30,
        "kl": "kl-o",
        "gamma": 1e4,
        "pretraining_weight": 0.0,
        "learning_rate": 5e-3,
        "report_every": 1,
    }
    losses = [
        m.kl_loss or 0
        for m in train(
            model,
            small_data([1.0, 1.0]),
            brightness,
            SMALL.model_copy(update=update),
            generator=seeded(),
        )
    ]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_further_rounds_learn_from_what_the_tuned_model_draws(folder: Path) -> None:
    model, config = (
        open_model(folder),
        SMALL.model_copy(
            update={"updates": 4, "rounds": 2, "images_per_round": 3, "report_every": 1}
        ),
    )
    perturb(model)
    state, generator = start(model, config), seeded()
    first, second, third, fourth = train(
        model, small_data([0.1, 0.9]), brightness, config, generator=generator, state=state
    )
    assert [m.round for m in (first, second, third, fourth)] == [0, 0, 1, 1]
    assert first.reward == second.reward == pytest.approx(0.5)
    assert third.reward == fourth.reward == pytest.approx(float(state.drawn["rewards"].mean()))
    images = model.decode(state.drawn["latents"])
    assert state.drawn["latents"].shape == (2 * 3, 4, 8, 8)
    torch.testing.assert_close(brightness(images, []), state.drawn["rewards"])


@pytest.mark.parametrize("stop", [2, 3])
def test_stopped_before_or_within_a_round_and_continued_equals_uninterrupted(
    folder: Path, tmp_path: Path, stop: int
) -> None:
    config = SMALL.model_copy(
        update={"updates": 4, "rounds": 2, "images_per_round": 2, "report_every": 1}
    )

    def steps(state: RewardWeightedState, generator: torch.Generator) -> Iterator[Metrics]:
        return train(
            state.model,
            small_data([0.1, 0.9]),
            brightness,
            config,
            generator=generator,
            state=state,
        )

    whole, generator = start(open_model(folder), config), seeded()
    for metrics in steps(whole, generator):
        if metrics.step == stop:
            save_checkpoint(tmp_path, whole, generator)
    resumed, other = start(open_model(folder), config), torch.Generator()
    assert load_latest(tmp_path, resumed, other)
    assert [metrics.round for metrics in steps(resumed, other)] == [1] * (4 - stop)
    expected = whole.weights()
    assert all(torch.equal(weight, expected[name]) for name, weight in resumed.weights().items())
    assert resumed.weights().keys() == expected.keys()


def test_more_rounds_than_updates_are_refused() -> None:
    with pytest.raises(ValueError, match="3 rounds need as many updates, not 2"):
        RewardWeightedConfig(rounds=3, updates=2)


def test_a_round_depends_on_the_weights_of_the_model(folder: Path) -> None:
    model = open_model(folder)
    before = draw_round(model, ["a cat"], brightness, SMALL, generator=seeded())
    assert torch.equal(
        draw_round(model, ["a cat"], brightness, SMALL, generator=seeded())["latents"],
        before["latents"],
    )
    perturb(model)
    assert not torch.equal(
        draw_round(model, ["a cat"], brightness, SMALL, generator=seeded())["latents"],
        before["latents"],
    )


def test_pretraining_pairs_take_the_place_of_the_bases_images(folder: Path) -> None:
    config = SMALL.model_copy(update={"updates": 1, "learning_rate": 0.0})
    pairs = WeightedData(10 * randn(2, 4, 8, 8), ["a", "b"], torch.zeros(2))
    own, others = (
        next(
            train(
                open_model(folder),
                small_data([1.0, 0.5]),
                brightness,
                config,
                generator=seeded(),
                pretraining=pretraining,
            )
        )
        for pretraining in (None, pairs)
    )
    assert own.loss == pytest.approx(others.loss, rel=1e-5)
    assert own.pretraining_loss != pytest.approx(others.pretraining_loss, rel=1e-2)


@pytest.mark.parametrize(("share", "warned"), [(0.05, True), (0.25, False)])
def test_weights_on_few_images_are_warned_of(
    folder: Path, share: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config = SMALL.model_copy(update={"updates": 1, "weighting": "top", "top_share": share})
    (metrics,) = train(
        open_model(folder),
        small_data([i / 80 for i in range(80)]),
        brightness,
        config,
        generator=seeded(),
    )
    assert metrics.effective_sample_size == pytest.approx(share)
    assert ("5 % of 80 images really count" in caplog.text) == warned


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weighs_the_same_image_error_alike_for_every_prediction(prediction: str) -> None:
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction,
    )
    timesteps = torch.tensor([10, 300, 600, 990])
    alphas = scheduler.alphas_cumprod[timesteps]
    snr = alphas / (1 - alphas)
    # The same error in the image appears this much larger or smaller in the predicted quantity.
    error = {"epsilon": snr, "v_prediction": 1 / (1 - alphas), "sample": torch.ones(4)}[prediction]
    torch.testing.assert_close(
        timestep_weights(scheduler, timesteps, 5.0) * error,
        snr.clamp(max=5.0),
        rtol=1e-4,
        atol=1e-6,
    )
    # Not weighted, as by default, the noisiest steps count as much as the others.
    assert timestep_weights(scheduler, timesteps, RewardWeightedConfig().min_snr).tolist() == [
        1,
        1,
        1,
        1,
    ]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_target_gives_back_the_image_through_the_samplers_formula(prediction: str) -> None:
    scheduler = DDIMScheduler(prediction_type=prediction, clip_sample=False)
    scheduler.set_timesteps(10)
    latents, noise = randn(2, 1, 4, 8, 8).unbind()
    timestep = torch.tensor([400])
    target = denoising_target(scheduler, latents, noise, timestep)
    noisy = scheduler.add_noise(latents, noise, timestep)
    torch.testing.assert_close(
        scheduler.step(target, 400, noisy).pred_original_sample, latents, rtol=1e-3, atol=1e-4
    )


def test_loop_reports_and_keeps_the_best_weights(folder: Path) -> None:
    model = open_model(folder)
    history = list(
        train(
            model, small_data([0.1, 0.9, 0.4, 0.3]), brightness, SMALL, generator=torch.Generator()
        )
    )
    assert [metrics.step for metrics in history] == [2, 3]
    assert history[0].validation_reward is None
    assert history[1].validation_reward is not None
    assert all(
        metrics.pretraining_loss and 0 < metrics.effective_sample_size <= 1 for metrics in history
    )


def test_nothing_to_learn_from_is_said(folder: Path) -> None:
    config = SMALL.model_copy(update={"weighting": "raw"})
    with pytest.raises(PictuneError, match="above 0"):
        next(
            train(
                open_model(folder),
                small_data([0.0, -1.0]),
                lambda images, _: images,
                config,
                generator=torch.Generator(),
            )
        )
    with pytest.raises(PictuneError, match="3 latents, 2 prompts"):
        WeightedData(randn(3, 4, 8, 8), ["a", "b"], torch.ones(2))
