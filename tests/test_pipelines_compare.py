"""Stage `compare`: images of all models brought together, and campaigns that can be answered."""

import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from data.files import sha256_of
from data.runs import RunFolder
from data.schema import PROMPTS, read_table, write_table
from data.store.feedback_store import FeedbackStore
from pipelines.cli import load_settings, main, parser
from pipelines.evaluate.models import image_folder
from pipelines.run.campaign import add_planned_tasks, image_files, images_digest
from tests.support.demo_run import command, sets
from tests.support.tuned_run import change_adapter, copy_of

pytestmark = pytest.mark.slow

SMALL = sets("compare.images_per_prompt=1", "evaluate.held_out_per_family=1")
WITH_RWL = ("--models", "base,rwl")


@pytest.fixture(scope="module")
def tuned(ready: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that RWL tuned, with noise by which every image changes, and its evaluation."""
    run = copy_of(ready, tmp_path_factory.mktemp("tuned"))
    assert command(run, "finetune", "--method", "rwl") == 0
    change_adapter(run, "rwl")
    few = sets("evaluate.images_per_prompt=2", "evaluate.held_out_per_family=1")
    assert command(run, "evaluate", *few) == 0
    return run


@pytest.fixture
def run(tuned: RunFolder, tmp_path: Path) -> RunFolder:
    return copy_of(tuned, tmp_path)


def tasks_of(run: RunFolder) -> pd.DataFrame:
    assert command(run, "dataset") == 0
    tasks = pd.read_parquet(run.latest / "tasks.parquet")
    return tasks[tasks["kind"] == "comparison"]


def error_of(run: RunFolder, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert command(run, "compare", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_images_of_the_evaluation_are_compared_and_kept_from_it(run: RunFolder) -> None:
    before = set(image_files(run))
    assert command(run, "compare", *WITH_RWL, *SMALL) == 0
    added = {key: path for key, path in image_files(run).items() if key not in before}
    evaluated = {
        sha256_of(path)
        for name in ("base", "rwl")
        for path in image_folder(run, name, 0.0).glob("*.png")
    }
    assert added.keys() <= evaluated
    shutil.rmtree(run.evaluation_dir)
    assert all(path.name == f"{key}.png" and sha256_of(path) == key for key, path in added.items())
    assert command(run, "dataset") == 0
    table = pd.read_parquet(run.images_table).set_index("image_id").loc[list(added)]
    assert set(table["origin"]) == {"comparison"}
    tasks = tasks_of(run)
    axes = ("overall", "alignment", "appeal")
    assert Counter(tasks["axis"]) == dict.fromkeys(axes, len(tasks) / 3)
    assert {tuple(models) for models in tasks["models"]} == {("base", "rwl")}
    for pair in tasks["image_ids"]:
        first, second = (table.loc[image_id] for image_id in pair)
        assert first["prompt"] == second["prompt"]
        assert first["seed"] == second["seed"]
        assert (pd.isna(first["adapter_hash"]), pd.isna(second["adapter_hash"])) == (True, False)


def test_missing_images_are_drawn_once_with_the_seeds_of_the_evaluation(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated = {p.name: sha256_of(p) for p in image_folder(run, "rwl", 0.0).glob("*.png")}
    shutil.rmtree(run.evaluation_dir)
    assert command(run, "compare", *SMALL) == 0
    kept = run.comparison_dir / "images"
    drawn = {path.stem: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert drawn.keys() & evaluated.values()
    assert [path.name for path in run.comparison_dir.iterdir()] == ["images"]
    capsys.readouterr()
    assert command(run, "compare", *SMALL) == 0
    assert "; 0 are new" in capsys.readouterr().out
    assert {path.stem: path.stat().st_mtime_ns for path in kept.iterdir()} == drawn


def test_images_of_comparisons_are_asked_about_in_comparisons_alone(run: RunFolder) -> None:
    digest = images_digest(run)
    assert command(run, "compare", *SMALL) == 0
    words = ["label", "--runs", str(run.root.parent), "--run", run.root.name]
    settings = load_settings(parser("label").parse_args(words), run)
    with FeedbackStore.open(run.store_url) as store:
        assert add_planned_tasks(store, run, settings) == 0
    assert images_digest(run) == digest


def test_simulated_raters_answer_and_the_reward_stays_as_it_was(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(run, "compare", *WITH_RWL, "--axes", "overall", *SMALL) == 0
    assert command(run, "simulate") == 0
    assert command(run, "dataset", "--check") == 0
    labels = pd.read_parquet(run.latest / "labels_comparisons.parquet")
    tasks = tasks_of(run)
    assert Counter(labels["task_id"]) == dict.fromkeys(tasks["task_id"], 1)
    assert set(labels["source"]) == {"simulated"}
    assert labels["wording"].notna().all()
    capsys.readouterr()
    assert command(run, "simulate") == 0
    assert command(run, "reward") == 0
    printed = capsys.readouterr().out
    assert "simulate: done" in printed
    assert "reward: done" in printed


def test_a_prompt_file_is_asked_about(run: RunFolder, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("A red cat.\nA dog on the moon.\n")
    words = sets(f"compare.prompts_file='{prompts}'")
    assert command(run, "compare", *WITH_RWL, "--axes", "appeal", *SMALL, *words) == 0
    assert len(tasks_of(run)) == 2


def test_prompts_without_a_category_get_that_of_the_comparison(run: RunFolder) -> None:
    """The prompts of a text file have none, though the evaluation knows their kinds."""
    prompts = read_table(run.prompts_table, PROMPTS)
    without = [row | {"category": None} for row in prompts.to_pylist()]
    write_table(pa.Table.from_pylist(without, schema=PROMPTS), PROMPTS, run.prompts_table)
    assert command(run, "compare", *WITH_RWL, *SMALL) == 0
    compared = set(tasks_of(run)["prompt_id"])
    table = pd.read_parquet(run.prompts_table).set_index("prompt_id")
    assert set(without[0]) == {"prompt_id", *table.columns}
    assert table.loc[list(compared), "category"].notna().all()


def test_what_cannot_be_compared_is_said_in_one_line(
    run: RunFolder, ready: RunFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    untuned = copy_of(ready, tmp_path / "untuned")
    assert "base alone; a comparison takes two models" in error_of(untuned, capsys)
    assert "rlw: unknown, did you mean rwl?" in error_of(run, capsys, "--models", "base,rlw")
    assert "rwl alone" in error_of(run, capsys, "--models", "rwl")
    assert "base stands there twice" in error_of(run, capsys, "--models", "base,base")
    assert "compare.axes" in error_of(run, capsys, *WITH_RWL, "--axes", "overall,apeal")
    words = error_of(run, capsys, *WITH_RWL, *sets("compare.wording.appeal='gone.md'"))
    assert "compare.wording.appeal: gone.md cannot be read" in words
    assert "is no run with images" in error_of(run, capsys, "--models", "base,nowhere/rwl")


def test_a_model_of_another_run_needs_images_of_the_same_prompts_and_seeds(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run.root, run.root.parent / "second")
    both = ("--models", "base,second/rwl")
    assert command(run, "compare", *both, *SMALL) == 0
    assert {tuple(models) for models in tasks_of(run)["models"]} == {("base", "second/rwl")}
    prompts = run.root.parent / "prompts.txt"
    prompts.write_text("A red cat.\n")
    line = error_of(run, capsys, *both, *sets(f"compare.prompts_file='{prompts}'"))
    assert "second/rwl has no image of 'A red cat.' with seed 5000000" in line
    assert main(["compare", "--runs", str(run.root.parent), "--run", "second", *SMALL]) == 0
