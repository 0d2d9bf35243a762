"""Processes that run `python -m pipelines ...` at once, for tests that kill them.

`python -m tests.support.killable_command LOG` imports the libraries once. Each line on standard
input is, in JSON, a list of commands: words, and variables of the environment. For each a child is
forked that runs it as `python -m pipelines` does. The answers are their process ids, then their
exit statuses when they are all over; both of their streams go to LOG.
"""

import importlib
import json
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def main(log: Path) -> None:
    for module in (
        "pipelines.rounds.demo",
        "pipelines.evaluate.work",
        "pipelines.evaluate.page",
        "pipelines.reward.training",
        "pipelines.finetune.work",
        "world.oracle",
    ):  # importing starts no threads, so a fork is safe
        importlib.import_module(module)
    print("ready", flush=True)
    for line in sys.stdin:
        children = [start(words, environment, log) for words, environment in json.loads(line)]
        print(*children, flush=True)
        print(*(os.waitpid(child, 0)[1] for child in children), flush=True)


def start(words: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
    child = os.fork()
    if child == 0:
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        os.environ.update(environment)
        sys.argv = ["pipelines", *words]
        runpy.run_module("pipelines", run_name="__main__", alter_sys=True)
    return child


if __name__ == "__main__":
    main(Path(sys.argv[1]))
