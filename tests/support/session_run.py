"""A small run for sessions, and its page in a process of its own that is killed and started."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from data.runs import RunFolder
from pipelines.cli import main
from pipelines.run.judge import EMBEDDED_MODEL

INTENTS = ("a red dog on the moon", "two cats")
SETTINGS = f"""
[run]
model = {json.dumps(str(EMBEDDED_MODEL))}

[run.prompts]
color = ["A red dog.", "A blue dog.", "A red cat."]
place = ["A dog on the moon.", "A cat in the snow.", "A cat on the moon."]

[sampler]
steps = 2

[images]
per_prompt = 1

[session]
images = 1
intents = {json.dumps(INTENTS)}
"""
UP = re.compile(r"session at (http://127\.0\.0\.1:(\d+))")
PATIENCE_S = 180
"""A busy machine may take minutes to load the model."""


def write_session_run(folder: Path) -> RunFolder:
    """Write a run with an image for each prompt."""
    settings, run = folder / "session.toml", RunFolder(folder / "mine")
    settings.write_text(SETTINGS)
    place = ["--runs", str(folder), "--run", run.root.name]
    assert main(["images", *place, "--config", str(settings)]) == 0
    return run


@dataclass
class SessionServer:
    """The page of a run's sessions; it keeps its address when it is started again."""

    run: RunFolder
    log: Path
    port: str = "0"
    url: str = ""
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def start(self) -> None:
        words = ["--runs", str(self.run.root.parent), "--run", self.run.root.name]
        with self.log.open("a", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipelines", "session", *words, "--port", self.port],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = UP.match(line)
        assert found, line + self.log.read_text(encoding="utf-8")
        self.url, self.port = found.groups()

    def kill(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)

    def stop(self) -> int:
        """End it as Ctrl-C does; return its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(PATIENCE_S)
