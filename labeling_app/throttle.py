"""Limit on how often something is tried, kept in memory."""

import math
import time
from collections import deque
from collections.abc import Callable
from threading import Lock

MOST_KEYS = 10_000
"""Keys that are watched at once; when there are more, those whose window has passed go."""


class Throttle:
    """Limit of `limit` attempts for each key within `window_s` seconds."""

    def __init__(
        self, limit: int, window_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._window_s = window_s
        self._clock = clock
        self._attempts: dict[str, deque[float]] = {}
        self._lock = Lock()

    def attempt(self, key: str) -> int:
        """Count an attempt and return 0, or return the whole seconds to wait.

        An attempt too many is not counted.
        """
        with self._lock:
            now = self._clock()
            if len(self._attempts) > MOST_KEYS:
                since = now - self._window_s
                self._attempts = {
                    kept: times
                    for kept, times in self._attempts.items()
                    if times and times[-1] > since
                }
            times = self._attempts.setdefault(key, deque())
            while times and times[0] <= now - self._window_s:
                times.popleft()
            if len(times) >= self._limit:
                return math.ceil(times[0] + self._window_s - now)
            times.append(now)
            return 0

    def take_back(self, key: str) -> None:
        """Remove the last attempt: it does not count after all."""
        with self._lock:
            times = self._attempts.get(key)
            if times:
                times.pop()
