"""The stage `reward` as the command line runs it, on labels that are there already."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data.files import write_json
from data.runs import RunFolder
from data.schema import LABELS_BINARY, SCHEMA_VERSION, write_table
from data.tables.parquet import MANIFEST, ExportedFile, Manifest
from pipelines.cli import main
from pipelines.run.record import STAMP
from pipelines.settings.config import check, read_toml
from reward.files import WEIGHTS_FILE
from reward.model import RewardModel
from reward.settings import RewardConfig
from tests.support.tiny_clip import save_tiny_clip
from tests.support.tiny_feedback import make_feedback

BRIGHTNESS = "python tests.support.user_rewards:brightness"


@dataclass(frozen=True)
class Trained:
    """A run whose reward is trained, and the folder of its backbone."""

    run: RunFolder
    clip: Path

    def again(self, *changes: str, words: tuple[str, ...] = ()) -> int:
        settings = [
            f'backbone="{self.clip}"',
            "hidden=[8]",
            "members=2",
            "epochs=1",
            'split={split_by = "image"}',
            'baselines=[{kind = "python", path = "tests.support.user_rewards:brightness"}]',
            *changes,
        ]
        overrides = [word for each in settings for word in ("--set", f"reward.{each}")]
        place = ["--runs", str(self.run.root.parent), "--run", self.run.root.name]
        return main(["reward", *place, *overrides, *words])

    def copied(self, root: Path, *without: str) -> "Trained":
        """Return a copy of the run below `root`, without some of its files."""
        run = RunFolder(root / "r")
        shutil.copytree(self.run.root, run.root, ignore=shutil.ignore_patterns(*without))
        return Trained(run, self.clip)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("reward")
    run = make_feedback(folder / "runs" / "r", images_per_prompt=6, raters=2, noise=0.1, rankings=1)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        export_id="",
        inputs="",
        last_sequence=0,
        files={
            f"latest/labels_{name}.parquet": ExportedFile(rows=1, sha256="")
            for name in ("binary", "ranking", "pairs")
        },
    )
    write_json(run.latest / MANIFEST, manifest.model_dump())
    shutil.copy(run.latest / "images.parquet", run.images_table)
    stage = Trained(run, save_tiny_clip(folder / "clip"))
    assert stage.again() == 0
    return stage


def test_rewards_from_elsewhere_stand_beside_the_other_baselines(trained: Trained) -> None:
    report = json.loads((trained.run.reward_dir / "metrics.json").read_text())
    for part in ("test_seen", "test_unseen"):
        assert 0 < report[part][BRIGHTNESS]["roc_auc"] < 1
        assert set(report[part][BRIGHTNESS]["intervals"]) == set(
            report[part]["clip_score"]["intervals"]
        )
    assert BRIGHTNESS in (trained.run.reward_dir / "report.html").read_text()


def test_its_card_says_how_and_on_whose_labels_it_was_trained(
    trained: Trained, tmp_path: Path
) -> None:
    card = (trained.run.reward_dir / "README.md").read_text()
    on_embeddings = f"on the embeddings of image and prompt by `{trained.clip}`"
    assert f"2 heads\n{on_embeddings}, which stays frozen, trained on" in card
    squared = "squared error of Lee et al. 2023 (arXiv 2302.12192)"
    assert f"{squared}, rankings by Bradley and Terry." in card
    assert "; the verdicts and pairs are 180 simulated." in card
    other = trained.copied(tmp_path, "reward")
    changes = ("members=1", "auxiliary_weight=0")
    assert other.again(*changes) == 0
    card = (other.run.reward_dir / "README.md").read_text()
    assert f"A head\n{on_embeddings}, which stays frozen, trained on" in card
    assert f"trained on single labels by the {squared}, rankings by Bradley and Terry." in card


def test_its_cards_lines_score_an_image_in_a_fresh_python(trained: Trained) -> None:
    card = (trained.run.reward_dir / "README.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    scored = subprocess.run(
        [sys.executable, "-c", f"{lines}\nprint(0 < scores.item() < 1)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert scored.returncode == 0, scored.stderr
    assert scored.stdout == "True\n"


def test_with_rankings_alone_its_quality_is_said_in_pairs(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = trained.copied(tmp_path, "reward")
    run = other.run
    verdicts = run.latest / "labels_binary.parquet"
    write_table(pq.read_table(verdicts).slice(0, 0), LABELS_BINARY, verdicts)
    assert other.again() == 0
    part = json.loads((run.reward_dir / "metrics.json").read_text())["test_unseen"]
    ours, theirs = part["model"], part["clip_score"]
    low, high = ours["intervals"]["pairwise_accuracy"]
    shares = f"{ours['pairwise_accuracy']:.0%} ({low:.0%} to {high:.0%})"
    wanted = (
        f"{shares} of {ours['n_pairs']} ranked pairs in the right order on unseen prompts "
        f"(CLIP score {theirs['pairwise_accuracy']:.0%})"
    )
    assert f"reward: model in {run.reward_dir}, {wanted}\n" in capsys.readouterr().out
    card, page = ((run.reward_dir / name).read_text() for name in ("README.md", "report.html"))
    assert f"{wanted}. How far" in " ".join(card.split())
    assert "trained on rankings by Bradley and Terry." in card
    assert f"labels that it was not trained on: {wanted}.</p>" in page
    assert "over the CLIP score" in page
    assert "in pairwise accuracy</small>" in page
    assert "Too few labels" not in page
    assert "calibration error<b>" not in page


def test_another_model_in_the_backbones_folder_makes_it_train_again(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (trained.clip / "README.md").write_text("Words for people.")
    assert trained.again() == 0
    assert "reward: done" in capsys.readouterr().out
    shutil.copytree(save_tiny_clip(tmp_path / "other", dim=16), trained.clip, dirs_exist_ok=True)
    assert trained.again() == 0
    assert "reward: model in" in capsys.readouterr().out


def test_a_side_figure_that_fails_keeps_the_trained_reward(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = trained.copied(tmp_path)
    run = other.run
    (run.reward_dir / STAMP).unlink()
    (run.reward_dir / WEIGHTS_FILE).unlink()
    assert other.again("rater_types=3", "split.validation=0.0") == 2
    error = capsys.readouterr().err
    assert "3 types of 2 raters" in error
    assert "reward: no label validates" in error
    assert RewardModel.from_pretrained(run.reward_dir).labels["prompts"] > 0
    assert not (
        run.reward_dir / "metrics.json"
    ).exists()  # it would say that all is done, of an earlier training


def test_a_backbone_that_could_not_be_had_may_be_corrected(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = trained.copied(tmp_path, "reward", "config.toml")
    for wrong in (
        "backbone=somewhere/else",
        'baselines=[{kind = "clip_score", path = "somewhere/else"}]',
    ):
        assert stage.again(wrong) == 2
        assert "somewhere/else" in capsys.readouterr().err
        assert not stage.run.config_file.exists()
    assert stage.again() == 0
    assert read_toml(stage.run.config_file)["reward"]["backbone"] == str(trained.clip)


def test_memory_that_is_not_there_is_one_line(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = trained.copied(tmp_path, "reward")
    hungry = '[{kind = "python", path = "tests.support.user_rewards:of_too_much_memory"}]'
    assert other.again(f"baselines={hungry}") == 2
    assert "pictune: out of memory; lower images.batch" in capsys.readouterr().err


def test_the_settings_in_its_guide_are_read() -> None:
    guide = (Path(__file__).parents[1] / "docs" / "reward.md").read_text(encoding="utf-8")
    blocks = [tomllib.loads(one) for one in re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)]
    read = [check(tables, tables, "docs/reward.md") for tables in blocks]
    (own,) = (one for one, tables in zip(read, blocks, strict=True) if "reward" in tables)
    assert len(own.table("reward", RewardConfig).baselines) == 4
