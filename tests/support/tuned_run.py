"""A run on tiny models that is ready for `finetune`, and commands that can be killed."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from data.files import sha256_of, write_json
from data.runs import RunFolder
from finetune.learning.checkpoints import latest_checkpoint
from finetune.model.lora import LORA_FILE
from pipelines.cli import main
from pipelines.run.metrics_log import read_metrics
from pipelines.run.record import STAMP, read_stamp
from tests.support.tiny_models import write_tiny_models


def write_ready_run(folder: Path) -> RunFolder:
    """Write a run with images, labels and a reward model."""
    settings = write_tiny_models(folder / "models")
    for stage in ("images", "simulate", "reward"):
        place = ["--runs", str(folder), "--run", "ready"]
        assert main([stage, *place, "--config", str(settings)]) == 0
    return RunFolder(folder / "ready")


def copy_of(run: RunFolder, folder: Path) -> RunFolder:
    """Copy the run into a folder, so that a test can write to it."""
    shutil.copytree(run.root, folder / run.root.name)
    return RunFolder(folder / run.root.name)


def words(run: RunFolder, method: str, settings: Sequence[str]) -> list[str]:
    """Return the words of the command `finetune`, without `python -m pipelines`."""
    place = ["--runs", str(run.root.parent), "--run", run.root.name]
    overrides = [word for setting in settings for word in ("--set", setting)]
    return ["finetune", *place, "--method", method, *overrides]


@dataclass
class Commands:
    """`python -m pipelines` in processes of its own; see `tests.support.killable_command`."""

    parent: subprocess.Popen[str]
    log: Path

    def _read(self) -> list[int]:
        assert self.parent.stdout is not None
        return [int(number) for number in self.parent.stdout.readline().split()]

    def _start(self, *started: tuple[Sequence[str], Mapping[str, str]]) -> list[int]:
        assert self.parent.stdin is not None
        print(json.dumps(started), file=self.parent.stdin, flush=True)
        return self._read()

    def kill_when(self, condition: Callable[[], bool], arguments: Sequence[str]) -> None:
        """Start the command and, when the condition holds, kill it as `kill -9` does.

        It must not have ended before.
        """
        (child,) = self._start((arguments, {}))
        while not condition():
            time.sleep(0.001)
            assert Path(f"/proc/{child}").exists(), self.log.read_text()
        os.kill(child, signal.SIGKILL)
        assert self._read() == [signal.SIGKILL]

    def run(self, arguments: Sequence[str], *, processes: int = 1) -> str:
        """Run the command to its good end, in so many connected processes.

        Return the text that they printed on both streams.
        """
        before = len(self.log.read_text()) if self.log.exists() else 0
        self._start(*((arguments, environment) for environment in connected(processes)))
        statuses, printed = self._read(), self.log.read_text()[before:]
        assert statuses == [0] * processes, printed
        return printed


def connected(processes: int) -> list[dict[str, str]]:
    """Return the environment variables that a launcher sets for each process."""
    if processes == 1:
        return [{}]
    address = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(processes),
    }
    return [address | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextmanager
def commands(log: Path) -> Iterator[Commands]:
    """Start the process that runs the commands, and wait until its libraries are imported."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.killable_command", str(log)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        yield Commands(parent, log)
        assert parent.stdin is not None
        parent.stdin.close()


def weights_of(run: RunFolder, method: str) -> dict[str, Tensor]:
    """Return all weights at the end: the adapters and the best ones."""
    place = latest_checkpoint(run.finetune_dir(method) / "checkpoints")
    assert place is not None
    return load_file(place / "weights.safetensors")


def figures_of(run: RunFolder, method: str) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl` without the values that depend on the machine."""
    machine = ("seconds_in_all", "share_of_time", "peak_memory_gb")
    return [
        {name: value for name, value in line.items() if not name.startswith(machine)}
        for line in read_metrics(run.finetune_dir(method))
    ]


def checkpoint_steps(run: RunFolder, method: str) -> list[int]:
    """Return the steps of the checkpoints that have a manifest."""
    manifests = (run.finetune_dir(method) / "checkpoints").glob("step-*/manifest.json")
    return sorted(int(path.parent.name.removeprefix("step-")) for path in manifests)


def change_adapter(run: RunFolder, method: str, *, is_stamped: bool = True) -> None:
    """Add noise to an adapter, as more training would, and vouch for it unless told otherwise."""
    folder = run.finetune_dir(method)
    file, generator = folder / LORA_FILE, torch.Generator().manual_seed(0)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
        weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no dict
    for weight in weights.values():
        weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    save_file(weights, file, metadata)
    if is_stamped:
        stamp = read_stamp(folder / STAMP)
        assert stamp is not None
        changed = stamp.model_copy(update={"files": {LORA_FILE: sha256_of(file)}})
        write_json(folder / STAMP, changed.model_dump(mode="json"))
