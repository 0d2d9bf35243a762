"""Trackers get the figures of `metrics.jsonl`; a training that goes on stays in its tracker run."""

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

from data.runs import RunFolder
from pipelines.cli import main
from pipelines.run.metrics_log import MetricsLog, flat, read_metrics
from pipelines.run.trackers import Tracker
from tests.support.tuned_run import copy_of, words

BLOCK, BLOCK_HEADER = 32768, 7
TRACKERS: tuple[Tracker, ...] = ("tensorboard", "wandb")
ROWS = {
    step: {"loss": step / 2, "by_prompt": {"A cat.": 1.0 / step}, "nothing": None}
    for step in (1, 2, 3, 4)
}


def records(file: Path) -> Iterator[Record]:
    """Yield the records of an offline run of wandb: a LevelDB log after a header of 7 bytes."""
    content, place, whole = file.read_bytes(), 7, b""
    while place + BLOCK_HEADER <= len(content):
        if BLOCK - place % BLOCK < BLOCK_HEADER:
            place += BLOCK - place % BLOCK  # the rest of a block that has no room for a header
            continue
        _, length, part = struct.unpack_from("<IHB", content, place)
        place += BLOCK_HEADER + length
        whole += content[place - length : place]
        if part in (1, 4):  # the whole record, or its last part
            yield Record.FromString(whole)
            whole = b""


@pytest.fixture
def without_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.usefixtures("without_key")
def test_trackers_show_the_figures_of_the_metrics_and_go_on_offline(tmp_path: Path) -> None:
    folder = tmp_path / "rwl"
    folder.mkdir()
    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):  # step 3 comes again
        with MetricsLog(folder, step=start, trackers=TRACKERS, title="mine rwl") as log:
            for step in steps:
                log.write(step, ROWS[step])
    own = {line.pop("step"): flat(line) for line in read_metrics(folder)}
    assert own == {step: flat(row) for step, row in ROWS.items()}

    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    for name in own[1]:
        shown = {event.step: event.value for event in board.Scalars(name)}
        assert shown == pytest.approx({step: row[name] for step, row in own.items()})

    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    attempts = [list(records(file)) for file in files]
    (first, again) = [next(one.run for one in log if one.HasField("run")) for log in attempts]
    assert first.run_id == again.run_id
    assert (first.project, first.display_name) == ("pictune", "mine rwl")
    history = [one.history for log in attempts for one in log if one.HasField("history")]
    shown = {
        row.step.num: {
            item.nested_key[0] if item.nested_key else item.key: float(item.value_json)
            for item in row.item
        }
        for row in history
    }
    mine = {step: {k: v for k, v in row.items() if k[0] != "_"} for step, row in shown.items()}
    assert mine == own


@pytest.mark.slow
def test_a_tracker_that_is_not_installed_is_told_before_the_training(
    ready: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = copy_of(ready, tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main(words(run, "rwl", ['finetune.trackers=["tensorboard", "wandb"]'])) == 2
    assert "finetune.trackers: wandb is not installed" in capsys.readouterr().err.splitlines()[-1]
    assert not run.finetune_dir("rwl").exists()
    assert main(words(run, "rwl", ["finetune.trackers=[]"])) == 0
    assert read_metrics(run.finetune_dir("rwl"))
    assert not (run.finetune_dir("rwl") / "tensorboard").exists()
