"""Stages that call a network, in several processes connected by gloo: files are those of one."""

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.files import sha256_of
from data.runs import RunFolder
from data.schema import IMAGES, read_table
from pipelines.cli import main
from pipelines.evaluate.text import read_evaluation
from pipelines.reward.best_of_n import CANDIDATES, TABLE
from pipelines.reward.page import RELIABILITY
from pipelines.reward.score_request import FILE, SCORES
from pipelines.run.metrics_log import METRICS_FILE
from pipelines.run.model_hashes import REWARD_METRICS
from reward.embedding import ENCODE_BATCH
from reward.files import CONFIG_FILE, WEIGHTS_FILE
from tests.support.demo_run import command, copy_without, sets
from tests.support.launched_command import launch
from tests.support.tuned_run import Commands, copy_of, free_port

pytestmark = pytest.mark.slow

BATCHES = sets("images.batch=4")
"""Several batches, the last one not full."""
MACHINES = """
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
num_machines: 2
num_processes: 2
machine_rank: 0
main_process_ip: 127.0.0.1
main_process_port: {port}
mixed_precision: "no"
rdzv_backend: static
same_network: true
"""
TRAINED = (WEIGHTS_FILE, CONFIG_FILE, REWARD_METRICS, METRICS_FILE, "report.html", RELIABILITY)
"""Files of a trained reward that name neither the time nor the run's folder."""
FEW = [*BATCHES, *sets("evaluate.images_per_prompt=2", "evaluate.held_out_per_family=1")]


def line(run: RunFolder, stage: str, *words: str) -> list[str]:
    """Return a command line on the run."""
    return [stage, "--runs", str(run.root.parent), "--run", run.root.name, *words]


def files_in(folder: Path) -> dict[str, str]:
    """Return a hash of each image by its path in the folder."""
    paths = folder.rglob("*.png")
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}


def rows_of(run: RunFolder) -> list[dict[str, Any]]:
    """Return `images.parquet` without the times."""
    table = read_table(run.images_table, IMAGES).drop_columns(["created_at"])
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def run_by(
    terminal: Commands, processes: int, run: RunFolder, stage: str, words: Sequence[str]
) -> str:
    """Run a stage, which one process alone speaks of."""
    printed = terminal.run(line(run, stage, *words), processes=processes)
    told = [one for one in printed.splitlines() if one.startswith(f"{stage}: ")]
    assert len(told) == len(set(told))
    return printed


def test_the_best_of_n_are_those_of_one_process(
    ready: RunFolder, terminal: Commands, tmp_path: Path
) -> None:
    one, two = (copy_of(ready, tmp_path / name) for name in ("one", "two"))
    assert command(one, "best-of-n", "--n", "3", *BATCHES) == 0
    run_by(terminal, 2, two, "best-of-n", ["--n", "3", *BATCHES])
    folders = [run.root / "best-of-n" for run in (one, two)]
    assert files_in(folders[0]) == files_in(folders[1])
    tables = [read_table(folder / TABLE, CANDIDATES).to_pylist() for folder in folders]
    assert tables[0] == tables[1]


def test_scores_are_those_of_one_process(
    ready: RunFolder, terminal: Commands, tmp_path: Path
) -> None:
    one, many = (copy_of(ready, tmp_path / name) for name in ("one", "many"))
    write_images(tmp_path / "images", 3 * ENCODE_BATCH + 5)
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    (tmp_path / "prompts.txt").write_text("a dog\ntwo cats\n")
    given = ["--images", str(tmp_path / "images"), "--prompts", str(tmp_path / "prompts.txt")]
    assert command(one, "score", *given) == 0
    printed = run_by(terminal, 3, many, "score", given)
    assert printed.count("skipped: ") == 1
    tables = [read_table(run.reward_dir / FILE, SCORES) for run in (one, many)]
    assert tables[0].num_rows == 2 * (3 * ENCODE_BATCH + 5)
    assert tables[0].equals(tables[1])
    assert vectors_in(many) == vectors_in(one)


def test_rounds_in_two_processes_have_the_rewards_and_the_evaluation_of_one(
    ready: RunFolder, terminal: Commands, tmp_path: Path
) -> None:
    one, run = (copy_without(ready, tmp_path / name, "reward") for name in ("one", "two"))
    words = ["--rounds", "2", "--method", "rwl", *FEW, *sets("rounds.images_per_prompt=8")]
    printed = terminal.run(line(run, "rounds", *words), processes=2)
    assert printed.count("[round ") == 2
    for stage in ("images", "simulate", "reward", "finetune rwl"):
        # What a run needs for the first round's first two stages is there.
        assert len(re.findall(f"^{stage}: ", printed, re.MULTILINE)) >= 2, stage
    assert printed.count("mean over the trained") == 2  # a table for each sampler, once
    assert printed.endswith("report.html\n")
    assert printed.count(f"report: {run.evaluation_dir / 'report.html'}\n") == 2  # of evaluate, too
    again = terminal.run(line(run, "rounds", *words), processes=2)
    for stage in ("images", "simulate", "reward", "finetune rwl", "evaluate"):
        assert again.count(f"{stage}: done") == 1, stage
    assert command(one, "reward") == 0
    for name in TRAINED:
        assert sha256_of(run.reward_dir / name) == sha256_of(one.reward_dir / name), name
    assert vectors_in(one).items() <= vectors_in(run).items()
    alone = copy_without(run, tmp_path / "alone", "evaluation")
    assert command(alone, "evaluate", *FEW) == 0
    assert files_in(run.evaluation_dir / "images") == files_in(alone.evaluation_dir / "images")
    results = read_evaluation(run).results
    assert {result.round for result in results} == {None, 1, 2}
    assert results == read_evaluation(alone).results


def test_two_machines_share_the_work_by_accelerates_own_file(
    demo_models: Path, tmp_path: Path
) -> None:
    config, given = tmp_path / "machines.yaml", ["--runs", str(tmp_path), *BATCHES]
    given += ["--config", str(demo_models)]
    config.write_text(MACHINES.format(port=free_port()))
    second = ["--config_file", str(config), "--machine_rank=1", "--main_process_ip=127.0.0.2"]
    machines = [
        launch(tmp_path, "pipelines", "images", *given, "--run", "two", launcher=launcher)
        for launcher in (["--config_file", str(config)], second)
    ]
    for machine in machines:
        ended = machine.ended()
        assert ended.status == 0, ended.errors
    assert main(["images", *given, "--run", "one"]) == 0
    one, two = (RunFolder(tmp_path / name) for name in ("one", "two"))
    assert files_in(two.images_dir) == files_in(one.images_dir)
    assert rows_of(two) == rows_of(one)


def write_images(folder: Path, count: int) -> None:
    """Write images that all differ."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")


def vectors_in(run: RunFolder) -> dict[bytes, bytes]:
    """Return every embedding in the run's cache."""
    vectors: dict[bytes, bytes] = {}
    for file in run.embeddings_dir.glob("*.sqlite"):
        with closing(sqlite3.connect(file)) as database:
            vectors |= dict(database.execute("SELECT key, vector FROM embeddings"))
    return vectors
