"""Records of benchmarks: the commit that they name."""

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import record


def test_changed_results_leave_the_commit_as_it_is_and_changed_code_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "benchmarks" / "results"
    monkeypatch.setattr(record, "CHECKOUT", tmp_path)
    results.mkdir(parents=True)
    (results / "one.json").write_text("1")
    (tmp_path / "code.py").write_text("1")
    person = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for words in (["init", "--quiet"], ["add", "."], [*person, "commit", "--quiet", "-m", "x"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    committed = record.commit()
    (results / "one.json").write_text("2")
    assert record.commit() == committed
    (tmp_path / "code.py").write_text("2")
    assert record.commit() == f"{committed}-dirty"


def test_results_have_a_line_for_each_part_that_fits_and_read_back_the_same() -> None:
    rows = [{"model": f"model {k}", "values": [k / 3, None, True]} for k in range(40)]
    figures = {"rows": rows, "seeds": [0, 1], "of": {}}
    text = record.in_lines(figures)
    assert max(map(len, text.splitlines())) <= record.LINE
    assert len(text.splitlines()) == 40 + 6
    back = json.loads(text)
    assert back["rows"][1] == {"model": "model 1", "values": [0.333333, None, True]}
    assert back | {"rows": rows} == figures
    with pytest.raises(ValueError, match="JSON"):
        record.in_lines({"share": float("nan")})
