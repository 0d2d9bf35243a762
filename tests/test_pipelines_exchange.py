"""Stages `import` and `export` on the command line."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data.runs import RunFolder
from pipelines.cli import main
from tests.support import exchange_files as files


def command(stage: str, folder: Path, *words: str) -> list[str]:
    return [stage, "--runs", str(folder / "runs"), "--run", "r", *words]


def test_rankings_go_through_a_new_run_from_one_format_to_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = files.folder_with_ranks(tmp_path / "source"), tmp_path / "out"
    assert main(command("import", tmp_path, "--format", "folder", "--from", str(source))) == 0
    assert "import: 4 new images, 1 prompts, 1 tasks, 2 labels, 2 raters" in capsys.readouterr().out
    assert main(command("export", tmp_path, "--format", "pick-a-pic", "--to", str(out))) == 0
    assert "export: 12 rows in" in capsys.readouterr().out
    preferred = pq.read_table(out / "pairs.parquet")["label_0"].to_pylist()
    assert (len(preferred), preferred.count(0.5)) == (12, 1)  # Ben's tie


def test_bad_rows_are_listed_and_with_skip_bad_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source").mkdir()
    source = files.folder_with_csv(tmp_path / "source") / "prompts.csv"
    with source.open("a", encoding="utf-8") as file:
        file.write("".join(f"{number}.png,a dog,,,,\n" for number in range(100, 125)))
    words = command("import", tmp_path, "--format", "folder", "--from", str(source))
    assert main(words) == 2
    *listed, last = capsys.readouterr().err.splitlines()
    missing = [
        f"import: {source}: row {n}, column file_name: no image {n + 97}.png" for n in range(3, 23)
    ]
    assert [line.split(" in ")[0] for line in listed[:-1]] == missing
    assert listed[-1] == "import: ... and 5 more bad rows"
    assert f"{missing[0].removeprefix('import: ')} in" in last
    assert ", one of 25 bad rows; fix or remove them, or leave them out by SKIP_BAD=1" in last
    assert list((tmp_path / "runs").iterdir()) == []
    assert main([*words, "--skip-bad"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == listed
    assert "import: 2 new images, 2 prompts, " in captured.out
    assert " 0 raters, 25 bad rows left out; " in captured.out


def test_nothing_of_a_bad_row_is_imported(tmp_path: Path) -> None:
    source = files.folder_with_ranks(tmp_path / "source", 4)
    rows = json.loads((source / "ranks.json").read_text())
    for number, row in enumerate(rows):
        row["images"] = [f"{4 * number + place}.png" for place in range(4)]
        files.write_images(source / "images", row["images"])
    rows[0]["ranks"] = [1, 2]
    rows[1]["images"][3] = "nowhere.png"
    (source / "images" / "11.png").write_text("no image, after three good ones of its row")
    files.write_json(source / "ranks.json", rows)
    words = command("import", tmp_path, "--format", "folder", "--from", str(source), "--skip-bad")
    assert main(words) == 0
    run = RunFolder(tmp_path / "runs" / "r")
    assert len(list(run.images_dir.iterdir())) == 4
    assert [
        len(pq.read_table(path)) for path in (run.images_table, run.latest / "tasks.parquet")
    ] == [4, 1]
    assert [
        len(pq.read_table(run.latest / f"{name}.parquet")) for name in ("labels_ranking", "raters")
    ] == [1, 1]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("file_name,prompt\n", "prompts.csv: holds no rows; give a file with some as FROM="),
        (
            "file;prompt\n1.png;a cat\n",
            "column file: is missing, the columns are 'file;prompt'; give",
        ),
        ("file_name,prompt\n1.png,a cat\n", "row 1, column file_name: no image 1.png in"),
    ],
)
def test_a_refused_import_leaves_no_run_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, fault: str
) -> None:
    source = tmp_path / "prompts.csv"
    source.write_text(text)
    for words in ([], ["--skip-bad"]):
        given = command("import", tmp_path, "--format", "folder", "--from", str(source), *words)
        assert main(given) == 2
        assert fault in capsys.readouterr().err
    assert list((tmp_path / "runs").iterdir()) == []
