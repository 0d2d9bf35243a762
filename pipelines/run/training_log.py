"""Writing of training metrics to `metrics.jsonl` and TensorBoard."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch.utils.tensorboard import SummaryWriter

from data.files import write_atomically
from pipelines.run.metrics_log import METRICS_FILE, read_metrics


class MetricsLog:
    """Log with one line of JSON per step; a context manager."""

    def __init__(self, folder: Path, *, step: int = 0) -> None:
        """Continue after `step`.

        Later lines of an interrupted attempt are removed, since their steps are repeated.
        """
        kept = [line for line in read_metrics(folder) if line["step"] <= step]
        with write_atomically(folder / METRICS_FILE) as temporary:
            text = "".join(json.dumps(line) + "\n" for line in kept)
            temporary.write_text(text, encoding="utf-8")
        self._file = (folder / METRICS_FILE).open("a", encoding="utf-8")
        self._board = SummaryWriter(folder / "tensorboard", purge_step=step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._board.close()

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Log one step; numbers of nested tables get names such as `reward_by_prompt/A cat.`."""
        self._file.write(json.dumps({**values, "step": step}) + "\n")
        self._file.flush()
        for name, value in flat(values).items():
            if name != "step":
                self._board.add_scalar(name, value, step)


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers among nested values, by their path."""
    numbers: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            numbers |= flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            numbers[prefix + name] = value
    return numbers
