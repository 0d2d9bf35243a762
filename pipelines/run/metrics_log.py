"""Training metrics in a folder's `metrics.jsonl` and in trackers such as TensorBoard."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from data.files import write_atomically
from pipelines.run.trackers import Tracker, open_trackers

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


class MetricsLog:
    """Log with one line of JSON per step; a context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        step: int = 0,
        trackers: Sequence[Tracker] = ("tensorboard",),
        title: str = "",
    ) -> None:
        """Continue after `step`; `title` is the name of the training in trackers.

        Later lines of an interrupted attempt are removed, since their steps are repeated.

        Raises:
            PictuneError: a tracker cannot start.
        """
        self._trackers = open_trackers(trackers, folder, step=step, title=title)
        kept = [line for line in read_metrics(folder) if line["step"] <= step]
        with write_atomically(folder / METRICS_FILE) as temporary:
            text = "".join(json.dumps(line) + "\n" for line in kept)
            temporary.write_text(text, encoding="utf-8")
        self._file = (folder / METRICS_FILE).open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        for tracker in self._trackers:
            tracker.finish()

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Log one step; numbers of nested tables get names such as `reward_by_prompt/A cat.`."""
        self._file.write(json.dumps({**values, "step": step}) + "\n")
        self._file.flush()
        for tracker in self._trackers:
            tracker.log({k: v for k, v in flat(values).items() if k != "step"}, step=step)


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers among nested values, by their path."""
    numbers: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            numbers |= flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            numbers[prefix + name] = value
    return numbers
