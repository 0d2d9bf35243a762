"""Reward and fine-tuning learn from labels only: neither can reach the ground truth's world."""

import pkgutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("reward", "finetune")


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
