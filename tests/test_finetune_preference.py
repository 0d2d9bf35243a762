"""The losses of learning from labels against the papers' formulas, and its loop."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from data.errors import PictuneError
from finetune.labels.held_out import within_share
from finetune.labels.rankings import (
    Errors,
    Labels,
    Part,
    Verdicts,
    agreement,
    draw_pairs,
    draw_parts,
    implicit_reward,
    ranking_errors,
)
from finetune.methods.preference import (
    METHOD,
    kto_loss,
    plackett_luce,
    ranking_losses,
    safeguard,
    safeguarded_rewards,
)
from finetune.model.denoising import NoiseLevels, denoising_target
from finetune.model.sampler import draw
from finetune.model.schedule import DiffusionSchedule, Prediction
from finetune.settings.model import AdapterSettings
from finetune.settings.preference import PreferenceConfig
from finetune.settings.sampler import Sampler
from finetune.settings.validation import ValidationConfig
from tests.support.small_labels import (
    SMALL,
    no_rankings,
    no_verdicts,
    rankings_of,
    small_labels,
    verdicts_of,
)
from tests.support.small_training import open_with_adapter, seeded, trained, training_of
from tests.test_finetune_nft import brightness, output

NAN = torch.nan


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Return noise in double precision that is the same each time."""
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def test_two_images_have_the_loss_of_diffusion_dpo() -> None:
    own, base = randn(2, 6, 2).abs()
    ranks = torch.tensor([[1.0, 2.0]] * 3 + [[2.0, 1.0]] * 3)
    winner = torch.tensor([0, 0, 0, 1, 1, 1])
    rows, loser = torch.arange(6), 1 - winner
    # The published code: its beta is 5000, halved.
    model_diff = own[rows, winner] - own[rows, loser]
    ref_diff = base[rows, winner] - base[rows, loser]
    expected = -F.logsigmoid(-0.5 * 5000 * 1e-3 * (model_diff - ref_diff))
    found = plackett_luce(2.5 * implicit_reward(own, base), ranks)
    torch.testing.assert_close(found, expected)


def test_probabilities_of_all_orders_sum_to_1_and_its_gradient_is_right() -> None:
    scores = randn(4)
    orders = torch.tensor(list(permutations(range(4))), dtype=torch.float64)
    chances = torch.exp(-plackett_luce(scores.expand(len(orders), 4), orders))
    torch.testing.assert_close(chances.sum(), scores.new_ones(()))
    tied = torch.tensor([[0.0, 1.0, 1.0, 3.0], [2.0, NAN, 2.0, 0.0], [NAN, NAN, 0.0, NAN]])
    varied = randn(3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: plackett_luce(s, tied), varied)


def test_a_tie_of_two_is_half_of_both_orders_and_no_rank_leaves_an_image_out() -> None:
    scores = randn(3)
    ranks = torch.tensor([[0.0, 1.0, NAN], [1.0, 0.0, NAN], [0.0, 0.0, NAN], [NAN, 0.0, NAN]])
    first, second, tie, alone = plackett_luce(scores.expand(4, 3), ranks)
    torch.testing.assert_close(tie, (first + second) / 2)
    torch.testing.assert_close(first, -F.logsigmoid(scores[0] - scores[1]))
    assert alone == 0


def test_kto_has_the_published_loss_for_either_verdict_and_their_mean_for_both() -> None:
    gains, z0, beta = randn(5), 0.2, 3.0
    good = torch.ones(5, dtype=torch.float64)
    for label, share in ((1.0, good), (-1.0, 0 * good)):
        expected = 1 - torch.sigmoid(label * beta * (gains - z0))
        torch.testing.assert_close(kto_loss(gains, share, z0, beta), expected)
    torch.testing.assert_close(kto_loss(gains, good / 2, z0, beta), good / 2)


def test_the_safeguard_has_the_published_factor() -> None:
    residuals, margin = randn(6, 2, 4, 3, 3), 0.9
    residuals[:3, 1] = residuals[:3, 0] + 0.3 * residuals[:3, 1]  # alike, as with shared noise
    pushes = torch.tensor([[0.7, -0.7]] * 6, dtype=torch.float64)
    won, lost = residuals.flatten(2).unbind(1)
    inner = (won * lost).sum(1)
    assert (inner > 0).any()
    assert (inner < 0).any()
    published = ((1 - margin) * won.square().sum(1) / inner).clamp(0, 1)
    expected = torch.where(inner > 0, published, torch.ones_like(inner))
    torch.testing.assert_close(safeguard(residuals, pushes, margin), expected)


@pytest.mark.parametrize("images", [2, 4])
def test_the_safeguard_lets_no_step_raise_the_better_images_error(images: int) -> None:
    # One prediction for all images: what a step changes, it changes for each of them.
    shared, targets = randn(1, 1, 9), randn(1, images, 9, seed=1)
    targets[:, 1:] = 0.2 * targets[:, 1:] + 3 * targets[:, :1]  # worse ones, further the same way
    ranks = torch.arange(images, dtype=torch.float64)[None]
    slopes = {}
    for on in (True, False):
        prediction = shared.clone().requires_grad_()
        residuals = prediction - targets
        own = residuals.square().mean(2)
        errors = Errors(residuals, own, own.detach())
        config = PreferenceConfig(beta=1.0)
        gains, factor = safeguarded_rewards(errors, ranks, config)
        assert 0 < float(factor) < 1
        torch.testing.assert_close(gains, implicit_reward(own, own.detach()))
        if not on:
            gains = implicit_reward(own, own.detach())
        (step,) = torch.autograd.grad(plackett_luce(gains, ranks).sum(), prediction)
        scores = torch.zeros(1, images, dtype=torch.float64, requires_grad=True)
        (by_score,) = torch.autograd.grad(plackett_luce(scores, ranks).sum(), scores)
        better = (-by_score).clamp(min=0)
        uphill = 2 * (better[..., None] * residuals.detach()).sum(1) / 9
        slopes[on] = -float((uphill * step.squeeze(1)).sum())
    assert slopes[True] < 0 < slopes[False]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_every_parametrization_has_the_same_error(
    sd_folder: Path, prediction_type: Prediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, labels = open_with_adapter(sd_folder), small_labels()
    schedule = replace(model.schedule(4), prediction_type=prediction_type)
    assert isinstance(schedule, DiffusionSchedule)
    rankings, timesteps = labels.taught.rankings, torch.tensor([800, 50])
    noise = torch.randn(2, 4, 8, 8, generator=seeded(5))
    guess = torch.randn(5, 4, 8, 8, generator=seeded(6))

    def predict(noisy: Tensor, times: Tensor, *_: Any, **__: Any) -> Tensor:
        a = schedule.alphas[times].view(-1, 1, 1, 1)
        return output(prediction_type, guess, noisy, a)

    monkeypatch.setattr(model, "predict", predict)
    found = ranking_errors(model, schedule, labels, rankings, NoiseLevels(timesteps, noise))
    clean = labels.latents[rankings.image[rankings.present]]
    a = schedule.alphas[timesteps.repeat_interleave(torch.tensor([3, 2]))]
    expected = (guess - clean).square().flatten(1).mean(1) / (1 - a)  # SNR + 1
    torch.testing.assert_close(found.own[rankings.present], expected, rtol=1e-3, atol=0)
    torch.testing.assert_close(found.own, found.reference)
    assert not found.own[~rankings.present].any()


def test_images_of_a_ranking_share_noise_and_timestep(sd_folder: Path) -> None:
    model, labels = open_with_adapter(sd_folder), small_labels()
    schedule, noise = model.schedule(4), torch.randn(1, 4, 8, 8, generator=seeded(5))
    assert isinstance(schedule, DiffusionSchedule)
    rankings, times = labels.taught.rankings.where(torch.tensor([0])), torch.tensor([600])
    found = ranking_errors(model, schedule, labels, rankings, NoiseLevels(times, noise))
    for place, image in enumerate(rankings.image[0].tolist()):
        clean = labels.latents[image][None]
        noisy = schedule.add_noise(clean, noise, times)
        cond = model.encode_prompts(["a cat"])
        prediction = model.predict(noisy, times, cond, cond, guidance=1.0)
        target = denoising_target(schedule, clean, noise, times)
        scale = 1 / schedule.alphas[600]  # of velocities to noise, squared
        expected = scale * (prediction - target).square().mean()
        torch.testing.assert_close(found.own[0, place], expected, rtol=1e-4, atol=0)


def test_pairs_are_opposite_verdicts_of_one_prompt_each_prompt_alike() -> None:
    verdicts = Verdicts(
        torch.arange(10, 18),
        torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]),
        torch.tensor([1.0, 2.0, 1.0, 1.0, 3.0, 3.0, 1.0, 1.0]),
        torch.tensor([1.0, 0.5, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0]),
    )
    pairs = draw_pairs(verdicts, 4000, generator=seeded())
    found = {tuple(pair) for pair in pairs.image.tolist()}
    assert found == {(10, 11), (10, 12), (10, 13), (11, 12), (11, 13), (14, 15)}
    assert 1850 < int((pairs.prompt == 1).sum()) < 2150
    # One rater of two said good of 11, the only one of 10; each counts once.
    assert 0.4 < float((pairs.image[pairs.prompt == 0, 0] == 11).float().mean()) < 0.6


def test_accuracy_counts_pairs_in_order_and_equal_scores_by_half() -> None:
    scores = torch.tensor([[3.0, 2.0, 2.0, 9.0]])
    right, compared = agreement(scores, torch.tensor([[0.0, 1.0, 2.0, NAN]]))
    assert (float(right), int(compared)) == (2.5, 3)
    assert int(agreement(scores, torch.tensor([[0.0, 0.0, NAN, NAN]]))[1]) == 0


def test_figures_tell_better_images_from_worse_and_omit_ties() -> None:
    own = torch.tensor([[0.5, 3.0, 2.0, 0.0], [1.0, 4.0, 0.0, 0.0]])
    errors = Errors(torch.ones(2, 4, 5), own, torch.ones(2, 4))
    rankings = rankings_of(
        [0.0, 1.0, 2.0, NAN], [0.0, 0.0, NAN, NAN], images=[[0] * 4] * 2, prompt=[0, 0]
    )
    config = PreferenceConfig(safeguard=False)
    _, sums = ranking_losses(errors, Part(rankings, 1.0), config, 0.0)
    assert (float(sums.right), float(sums.compared)) == (2, 3)
    assert (float(sums.winner_error), float(sums.winners)) == (-0.5, 1)
    assert (float(sums.loser_error), float(sums.losers)) == (1.0, 1)
    assert float(sums.factors) == 0


def test_without_a_reward_held_out_accuracy_chooses_the_weights(sd_folder: Path) -> None:
    labels = small_labels()
    training = training_of(open_with_adapter(sd_folder), SMALL, reward=None, data=labels)
    state = METHOD.start(training)
    metrics = list(METHOD.train(training, state))
    assert state.validation[0] == (0, 0.5)  # the base prefers nothing
    assert [each.validation_reward for each in metrics] == [
        each.held_out_accuracy for each in metrics
    ]
    assert metrics[0].held_out_accuracy is None
    assert state.monitors["saturation"] > 0


@pytest.mark.parametrize("prompts", [2, 30])
def test_validations_of_a_short_training_take_their_share_of_the_work(
    sd_folder: Path, caplog: pytest.LogCaptureFixture, prompts: int
) -> None:
    validation = ValidationConfig(every=50, images_per_prompt=32)
    config = PreferenceConfig(updates=100, batch=16, validation=validation)
    training = training_of(
        open_with_adapter(sd_folder),
        config,
        prompts=[f"{i} cats" for i in range(prompts)],
        data=small_labels(),
    )
    rows: list[int] = []
    training.model.network.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    validator = within_share(training)
    validator()
    most = 100 * 16 * 3 / 4 / 3  # a quarter of the training, in three validations
    assert most / 2 < sum(rows) <= most
    assert "each of 3 validations draws" in caplog.text
    caplog.clear()
    rare = {"updates": 100_000, "validation": ValidationConfig(every=50_000)}
    long = replace(training, config=config.model_copy(update=rare))
    assert within_share(long).training.validator == training.validator
    assert not caplog.text


NOTHING = Labels(no_rankings(), no_verdicts())
WEIGHTLESS = Labels(
    replace(small_labels().taught.rankings, weight=torch.zeros(2)),
    replace(small_labels().taught.verdicts, weight=torch.zeros(5)),
)


@pytest.mark.parametrize(
    ("taught", "changes", "message"),
    [
        (
            Labels(rankings_of([0.0, 0.0], images=[[0, 1]], prompt=[0]), no_verdicts()),
            {},
            "1 rankings hold ties alone",
        ),
        (
            Labels(no_rankings(), verdicts_of([1.0, 1.0, 0.0], [0, 0, 1])),
            {},
            "no prompt has a good and a bad image among 3",
        ),
        (
            Labels(no_rankings(), verdicts_of([1.0, 1.0], [0, 1])),
            {"verdicts": "kto"},
            "the verdicts on all of 2 images are the same",
        ),
        (small_labels().taught, {"ranking_weight": 0.0, "verdict_weight": 0.0}, "change ranking"),
        (WEIGHTLESS, {}, "0 rankings hold ties alone, and .* among 0 with verdicts"),
    ],
)
def test_labels_that_teach_nothing_are_refused(
    sd_folder: Path, taught: Labels, changes: dict[str, Any], message: str
) -> None:
    config = SMALL.model_copy(update=changes)
    training = training_of(open_with_adapter(sd_folder), config, data=small_labels(taught=taught))
    with pytest.raises(PictuneError, match=f"finetune: nothing to learn: .*{message}"):
        METHOD.start(training)


def test_neither_a_reward_nor_held_out_labels_is_refused(sd_folder: Path) -> None:
    labels = small_labels(held_out=NOTHING)
    training = training_of(open_with_adapter(sd_folder), SMALL, reward=None, data=labels)
    with pytest.raises(PictuneError, match=r"there is no reward, so nothing can choose weights"):
        list(trained(METHOD, training))


def test_kinds_share_the_batch_by_their_labels_and_a_weight_of_0_leaves_one_out() -> None:
    taught = small_labels().taught
    ranked, judged = int(taught.rankings.present.sum()), float(taught.verdicts.weight.sum())
    config = SMALL.model_copy(update={"batch": 60})
    rankings, pairs = draw_parts(taught, config, generator=seeded())
    assert rankings.weight == pytest.approx(ranked / (ranked + judged))
    assert rankings.weight + pairs.weight == pytest.approx(1)
    assert rankings.rankings.image.shape == (int(60 * rankings.weight) // 3, 3)
    assert pairs.rankings.image.shape == ((60 - int(60 * rankings.weight)) // 2, 2)
    heavy = config.model_copy(update={"ranking_weight": 1000.0, "batch": 6})
    rankings, pairs = draw_parts(taught, heavy, generator=seeded())
    assert len(rankings.rankings) == len(pairs.rankings) == 1  # each kind has a place in each step
    alone = SMALL.model_copy(update={"ranking_weight": 0.0})
    (pairs,) = draw_parts(taught, alone, generator=seeded())
    assert pairs.rankings.image.shape == (4, 2)
    kto = alone.model_copy(update={"verdicts": "kto", "verdict_weight": 2.0})
    (single,) = draw_parts(taught, kto, generator=seeded())
    assert single.rankings.image.shape == (8, 1)
    assert single.good is not None
    assert single.weight == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rankings", "pairs", "kto"])
def test_labels_that_prefer_light_images_make_the_model_draw_lighter_ones(
    velocity_folder: Path, kind: str
) -> None:
    generator = seeded()
    model = open_with_adapter(velocity_folder, AdapterSettings(), generator=generator)
    sampler, texts, seeds = Sampler(steps=4, guidance=1.0), ["a cat"] * 64, range(64)

    def new_images() -> Tensor:
        return draw(model, texts, sampler, seeds=seeds, batch=64)

    before = brightness(new_images(), texts)
    latents = torch.randn(96, 4, 8, 8, generator=seeded(7))
    light = brightness(model.decode(latents), texts)
    rankings, verdicts = (
        no_rankings(),
        verdicts_of((light > light.median()).float().tolist(), [0] * 96),
    )
    if kind == "rankings":
        images = torch.randperm(96, generator=generator).view(24, 4)
        ranks = (-light[images]).tolist()
        rankings = rankings_of(*ranks, images=images.tolist(), prompt=[0] * 24)
        verdicts = no_verdicts()
    config = PreferenceConfig(
        updates=60,
        batch=32,
        beta=20.0,
        verdicts="kto" if kind == "kto" else "pairs",
        validation=ValidationConfig(every=60, images_per_prompt=1),
    )
    labels = small_labels(latents=latents, taught=Labels(rankings, verdicts), held_out=NOTHING)
    training = training_of(
        model, config, prompts=["a cat"], sampler=sampler, generator=generator, data=labels
    )
    metrics = list(trained(METHOD, training))
    gain = (brightness(new_images(), texts).mean() - before.mean()) / before.std()
    assert gain > 0.3, f"{kind}: {gain}"
    assert metrics[-1].accuracy > 0.5
