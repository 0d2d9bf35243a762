"""Stages `import` and `export` on the command line."""

import json
from pathlib import Path

import pytest

from pipelines.cli import main
from tests.support import exchange_files as files


def command(stage: str, folder: Path, *words: str) -> list[str]:
    return [stage, "--runs", str(folder / "runs"), "--run", "r", *words]


def test_rankings_go_through_a_new_run_from_one_format_to_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = files.write_pick_a_pic(
        tmp_path / "train.parquet",
        [files.pick_a_pic_row(1, 2, 1.0), files.pick_a_pic_row(3, 4, 0.5)],
    )
    assert main(command("import", tmp_path, "--format", "pick-a-pic", "--from", str(source))) == 0
    assert "import: 4 new images, 1 prompts, 2 tasks, 2 labels, 1 raters" in capsys.readouterr().out
    assert (
        main(command("export", tmp_path, "--format", "hpdv2", "--to", str(tmp_path / "out"))) == 0
    )
    assert "export: 2 rows in" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "test.json").read_text())
    assert sorted(row["rank"] for row in rows) == [[1, 1], [1, 2]]


def test_what_is_wrong_with_an_import_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = files.write_pick_a_pic(
        tmp_path / "train.parquet", [files.pick_a_pic_row(1, 2, 1.0) | {"caption": " "}]
    )
    assert main(command("import", tmp_path, "--format", "pick-a-pic", "--from", str(source))) == 2
    error = capsys.readouterr().err
    assert "train.parquet: row 1, column caption: is ' ', not a text" in error
    assert error.count("\n") == 1
    assert main(command("import", tmp_path, "--format", "pickapic", "--from", str(source))) == 2
    assert (
        "FORMAT pickapic: unknown, did you mean pick-a-pic?; known are dataset, folder, hpdv2,"
        in capsys.readouterr().err
    )
    assert (
        main(command("export", tmp_path, "--format", "folder", "--to", str(tmp_path / "out"))) == 2
    )
    assert "FORMAT folder: unknown" in capsys.readouterr().err
    assert main(command("import", tmp_path, "--format", "hpdv2")) == 2
    assert "--from" in capsys.readouterr().err
