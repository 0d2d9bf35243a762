"""Records of benchmarks: the commit that they name."""

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
