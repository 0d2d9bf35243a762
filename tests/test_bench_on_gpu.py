"""The benchmark for a card runs to its end, also where parts fail."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.on_gpu import Card, drawing, parts_of, run_parts
from pipelines.methods import METHODS

ABOUT = {"command": "python -m benchmarks.on_gpu", "commit": "unknown"}


def read(folder: Path) -> dict[str, dict[str, Any]]:
    parts: dict[str, dict[str, Any]] = json.loads((folder / "on_gpu.json").read_text())["parts"]
    return parts


@pytest.mark.filterwarnings("ignore")  # of profilers and stock pipelines, which users see as well
def test_every_part_runs_on_tiny_models(tmp_path: Path) -> None:
    card = Card("cpu", tiny=True)
    parts = parts_of(card, ["sd15", "sd35-medium"])
    parts = {name: part for name, part in parts.items() if "compile" not in name}
    run_parts(parts, ABOUT, tmp_path, 600)
    found = read(tmp_path)
    assert list(parts) == [*dict.fromkeys(parts)]
    assert found.keys() == parts.keys()
    assert not {name: one["error"] for name, one in found.items() if "error" in one}
    for method in METHODS:
        for name in ("sd15", "sd35-medium"):
            part = found[f"{name} {method}"]
            assert part["updates_per_second"] > 0
            assert 0 < part["share_of_card"] < 1.5
            assert ("queries_per_second" in part) == (method not in ("rwl", "preference"))
    assert found["sd15 drawing"]["images_per_second"] > 0
    assert found["scoring"]["embedding"]["images_per_second"] > 0
    assert found["sd15 dpok beside a plain loop"]["gradient_cosine_min"] > 0.999
    page = (tmp_path / "on_gpu.md").read_text()
    assert all(f"| {name} | " in page for name in parts)


def test_a_part_that_fails_leaves_its_error_and_the_next_one_runs(tmp_path: Path) -> None:
    def fails() -> dict[str, object]:
        raise RuntimeError("no room | here\nmore")

    def sees() -> dict[str, object]:
        return {"before": len(read(tmp_path))}  # written after each part

    run_parts({"first": fails, "second": sees}, ABOUT, tmp_path, 60)
    assert read(tmp_path)["first"] == {"error": "RuntimeError: no room | here"}
    assert read(tmp_path)["second"] == {"before": 1}
    assert "no room / here" in (tmp_path / "on_gpu.md").read_text()
    run_parts({"third": sees}, ABOUT, tmp_path, -1)
    assert "left_out" in read(tmp_path)["third"]


def test_the_batch_grows_until_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    card, tried = Card("cpu", tiny=True), []

    def measure(call: object, *, compiles: bool) -> dict[str, float]:
        assert not compiles
        tried.append(call)
        if len(tried) == 3:
            raise torch.OutOfMemoryError
        return {"seconds": 1.0}

    monkeypatch.setattr(card, "measure", measure)
    monkeypatch.setattr(card, "largest", 64)
    assert drawing(card, "sd15")["batch"] == 2
