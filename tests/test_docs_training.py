"""The guide for trainers: its settings are read, its code runs, its curves are logged."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.learning.method import new_training
from finetune.methods import dpok, nft, policy_gradient, preference
from finetune.model.diffusion import DiffusionModel
from finetune.model.lora import LORA_FILE
from pipelines.settings.config import check
from tests.support.tiny_diffusion import write_tiny_diffusion

GUIDE = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_its_settings_are_read() -> None:
    for block in blocks("toml"):
        tables = tomllib.loads(block)
        check(tables, tables, "docs/training.md")


def test_its_example_of_an_own_reward_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks("python")
    for there, here in (
        ("/path/to/stable-diffusion-folder", "model"),
        ("iterations=50", "iterations=1, images_per_prompt=2, sampler={'steps': 2}"),
    ):
        assert there in code
        code = code.replace(there, here)
    write_tiny_diffusion(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {
        "torch": torch,
        "DiffusionModel": DiffusionModel,
        "new_training": new_training,
        "dpok": dpok,
    }
    exec(code, names)
    assert capsys.readouterr().out.startswith("1 ")
    assert (tmp_path / "lora" / LORA_FILE).is_file()


def test_the_curves_that_it_explains_are_logged() -> None:
    table = GUIDE[GUIDE.index("| curve |") :].split("\n\n")[0]
    named = {
        name.split("/")[0]
        for row in table.splitlines()[2:]
        for name in re.findall(r"`([\w/*]+)`", row.split("|")[1])
    }
    methods = (policy_gradient.Metrics, nft.Metrics, preference.Metrics)
    logged = {field.name for metrics in methods for field in fields(metrics)} | {
        "monitors",
        "peak_memory_gb",
        "loss_scale",
        "share_of_time",
    }
    assert len(named) == 20
    assert named <= logged
