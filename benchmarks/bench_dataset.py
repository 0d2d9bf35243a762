"""Speed and memory of the dataset: `python -m benchmarks.bench_dataset`.

It writes `results/bench_dataset.json`. Each of two parts runs in a process of its own, so that its
peak of memory is its own. `store` puts 100,000 labels of 200 raters into an SQLite store, then
exports and verifies them. `scan` writes 10 million synthetic verdicts as Parquet and summarizes
them with DuckDB. Each time is given in seconds of wall-clock and processor time, and as a ratio to
the time in which pandas reads the same rows in the same process: on a busy machine only the ratio
is meaningful.
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import sqlalchemy as sa
from PIL import Image

from benchmarks.record import arguments, record, recorded, timed
from data.feedback import NewTask
from data.files import sha256_of
from data.kinds.kind import Answer
from data.kinds.ranking import RankingAnswer
from data.kinds.verdict import BinaryAnswer
from data.runs import RunFolder
from data.schema import IMAGES, LABELS_BINARY, PROMPTS, prompt_id, write_batches, write_table
from data.store.feedback_store import FeedbackStore
from data.store.tables import labels
from data.store.views.rows import task_table
from data.tables.parquet import export
from data.tables.verification import verify

START = datetime(2026, 1, 1, tzinfo=UTC)
CATEGORIES = ("color", "count", "composition", "place")
RATERS, PROMPT_COUNT, BATCH = 200, 500, 100_000
Figures = dict[str, Any]

SUMMARY = """
    SELECT p.category, l.label, count(*) AS n, median(l.time_on_task_ms) AS median_ms,
        count(DISTINCT l.rater_id) AS raters
    FROM read_parquet(?) l JOIN read_parquet(?) p USING (prompt_id)
    GROUP BY ALL ORDER BY ALL
"""


def note(name: str, work: Callable[[], object], figures: Figures) -> None:
    """Do the work; record its seconds of wall-clock and processor time."""
    figures[name] = {unit: round(value, 3) for unit, value in timed(work).items()}
    print(f"{name}: {figures[name]}", file=sys.stderr, flush=True)


def relate(figures: Figures, base: str) -> Figures:
    """Add the ratio of each time to the time of `base`, and the peak of memory."""
    for name, figure in figures.items():
        if name != base:
            figure["times_pandas"] = {
                unit: round(figure[unit] / max(figures[base][unit], 1e-3), 2)
                for unit in ("seconds", "cpu_seconds")
            }
    return figures | {"peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}


def bench_store(rows: int, folder: Path) -> Figures:
    """Export a store with `rows` labels twice and verify it; some are rankings of four images."""
    run = RunFolder(folder)
    image_ids = write_run(run, rows // 10)
    figures: Figures = {}
    with FeedbackStore.open(run.store_url) as store:
        fill(store, image_ids, rows)
        note("export", lambda: export(store, run), figures)
        note("export_unchanged", lambda: export(store, run), figures)
        faults: list[str] = []
        note("verify", lambda: faults.extend(verify(store, run)), figures)
        if faults:
            raise SystemExit("\n".join(faults[:10]))
    names = ("labels_binary", "labels_ranking", "tasks", "images")
    note(
        "pandas_read",
        lambda: [pd.read_parquet(run.latest / f"{name}.parquet") for name in names],
        figures,
    )
    return {"labels": rows, "images": len(image_ids)} | relate(figures, "pandas_read")


def write_run(run: RunFolder, count: int) -> list[str]:
    """Write small, different images and the run's tables for them; return the images' ids."""
    run.images_dir.mkdir(parents=True)
    prompts = [f"prompt {number}" for number in range(PROMPT_COUNT)]
    rows = [
        {"prompt_id": prompt_id(text), "prompt": text, "category": CATEGORIES[n % 4]}
        for n, text in enumerate(prompts)
    ]
    write_table(pa.Table.from_pylist(rows, schema=PROMPTS), PROMPTS, run.prompts_table)
    images = []
    for number in range(count):
        path = run.images_dir / f"{number}.png"
        Image.frombytes("RGB", (2, 2), number.to_bytes(12, "big")).save(path)
        text = prompts[number % PROMPT_COUNT]
        facts = {"width": 2, "height": 2, "format": "png", "created_at": START}
        images.append(
            {
                "image_id": sha256_of(path),
                "path": f"images/{number}.png",
                "prompt_id": prompt_id(text),
                "prompt": text,
            }
            | facts
        )
    write_table(pa.Table.from_pylist(images, schema=IMAGES), IMAGES, run.images_table)
    return [str(image["image_id"]) for image in images]


def fill(store: FeedbackStore, image_ids: list[str], rows: int) -> None:
    """Put `rows` labels into the store: eight raters at most judge each image, three a ranking."""
    rng = random.Random(0)
    raters = [store.add_rater(f"rater {number}") for number in range(RATERS)]
    by_prompt = [image_ids[number::PROMPT_COUNT] for number in range(PROMPT_COUNT)]
    wanted = [
        NewTask(kind="binary", prompt=f"prompt {n % PROMPT_COUNT}", image_ids=(i,), overlap=8)
        for n, i in enumerate(image_ids)
    ]
    for number, images in enumerate(by_prompt):
        groups = {
            tuple(sorted(rng.sample(images, min(4, len(images))))) for _ in range(len(images))
        }
        wanted += [
            NewTask(kind="ranking", prompt=f"prompt {number}", image_ids=group, overlap=3)
            for group in sorted(groups)
        ]
    store.add_tasks(wanted)
    with store.database.read() as connection:
        asked = task_table(connection)
    found = list(islice(_label_rows(rng, raters, asked), rows))
    with store.database.write() as connection:
        for start in range(0, len(found), 10_000):
            connection.execute(sa.insert(labels), found[start : start + 10_000])


def _label_rows(rng: random.Random, raters: list[str], asked: pa.Table) -> Iterator[Figures]:
    number = 0
    for task_id, kind, overlap, images in zip(
        *(asked[name].to_pylist() for name in ("task_id", "kind", "overlap", "image_ids")),
        strict=True,
    ):
        for rater in rng.sample(raters, overlap):
            answer: Answer = BinaryAnswer(
                verdict=rng.choices(("good", "bad", "skip", "unsafe"), (60, 34, 5, 1))[0]
            )
            if kind == "ranking":
                answer = RankingAnswer(
                    ranks={image: rng.choice((1, 2, 3, None)) for image in images}
                )
            number += 1
            moment = START + timedelta(seconds=number)
            yield {
                "label_id": str(UUID(int=rng.getrandbits(128))),
                "submission_id": str(UUID(int=rng.getrandbits(128))),
                "revision": 1,
                "is_live": True,
                "task_id": task_id,
                "rater_id": rater,
                "kind": kind,
                "answer_json": answer.model_dump_json(),
                "shown_order": rng.sample(range(len(images)), len(images)),
                "shown_at": moment,
                "submitted_at": moment,
                "time_on_task_ms": rng.randrange(500, 20_000),
                "lease_late": False,
                "input_mode": "key",
                "session_id": rater,
                "app_version": "0.1.0",
                "guideline_version": "1",
                "active_ms": rng.randrange(500, 20_000),
            }


def bench_scan(rows: int, folder: Path) -> Figures:
    """Write and summarize `rows` synthetic verdicts."""
    run = RunFolder(folder)
    write_run(run, 4)
    path = run.latest / "labels_binary.parquet"
    figures: Figures = {}
    note("write", lambda: write_batches(synthetic(rows), LABELS_BINARY, path), figures)
    with duckdb.connect() as connection:
        connection.execute("SET memory_limit = '1500MB'")
        query = [str(path), str(run.prompts_table)]
        note("duckdb_summary", lambda: connection.execute(SUMMARY, query).fetchall(), figures)
        note("duckdb_summary_again", lambda: connection.execute(SUMMARY, query).fetchall(), figures)
    columns = ["label", "prompt_id", "rater_id", "time_on_task_ms"]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    note("pandas_read", lambda: pd.read_parquet(path, columns=columns), figures)
    return (
        {"labels": rows, "bytes": path.stat().st_size}
        | relate(figures, "pandas_read")
        | {"peak_mib": round(memory / 1024)}
    )


def synthetic(rows: int) -> Iterator[pa.Table]:
    """Yield LABELS_BINARY with random verdicts, `BATCH` rows at a time."""
    rng = np.random.default_rng(0)
    prompts = pa.array([prompt_id(f"prompt {number}") for number in range(PROMPT_COUNT)])
    raters = pa.array([f"{number:032x}" for number in range(RATERS)])
    for start in range(0, rows, BATCH):
        n = min(BATCH, rows - start)
        numbers = np.arange(start, start + n)
        images = pa.array([f"{number // 5:064x}" for number in numbers])
        ids = pa.array([f"01900000-0000-7000-8000-{number:012x}" for number in numbers])
        moments = pa.array(
            np.datetime64(START.replace(tzinfo=None), "us") + numbers * np.timedelta64(1, "s")
        ).cast(LABELS_BINARY.field("shown_at").type)
        given = {
            "label_id": ids,
            "submission_id": ids,
            "revision": pa.array(np.ones(n, np.int16)),
            "task_id": images,
            "prompt_id": prompts.take(pa.array(numbers // 5 % PROMPT_COUNT)),
            "rater_id": raters.take(pa.array(rng.integers(RATERS, size=n))),
            "image_id": images,
            "label": pa.array(["good", "bad", "skip", "unsafe"]).take(
                pa.array(rng.choice(4, n, p=[0.6, 0.34, 0.05, 0.01]))
            ),
            "source": pa.array(["simulated"]).take(pa.array(np.zeros(n, np.int8))),
            "is_gold": pa.array(np.zeros(n, bool)),
            "shown_at": moments,
            "submitted_at": moments,
            "time_on_task_ms": pa.array(rng.lognormal(8, 0.6, n).astype(np.int32)),
            "lease_late": pa.array(np.zeros(n, bool)),
        }
        columns = [given.get(field.name, pa.nulls(n, field.type)) for field in LABELS_BINARY]
        yield pa.table(columns, names=LABELS_BINARY.names)


PARTS: dict[str, Callable[[int, Path], Figures]] = {"store": bench_store, "scan": bench_scan}


def main() -> None:
    """Run the requested parts; keep the earlier figures of other parts."""
    given = arguments(__doc__, store=100_000, scan=10_000_000, only="")
    if given.only:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(PARTS[given.only](getattr(given, given.only), Path(folder) / "run")))
        return
    kept = recorded("bench_dataset")
    results = {name: kept[name] for name in PARTS if name in kept}
    for name in PARTS:
        if rows := getattr(given, name):
            words = ["--only", name, f"--{name}", str(rows)]
            command = [sys.executable, "-m", "benchmarks.bench_dataset", *words]
            part = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            results[name] = json.loads(part.stdout)
    record("bench_dataset", results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
