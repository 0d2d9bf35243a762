"""The command line: bad input is one line and status 2."""

import subprocess
import sys
from pathlib import Path

import pytest

from data.parquet import export
from pipelines.cli import main
from tests.data_campaign import Campaign
from tests.exchange_files import damage_footer


def failure(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The line that a failing command prints."""
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("pictune: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_an_unknown_stage_is_told_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert "STAGE imagse: unknown, did you mean images?" in failure(capsys, "imagse")


def test_an_unknown_method_is_told_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert "METHOD dpo: unknown, did you mean dpok?; known are rwl, dpok" in failure(capsys, "finetune", "--method", "dpo")


def test_a_missing_method_and_an_unknown_flag_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--method" in failure(capsys, "finetune")
    assert "--rnu" in failure(capsys, "label", "--rnu=x")


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", ""])
def test_a_run_cannot_leave_the_folder_of_runs(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert "not a folder's name" in failure(capsys, "label", "--run", name)


@pytest.mark.parametrize("stage", ["label", "simulate", "dataset", "reward", "evaluate", "report"])
def test_a_stage_without_pictures_says_which_stage_comes_first(capsys: pytest.CaptureFixture[str], tmp_path: Path, stage: str) -> None:
    assert "make images RUN=empty" in failure(capsys, stage, "--runs", str(tmp_path), "--run", "empty")
    assert not (tmp_path / "empty").exists()


def test_a_missing_model_folder_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no such model folder" in failure(capsys, "images", "--runs", str(tmp_path), "--model", str(tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("table", "stage"), [("images.parquet", "dataset"), ("labels/latest/tasks.parquet", "inspect")])
def test_a_table_with_a_damaged_footer_is_one_line_that_names_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, table: str, stage: str
) -> None:
    campaign = Campaign(tmp_path / "r")
    export(campaign.store, campaign.run)
    damage_footer(campaign.root / table)
    line = failure(capsys, stage, "--runs", str(tmp_path), "--run", "r")
    assert f"{Path(table).name}: not the table it should be" in line
    assert "disk" not in line


def test_an_empty_prompt_file_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("# nothing yet\n\n")
    assert "holds no prompt" in failure(capsys, "images", "--runs", str(tmp_path), "--prompts", str(tmp_path / "prompts.txt"))


def test_a_device_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "run.device" in failure(capsys, "images", "--runs", str(tmp_path), "--set", "run.device=warp")


def test_dry_run_prints_the_settings_and_writes_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["reward", "--runs", str(tmp_path), "--dry-run", "--set", "dpok.kl_weight=0.5"]) == 0
    printed = capsys.readouterr().out
    assert "[dpok]" in printed
    assert "kl_weight = 0.5" in printed
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_missing_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("diffusers", "diffusers.utils.logging"):
        monkeypatch.setitem(sys.modules, name, None)
    error = failure(capsys, "score", "--runs", str(tmp_path))
    assert "needs the package diffusers" in error
    assert "make setup" in error


def test_labelling_imports_no_torch() -> None:
    code = "import sys; import pipelines.cli, pipelines.label, pipelines.dataset; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
