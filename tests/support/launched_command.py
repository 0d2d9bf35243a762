"""Commands in processes that `pipelines.launch` starts, as `make ... PROCESSES=2` does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

WAIT_SECONDS = 300
"""Time for two processes to import torch on a busy machine, and to end."""

TWO_PROCESSES = (
    "--multi_gpu",
    "--num_processes=2",
    "--num_machines=1",
    "--mixed_precision=no",
    "--dynamo_backend=no",
    "--main_process_port=0",
)


def is_running(pid: int) -> bool:
    """Whether the process has not ended; one that nobody has waited for has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    status: int
    errors: str
    """The text on stderr, to which libraries may add their own."""

    @property
    def lines(self) -> list[str]:
        """The lines that a user sees of it."""
        assert "Traceback" not in self.errors, self.errors
        return [line for line in self.errors.splitlines() if line.startswith("pictune: ")]


@dataclass
class Launched:
    """A launcher and its processes."""

    launcher: subprocess.Popen[bytes]
    errors: Path

    def processes(self) -> dict[int, int]:
        """Return the ids of the processes by rank; fewer while they start or end."""
        place = Path(f"/proc/{self.launcher.pid}/task/{self.launcher.pid}/children")
        found: dict[int, int] = {}
        for child in place.read_text().split():
            with suppress(ProcessLookupError, FileNotFoundError):  # it has ended
                variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
                ranks = [one for one in variables if one.startswith(b"RANK=")]
                found |= {int(rank.removeprefix(b"RANK=")): int(child) for rank in ranks}
        return found

    def kill_when(self, condition: Callable[[], bool], *, rank: int | None) -> list[int]:
        """Kill the process of that rank, or the launcher, when the condition holds.

        It must not have ended before. Return the ids of all processes.
        """
        started = time.monotonic()
        while not condition():
            assert self.launcher.poll() is None, self.errors.read_text()
            assert time.monotonic() - started < WAIT_SECONDS
            time.sleep(0.005)
        found = self.processes()
        os.kill(self.launcher.pid if rank is None else found[rank], signal.SIGKILL)
        return list(found.values())

    def ended(self) -> Ended:
        """Wait until the command has ended."""
        status = self.launcher.wait(WAIT_SECONDS)
        return Ended(status, self.errors.read_text())


def launch(
    folder: Path, module: str, *words: str, launcher: Sequence[str] = TWO_PROCESSES
) -> Launched:
    """Start `python -m module words` in processes, by default two; stderr goes into the folder."""
    errors = folder / f"stderr-{len(list(folder.glob('stderr-*')))}"
    command = [sys.executable, "-m", "pipelines.launch", *launcher, "-m", module, *words]
    with errors.open("wb") as stream:
        started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stream)
    return Launched(started, errors)
