"""Measures the time of each kind of work in a training."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Part = Literal[
    "preparing", "drawing", "decoding", "reward", "training", "validation", "waiting", "other"
]
"""Kinds of work. Preparing: loading images and labels before the first step. Validation: all its
work, drawing of its images included. Waiting: for other processes, exchange of tensors included.
Other: sheets, checkpoints and logs."""
PARTS: tuple[Part, ...] = get_args(Part)


def _difference(start: float, end: float) -> float:
    return end - start


@dataclass
class Watch:
    """Times of the parts since the last lap; a nested part's time counts for it alone."""

    now: Callable[[], Any] = time.perf_counter
    """Returns a mark of the present moment, without waiting for the device."""
    between: Callable[[Any, Any], float] = _difference
    """Returns the seconds between two marks; it may wait until the device has reached them."""
    _parts: list[Part] = field(default_factory=lambda: ["other"])
    """Stack of nested parts; the last part is running."""
    _spans: list[tuple[Part, Any, Any]] = field(default_factory=list)
    """Part, and the marks of its start and end."""
    _since: Any = field(init=False)

    def __post_init__(self) -> None:
        """Start."""
        self._since = self.now()

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Count the time of the block for this part."""
        self._count()
        self._parts.append(name)
        try:
            yield
        finally:
            self._count()
            self._parts.pop()

    def lap(self) -> dict[Part, float]:
        """Return the seconds of every part since the last lap, and start the next lap."""
        self._count()
        seconds: dict[Part, float] = {}
        for part, start, end in self._spans:
            seconds[part] = seconds.get(part, 0.0) + self.between(start, end)
        self._spans = []
        return {part: seconds[part] for part in PARTS if seconds.get(part)}

    def _count(self) -> None:
        """Add the time since the last count to the running part."""
        now = self.now()
        self._spans.append((self._parts[-1], self._since, now))
        self._since = now


def shares(seconds: dict[Part, float]) -> dict[Part, float]:
    """Return each part's share of the time, largest first; the shares sum to 1."""
    total = sum(seconds.values())
    by_size = sorted(seconds.items(), key=lambda one: -one[1])
    return {part: own / total for part, own in by_size} if total else {}
