"""Ctrl-C while libraries are loaded, which takes seconds: within an import the usual exception may be lost, or become another one."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 128 + signal.SIGINT
"""The exit status after Ctrl-C, as shells have it."""


@contextmanager
def ends_at_once() -> Iterator[None]:
    """Inside the block Ctrl-C ends the process, with a line and no more ado: nothing may be under way that wants an orderly end."""
    is_usual = (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )  # a process in the background ignores it
    if is_usual:
        signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        if is_usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_number: int, _frame: object) -> None:
    os.write(sys.stderr.fileno(), b"pictune: stopped; the same command goes on from here\n")
    os._exit(INTERRUPTED)
