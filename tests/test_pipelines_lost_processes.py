"""One of two processes is killed: the other ends, in one line, and the next call goes on."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.files import locked, sha256_of
from data.runs import RunFolder
from pipelines.cli import main
from pipelines.interruption import LAUNCHER
from tests.support.demo_run import sets
from tests.support.launched_command import WAIT_SECONDS, is_running, launch
from tests.support.tuned_run import Commands, checkpoint_steps, copy_of
from tests.support.tuned_run import words as finetune

pytestmark = pytest.mark.slow

KILLED = 128 + 9
SLOWLY = sets("images.per_prompt=50", "images.per_focus_prompt=50", "images.batch=4")
LINE = "pictune: the process of rank 1 was ended by SIGKILL, and the others with it; "


def drawn_in(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.glob("[!.]*.png")}


def test_images_go_on_after_a_kill_and_end_with_the_same_files(
    demo_models: Path, terminal: Commands, tmp_path: Path
) -> None:
    def words(name: str) -> list[str]:
        place = ["--runs", str(tmp_path), "--run", name, "--config", str(demo_models)]
        return ["images", *place, *SLOWLY, *sets("sampler.steps=10")]

    folder = tmp_path / "killed" / "images"
    drawing = launch(tmp_path, "pipelines", *words("killed"))
    pids = drawing.kill_when(lambda: len(list(folder.glob("[!.]*.png"))) >= 6, rank=1)
    ended = drawing.ended()
    assert ended.status == KILLED
    assert [line[: len(LINE)] for line in ended.lines] == [LINE]
    assert len(pids) == 2
    assert not any(map(is_running, pids))
    assert 6 <= len(drawn_in(folder)) < 250
    terminal.run(words("killed"), processes=2)
    assert main(words("whole")) == 0
    assert len(drawn_in(folder)) == 250
    assert drawn_in(folder) == drawn_in(tmp_path / "whole" / "images")


def test_processes_end_with_a_launcher_that_is_killed_and_tuning_goes_on(
    ready: RunFolder, terminal: Commands, tmp_path: Path
) -> None:
    run = copy_of(ready, tmp_path)
    words = finetune(run, "rwl", ("rwl.updates=60", "finetune.checkpoints=60"))
    tuning = launch(tmp_path, "pipelines", *words)
    pids = tuning.kill_when(lambda: bool(checkpoint_steps(run, "rwl")), rank=None)
    assert len(pids) == 2
    assert tuning.ended().status == -9
    started = time.monotonic()
    while any(map(is_running, pids)):
        assert time.monotonic() - started < WAIT_SECONDS
        time.sleep(0.05)
    assert checkpoint_steps(run, "rwl")[-1] < 60
    assert "finetune rwl: adapter in" in terminal.run(words, processes=2)


def test_processes_whose_launcher_has_ended_before_they_begin_end_too() -> None:
    code = "from pipelines.interruption import end_with_launcher; end_with_launcher(); print(1)"
    for launcher, status, said in ((1, -9, ""), (os.getpid(), 0, "1\n")):
        ended = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {LAUNCHER: str(launcher)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode, ended.stdout) == (status, said)


def test_a_method_is_tuned_by_one_command_at_a_time(
    ready: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(ready, tmp_path)
    words = finetune(run, "rwl", ("rwl.updates=1",))
    with locked(run.finetune_lock("rwl")):
        assert main(words) == 2
        said = capsys.readouterr().err
    assert said.endswith("rwl: another command tunes there; wait for its end, or stop it\n")
    assert not run.finetune_dir("rwl").exists()
    assert main(words) == 0


def test_an_error_of_all_processes_is_one_line(demo_models: Path, tmp_path: Path) -> None:
    words = ["images", "--runs", str(tmp_path), "--config", str(demo_models), "--model", "/nowhere"]
    ended = launch(tmp_path, "pipelines", *words).ended()
    assert ended.status == 2
    assert len(ended.lines) == 1
    assert ended.lines[0].startswith("pictune: /nowhere: no such model folder; ")
