"""The whole story on tiny random models: every stage, one after the other, through the command line."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from data.files import sha256_of, write_json
from data.runs import RunFolder
from data.schema import IMAGES, read_table, write_table
from data.store import FeedbackStore
from finetune.diffusion import LORA_FILE
from pipelines.cli import main
from pipelines.metrics_log import METRICS_FILE, MetricsLog, read_metrics
from pipelines.record import STAMP, content_hash, read_stamp
from reward.model import RewardModel
from tests.interruption import abandons_open_files, interrupted_when
from tests.tiny_models import write_tiny_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def run(models: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that `demo` went through."""
    runs = tmp_path_factory.mktemp("runs")
    assert main(["demo", "--runs", str(runs), "--run", "r", "--config", str(models)]) == 0
    return RunFolder(runs / "r")


def command(run: RunFolder, stage: str, *words: str) -> int:
    return main([stage, "--runs", str(run.root.parent), "--run", run.root.name, *words])


def test_demo_leaves_everything_that_the_design_names(run: RunFolder) -> None:
    for path in (
        run.config_file,
        run.images_table,
        run.latest / "labels_binary.parquet",
        run.reward_dir / "metrics.json",
        run.reward_dir / "README.md",
        run.reward_dir / "report.html",
        run.reward_dir / "reliability.png",
        run.evaluation_dir / "metrics.json",
        run.evaluation_dir / "report.html",
        run.evaluation_dir / "sheets" / "prompt-01-eta0.png",
    ):
        assert path.is_file(), path
    for method in ("rwl", "dpok"):
        folder = run.finetune_dir(method)
        assert {
            "README.md",
            METRICS_FILE,
            "pytorch_lora_weights.safetensors",
            "checkpoints",
            "samples",
            "tensorboard",
        } <= {path.name for path in folder.iterdir()}
        assert [line["step"] for line in read_metrics(folder)] == [0, 1, 2]


def test_demo_run_again_skips_what_is_done(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {
        path: path.stat().st_mtime_ns
        for path in run.root.rglob("*")
        if path.is_file() and path.suffix != ".db"
    }
    assert command(run, "demo") == 0
    printed = capsys.readouterr().out
    for stage in ("images", "simulate", "reward", "finetune rwl", "finetune dpok", "evaluate"):
        assert f"{stage}: done" in printed
    assert "make label RUN=r" in printed
    assert "mean over the trained prompts" in printed
    changed = {path.name for path, moment in before.items() if path.stat().st_mtime_ns != moment}
    assert not {name for name in changed if name.endswith((".png", ".safetensors", ".html"))}


def test_all_labels_came_through_the_store_as_simulated(run: RunFolder) -> None:
    with FeedbackStore.open(run.store_url) as store:
        progress = store.progress(source="simulated")
    assert progress.done == progress.total > 0
    assert command(run, "dataset") == 0


def test_a_changed_setting_of_a_finished_stage_is_refused(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(run, "finetune", "--method", "dpok", "--set", "dpok.kl_weight=0.9") == 2
    error = capsys.readouterr().err
    assert "dpok.kl_weight is 0.02 there and 0.9 now" in error
    assert "finetune/dpok" in error


def test_the_tuned_lora_opens_in_stock_diffusers(run: RunFolder, models: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(models.parent / "sd", safety_checker=None)
    pipeline.load_lora_weights(run.finetune_dir("dpok"))
    assert pipeline.get_active_adapters()


def test_evaluation_compares_all_models_on_the_same_seeds(run: RunFolder) -> None:
    metrics = json.loads((run.evaluation_dir / "metrics.json").read_text())
    results = {(result["model"], result["eta"]): result for result in metrics["results"]}
    assert {model for model, _ in results} == {"base", "best of n", "rwl", "dpok"}
    assert {eta for _, eta in results} == {0.0, 1.0}
    seeds = {
        name: [(one["prompt"], one["seed"]) for one in result["pictures"]]
        for name, result in results.items()
    }
    assert len({tuple(one) for one in seeds.values()}) == 1
    for result in results.values():
        assert len(result["prompts"]) == 2 + 5
        assert {row["family"] for row in result["families"] if row["group"] == "held out"} == {
            "object",
            "color",
            "count",
            "composition",
            "place",
        }
        for row in result["prompts"]:
            assert row["interval"][0] <= row["alignment"] <= row["interval"][1]
        if result["model"] in ("rwl", "dpok"):
            assert result["kl"]["mean"] >= 0
    assert (
        results["best of n", 0.0]["groups"]["trained"]["reward"]
        >= results["base", 0.0]["groups"]["trained"]["reward"]
    )


class _Sources(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        assert tag not in ("script", "link", "iframe")


def test_the_report_needs_nothing_but_itself(run: RunFolder) -> None:
    page = (run.evaluation_dir / "report.html").read_text()
    parser = _Sources()
    parser.feed(page)
    assert parser.sources
    assert all(source.startswith("data:") for source in parser.sources)
    assert not re.search(r"url\(|@import", page)


@abandons_open_files
def test_interrupted_fine_tuning_goes_on_from_its_checkpoint(
    run: RunFolder, tmp_path: Path
) -> None:
    shutil.copytree(
        run.root, tmp_path / "r", ignore=shutil.ignore_patterns("finetune", "evaluation")
    )
    iterations = 12
    words = [
        "finetune",
        "--runs",
        str(tmp_path),
        "--run",
        "r",
        "--method",
        "dpok",
        "--set",
        f"dpok.iterations={iterations}",
    ]
    words += ["--set", f"finetune.checkpoints={iterations}"]
    folder = tmp_path / "r" / "finetune" / "dpok"
    with interrupted_when(lambda: any(folder.glob("checkpoints/*/manifest.json"))):
        assert main(words) == 130
    before = read_metrics(folder)
    assert 0 < len(before) < iterations
    assert not list(folder.rglob(".tmp-*"))
    assert main(words) == 0
    after = read_metrics(folder)
    assert [line["step"] for line in after] == list(range(iterations + 1))
    assert after[0] == before[0]


def stored_labels(run: RunFolder) -> int:
    """Labels in the store, read from beside the process that writes."""
    try:
        with closing(sqlite3.connect(f"file:{run.store_file}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM labels").fetchone()[0])
    except sqlite3.OperationalError:  # not made yet
        return 0


@dataclass(frozen=True)
class Interruption:
    """A stage, the folders that it and later stages make, and when it is well under way."""

    words: tuple[str, ...]
    made: tuple[str, ...]
    under_way: Callable[[RunFolder], bool]
    result: str


INTERRUPTIONS = {
    "simulate": Interruption(
        ("simulate",),
        ("labels", "reward", "finetune", "evaluation"),
        lambda run: stored_labels(run) >= 5,
        "labels/latest/_manifest.json",
    ),
    "reward": Interruption(
        ("reward", "--set", "reward.epochs=400", "--set", "reward.patience=400"),
        ("reward", "finetune", "evaluation"),
        lambda run: (
            (run.reward_dir / METRICS_FILE).exists()
            and (run.reward_dir / METRICS_FILE).stat().st_size > 0
        ),
        "reward/metrics.json",
    ),
    "rwl": Interruption(
        (
            "finetune",
            "--method",
            "rwl",
            "--set",
            "rwl.updates=200",
            "--set",
            "finetune.checkpoints=50",
        ),
        ("finetune", "evaluation"),
        lambda run: any(run.finetune_dir("rwl").glob("checkpoints/*/manifest.json")),
        "finetune/rwl/pytorch_lora_weights.safetensors",
    ),
    "evaluate": Interruption(
        ("evaluate",),
        ("evaluation",),
        lambda run: any(run.evaluation_dir.rglob("[!.]*.png")),
        "evaluation/report.html",
    ),
}


@abandons_open_files
@pytest.mark.parametrize("stage", INTERRUPTIONS)
def test_an_interrupted_stage_leaves_nothing_half_written_and_goes_on(
    run: RunFolder, tmp_path: Path, stage: str
) -> None:
    case, copy = INTERRUPTIONS[stage], RunFolder(tmp_path / "r")
    shutil.copytree(
        run.root, copy.root, ignore=lambda folder, _: case.made if Path(folder) == run.root else ()
    )
    with interrupted_when(lambda: case.under_way(copy)):
        assert command(copy, *case.words) == 130
    assert not (copy.root / case.result).exists()
    assert not list(copy.root.rglob(".tmp-*"))
    kept = stored_labels(copy)
    assert command(copy, *case.words) == 0
    assert (copy.root / case.result).exists()
    assert stored_labels(copy) >= kept > 0
    with FeedbackStore.open(copy.store_url) as store:
        progress = store.progress(source="simulated")
    assert progress.done == progress.total


@pytest.mark.parametrize(
    ("words", "lost"),
    [
        (["images"], "images.parquet"),
        (["simulate"], "labels/latest"),
        (["reward"], "reward/head.safetensors"),
        (["finetune", "--method", "rwl"], f"finetune/rwl/{LORA_FILE}"),
        (["evaluate"], "evaluation/metrics.json"),
    ],
)
def test_a_stage_writes_again_what_was_removed(
    run: RunFolder, tmp_path: Path, words: list[str], lost: str
) -> None:
    copy = RunFolder(tmp_path / "r")
    shutil.copytree(run.root, copy.root, symlinks=True)
    before = (copy.root / lost).stat().st_size
    (copy.root / lost).unlink()
    assert command(copy, *words) == 0
    assert (copy.root / lost).stat().st_size == pytest.approx(before, rel=0.1)
    assert command(copy, "images") == 0


def test_a_lora_of_another_reward_is_told(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = RunFolder(tmp_path / "r")
    shutil.copytree(
        run.root, copy.root, ignore=shutil.ignore_patterns("evaluation", "dpok", "checkpoints")
    )
    stamp = copy.finetune_dir("rwl") / STAMP
    stamp.write_text(re.sub(r'"reward": "\w+"', '"reward": "another"', stamp.read_text()))
    assert (
        command(copy, "evaluate", "--set", "evaluate.etas=[0]", "--set", "evaluate.best_of=1") == 0
    )
    told = [
        line for line in capsys.readouterr().err.splitlines() if "tuned on another reward" in line
    ]
    assert len(told) == 1
    assert "make finetune METHOD=rwl" in told[0]
    assert json.loads((copy.evaluation_dir / "metrics.json").read_text())["outdated"] == {
        "rwl": ["reward"]
    }
    assert "RWL was tuned on another reward" in (copy.evaluation_dir / "report.html").read_text()


def test_an_edited_prompt_file_is_evaluated_anew(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, prompts = RunFolder(tmp_path / "r"), tmp_path / "prompts.txt"
    prompts.write_text("A red cat.\n")
    shutil.copytree(
        run.root,
        copy.root,
        ignore=lambda folder, _: ("finetune", "evaluation") if Path(folder) == run.root else (),
    )
    for stamp in copy.root.glob(f"*/{STAMP}"):
        stamp.unlink()  # of stages with other prompts
    assert command(copy, "evaluate", "--prompts", str(prompts)) == 0
    assert command(copy, "evaluate") == 0
    assert "evaluate: done" in capsys.readouterr().out
    prompts.write_text("Two dogs.\n")
    assert command(copy, "evaluate") == 0
    metrics = json.loads((copy.evaluation_dir / "metrics.json").read_text())
    assert metrics["results"][0]["prompts"][0]["prompt"] == "Two dogs."


def test_ddpo_is_tuned_evaluated_and_reported_like_the_others(
    run: RunFolder, tmp_path: Path
) -> None:
    copy = RunFolder(tmp_path / "r")
    shutil.copytree(
        run.root,
        copy.root,
        ignore=lambda folder, _: ("evaluation",) if Path(folder) == run.root else (),
    )
    assert command(copy, "finetune", "--method", "ddpo") == 0
    lines = read_metrics(copy.finetune_dir("ddpo"))
    assert len(lines) == 3
    assert lines[1]["kl"] is None
    assert {"saturation", "sharpness", "diversity", "disagreement"} == set(lines[1]["monitors"])
    assert lines[1]["images_per_second"] > 0
    assert lines[1]["peak_memory_gb"] > 0.1
    assert command(copy, "evaluate") == 0
    metrics = json.loads((copy.evaluation_dir / "metrics.json").read_text())
    assert {result["model"] for result in metrics["results"]} == {
        "base",
        "best of n",
        "rwl",
        "dpok",
        "ddpo",
    }
    assert "DDPO: reward" in (copy.evaluation_dir / "report.html").read_text()


def test_a_guard_ends_the_training_early_on_held_out_prompts(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = RunFolder(tmp_path / "r")
    shutil.copytree(
        run.root,
        copy.root,
        ignore=lambda folder, _: ("evaluation",) if Path(folder) == run.root else (),
    )
    held_out = (
        "--set",
        'finetune.validation_prompts=["Two dogs."]',
        "--set",
        "ddpo.validation.images_per_prompt=2",
    )
    limits = (
        "--set",
        "ddpo.validation.limits.sharpness=1.0000001",
        "--set",
        'ddpo.validation.stop_on=["sharpness"]',
    )
    for method in ("rwl", "dpok"):
        shutil.rmtree(copy.finetune_dir(method))  # they were made without held-out prompts
    assert (
        command(
            copy, "finetune", "--method", "ddpo", "--set", "ddpo.iterations=50", *held_out, *limits
        )
        == 0
    )
    printed = capsys.readouterr().out
    steps = read_metrics(copy.finetune_dir("ddpo"))[-1]["step"]
    assert steps < 50
    assert f"finetune ddpo: stopped at step {steps}: sharpness is" in printed
    assert (copy.finetune_dir("ddpo") / "pytorch_lora_weights.safetensors").is_file()


def test_a_sum_of_rewards_from_elsewhere_is_tuned_on(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "r")
    shutil.copytree(
        run.root,
        copy.root,
        ignore=lambda folder, _: (
            ("evaluation", "finetune", "reward") if Path(folder) == run.root else ()
        ),
    )
    rewards = (
        'finetune.rewards=[{kind="python", path="tests.test_finetune_ddpo:redness", weight=2.0}]'
    )
    assert command(copy, "finetune", "--method", "ddpo", "--set", rewards) == 0
    stamp = read_stamp(copy.finetune_dir("ddpo") / STAMP)
    assert stamp is not None
    assert stamp.inputs["reward tests.test_finetune_ddpo:redness"] == content_hash(
        "tests/test_finetune_ddpo.py"
    )
    mean = read_metrics(copy.finetune_dir("ddpo"))[1]["reward"]
    assert (
        0.2 < mean < 1.8
    )  # twice the mean red of noise: no probability of the run's own reward, which is not there
    clip = re.search(r'backbone = "(.*)"', (copy.root / "config.toml").read_text())
    assert clip
    both = rewards.removesuffix("]") + f', {{kind="clip_score", path="{clip[1]}", weight=-1.0}}]'
    assert (
        command(copy, "finetune", "--method", "ddpo", "--set", both) == 2
    )  # another reward, another run
    shutil.rmtree(copy.finetune_dir("ddpo"))
    assert command(copy, "finetune", "--method", "ddpo", "--set", both) == 0
    assert read_metrics(copy.finetune_dir("ddpo"))[1]["reward"] != mean
    card = (copy.finetune_dir("ddpo") / "README.md").read_text()
    assert (
        f"for 2 * python of `tests.test_finetune_ddpo:redness` + -1 * clip_score of `{clip[1]}`."
        in card
    )
    assert str(copy.reward_dir) not in card


def draw_as_the_card_says(folder: Path) -> str:
    """Runs the lines of a tuned folder's model card, word for word, in a fresh Python; gives them."""
    (lines,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    drawn = subprocess.run(
        [sys.executable, "-c", f"{lines}\nprint(image.size)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout == "(16, 16)\n"
    return str(lines)


def test_the_lines_of_a_card_draw_in_a_fresh_python(run: RunFolder) -> None:
    lines = draw_as_the_card_says(run.finetune_dir("dpok"))
    assert f"load_lora_weights('{run.finetune_dir('dpok')}')" in lines
    assert "variant" not in lines


def test_the_lines_of_a_card_draw_where_all_weights_are_a_variant(
    models: Path, tmp_path: Path
) -> None:
    StableDiffusionPipeline.from_pretrained(models.parent / "sd").to(torch.float16).save_pretrained(
        tmp_path / "half", variant="fp16"
    )
    half = RunFolder(tmp_path / "r")
    rewards = 'finetune.rewards=[{kind="python", path="tests.test_finetune_ddpo:redness"}]'
    assert (
        command(half, "images", "--config", str(models), "--set", f"run.model={tmp_path / 'half'}")
        == 0
    )
    assert command(half, "finetune", "--method", "ddpo", "--set", rewards) == 0
    assert "variant='fp16'" in draw_as_the_card_says(half.finetune_dir("ddpo"))


def test_other_pictures_and_prompts_make_a_fine_tuning_start_again(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = RunFolder(tmp_path / "r")
    shutil.copytree(run.root, copy.root)
    for method in ("rwl", "dpok"):
        assert command(copy, "finetune", "--method", method) == 0
        assert f"finetune {method}: done" in capsys.readouterr().out
        stamp = read_stamp(copy.finetune_dir(method) / STAMP)
        assert stamp is not None
        write_json(
            copy.finetune_dir(method) / STAMP,
            stamp.model_dump(mode="json") | {"inputs": stamp.inputs | {"prompts": "others"}},
        )
        assert command(copy, "finetune", "--method", method) == 0
        assert f"finetune {method}: LoRA in" in capsys.readouterr().out
    write_table(read_table(copy.images_table, IMAGES).slice(1), IMAGES, copy.images_table)
    assert command(copy, "finetune", "--method", "dpok") == 0
    assert "finetune dpok: done" in capsys.readouterr().out
    assert command(copy, "finetune", "--method", "rwl") == 0
    assert "finetune rwl: LoRA in" in capsys.readouterr().out


def test_dpok_goes_on_where_rwl_ended(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = RunFolder(tmp_path / "r")
    shutil.copytree(
        run.root,
        copy.root,
        ignore=lambda folder, _: ("evaluation", "finetune") if Path(folder) == run.root else (),
    )
    rwl, dpok = copy.finetune_dir("rwl"), copy.finetune_dir("dpok")
    assert command(copy, "finetune", "--method", "dpok", "--set", f"dpok.lora.start={rwl}") == 2
    assert f"{rwl}: no {LORA_FILE} in it" in capsys.readouterr().err
    assert (
        command(
            copy,
            "finetune",
            "--method",
            "dpok",
            "--set",
            "dpok.lora.start=rwl",
            "--set",
            "rwl.lora.start=dpok",
        )
        == 2
    )
    assert (
        "rwl.lora.start: dpok starts from rwl starts from dpok; set one of them"
        in capsys.readouterr().err
    )
    assert not rwl.exists()
    assert (
        command(
            copy,
            "finetune",
            "--method",
            "dpok",
            "--set",
            "dpok.lora.start=rwl",
            "--set",
            "rwl.learning_rate=0.1",
        )
        == 0
    )
    assert re.search("finetune rwl: LoRA in .*\nfinetune dpok: LoRA in", capsys.readouterr().out)
    assert f"training started: `{rwl}`" in (dpok / "README.md").read_text()
    stamp = read_stamp(dpok / STAMP)
    assert stamp is not None
    assert stamp.inputs["start"] == sha256_of(rwl / LORA_FILE)
    fresh, warm = (read_metrics(one.finetune_dir("dpok"))[1]["kl"] for one in (run, copy))
    assert warm > 10 * fresh  # nats to the pretrained model, which an untuned start has hardly left
    shutil.copy(dpok / LORA_FILE, rwl / LORA_FILE)
    assert (
        command(copy, "evaluate", "--set", "evaluate.etas=[0]", "--set", "evaluate.best_of=1") == 0
    )
    told = capsys.readouterr()
    assert f"{dpok}: tuned on another start than the run has now" in told.err
    assert "RWL, then DPOK" in told.out
    assert (
        "on that reward by RWL and by RWL, then DPOK."
        in (copy.evaluation_dir / "report.html").read_text()
    )


@pytest.mark.parametrize(
    "settings", [("reward.rater_types=2",), ("reward.tune_last=1", "reward.lora_rank=1")]
)
def test_rater_types_and_low_rank_blocks_are_trained_by_settings(
    run: RunFolder, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    copy = RunFolder(tmp_path / "r")
    shutil.copytree(
        run.root,
        copy.root,
        ignore=lambda folder, _: (
            ("evaluation", "finetune", "reward") if Path(folder) == run.root else ()
        ),
    )
    assert (
        command(copy, "reward", *(word for setting in settings for word in ("--set", setting))) == 0
    )
    types = "reward.rater_types=2" in settings
    assert (copy.reward_dir / "types").is_dir() == types
    assert ("rater_types" in json.loads((copy.reward_dir / "metrics.json").read_text())) == types
    assert (
        "Do raters want different things?" in (copy.reward_dir / "report.html").read_text()
    ) == types
    assert (RewardModel.from_pretrained(copy.reward_dir).backbone.tuned_blocks == 0) == types


def test_runs_share_the_embeddings_of_pictures(run: RunFolder) -> None:
    files = list(run.embeddings_dir.glob("*-image-*")) + list(run.embeddings_dir.glob("*-text-*"))
    assert len(files) == 2
    assert all(file.stat().st_size > 0 for file in files)


def test_new_labels_make_the_reward_train_again(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with FeedbackStore.open(run.store_url) as store:
        rater = store.add_rater("simulated rater 1", source="simulated")
        assert store.undo(rater) is not None
    assert command(run, "reward") == 0
    assert "reward: model in" in capsys.readouterr().out


def test_metrics_of_steps_that_come_again_are_dropped(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": step, "by_prompt": {"A cat.": 1.0}, "nothing": None})
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 4, "lo')
    with MetricsLog(tmp_path, step=2) as log:
        log.write(3, {"loss": 30})
    assert [line["loss"] for line in read_metrics(tmp_path)] == [1, 2, 30]
