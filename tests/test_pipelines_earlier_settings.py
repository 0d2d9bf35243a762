"""Names that settings had in earlier versions: in files, in recorded runs and as --set."""

import shutil
from pathlib import Path

import pytest

from data.errors import PictuneError
from data.runs import RunFolder
from pipelines import earlier_settings
from pipelines.cli import main
from pipelines.config import PRESETS, check, override, read_toml
from pipelines.earlier_settings import (
    REMOVED,
    RENAMED,
    changes_in_present_terms,
    in_present_terms,
)
from pipelines.record import StageFolder, record, refuse_changes
from pipelines.settings_reference import settings_in
from pipelines.tables import TABLES

RECORDED = Path(__file__).parent / "fixtures" / "config_of_an_earlier_version.toml"
"""Preset `emoji` with `rwl.images=labelled` and `evaluate.best_of=3`, as a run recorded it."""


@pytest.fixture
def renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting, a table and a setting that moved to a table of its own, all with old names."""
    monkeypatch.setitem(RENAMED, "run.start_number", "run.seed")
    monkeypatch.setitem(RENAMED, "dpok.low_rank", "dpok.lora")
    monkeypatch.setitem(RENAMED, "rwl.weights_arithmetic", "dpok.precision")


CHANGED_SINCE = {
    "run": {"prompts"},
    "images": {"precision"},
    "rwl": {"precision", "updates", "learning_rate", "validation"},
    "dpok": {"precision"},
    "ddpo": {"precision"},
    "reward": {"hidden", "auxiliary_weight", "split"},
    "nft": {"precision", "iterations", "validation"},
    "preference": {"precision", "validation"},
    "reward_gradient": {"precision", "truncation", "steps_back", "validation"},
    "evaluate": {"etas", "images_per_prompt", "images_per_held_out"},
}
"""Settings of the preset that have another value now than when the run was recorded."""


def test_a_run_of_an_earlier_version_has_the_settings_that_it_had() -> None:
    changes = [(["rwl", "images"], "labeled"), (["evaluate", "best_of"], 3)]
    today = check(override(read_toml(PRESETS / "emoji.toml"), changes), TABLES, "emoji")
    notes: list[str] = []
    recorded = check(read_toml(RECORDED, notes.append), TABLES, str(RECORDED))
    before, now = recorded.resolved(), today.resolved()
    differing = {
        table: {key for key in now[table] if before[table][key] != now[table][key]}
        for table in before
    }
    assert {table: keys for table, keys in differing.items() if keys} == CHANGED_SINCE
    assert before["images"]["precision"] == before["rwl"]["precision"] == "bf16"
    assert "simulate.threshold_spread is ignored, it is no setting any more" in notes
    assert "rwl.images = 'labelled' is now 'labeled'" in notes


def test_settings_are_compared_with_those_of_an_earlier_version_in_present_terms(
    tmp_path: Path,
) -> None:
    run = RunFolder(tmp_path / "r")
    settings = check(read_toml(RECORDED), TABLES, "recorded")
    with StageFolder(run, settings, run.images_dir, "images", tuple(TABLES), {}).working():
        pass
    shutil.copy(RECORDED, run.config_file)
    refuse_changes(run, settings)
    changed = override(settings.tables, [(["rwl", "images"], "both")])
    with pytest.raises(PictuneError, match=r"rwl\.images is 'labeled' there and 'both' now"):
        refuse_changes(run, check(changed, TABLES, "changed"))


def test_one_line_names_what_changed_since_the_file_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r").mkdir()
    shutil.copy(RECORDED, tmp_path / "r" / "config.toml")
    assert main(["reward", "--runs", str(tmp_path), "--run", "r", "--dry-run"]) == 0
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith(f"pictune: {tmp_path / 'r' / 'config.toml'}: images.steps is now")
    assert "rwl.images = 'labelled' is" in line
    assert "simulate.threshold_spread is ignored" in line
    assert "label.order is ignored, it is no setting any more" in line
    assert "threshold_spread" not in printed.out
    assert 'images = "labeled"' in printed.out


def test_a_stage_records_its_settings_under_present_names(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "r")
    run.root.mkdir()
    shutil.copy(RECORDED, run.config_file)
    settings = check(read_toml(RECORDED), ("run",), str(RECORDED))
    record(run, settings)
    notes: list[str] = []
    expected = read_toml(RECORDED) | {"run": settings.resolved()["run"]}
    assert read_toml(run.config_file, notes.append) == expected
    assert notes == []


def test_old_names_are_accepted_as_set(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ("--set", "simulate.threshold_spread=0.1", "--set", "rwl.images=labelled")
    assert main(["reward", "--runs", str(tmp_path), "--dry-run", *words]) == 0
    printed = capsys.readouterr()
    assert printed.err == (
        "pictune: --set: simulate.threshold_spread is ignored, it is no setting any more; "
        "rwl.images = 'labelled' is now 'labeled'\n"
    )
    assert 'images = "labeled"' in printed.out
    order = "label.order=uncertain"
    assert main(["label", "--runs", str(tmp_path), "--dry-run", "--set", order]) == 0
    printed = capsys.readouterr()
    assert printed.err == "pictune: --set: label.order is ignored, it is no setting any more\n"
    assert "order" not in printed.out


@pytest.mark.usefixtures("renamed")
def test_a_renamed_setting_keeps_its_value() -> None:
    tables = {
        "run": {"start_number": 3, "device": "cpu"},
        "dpok": {"low_rank": {"rank": 2}},
        "rwl": {"weights_arithmetic": "bf16"},
    }
    present, notes = in_present_terms(tables, "settings.toml")
    assert present == {
        "run": {"seed": 3, "device": "cpu"},
        "dpok": {"lora": {"rank": 2}, "precision": "bf16"},
        "rwl": {},
    }
    assert notes == [
        "run.start_number is now run.seed",
        "dpok.low_rank is now dpok.lora",
        "rwl.weights_arithmetic is now dpok.precision",
    ]
    assert tables["run"] == {"start_number": 3, "device": "cpu"}


@pytest.mark.usefixtures("renamed")
def test_a_renamed_setting_is_accepted_as_set_whole_or_in_parts() -> None:
    changes = [(["run", "start_number"], 3), (["dpok", "low_rank", "rank"], 2)]
    present, notes = changes_in_present_terms(changes, "--set")
    assert [(list(path), value) for path, value in present] == [
        (["run", "seed"], 3),
        (["dpok", "lora", "rank"], 2),
    ]
    assert len(notes) == 2
    assert changes_in_present_terms([(["run", "seed"], 3)], "--set") == (
        [(["run", "seed"], 3)],
        [],
    )


@pytest.mark.usefixtures("renamed")
def test_an_old_name_beside_the_present_one_is_refused() -> None:
    with pytest.raises(PictuneError, match=r"sets run\.start_number and run\.seed.*remove"):
        in_present_terms({"run": {"start_number": 3, "seed": 4}}, "settings.toml")
    with pytest.raises(PictuneError, match=r"--set: sets run\.start_number and run\.seed"):
        changes_in_present_terms([(["run", "seed"], 4), (["run", "start_number"], 3)], "--set")


def test_present_names_exist_and_no_table_is_named_as_removed() -> None:
    known = {setting.path for table in TABLES for setting in settings_in(table)}
    tables = {path.rpartition(".")[0] for path in known}
    for path in RENAMED.values():
        assert path in known | tables, path
    for path in earlier_settings.RENAMED_VALUES:
        assert path in known, path
    assert not set(REMOVED) & tables
