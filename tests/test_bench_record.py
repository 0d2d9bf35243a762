"""Records of benchmarks: the commit that they name."""

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import record


def committed_results(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of results of a small repository, which takes this one's place."""
    results = root / "benchmarks" / "results"
    monkeypatch.setattr(record, "CHECKOUT", root)
    monkeypatch.setattr(record, "RESULTS", results)
    results.mkdir(parents=True)
    (results / "one.json").write_text("1")
    (root / "code.py").write_text("1")
    person = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for words in (["init", "--quiet"], ["add", "."], [*person, "commit", "--quiet", "-m", "x"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    return results


def test_results_have_a_line_for_each_part_that_fits_and_read_back_the_same() -> None:
    rows = [{"model": f"model {k}", "values": [k / 3, None, True]} for k in range(400)]
    figures = {"rows": rows, "seeds": [0, 1], "of": {}}
    text = record.in_lines(figures)
    assert max(map(len, text.splitlines())) <= record.LINE
    assert len(text.splitlines()) == 400 + 6
    back = json.loads(text)
    assert back["rows"][1] == {"model": "model 1", "values": [0.333333, None, True]}
    assert back | {"rows": rows} == figures
    with pytest.raises(ValueError, match="JSON"):
        record.in_lines({"share": float("nan")})


def test_figures_that_no_commit_gives_are_told_when_recorded_and_on_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = committed_results(tmp_path, monkeypatch)
    commit = record.commit()
    record.record("clean", {})
    assert capsys.readouterr().err == ""
    (results / "parts.json").write_text(json.dumps({"a": {"commit": "0" * 7}, "commit": commit}))
    assert record.commit() == commit  # results may differ, code may not
    (tmp_path / "code.py").write_text("2")
    record.record("dirty", {})
    assert f"names {commit}-dirty: files differ from the commit" in capsys.readouterr().err
    assert (results / "README.md").read_text().splitlines()[-4:] == [
        f"| clean.json | {commit} |  |  |",
        f"| dirty.json |  | {commit} |  |",
        "| one.json |  |  |  |",
        f"| parts.json | {commit} |  | 0000000 |",
    ]


def test_the_page_tells_the_commits_of_the_figures_that_are_kept() -> None:
    shallow = subprocess.run(
        ["git", "rev-parse", "--is-shallow-repository"],
        cwd=record.CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    if shallow.stdout.strip() != "false":
        pytest.skip("not a checkout of git with all its commits")
    page = (record.RESULTS / "README.md").read_text(encoding="utf-8")
    assert page == record.commits_page()
