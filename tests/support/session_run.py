"""A small run for sessions, and its page in a process of its own that is killed and started."""

import json
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
intents = "INTENTS"
"""
UP = re.compile(r"session at (http://127\.0\.0\.1:(\d+))")
PATIENCE_S = 180
"""A busy machine may take minutes to load the model."""


def write_session_run(folder: Path) -> RunFolder:
    """Write a run with an image for each prompt."""
    settings, run = folder / "session.toml", RunFolder(folder / "mine")
    intents = folder / "intents.txt"
    intents.write_text("\n".join(INTENTS))
    settings.write_text(SETTINGS.replace("INTENTS", str(intents)))
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
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGINT) -> None:
        """End it by a signal, as Ctrl-C does."""
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.send_signal(number)
        self._process.wait(PATIENCE_S)
        self._process.stdout.close()
