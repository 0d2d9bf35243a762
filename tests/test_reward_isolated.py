"""Reward and fine-tuning learn from labels only: neither can reach the ground truth's world."""

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("reward", "finetune")


def _imported(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_source_names_neither_pipelines_nor_the_oracle(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        source = file.read_text(encoding="utf-8")
        assert not _imported(source) & {
            "pipelines",
            "world",
            "labeling_app",
            "importlib",
            "runpy",
        }, file
        assert "oracle" not in source.lower(), file


def test_importing_every_module_of_both_loads_neither_pipelines_nor_the_world() -> None:
    names = [name for package in PACKAGES for name in (package, *_modules(package))]
    program = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
print([name for name in sys.modules if name.startswith(("pipelines", "world"))])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def _modules(package: str) -> list[str]:
    found = pkgutil.walk_packages([str(ROOT / package)], prefix=f"{package}.")
    return [module.name for module in found]
