"""Training metrics from a folder's `metrics.jsonl`."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"
UNTRAINED = "the kept weights are those before training, since no later ones validated better"
"""Remark on a training that kept the weights of step 0."""


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of the folder's `metrics.jsonl`; none if there is no file.

    A last line that was cut off is omitted.
    """
    path = folder / METRICS_FILE
    lines: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def kept_step(lines: Sequence[dict[str, Any]]) -> int | None:
    """Return the step whose weights a training kept: 0 before training, None if not logged."""
    return next((line["kept_step"] for line in reversed(lines) if "kept_step" in line), None)


def time_spent(lines: Sequence[dict[str, Any]]) -> str:
    """Return a phrase on a training's time over all attempts, by kind of work, longest first."""
    seconds: Counter[str] = Counter()
    for line in lines:
        for part, share in line.get("share_of_time", {}).items():
            seconds[part] += share * line["seconds_in_all"]
    total = seconds.total()
    parts = [f"{part} {own / total:.0%}" for part, own in seconds.most_common() if own]
    return ", ".join((f"{timedelta(seconds=round(total))} in all", *parts))
