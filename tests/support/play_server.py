"""The playground in a process of its own, for a browser."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.runs import RunFolder

UP = re.compile(r"play at (http://127\.0\.0\.1:\d+)")
PATIENCE_S = 180
"""A busy machine may take minutes to load the models."""


@contextmanager
def playing(run: RunFolder, log: Path) -> Iterator[str]:
    """Serve the run's playground until the end of the block; yield its address."""
    words = ["play", "--runs", str(run.root.parent), "--run", run.root.name, "--port", "0"]
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "pipelines", *words],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            found = UP.match(line)
            assert found, line + log.read_text(encoding="utf-8")
            yield found[1]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE_S)
