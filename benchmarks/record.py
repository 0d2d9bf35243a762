"""Where benchmarks keep what they found: `results/<name>.json`, with the command, the commit and the machine."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from data.files import write_json
from data.intervals import mean_interval

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


def record(name: str, figures: dict[str, Any]) -> None:
    """Writes the figures of `name` in place of its earlier ones."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
    ).stdout.strip()
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, load {os.getloadavg()[0]:.1f} when done"
    made_by = {
        "command": " ".join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]),
        "commit": commit,
        "machine": machine,
    }
    write_json(RESULTS / f"{name}.json", made_by | figures)


def recorded(name: str) -> dict[str, Any]:
    """What is kept for `name`; empty when there is nothing yet."""
    path = RESULTS / f"{name}.json"
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return kept


def summary(values: list[float]) -> Row:
    """Mean over seeds, its 95 % interval (Student's t; None for one seed), and the values."""
    interval = mean_interval(values)
    return {
        "mean": float(np.mean(values)),
        "interval": interval and list(interval),
        "values": values,
    }
