"""A rehearsal says what a training takes, and leaves the run as it is."""

import re
from pathlib import Path
from typing import Any

import pytest

from data.files import sha256_of
from data.runs import RunFolder
from finetune.learning.memory import Memory
from pipelines.cli import main
from pipelines.finetune import rehearsal
from pipelines.methods import METHODS
from tests.support.demo_run import command, sets
from tests.support.tiny_flow import write_tiny_sd3
from tests.support.tuned_run import copy_of


def files_of(run: RunFolder) -> dict[str, str]:
    return {str(path): sha256_of(path) for path in run.root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_rehearsed_and_nothing_is_written(
    ready: RunFolder, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(ready, tmp_path)
    before = files_of(run)
    assert command(run, "rehearse", "--method", method) == 0
    assert files_of(run) == before
    said = capsys.readouterr().out
    for part in ("drawing", "decoding", "scoring"):
        assert re.search(rf"one image: .*{part} \d+\.\d\d s", said)
    assert re.search(r"memory by the settings: \d+\.\d\d of \d+\.\d GB", said)
    step = "update" if method in ("rwl", "preference") else "iteration"
    assert re.search(rf"whole training: 0\.\d\d hours .* 2 {step}s \d+, 3 validations \d+\)", said)
    peak = re.search(r"peak memory (\d\.\d\d) GB", said)
    assert peak is not None
    assert float(peak[1]) > 0.3


def test_a_run_of_sd3_is_rehearsed(
    demo_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--runs", str(tmp_path), "--run", "r", "--config", str(demo_models)]
    own = ["--model", str(write_tiny_sd3(tmp_path / "model"))]
    for stage in ("images", "simulate", "reward"):
        assert main([stage, *where, *own]) == 0
    run = RunFolder(tmp_path / "r")
    before = files_of(run)
    assert command(run, "rehearse", "--method", "nft") == 0
    assert files_of(run) == before
    assert re.search(r"weights: .*text_encoder_3 .*transformer .*reward", capsys.readouterr().out)


def test_a_training_that_does_not_fit_is_told_what_to_lower(
    ready: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = copy_of(ready, tmp_path)
    seen: list[Memory] = []
    real = rehearsal.memory_of

    def memory_of(*given: Any) -> Memory:
        seen.append(real(*given))
        return seen[-1]

    monkeypatch.setattr(rehearsal, "memory_of", memory_of)
    assert command(run, "rehearse", "--method", "dpok") == 0
    monkeypatch.setattr(rehearsal, "_used", lambda _: 0)
    monkeypatch.setattr(rehearsal, "_room", lambda _: seen[0].peak - 1)
    capsys.readouterr()
    assert command(run, "rehearse", "--method", "dpok") == 0
    said = capsys.readouterr().out
    assert 'it does not fit; this would: SET="dpok.micro_batch=2"' in said
    assert seen[-1].peak < seen[0].peak
    monkeypatch.setattr(rehearsal, "_room", lambda _: 1)
    assert command(run, "rehearse", "--method", "dpok", *sets("dpok.micro_batch=2")) == 0
    assert "by no settings" in capsys.readouterr().out


def test_the_images_that_training_would_draw_are_part_of_the_estimate(
    ready: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(ready, tmp_path)
    more = "finetune.scored_per_prompt=100000"
    assert command(run, "rehearse", "--method", "rwl", *sets(more)) == 0
    preparing = re.search(r"preparing (\d+)", capsys.readouterr().out)
    assert preparing is not None
    assert int(preparing[1]) > 100


def test_a_start_that_is_not_trained_yet_is_refused(
    ready: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(ready, tmp_path)
    chain = sets("dpok.adapter.start=rwl")
    assert command(run, "rehearse", "--method", "dpok", *chain) == 2
    refusal = capsys.readouterr()
    assert not refusal.out
    assert "run `make finetune METHOD=rwl` first" in refusal.err
    advised = re.search('SET="(.*)"', refusal.err)
    assert advised is not None
    assert command(run, "rehearse", "--method", "dpok", *chain, *sets(advised[1])) == 0
