import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import PictuneError
from data.files import write_json
from reward.clip.backbone import ClipBackbone
from reward.dataset import FeedbackDataset
from reward.learning.examples import Examples, prepare
from reward.measuring.baselines import baselines, blind_scorer, clip_scorer, rewards_from_elsewhere
from reward.measuring.evaluation import (
    evaluate,
    measure,
    model_scorer,
)
from reward.measuring.metrics import Scored, Scorer
from reward.measuring.plots import reliability_figure
from reward.measuring.report import Evaluation, RewardReport
from reward.model import RewardModel
from reward.settings import RewardConfig, RewardSource, SplitConfig
from tests.support.tiny_clip import small_reward
from tests.support.tiny_feedback import make_feedback
from tests.support.user_rewards import SCORED

NONE = np.zeros(0, int)
CONFIG = RewardConfig(split=SplitConfig(split_by="image", unseen_prompts=0.2))


@pytest.fixture(scope="module")
def examples(backbone: ClipBackbone, tmp_path_factory: pytest.TempPathFactory) -> Examples:
    run = make_feedback(tmp_path_factory.mktemp("run"), images_per_prompt=8, rankings=2)
    return prepare(FeedbackDataset.from_latest(run.latest, run.root), CONFIG, backbone)


@pytest.fixture(scope="module")
def model(backbone: ClipBackbone) -> RewardModel:
    return small_reward(backbone)


def _report(model: RewardModel, examples: Examples, *, resamples: int = 5) -> Evaluation:
    scorers = {
        "model": model_scorer(model, examples),
        "uncalibrated": model_scorer(model, examples, calibrated=False),
    }
    return evaluate(
        scorers | baselines(model.backbone, examples, CONFIG),
        examples,
        seed=0,
        resamples=resamples,
    )


def _number(value: float | None) -> float:
    assert value is not None
    return value


def test_temperature_leaves_the_order_as_it_is(model: RewardModel, examples: Examples) -> None:
    before = _report(model, examples).val.model
    hotter = RewardModel(model.backbone, model.head)
    hotter.temperature.fill_(4.0)
    report = _report(hotter, examples).val
    of_order = {"roc_auc", "accuracy", "pairwise_accuracy"}
    assert before.model_dump(include=of_order) == report.model.model_dump(include=of_order)
    assert before.brier != report.model.brier
    assert report.scorers["uncalibrated"] == before


def test_report_compares_with_baselines_on_every_part_and_category(
    model: RewardModel, examples: Examples
) -> None:
    report = _report(model, examples, resamples=20)
    json.dumps(report.model_dump(mode="json"), allow_nan=False)
    names = {"model", "uncalibrated", "clip_score", "image_only", "prompt_only"}
    for part in (report.val, report.test_seen, report.test_unseen):
        assert set(part.scorers) == names
        assert part.model.n == part.clip_score.n > 0
        assert sum(row["model"].n for row in part.by_category.values()) == part.model.n
        for scorer in part.scorers.values():
            for figure, bounds in scorer.intervals.items():
                assert bounds is None or bounds[0] <= bounds[1], figure
        gain = part.gain["roc_auc"]
        assert gain.value == _number(part.model.roc_auc) - _number(part.clip_score.roc_auc)
        assert gain.interval is not None
        assert gain.interval[0] <= gain.interval[1]
    assert _report(model, examples, resamples=20) == report


def test_a_part_without_labels_has_a_report_as_well(model: RewardModel, examples: Examples) -> None:
    nothing = examples.dataset.where(NONE, NONE)
    empty = replace(examples, split=replace(examples.split, test_unseen=nothing))
    report = _report(model, empty)
    json.dumps(report.model_dump(mode="json"), allow_nan=False)
    assert report.test_unseen.model.n == 0
    assert report.test_unseen.model.intervals["roc_auc"] is None


def test_raters_stand_beside_the_model_on_the_labels_that_others_gave_too(
    backbone: ClipBackbone, tmp_path: Path
) -> None:
    run = make_feedback(tmp_path, images_per_prompt=6, raters=3, noise=0.1)
    dataset = FeedbackDataset.from_latest(run.latest, run.root)
    examples = prepare(dataset, CONFIG, backbone)
    model = small_reward(backbone)
    assert np.bincount(dataset.verdicts.rater).tolist() == [90, 90, 90]
    report = _report(model, examples)
    for part in (report.val, report.test_seen, report.test_unseen):
        assert part.human.others.n == part.human.model.n == part.model.n
        assert part.human.model.roc_auc == part.model.roc_auc
        assert _number(part.human.others.roc_auc) > 0.8  # one in ten labels is wrong
    json.dumps(report.model_dump(mode="json"), allow_nan=False)


def test_a_report_is_read_as_it_was_written_with_scorers_beside_the_other_names(
    model: RewardModel, examples: Examples, tmp_path: Path
) -> None:
    report = RewardReport(
        **dict(_report(model, examples)),
        temperature=1.5,
        sources={"human": 3},
    )
    write_json(tmp_path / "metrics.json", report.model_dump(mode="json"))
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert {"model", "clip_score", "counts", "gain"} < set(written["val"])
    assert "rater_types" not in written
    assert RewardReport.model_validate(written) == report


def test_blind_heads_cannot_tell_what_is_hidden_from_them(
    backbone: ClipBackbone, examples: Examples
) -> None:
    verdicts = examples.split.test_seen.verdicts
    assert len(np.unique(verdicts.image)) == len(verdicts)
    prompt_alone = blind_scorer(backbone, examples, CONFIG, sees="prompt")
    assert len(np.unique(prompt_alone(verdicts.image, verdicts.prompt).round(5))) == len(
        np.unique(verdicts.prompt)
    )
    image_alone = blind_scorer(backbone, examples, CONFIG, sees="image")
    others = np.roll(verdicts.prompt, 1)
    np.testing.assert_allclose(
        image_alone(verdicts.image, others), image_alone(verdicts.image, verdicts.prompt), atol=1e-6
    )


def elsewhere(examples: Examples, *sources: RewardSource) -> dict[str, Scorer]:
    config = CONFIG.model_copy(update={"baselines": sources})
    return rewards_from_elsewhere(examples, config, device=torch.device("cpu"))


def test_a_clip_score_from_elsewhere_is_the_clip_baseline_and_orders_by_the_cosine(
    examples: Examples, backbone: ClipBackbone
) -> None:
    source = RewardSource(kind="clip_score", path=backbone.name)
    scorers = elsewhere(examples, source, RewardSource(kind="pickscore", path=backbone.name))
    assert list(scorers) == [f"clip_score {backbone.name}", f"pickscore {backbone.name}"]
    for part in (examples.split.train, examples.split.test_unseen):
        wanted = Scored.from_scorer(clip_scorer(examples), part)
        images = examples.image_features[part.verdicts.image, : backbone.dim]
        cosines = (images * examples.text_embeddings[part.verdicts.prompt]).sum(-1)
        assert np.array_equal(cosines.argsort().numpy(), wanted.probability.argsort())
        for scorer in scorers.values():  # a scale changes nothing
            scored = Scored.from_scorer(scorer, part)
            assert scored.probability == pytest.approx(wanted.probability, abs=1e-4)
            assert scored.score_0 == pytest.approx(wanted.score_0, abs=1e-4)


def test_a_reward_from_elsewhere_sees_each_labeled_image_once_whatever_its_size(
    examples: Examples, tmp_path: Path
) -> None:
    dataset = examples.dataset
    verdicts, pairs = dataset.verdicts, dataset.pairs
    Image.new("RGB", (64, 24), (255, 255, 255)).save(tmp_path / "white.png")
    first = int(examples.split.val.verdicts.image[0])
    paths = tuple(
        tmp_path / "white.png" if i == first else path for i, path in enumerate(dataset.paths)
    )
    SCORED.clear()
    (scorer,) = elsewhere(
        replace(examples, dataset=replace(dataset, paths=paths)),
        RewardSource(kind="python", path="tests.support.user_rewards:noted_brightness"),
    ).values()
    asked = {*zip(verdicts.image, verdicts.prompt, strict=True)}
    asked |= {*zip(pairs.image_0, pairs.prompt, strict=True)} | {
        *zip(pairs.image_1, pairs.prompt, strict=True)
    }
    assert sorted(SCORED) == sorted(dataset.prompts[prompt] for _, prompt in asked)
    some = examples.split.val.verdicts
    assert some.image[np.argmax(scorer(some.image, some.prompt))] == first
    assert measure(scorer, examples.split.val).n == len(some)


def test_a_reward_from_elsewhere_that_gives_no_number_names_the_image(examples: Examples) -> None:
    with pytest.raises(PictuneError, match=r"not_a_number: gives no finite number for .*\.png"):
        elsewhere(
            examples, RewardSource(kind="python", path="tests.support.user_rewards:not_a_number")
        )


def test_figure_has_a_column_for_each_part_with_verdicts(
    model: RewardModel, examples: Examples, tmp_path: Path
) -> None:
    figure = reliability_figure(model, examples)
    assert len(figure.axes) == 6
    figure.savefig(tmp_path / "reliability.png", dpi=40)
    nothing = examples.dataset.where(NONE, NONE)
    empty = replace(
        examples, split=replace(examples.split, val=nothing, test_seen=nothing, test_unseen=nothing)
    )
    assert "no held-out verdicts" in reliability_figure(model, empty).texts[0].get_text()
