"""Ctrl-C while libraries are loaded, which takes seconds.

Within an import the usual exception may be lost, or become another one.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 128 + signal.SIGINT
"""The exit status after Ctrl-C, as shells have it."""
STOPPED = "pictune: stopped; the same command goes on from here"
"""The line that a user sees after Ctrl-C."""


@contextmanager
def ends_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process at once, with a line, while the block runs.

    Nothing may run in the block that needs an orderly end.
    """
    # A process in the background ignores Ctrl-C, and goes on doing so.
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        if is_usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_number: int, _frame: object) -> None:
    os.write(sys.stderr.fileno(), f"{STOPPED}\n".encode())
    os._exit(INTERRUPTED)
