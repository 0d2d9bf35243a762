"""The end of a command that is stopped: at once while libraries load, orderly otherwise.

Also the names of out-of-memory errors.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INTERRUPTED = 128 + signal.SIGINT
"""The exit status after Ctrl-C, as in shells."""
TERMINATED = 128 + signal.SIGTERM
"""The exit status after SIGTERM, which stops services."""
STOPPED = "pictune: stopped; the same command goes on from here"
"""The line that a user sees after Ctrl-C."""

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""Environment variable with the file for a process's error. The launcher prints the error, so that
a user sees one line."""

LAUNCHER = "PICTUNE_LAUNCHER"
"""Environment variable with the process id of the launcher."""
_PR_SET_PDEATHSIG = 1
"""Number of the request in Linux's `sys/prctl.h`."""

OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError")
"""Names of errors; by name, since torch may be missing."""


@contextmanager
def ends_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process at once, with a line, while the block runs.

    Use it for libraries that take seconds to load: during an import the usual exception can be lost
    or replaced. No code that needs an orderly end may run in the block.
    """
    # A background process ignores Ctrl-C, and must continue to ignore it.
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        if is_usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_number: int, _frame: object) -> None:
    if not has_launcher():
        os.write(sys.stderr.fileno(), f"{STOPPED}\n".encode())
    os._exit(INTERRUPTED)


def has_launcher() -> bool:
    """Whether a launcher started this process and prints its errors."""
    return bool(os.environ.get(ERROR_FILE))


def end_with_launcher() -> None:
    """Let the kernel end this process when its launcher ends, also after a kill; Linux only.

    Otherwise the processes would continue beside the processes of a repeated command.
    """
    launcher = os.environ.pop(LAUNCHER, None)  # child processes have no launcher
    if launcher is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(launcher):  # the launcher has ended already
        os.kill(os.getpid(), signal.SIGKILL)


def say_failure(line: str) -> None:
    """Write a line on stderr, or leave it to the launcher."""
    if has_launcher():
        note = {"message": line, "timestamp": int(time.time())}  # in the format of torch's handler
        Path(os.environ[ERROR_FILE]).write_text(json.dumps(note), encoding="utf-8")
    else:
        print(line, file=sys.stderr)


@contextmanager
def ends_in_order() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that the block ends as after Ctrl-C."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
