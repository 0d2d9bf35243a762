"""Records of benchmarks: `results/<name>.json`, with the command, the commit and the machine.

`python -m benchmarks.record` writes `results/README.md`, with the commits of all figures.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from data.files import write_atomically
from data.intervals import mean_interval

RESULTS = Path(__file__).parent / "results"
CHECKOUT = Path(__file__).parents[1]
LINE = 10_000
"""Longest line of the results, in characters."""
DIRTY = "-dirty"
PAGE = """# Commits that the figures are of

Written by `python -m benchmarks.record`. Figures of the first column are those of a commit of this
repository. Those of the second were measured with changes that were not committed, and those of the
third with a commit that is not in the repository: what they were measured with cannot be checked
out, so measuring again may give others. A file with several commits was measured
in parts; `compare.json` names the commit of its last part alone.

| figures | of a commit | with changes beside it | of a commit that is not there |
|---|---|---|---|
"""
Row = dict[str, Any]


def record(name: str, figures: dict[str, Any]) -> None:
    """Write the figures of `name` in place of its earlier ones."""
    cpus, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    machine = f"{platform.machine()}, {cpus} CPUs, load {load:.1f} when done"
    made_by = {
        "command": " ".join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]),
        "commit": commit(),
        "machine": machine,
    }
    with write_atomically(RESULTS / f"{name}.json") as temporary:
        temporary.write_text(in_lines(made_by | figures) + "\n", encoding="utf-8")
    (RESULTS / "README.md").write_text(commits_page(), encoding="utf-8")
    if made_by["commit"].endswith(DIRTY):
        print(
            f"benchmarks/results/{name}.json: names {made_by['commit']}: files differ from the "
            "commit, so nobody can measure this again; commit first",
            file=sys.stderr,
        )


def commits_page() -> str:
    """Return a page with the commits of all recorded figures."""
    lines = [_line(path) for path in sorted(RESULTS.glob("*.json"))]
    return PAGE + "".join(f"{line}\n" for line in lines)


def _line(path: Path) -> str:
    named = sorted(set(re.findall(r'"commit": "([^"]*)"', path.read_text(encoding="utf-8"))))
    cells: list[list[str]] = [[], [], []]
    for commit in named:
        plain = commit.removesuffix(DIRTY)
        is_there = _call("cat-file", "-e", f"{plain}^{{commit}}").returncode == 0
        cells[2 if not is_there else 1 if commit != plain else 0].append(plain)
    return f"| {path.name} | {' | '.join(', '.join(one) for one in cells)} |"


def in_lines(value: object, indent: str = "") -> str:
    """Return `value` as JSON with sorted keys; parts that fit into a line stay on one line.

    Floats have six digits, more than the noise of any figure justifies.

    Raises:
        ValueError: the value contains NaN or infinity.
    """
    if isinstance(value, float):
        value = float(f"{value:.6g}")
    whole = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    inner = indent + " "
    if isinstance(value, dict):
        pairs = sorted(value.items())
        parts = [f"{json.dumps(k, ensure_ascii=False)}: {in_lines(v, inner)}" for k, v in pairs]
        opening, closing = "{}"
    elif isinstance(value, list | tuple):
        parts = [in_lines(one, inner) for one in value]
        opening, closing = "[]"
    else:
        return whole
    if sum(map(len, parts)) <= LINE and not any("\n" in part for part in parts):
        return opening + ", ".join(parts) + closing
    return f"{opening}\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}{closing}"


def commit() -> str:
    """Return the commit of this checkout, with `-dirty` if files other than results differ."""
    code = (".", ":!benchmarks/results")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *code)
    return _git("describe", "--always") + (DIRTY if changed else "")


def _git(*words: str) -> str:
    """Return what git prints about this checkout."""
    done = _call(*words)
    done.check_returncode()
    return done.stdout.strip()


def _call(*words: str) -> subprocess.CompletedProcess[str]:
    words = ("git", *words)
    return subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def arguments(about: str | None, **defaults: Any) -> argparse.Namespace:
    """Return the words of the command line: a flag of the type of each default.

    A list has several words, False is a flag without a value, and None is a whole number.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in defaults.items():
        flag = f"--{name.replace('_', '-')}"
        if default is False:
            parser.add_argument(flag, action="store_true")
        elif isinstance(default, list):
            kind, action = (type(default[0]), "store") if default else (str, "extend")
            parser.add_argument(flag, type=kind, action=action, nargs="+", default=default)
        else:
            kind = int if default is None else type(default)
            parser.add_argument(flag, type=kind, default=default, help=f"(default: {default})")
    return parser.parse_args()


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Do the work; return its wall-clock and processor seconds."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return {
        "seconds": time.perf_counter() - clock,
        "cpu_seconds": time.process_time() - processor,
    }


def recorded(name: str) -> dict[str, Any]:
    """Return the recorded figures of `name`; empty if none are recorded yet."""
    path = RESULTS / f"{name}.json"
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return kept


def summary(values: list[float]) -> Row:
    """Return the mean over seeds, its 95 % interval (Student's t; None for one), and the values."""
    interval = mean_interval(values)
    return {
        "mean": float(np.mean(values)),
        "interval": interval and list(interval),
        "values": values,
    }


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """Check out the files of a revision; yield their folder."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "checkout"
        _git("worktree", "add", "--quiet", "--detach", str(folder), revision)
        try:
            yield folder
        finally:
            _git("worktree", "remove", "--force", str(folder))


def run_python(root: Path, words: Sequence[str], **environment: str) -> None:
    """Run Python with the code of this checkout; end the benchmark if it fails."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{root}: {' '.join(words)[:200]}\n{done.stderr[-3000:]}")


if __name__ == "__main__":
    (RESULTS / "README.md").write_text(commits_page(), encoding="utf-8")
