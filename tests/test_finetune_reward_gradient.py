"""The reward's gradient through sampler, decoder and reward, and the loop that follows it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data.errors import PictuneError
from finetune.learning.method import Training
from finetune.methods.reward_gradient import (
    METHOD,
    draw_randomness,
    draw_with_gradient,
    gradient_span,
    reward_loss,
    start,
)
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampler import draw
from finetune.model.sampling import clean_latents, step_distribution
from finetune.settings.reward_gradient import RewardGradientConfig, RewardGradientValidation
from finetune.settings.sampler import Sampler
from finetune.settings.validation import Limits, ValidationRules
from tests.support.small_training import (
    open_with_adapter,
    perturb,
    redness,
    seeded,
    trained,
    training_of,
)

STEPS = 4
SAMPLER = Sampler(steps=STEPS, guidance=2.0)
SMALL = RewardGradientConfig(
    iterations=2,
    images_per_prompt=2,
    micro_batch=4,
    warmup=0,
    validation=RewardGradientValidation(every=2, images_per_prompt=2, stop_on=()),
)


def changed(**changes: Any) -> RewardGradientConfig:
    """Return the small settings with these changes."""
    return RewardGradientConfig.model_validate(SMALL.model_dump() | changes)


def contrast(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Reward dark beside light, and one prompt more than the other."""
    weights = torch.tensor([1.0 if "cat" in prompt else 2.0 for prompt in prompts])
    return weights * images.flatten(1).std(1)


def open_training(folder: Path, config: RewardGradientConfig, **more: Any) -> Training[Any]:
    """Return a training on contrast, from an adapter that changes the images."""
    model = open_with_adapter(folder)
    perturb(model)
    return training_of(model, config, reward=contrast, sampler=SAMPLER, **more)


def gradient_of(training: Training[Any]) -> Tensor:
    """Return the gradient of the first iteration's loss to the adapter, in one vector."""
    rows = torch.arange(len(training.prompts) * training.config.images_per_prompt)
    draws = draw_randomness(training, start(training))
    latents, _, gradient = draw_with_gradient(training, draws, rows)
    latents.backward(gradient / len(rows))
    return taken(training.model)


def taken(model: DiffusionModel) -> Tensor:
    """Return the gradients of the adapter in one vector, and remove them."""
    found = []
    for weight in model.adapter.parameters().values():
        assert weight.grad is not None
        found.append(weight.grad.flatten().clone())
        weight.grad = None
    return torch.cat(found)


def plain_loss(training: Training[Any], *, first: int, ends: bool = False) -> Tensor:
    """Return the loss of the first iteration by plain backpropagation from step `first` on."""
    model, sampler = training.model, training.sampler
    draws = draw_randomness(training, start(training))
    noise = [torch.randn(model.latent_shape, generator=seeded(seed)) for seed in draws.seeds]
    latents, cond = torch.stack(noise), model.encode_prompts(draws.prompts)
    uncond, schedule = model.encode_prompts([""]).expand_as(cond), model.schedule(sampler.steps)
    for i, timestep in enumerate(schedule.timesteps):
        if i == first:
            latents = latents.detach()
        at = timestep.expand(len(cond))
        output = model.predict(latents, at, cond, uncond, sampler.guidance)
        if ends and i == first:
            latents = clean_latents(schedule, output, timestep, latents)
            break
        latents, _ = step_distribution(schedule, output, timestep, latents, eta=0.0)
    images = model.decode(latents)
    assert training.reward is not None
    return reward_loss(training.reward(images, draws.prompts), training.config.margin).mean()


@pytest.mark.parametrize(
    ("layout", "steps_back"), [("sd1", 1), ("sd1", 2), ("sd2", STEPS), ("sdxl", STEPS)]
)
def test_k_steps_are_plain_backpropagation_through_them(
    layouts: dict[str, Path], layout: str, steps_back: int
) -> None:
    config = changed(steps_back=steps_back)
    found = gradient_of(open_training(layouts[layout], config))
    training = open_training(layouts[layout], config)
    plain_loss(training, first=STEPS - steps_back).backward()
    expected = taken(training.model)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_refl_finishes_the_image_at_one_step_of_the_last(sd_folder: Path) -> None:
    config = changed(truncation="one_step", steps_back=3, margin=0.5)
    for seed in range(4):
        training = open_training(sd_folder, config, generator=seeded(seed))
        found = gradient_of(training)
        training = open_training(sd_folder, config, generator=seeded(seed))
        first = draw_randomness(replace(training, generator=seeded(seed)), start(training)).span
        plain_loss(training, first=first.first, ends=True).backward()
        torch.testing.assert_close(found, taken(training.model), rtol=1e-3, atol=1e-6)


def test_the_part_of_the_chain_is_drawn_evenly_from_the_last_steps() -> None:
    generator = seeded()
    for truncation in ("random", "one_step"):
        config = changed(truncation=truncation, steps_back=3)
        spans = [gradient_span(config, 10, generator=generator) for _ in range(300)]
        counts = torch.tensor([span.first for span in spans]).bincount(minlength=10).tolist()
        assert counts[:7] == [0] * 7
        assert min(counts[7:]) > 70
        assert {span.ends for span in spans} == {truncation == "one_step"}
    fixed = gradient_span(changed(steps_back=3), 10, generator=generator)
    assert fixed == (7, False)


def test_above_the_margin_an_image_teaches_nothing(sd_folder: Path) -> None:
    rewards = torch.tensor([-1.0, 0.4, 0.6, 3.0])
    torch.testing.assert_close(reward_loss(rewards, 0.5), torch.tensor([1.5, 0.1, 0.0, 0.0]))
    torch.testing.assert_close(reward_loss(rewards, None), -rewards)
    model = open_with_adapter(sd_folder)
    config = changed(margin=-1.0, kl_weight=0.0, iterations=1)
    (metrics,) = trained(METHOD, training_of(model, config))
    assert metrics.gradient_norm == metrics.loss == 0
    assert metrics.kl_loss is None


def gained_redness(folder: Path, **changes: Any) -> float:
    """Return the gain in redness, in spreads of the untuned model's images."""
    config = changed(iterations=6, images_per_prompt=8, micro_batch=16, decay=False, **changes)
    model = open_with_adapter(folder)
    texts = ["a cat"] * 32

    def of_new_images() -> Tensor:
        return redness(draw(model, texts, SAMPLER, seeds=range(32), batch=32), texts)

    before = of_new_images()
    training = training_of(model, config, prompts=["a cat"], sampler=SAMPLER)
    list(trained(METHOD, training))
    return float((of_new_images().mean() - before.mean()) / before.std())


@pytest.mark.parametrize(
    "form",
    [{}, {"truncation": "random", "steps_back": 4}, {"truncation": "one_step", "steps_back": 2}],
    ids=["draft", "alignprop", "refl"],
)
def test_every_form_raises_the_reward(velocity_folder: Path, form: dict[str, Any]) -> None:
    assert gained_redness(velocity_folder, kl_weight=0.0, learning_rate=1e-2, **form) > 0.5


def test_the_base_is_learned_from_and_never_scored(velocity_folder: Path) -> None:
    asked = 0

    def counted(images: Tensor, prompts: Sequence[str]) -> Tensor:
        nonlocal asked
        asked += len(images)
        return redness(images, prompts)

    model = open_with_adapter(velocity_folder)
    perturb(model)
    config = changed(kl_weight=0.0, pretraining_weight=1e3)
    training = training_of(model, config, reward=counted)
    state = start(training)
    losses = [metrics.pretraining_loss for metrics in METHOD.train(training, state)]
    assert all(loss > 0 for loss in losses)
    # Two images show that there is a gradient, 4 a step are trained on, 4 validate twice.
    assert asked == 2 + 2 * 4 + 2 * 4
    untuned = open_with_adapter(velocity_folder)
    texts, seeds = ["a cat"] * 32 + ["a dog"] * 32, torch.randint(2**62, (64,), generator=seeded())
    expected = draw(untuned, texts, training.sampler, seeds=seeds.tolist())
    torch.testing.assert_close(model.decode(state.base["latents"]), expected, rtol=1e-3, atol=1e-3)


def test_gradient_checkpointing_changes_rounding_alone(sd_folder: Path) -> None:
    plain = gradient_of(open_training(sd_folder, changed(steps_back=2)))
    training = open_training(sd_folder, changed(steps_back=2))
    training.model.checkpoint_gradients()
    assert training.model.pipeline.vae.is_gradient_checkpointing
    torch.testing.assert_close(gradient_of(training), plain, rtol=1e-4, atol=1e-7)


def test_a_reward_without_a_gradient_is_refused_before_an_image_is_drawn(sd_folder: Path) -> None:
    def in_bytes(images: Tensor, _: Sequence[str]) -> Tensor:
        return (images * 255).byte().float().mean((1, 2, 3))

    def rounded(images: Tensor, _: Sequence[str]) -> Tensor:
        return (images * 255).round().mean((1, 2, 3))

    for reward, message in ((in_bytes, "no gradient to the pixels"), (rounded, "0 at every pixel")):
        with pytest.raises(PictuneError, match=message) as refused:
            start(training_of(open_with_adapter(sd_folder), SMALL, reward=reward))
        assert "finetune.rewards" in str(refused.value)


def test_more_steps_back_than_steps_are_refused(sd_folder: Path) -> None:
    training = training_of(open_with_adapter(sd_folder), changed(steps_back=4))
    with pytest.raises(PictuneError, match="steps_back is 4, but the sampler has 3 steps"):
        start(training)


def test_by_default_a_guard_ends_the_training(velocity_folder: Path) -> None:
    config = changed(
        iterations=16, learning_rate=3e-2, kl_weight=0.0, decay=False, validation={"every": 1}
    )
    rules = ValidationRules(limits=Limits(saturation=1.1))
    training = training_of(open_with_adapter(velocity_folder), config, sampler=SAMPLER, rules=rules)
    state = start(training)
    assert len(list(METHOD.train(training, state))) < 16
    assert "saturation is 1.1" in state.stopped
    assert state.best is not None
    assert state.best[0] < state.step
