"""Labeling at scale: `python -m benchmarks.bench_scale` writes `results/bench_scale.json`.

A campaign of a million tasks in a PostgreSQL server of the benchmark's own, which two replicas of
the labeling app serve, each a process as `make label` starts it. The raters of `bench_labeling`,
half of them at each replica, claim tasks and answer them over HTTP, with time to think. SQL inserts
the tasks of the run's images into the store, which takes seconds; the replicas plan the same tasks
at their start, and find them there. The images are rows of the run's table without files, since
none is fetched. Exports begin ten minutes later.

At the end the replicas are killed. The figures are the seconds until both replicas answer and the
most memory of each, quantiles of the two calls' times, answers per second, calls that failed, the
number of stored labels, which must equal the acknowledged ones, and the number of tasks with too
many labels. `plan` is the time in which the replicas' own code plans and inserts the first tenth of
the tasks into the same store.
"""

import argparse
import asyncio
import hashlib
import os
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from benchmarks.bench_dataset import CATEGORIES, PROMPT_COUNT, START
from benchmarks.bench_labeling import listening, load, quantiles
from benchmarks.labeling_targets import TARGETS
from benchmarks.record import arguments, peak_mib, record, timed
from data.runs import RunFolder
from data.schema import IMAGES, PROMPTS, prompt_id, write_batches, write_table
from data.store.feedback_store import FeedbackStore
from data.store.tables import labels, tasks
from labeling_app.campaign.tasks import ImageRow, TasksConfig, plan_tasks
from tests.support.postgres import database, find_program, postgres_server

Figures = dict[str, Any]
TEXTS = [f"prompt {number}" for number in range(PROMPT_COUNT)]
IMAGES_IN_SQL = sa.text("""
    CREATE TEMPORARY TABLE image ON COMMIT DROP AS
    SELECT n, image_id, encode(sha256(convert_to('binary\n' || image_id, 'UTF8')), 'hex') AS task_id
    FROM (
        SELECT n, encode(sha256(convert_to(n::text, 'UTF8')), 'hex') AS image_id
        FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n
    ) AS numbered
""")
TASKS_IN_SQL = sa.text("""
    INSERT INTO tasks (task_id, kind, prompt_id, overlap, n_live, priority, order_key, created_at)
    SELECT task_id, 'binary', prompt_id, 1, 0, 0,
        ('x' || left(task_id, 16))::bit(64)::bigint, now()
    FROM image JOIN prompts ON prompt = 'prompt ' || n % (SELECT count(*) FROM prompts)
""")
PLACES_IN_SQL = sa.text(
    "INSERT INTO task_images (task_id, position, image_id) SELECT task_id, 0, image_id FROM image"
)
ROWS = 100_000
"""Rows of the table of images in one batch."""


def image_id(number: int) -> str:
    """Return the id of an image that has no file."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def write_tables(run: RunFolder, count: int) -> None:
    """Write the run's tables of prompts and of `count` images."""
    keys = [prompt_id(text) for text in TEXTS]
    rows = [
        {"prompt_id": key, "prompt": text, "category": CATEGORIES[n % len(CATEGORIES)]}
        for n, (key, text) in enumerate(zip(keys, TEXTS, strict=True))
    ]
    write_table(pa.Table.from_pylist(rows, schema=PROMPTS), PROMPTS, run.prompts_table)
    facts = {"width": 512, "height": 512, "format": "png", "created_at": START}

    def images(first: int) -> pa.Table:
        found = [
            {
                "image_id": image_id(number),
                "path": f"images/{number}.png",
                "prompt_id": keys[number % PROMPT_COUNT],
                "prompt": TEXTS[number % PROMPT_COUNT],
                **facts,
            }
            for number in range(first, min(first + ROWS, count))
        ]
        return pa.Table.from_pylist(found, schema=IMAGES)

    write_batches(map(images, range(0, count, ROWS)), IMAGES, run.images_table)


def fill(url: str, count: int) -> Figures:
    """Put the tasks into a new store; return the figures of planning the first tenth."""
    some = [ImageRow(image_id(n), TEXTS[n % PROMPT_COUNT]) for n in range(count // 10)]
    with FeedbackStore.open(url) as store:
        config = TasksConfig(rankings_per_prompt=0)
        spent = timed(lambda: store.add_tasks(plan_tasks(some, config)))
        with store.database.write() as connection:
            connection.execute(IMAGES_IN_SQL, {"first": len(some), "last": count - 1})
            connection.execute(TASKS_IN_SQL)
            connection.execute(PLACES_IN_SQL)
    return {"tasks": len(some)} | {unit: round(value, 1) for unit, value in spent.items()}


def stored(url: str) -> Figures:
    """Return the store's number of labels, and of tasks with more labels than wanted."""
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
    planned = fill(url, given.tasks)
    print(f"planned: {planned}", flush=True)
    words = ["label", "--runs", str(folder), "--run", "scale", "--open"]
    for setting in (
        f"store.url={url}",
        "tasks.binary_overlap=1",
        "tasks.rankings_per_prompt=0",
        "label.export_every_s=600",
    ):
        words += ["--set", setting]
    command = [sys.executable, "-m", "pipelines", *words, "--port"]
    with ExitStack() as stack, ThreadPoolExecutor(given.replicas) as pool:
        servers = [listening(lambda port: [*command, str(port)]) for _ in range(given.replicas)]
        began = time.perf_counter()
        replicas = list(pool.map(stack.enter_context, servers))
        started = round(time.perf_counter() - began, 1)
        print(f"both answer after {started} s", flush=True)
        addresses = [replica.address for replica in replicas]
        times, elapsed = asyncio.run(
            load(TARGETS["pictune"], addresses, given.raters, given.seconds, given.think)
        )
        peaks = [round(peak_mib(replica.pid) * 2**20 / 1e9, 2) for replica in replicas]
        for replica in replicas:
            os.kill(replica.pid, signal.SIGKILL)
    return {
        "plan": planned,
        "start_seconds": started,
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
    given = arguments(__doc__, tasks=1_000_000, replicas=2, raters=200, think=2.5, seconds=120.0)
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
