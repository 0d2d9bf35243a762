"""Learning from labels through the command line: with a reward, without one, and from imports."""

import shutil
from pathlib import Path

import pytest
import torch

from data.runs import RunFolder
from finetune.model.diffusion import DiffusionModel
from finetune.model.lora import LORA_FILE
from finetune.settings.preference import PreferenceConfig
from finetune.settings.sampler import Sampler
from pipelines.finetune.plan import labels_of
from pipelines.finetune.training_data import Encoder, labeled_data
from pipelines.run.metrics_log import read_metrics
from pipelines.run.record import STAMP, read_stamp
from reward.dataset import FeedbackDataset
from reward.learning.split import split_feedback
from reward.settings import SplitConfig
from tests.support import exchange_files as files
from tests.support.demo_run import command, copy_without, metrics_of, page_of, sets
from tests.support.tiny_feedback import make_feedback

RED, BLUE = "A red ball.", "A blue ball."
SMALL = sets(
    "preference.updates=2",
    "preference.batch=8",
    "preference.held_out=0.4",
    "preference.report_every=1",
    "preference.validation.every=1",
    "preference.validation.images_per_prompt=1",
)


@pytest.fixture(scope="module")
def encoder(sd_folder: Path) -> Encoder:
    return Encoder(DiffusionModel.from_pretrained(sd_folder), Sampler(steps=2), batch=64)


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Twenty images of each prompt with verdicts, and four rankings of three."""
    folder = tmp_path_factory.mktemp("labeled") / "run"
    return make_feedback(folder, images_per_prompt=20, raters=2, noise=0.1, rankings=4)


def test_held_out_images_are_those_that_the_reward_was_not_trained_on(
    labeled: RunFolder, encoder: Encoder
) -> None:
    found = labeled_data(labeled, [RED, BLUE], PreferenceConfig(), encoder)
    assert {found.prompts[i] for i in found.taught.verdicts.prompt.tolist()} == {RED, BLUE}
    assert len(found.latents) == 40
    held_out = set(found.held_out.verdicts.image.tolist())
    assert len(held_out) == 4
    taught = {
        *found.taught.verdicts.image.tolist(),
        *found.taught.rankings.image[found.taught.rankings.present].tolist(),
    }
    assert not held_out & taught
    dataset = FeedbackDataset.from_latest(labeled.latest, labeled.root)
    split = split_feedback(dataset, SplitConfig(unseen_prompts=0.0, validation=0.0))
    tests = {dataset.paths[i] for i in split.test_seen.verdicts.image}
    here = labels_of(labeled, [RED, BLUE])
    paths = sorted({here.paths[i] for i in here.verdicts.image}, key=here.paths.index)
    assert {paths[i] for i in held_out} <= tests


def test_rankings_and_raters_arrive_as_they_were_given(
    labeled: RunFolder, encoder: Encoder
) -> None:
    config = PreferenceConfig(held_out=0.0)
    found = labeled_data(labeled, [RED], config, encoder)
    here = labels_of(labeled, [RED])
    assert len(found.held_out.verdicts) == len(found.held_out.rankings) == 0
    assert found.taught.verdicts.weight.tolist() == [2.0] * 20
    assert set(found.taught.verdicts.good.tolist()) <= {0.0, 0.5, 1.0}
    assert float(found.taught.verdicts.good.sum()) == float(here.verdicts.good.sum()) / 2
    first = found.taught.rankings
    used = sorted({*here.verdicts.image.tolist()})
    for a, b, label in zip(here.pairs.image_0, here.pairs.image_1, here.pairs.label_0, strict=True):
        places = [used.index(int(i)) for i in (a, b)]
        better = [
            float(torch.sign(ranks[images == places[1]] - ranks[images == places[0]]))
            for images, ranks in zip(first.image, first.ranks, strict=True)
            if set(places) <= set(images.tolist())
        ]
        assert 2 * float(label) - 1 in better


@pytest.mark.slow
@pytest.mark.parametrize("with_reward", [True, False])
def test_it_is_tuned_with_a_reward_and_without_one(
    ready: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, with_reward: bool
) -> None:
    run = copy_without(ready, tmp_path, *(() if with_reward else ("reward",)))
    folder = run.finetune_dir("preference")
    assert command(run, "finetune", "--method", "preference", *SMALL) == 0
    chosen_by = "reward" if with_reward else "accuracy on held-out labels"
    assert f"validation {chosen_by} " in capsys.readouterr().out
    stamp, lines = read_stamp(folder / STAMP), read_metrics(folder)
    assert stamp is not None
    assert set(stamp.inputs) == {"model", "prompts", "labels"} | (
        {"reward"} if with_reward else set()
    )
    assert len(lines) == 3
    assert (lines[2]["validation_reward"] == lines[2]["held_out_accuracy"]) == (not with_reward)
    assert lines[2]["winner_error"] is not None
    card = (folder / "README.md").read_text()
    assert f"for the labels in `{run.latest}`." in card
    assert ("the best by mean reward on validation seeds" in card) == with_reward
    assert command(run, "finetune", "--method", "preference", *SMALL) == 0
    assert "finetune preference: done" in capsys.readouterr().out
    capsys.readouterr()
    assert command(run, "evaluate") == 0
    told = capsys.readouterr().out
    page = page_of(run.evaluation_dir)
    assert "by Preference (on the labels themselves)." in page
    assert (" on that reward by Preference" in page) == with_reward
    for words in ("<th>reward</th>", "How far the reward can be trusted", "best of 2"):
        assert (words in page) == with_reward
    assert ("best of 2" in told) == with_reward
    assert command(run, "report") == 0
    assert command(run, "evaluate") == 0
    assert "evaluate: done" in capsys.readouterr().out


@pytest.mark.slow
def test_rewards_of_ones_own_need_no_labels_no_trained_reward_and_no_judge(
    demo_models: Path, sd_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, prompts = RunFolder(tmp_path / "runs" / "own"), tmp_path / "prompts.csv"
    lines = ("A red ball.,color,", "A blue ball.,color,", "A ball on grass.,place,test")
    prompts.write_text("\n".join(["prompt,category,split", *lines, *lines[2:], "Balls.,,test"]))
    config, known = tmp_path / "own.toml", demo_models.read_text().splitlines()
    config.write_text("\n".join(line for line in known if not line.startswith("judge")))
    own = ["--config", str(config), "--model", str(sd_folder), "--prompts", str(prompts)]
    rewards = 'finetune.rewards=[{kind="python", path="tests.support.small_training:redness"}]'
    assert command(run, "images", *own) == 0
    assert command(run, "finetune", "--method", "ddpo", *sets(rewards)) == 0
    capsys.readouterr()
    assert command(run, "evaluate", *sets("evaluate.most_prompts=1")) == 0
    told = capsys.readouterr().out
    assert "mean CLIP score, with" in told
    assert "mean reward" not in told
    assert "evaluate: 1 of the 2 training prompts are evaluated" in told
    page = page_of(run.evaluation_dir)
    for words in (
        "1 of the 2 training prompts",
        "on rewards from elsewhere by DDPO",
        "held out: place",
    ):
        assert words in page
    for words in ("held out: object", "held out: count", "best of", "make inspect RUN", "95 %"):
        assert words not in page
    metrics = metrics_of(run.evaluation_dir)
    asked = [(one["prompt"], one["family"]) for one in metrics["results"][0]["prompts"]]
    assert asked == [("A red ball.", "color"), ("A ball on grass.", "place"), ("Balls.", "other")]


def write_preferences(folder: Path) -> Path:
    """Write preferences about "a cat" in the format of a public dataset."""
    rows = [files.pick_a_pic_row(2 * i, 2 * i + 1, 1.0, user_id=i % 3) for i in range(20)]
    return files.write_pick_a_pic(folder / "train.parquet", rows)


@pytest.mark.slow
def test_imported_preferences_are_learned_from(
    ready: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_preferences(tmp_path)
    run = RunFolder(tmp_path / "runs" / "picks")
    run.root.mkdir(parents=True)
    shutil.copy(ready.config_file, run.config_file)
    assert command(run, "import", "--format", "pick-a-pic", "--from", str(source)) == 0
    capsys.readouterr()
    tune = ("finetune", "--method", "preference", *SMALL)
    assert command(run, *tune) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "no label of the training prompts" in told
    assert "'a cat'" in told
    assert command(run, *tune, *sets("finetune.train_on=all")) == 0
    assert (run.finetune_dir("preference") / LORA_FILE).is_file()
    assert "Prompts: a cat\n" in (run.finetune_dir("preference") / "README.md").read_text()
