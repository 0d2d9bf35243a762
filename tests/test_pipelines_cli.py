"""The command line: bad input is one line and status 2."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import progress as progress_module
from pipelines.cli import main
from pipelines.progress import progress, progress_bar


def failure(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return the line that a failing command prints."""
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("pictune: ")
    assert printed.err.count("\n") == 1
    return printed.err


NO_IMAGES = "make images RUN=demo"
REFUSED = {
    "imagse": "STAGE imagse: unknown, did you mean images?",
    "finetune": "--method",
    "finetune --method dpo": "METHOD dpo: unknown, did you mean dpok?; known are rwl, dpok",
    "finetune --method=": "METHOD: is empty; known are rwl, dpok, ddpo, nft, reward_gradient",
    "label --rnu=x": "--rnu",
    "label --run ../elsewhere": "not a folder's name",
    "label --run a/b": "not a folder's name",
    "label --run=": "not a folder's name",
    "best-of-n --n 0": "--n 0: draw at least one image a prompt",
    "best-of-n --n 2 --keep 3": "--keep 3: pick at least one of --n 2",
    "images --model /nowhere": "no such model folder",
    "images --prompts /dev/null": "holds no prompt",
    "images --set run.device=warp": "run.device",
    "import --format pickapic --from x": "FORMAT pickapic: unknown, did you mean pick-a-pic?",
    "import --format folder": "--from",
    "export --format folder --to x": "FORMAT folder: unknown",
    "label": NO_IMAGES,
    "simulate": NO_IMAGES,
    "dataset": NO_IMAGES,
    "reward": NO_IMAGES,
    "evaluate": NO_IMAGES,
    "report": NO_IMAGES,
}
"""Answers to lines of words, where there is no run."""


@pytest.mark.parametrize("words", REFUSED)
def test_bad_words_are_answered_with_one_line_and_leave_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: str
) -> None:
    stage, *more = words.split()
    assert REFUSED[words] in failure(capsys, stage, "--runs", str(tmp_path), *more)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stage", ["rater", "label", "reward"])
def test_a_run_that_is_not_there_is_told_which_was_meant(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, stage: str
) -> None:
    for name in ("mine", "other", ".cache"):
        (tmp_path / name).mkdir()
    rater = ("--name", "Ann") if stage == "rater" else ()
    error = failure(capsys, stage, "--runs", str(tmp_path), "--run", "mien", *rater)
    meant = "no such run, did you mean mine?; there are mine, other; `make images RUN=mien`"
    assert f"{tmp_path / 'mien'}: {meant}" in error
    assert not (tmp_path / "mien").exists()


def test_a_wrong_setting_is_blamed_on_what_gave_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "r").mkdir()
    file = tmp_path / "r" / "config.toml"
    file.write_text("[run]\nseed = 1\n")
    where = ("--runs", str(tmp_path), "--run", "r")
    assert "pictune: --set: run.sede is unknown, did you mean seed?\n" in failure(
        capsys, "label", *where, "--set", "run.sede=3"
    )
    assert "pictune: --set: [dpock] is no table, did you mean dpok?\n" in failure(
        capsys, "label", *where, "--set", "dpock.steps=3"
    )
    assert "pictune: --port: label.port should be less than" in failure(
        capsys, "label", *where, "--port", "70000"
    )
    file.write_text("[run]\nseed = -1\n")
    error = failure(capsys, "label", *where, "--set", "tasks.ranking_size=1")
    seed = "run.seed should be greater than or equal to 0, not -1"
    assert f"{file}: {seed}; --set: tasks.ranking_size should be" in error


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["finetune.adapter.rank=4"], "does not reach rwl, where rwl.adapter.rank is set"),
        (["finetune.adapter.rank=4", "rwl.adapter.rank=4"], None),
        (["finetune.adapter.alpha=4.0"], None),
    ],
)
def test_a_shared_setting_that_does_not_reach_the_method_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, overrides: list[str], told: str | None
) -> None:
    words = ["finetune", "--method", "rwl", "--runs", str(tmp_path), "--dry-run"]
    assert main([*words, *(f"--set={one}" for one in overrides)]) == 0
    error = capsys.readouterr().err
    assert error.count("\n") == (told is not None)
    assert (told or "") in error


def test_dry_run_prints_the_settings_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert (
        main(["reward", "--runs", str(tmp_path), "--dry-run", "--set", "dpok.kl_weight=0.5"]) == 0
    )
    printed = capsys.readouterr().out
    assert "[dpok]" in printed
    assert "kl_weight = 0.5" in printed
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_missing_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("diffusers", "diffusers.utils.logging"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("pipelines.run.drawing", "pipelines.run.models"):  # imported again, by the stage
        monkeypatch.delitem(sys.modules, name, raising=False)
    error = failure(capsys, "images", "--runs", str(tmp_path))
    assert "needs the package diffusers" in error
    assert "make setup" in error


def test_ctrl_c_while_libraries_are_loaded_is_one_line(tmp_path: Path) -> None:
    interrupting = tmp_path / "sqlalchemy.py"  # in the place of the first library that takes long
    interrupting.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    # a process that was started in the background ignores SIGINT, and so would this one
    listening = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    start = f"{listening}; runpy.run_module('pipelines', run_name='__main__')"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    ended = subprocess.run(
        [sys.executable, "-c", start], env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (
        130,
        "pictune: stopped; the same command goes on from here\n",
    )


class Terminal(io.StringIO):
    """A stream that says that somebody watches."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("rank", "is_shown"), [(None, True), ("0", True), ("1", False)])
def test_of_several_processes_the_first_shows_its_bar_and_writes_its_lines(
    monkeypatch: pytest.MonkeyPatch, rank: str | None, is_shown: bool
) -> None:
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress(range(3), "score", "batch")) == [0, 1, 2]
    with progress_bar("images", "image", total=2) as bar:
        bar.update(2)
    assert ("score: 100%" in terminal.getvalue()) == is_shown
    assert ("images: 100%" in terminal.getvalue()) == is_shown
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress_module, "LINE_EVERY_S", 0)
    assert list(progress(iter("ab"), "import", "row")) == ["a", "b"]
    assert log.getvalue().count("import: ") == 2 * is_shown


def test_where_nobody_watches_a_line_a_minute_tells_the_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for _ in progress(range(1000), "images", "image"):
        now[0] += 0.5
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "images:  12% 120/1000 [01:00<07:20,  2.00image/s]"
    assert len(lines) == 8
    with progress_bar("rwl", "step", total=9, done=4) as bar:
        now[0] += 59
        bar.update(1)
        bar.set_postfix({"loss": 0.1234})
        now[0] += 1
        bar.update(1)
    assert capsys.readouterr().err == "rwl:  67% 6/9 [01:00<01:30, 30.00s/step, loss=0.123]\n"
