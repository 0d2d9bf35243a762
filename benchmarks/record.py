"""Where benchmarks keep what they found: `results/<name>.json`, with the command, the commit and the machine."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from data.files import write_json

RESULTS = Path(__file__).parent / "results"


def record(name: str, figures: dict[str, Any]) -> None:
    """Writes the figures of `name` in place of its earlier ones."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True).stdout.strip()
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, load {os.getloadavg()[0]:.1f} when done"
    made_by = {"command": " ".join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]), "commit": commit, "machine": machine}
    write_json(RESULTS / f"{name}.json", made_by | figures)


def recorded(name: str) -> dict[str, Any]:
    """What is kept for `name`; empty when there is nothing yet."""
    path = RESULTS / f"{name}.json"
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return kept
