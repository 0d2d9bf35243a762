"""A command with nothing to do imports neither what computes nor what serves."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from data.runs import RunFolder
from data.tables.parquet import export
from pipelines.stage_list import STAGES
from tests.support.data_campaign import Campaign
from tests.support.demo_run import command, copy_without

HEAVY = (
    *("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors"),
    *("gradio", "fastapi", "uvicorn", "matplotlib", "crowdkit", "scipy", "sklearn"),
)
COMMAND = f"""
import sys
from pipelines.cli import main
try:
    status = main(sys.argv[1:])
finally:
    print("loaded:", *(name for name in {HEAVY} if name in sys.modules))
sys.exit(status)
"""
DONE = {
    "images": ("images: done",),
    "simulate": ("simulate: done",),
    "reward": ("reward: done",),
    "finetune --method rwl": ("finetune rwl: done",),
    "finetune --method dpok": ("finetune dpok: done",),
    "evaluate": ("evaluate: done", "mean over the trained prompts"),
    "demo": ("images: done", "simulate: done", "reward: done", "finetune rwl: done"),
    "rounds --rounds 1 --method rwl": ("images: done", "finetune rwl: done", "evaluate: done"),
}
"""Commands of a finished run, and what they say."""


def answer(words: Sequence[str]) -> list[str]:
    """Return the lines that a command wrote; the last one names what it loaded of `HEAVY`."""
    call = [sys.executable, "-c", COMMAND, *words]
    ended = subprocess.run(call, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def refusal(words: Sequence[str]) -> tuple[str, str]:
    """The line of a command that is refused, and the line that names what it loaded of `HEAVY`."""
    call = [sys.executable, "-c", COMMAND, *words]
    ended = subprocess.run(call, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    return ended.stderr, ended.stdout.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("words", DONE)
def test_a_stage_that_is_done_says_so_without_what_computes(
    demo_run: RunFolder, words: str
) -> None:
    place = ["--runs", str(demo_run.root.parent), "--run", demo_run.root.name]
    lines = answer([*words.split(), *place])
    assert lines[-1] == "loaded:"
    for phrase in DONE[words]:
        assert any(phrase in line for line in lines), phrase


@pytest.mark.slow
def test_scores_that_are_there_say_so_too(demo_run: RunFolder, tmp_path: Path) -> None:
    run = copy_without(demo_run, tmp_path, "evaluation", "finetune")
    assert command(run, "score") == 0
    said, loaded = answer(["score", "--runs", str(tmp_path), "--run", run.root.name])[-2:]
    assert said.startswith("score: done, ")
    assert loaded == "loaded:"


@pytest.mark.parametrize("name", ["images", "simulate", "reward", "finetune", "evaluate", "rounds"])
def test_help_and_dry_run_load_nothing_that_computes(name: str, tmp_path: Path) -> None:
    assert answer([name, "--help"])[-1] == "loaded:"
    needed = ["--method", "rwl"] if name in ("finetune", "rehearse", "rounds") else []
    lines = answer([name, *needed, "--dry-run", "--runs", str(tmp_path)])
    assert lines[-1] == "loaded:"
    assert "[dpok]" in lines
    assert "[play]" in lines


def test_the_settings_are_explained_without_what_they_configure() -> None:
    assert answer(["settings"])[-1] == "loaded:"


@pytest.mark.parametrize("name", STAGES)
def test_the_help_of_no_stage_loads_what_draws_or_serves_pages(name: str) -> None:
    loaded = answer([name, "--help"])[-1].split()
    assert not {"torch", "diffusers", "transformers", "gradio", "uvicorn"} & {*loaded}


@pytest.mark.parametrize("stage", ["images", "play", "demo", "rounds --method rwl"])
def test_a_wrong_model_folder_is_refused_before_anything_is_loaded(
    stage: str, tmp_path: Path
) -> None:
    Campaign(tmp_path / "r")
    place = ["--runs", str(tmp_path), "--run", "r"]
    for folder, reason in (("none", "no such model folder"), ("r", "not a diffusers folder")):
        words = [*stage.split(), *place, "--model", str(tmp_path / folder)]
        said, loaded = refusal(words)
        assert reason in said
        assert loaded == "loaded:"


def test_no_labels_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path / "r")
    place = ["--runs", str(tmp_path), "--run", "r"]
    for state in ("never asked", "asked, but nobody answered"):
        said, loaded = refusal(["reward", *place])
        assert "`make label` or `make simulate` first" in said, state
        assert loaded == "loaded:"
        export(campaign.store, campaign.run)


def test_an_app_that_nobody_could_sign_in_to_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    Campaign(tmp_path / "r")
    said, loaded = refusal(["label", "--runs", str(tmp_path), "--run", "r"])
    assert "nobody can sign in yet" in said
    assert "gradio" not in loaded
