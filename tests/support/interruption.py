"""Ctrl-C at a chosen moment, within the test's own process."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

abandons_open_files = pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
"""For tests that interrupt: Ctrl-C may fall between opening and closing within a library.

A real process ends then, and closes all.
"""


@contextmanager
def interrupted_when(condition: Callable[[], bool]) -> Iterator[None]:
    """Send SIGINT to the process, as Ctrl-C does, when `condition` first holds in the block."""
    over, lock = threading.Event(), threading.Lock()

    def watch() -> None:
        while not over.is_set():
            if condition():
                with lock:
                    if not over.is_set():
                        os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.005)

    # A process that was started in the background ignores SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        with lock:
            over.set()
        watcher.join()
        signal.signal(signal.SIGINT, before)
