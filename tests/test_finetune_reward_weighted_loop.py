"""The loop of reward-weighted likelihood: rounds, pretraining pairs, reports and refusals."""

from pathlib import Path

import pytest
import torch

from data.errors import PictuneError
from finetune.labels.weighted_batches import WeightedData
from finetune.learning.checkpoints import load_latest, save_checkpoint
from finetune.methods.reward_weighted import METHOD, RewardWeightedState, draw_round
from finetune.settings.reward_weighted import RewardWeightedConfig
from tests.support.small_reward_weighted import (
    SMALL,
    brightness,
    randn,
    reward_weighted,
    small_data,
)
from tests.support.small_training import open_with_adapter, perturb, trained


def test_loop_reports_and_keeps_the_best_weights(sd_folder: Path) -> None:
    data = small_data([0.1, 0.9, 0.4, 0.3])
    history = list(trained(METHOD, reward_weighted(open_with_adapter(sd_folder), data)))
    assert [metrics.step for metrics in history] == [2, 3]
    assert history[0].validation_reward is None
    assert history[1].validation_reward is not None
    for metrics in history:
        assert metrics.pretraining_loss
        assert 0 < metrics.effective_sample_size <= 1


def test_kl_o_alone_pulls_back_to_the_base(sd_folder: Path) -> None:
    model = open_with_adapter(sd_folder)
    perturb(model)
    settings = {
        "updates": 30,
        "kl": "kl-o",
        "gamma": 1e4,
        "pretraining_weight": 0.0,
        "learning_rate": 5e-3,
        "report_every": 1,
    }
    config = SMALL.model_copy(update=settings)
    training = reward_weighted(model, small_data([1.0, 1.0]), config)
    losses = [metrics.kl_loss or 0 for metrics in trained(METHOD, training)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_further_rounds_learn_from_images_of_the_tuned_model(sd_folder: Path) -> None:
    model = open_with_adapter(sd_folder)
    perturb(model)
    settings = {"updates": 4, "rounds": 2, "images_per_round": 3, "report_every": 1}
    config = SMALL.model_copy(update=settings)
    training = reward_weighted(model, small_data([0.1, 0.9]), config)
    state = METHOD.start(training)
    assert isinstance(state, RewardWeightedState)
    first, second, third, fourth = METHOD.train(training, state)
    assert [metrics.round for metrics in (first, second, third, fourth)] == [0, 0, 1, 1]
    assert first.reward == second.reward == pytest.approx(0.5)
    assert third.reward == fourth.reward == pytest.approx(float(state.drawn["rewards"].mean()))
    images = model.decode(state.drawn["latents"])
    assert state.drawn["latents"].shape == (2 * 3, 4, 8, 8)
    torch.testing.assert_close(brightness(images, []), state.drawn["rewards"])


@pytest.mark.parametrize("stop", [2, 3])
def test_stopped_before_or_within_a_round_and_continued_equals_uninterrupted(
    sd_folder: Path, tmp_path: Path, stop: int
) -> None:
    settings = {"updates": 4, "rounds": 2, "images_per_round": 2, "report_every": 1}
    config, data = SMALL.model_copy(update=settings), small_data([0.1, 0.9])
    training = reward_weighted(open_with_adapter(sd_folder), data, config)
    whole = METHOD.start(training)
    for metrics in METHOD.train(training, whole):
        if metrics.step == stop:
            save_checkpoint(tmp_path, whole, training.generator)
    again = reward_weighted(open_with_adapter(sd_folder), data, config, generator=torch.Generator())
    resumed = METHOD.start(again)
    assert load_latest(tmp_path, resumed, again.generator)
    rounds = [metrics.round for metrics in METHOD.train(again, resumed)]
    assert rounds == [1] * (4 - stop)
    expected = whole.weights()
    assert all(torch.equal(weight, expected[name]) for name, weight in resumed.weights().items())
    assert resumed.weights().keys() == expected.keys()


def test_more_rounds_than_updates_are_refused() -> None:
    with pytest.raises(ValueError, match="3 rounds need as many updates, not 2"):
        RewardWeightedConfig(rounds=3, updates=2)


def test_a_round_depends_on_the_weights_of_the_model(sd_folder: Path) -> None:
    model = open_with_adapter(sd_folder)
    data = WeightedData(randn(1, 4, 8, 8), ["a cat"], torch.ones(1))

    def latents() -> torch.Tensor:
        return draw_round(reward_weighted(model, data))["latents"]

    before = latents()
    assert torch.equal(latents(), before)
    perturb(model)
    assert not torch.equal(latents(), before)


def test_pretraining_pairs_take_the_place_of_the_bases_images(sd_folder: Path) -> None:
    config = SMALL.model_copy(update={"updates": 1, "learning_rate": 0.0})
    pairs = WeightedData(10 * randn(2, 4, 8, 8), ["a", "b"], torch.zeros(2))
    data, found = small_data([1.0, 0.5]), []
    for pretraining in (None, pairs):
        model = open_with_adapter(sd_folder)
        training = reward_weighted(model, data, config, pretraining=pretraining)
        found.append(next(trained(METHOD, training)))
    own, others = found
    assert own.loss == pytest.approx(others.loss, rel=1e-5)
    assert own.pretraining_loss != pytest.approx(others.pretraining_loss, rel=1e-2)


@pytest.mark.parametrize(("share", "warned"), [(0.05, True), (0.25, False)])
def test_weights_on_few_images_are_warned_of(
    sd_folder: Path, share: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config = SMALL.model_copy(update={"updates": 1, "weighting": "top", "top_share": share})
    data = small_data([i / 80 for i in range(80)])
    (metrics,) = trained(METHOD, reward_weighted(open_with_adapter(sd_folder), data, config))
    assert metrics.effective_sample_size == pytest.approx(share)
    assert ("5 % of 80 images really count" in caplog.text) == warned


def test_a_step_that_is_not_finite_names_its_prompts(sd_folder: Path) -> None:
    data = WeightedData(torch.full((2, 4, 8, 8), float("nan")), ["a cat", "a cat"], torch.ones(2))
    training = reward_weighted(open_with_adapter(sd_folder), data)
    with pytest.raises(PictuneError, match=r"not finite in step 1, for .*'a cat'"):
        next(trained(METHOD, training))


def test_without_a_positive_weight_there_is_one_clear_line(sd_folder: Path) -> None:
    config = SMALL.model_copy(update={"weighting": "raw"})
    model, data = open_with_adapter(sd_folder), small_data([0.0, -1.0])
    training = reward_weighted(model, data, config, reward=lambda images, _: images)
    with pytest.raises(PictuneError, match="above 0"):
        next(trained(METHOD, training))


def test_data_of_different_lengths_are_refused() -> None:
    with pytest.raises(PictuneError, match="3 latents, 2 prompts"):
        WeightedData(randn(3, 4, 8, 8), ["a", "b"], torch.ones(2))
