"""Labeling at scale: `python -m benchmarks.bench_scale` writes `results/bench_scale.json`.

A campaign of a million tasks in a PostgreSQL server of the benchmark's own, which two replicas of
the labeling app serve, each a process as `make label` starts it. The raters of `bench_labeling`,
half of them at each replica, claim tasks and answer them over HTTP, with time to think. The images
are rows of the run's table without files, since none is fetched.

At the end the replicas are killed. The figures are the seconds and the most memory that each
replica's start took (the first one plans the tasks), quantiles of the two calls' times, answers per
second, calls that failed, and what the store has: as many labels as were acknowledged, and no task
with more of them than it wants.
"""

import argparse
import asyncio
import hashlib
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from benchmarks.bench_dataset import CATEGORIES, PROMPT_COUNT, START
from benchmarks.bench_labeling import listening, load, quantiles
from benchmarks.labeling_targets import targets
from benchmarks.record import record
from data.runs import RunFolder
from data.schema import IMAGES, PROMPTS, prompt_id, write_batches, write_table
from data.store.feedback_store import FeedbackStore
from data.store.tables import labels, tasks
from tests.support.postgres import database, find_program, postgres_server

Figures = dict[str, Any]
ROWS = 100_000
"""Rows of the table of images that are made at a time."""


def write_tables(run: RunFolder, count: int) -> None:
    """Write the run's tables of prompts and of `count` images."""
    texts = [f"prompt {number}" for number in range(PROMPT_COUNT)]
    keys = [prompt_id(text) for text in texts]
    rows = [
        {"prompt_id": key, "prompt": text, "category": CATEGORIES[n % len(CATEGORIES)]}
        for n, (key, text) in enumerate(zip(keys, texts, strict=True))
    ]
    write_table(pa.Table.from_pylist(rows, schema=PROMPTS), PROMPTS, run.prompts_table)

    def images(first: int) -> pa.Table:
        numbers = range(first, min(first + ROWS, count))
        found: list[dict[str, object]] = [
            {
                "image_id": hashlib.sha256(str(number).encode()).hexdigest(),
                "path": f"images/{number}.png",
                "prompt_id": keys[number % PROMPT_COUNT],
                "prompt": texts[number % PROMPT_COUNT],
                "width": 512,
                "height": 512,
                "format": "png",
                "created_at": START,
            }
            for number in numbers
        ]
        return pa.Table.from_pylist(found, schema=IMAGES)

    write_batches(map(images, range(0, count, ROWS)), IMAGES, run.images_table)


def peak_gb(pid: int) -> float:
    """Return the most resident memory of a process so far, in 10^9 bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(kib) * 1024 / 1e9, 2)


def stored(url: str) -> Figures:
    """Return what the store has."""
    with FeedbackStore.open(url) as store, store.database.read() as connection:
        per_task = sa.select(labels.c.task_id, sa.func.count().label("n")).where(labels.c.is_live)
        counted = per_task.group_by(labels.c.task_id).subquery()
        too_many = (
            sa.select(sa.func.count())
            .select_from(counted.join(tasks, tasks.c.task_id == counted.c.task_id))
            .where(counted.c.n > tasks.c.overlap)
        )
        return {
            "labels_stored": connection.scalar(sa.select(sa.func.count()).select_from(labels)),
            "tasks_with_too_many": connection.scalar(too_many),
        }


def measure(url: str, folder: Path, given: argparse.Namespace) -> Figures:
    """Start the replicas, let raters work, and return the figures."""
    run = RunFolder(folder / "scale")
    write_tables(run, given.tasks)
    words = ["label", "--runs", str(folder), "--run", "scale", "--open"]
    for setting in (
        f"store.url={url}",
        "tasks.binary_overlap=1",
        "tasks.rankings_per_prompt=0",
    ):
        words += ["--set", setting]
    command = [sys.executable, "-m", "pipelines", *words, "--port"]
    starts: list[Figures] = []
    with ExitStack() as stack:
        replicas = []
        for _ in range(given.replicas):
            began = time.perf_counter()
            server = listening(lambda port: [*command, str(port)], os.environ)
            replicas.append(stack.enter_context(server))
            seconds = round(time.perf_counter() - began, 1)
            starts.append({"seconds": seconds, "peak_gb": peak_gb(replicas[-1].pid)})
            print(f"started: {starts[-1]}", flush=True)
        addresses = [replica.address for replica in replicas]
        times, elapsed = asyncio.run(
            load(targets(None)["pictune"], addresses, given.raters, given.seconds, given.think)
        )
        peaks = [peak_gb(replica.pid) for replica in replicas]
        for replica in replicas:
            os.kill(replica.pid, signal.SIGKILL)
    return {
        "starts": starts,
        "peaks_gb": peaks,
        "claim_ms": quantiles(times.claim),
        "submit_ms": quantiles(times.submit),
        "answers": times.acknowledged,
        "answers_per_second": round(times.acknowledged / elapsed, 1),
        "calls_failed": times.failed,
        **stored(url),
    }


def main() -> None:
    """Measure, print and record the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--tasks", type=int, default=1_000_000, help="(default: 1,000,000)")
    add("--replicas", type=int, default=2, help="(default: 2)")
    add("--raters", type=int, default=200, help="(default: 200)")
    add("--think", type=float, default=2.5, help="mean seconds before each call (default: 2.5)")
    add("--seconds", type=float, default=120, help="how long raters work (default: 120)")
    given = parser.parse_args()
    initdb, pg_ctl = find_program("initdb"), find_program("pg_ctl")
    if initdb is None or pg_ctl is None:
        raise SystemExit("PostgreSQL is not installed: apt-get install postgresql")
    with (
        tempfile.TemporaryDirectory() as root,
        postgres_server(initdb, pg_ctl) as server,
        database(server, "feedback") as url,
    ):
        figures = measure(url, Path(root), given)
    figures = {"work": vars(given), **figures}
    print(figures, flush=True)
    record("bench_scale", figures)
    if figures["calls_failed"] or figures["labels_stored"] != figures["answers"]:
        raise SystemExit("bench_scale: calls failed, or labels are not those acknowledged")


if __name__ == "__main__":
    main()
