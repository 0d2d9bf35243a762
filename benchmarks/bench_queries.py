"""Times of the queries in `docs/analysts.md` on 100,000 labels.

Run as `python -m benchmarks.bench_queries`; the figures are in `results/bench_queries.json`. Each
query runs in SQL and in pandas in the same process, once to warm up and three times with the clock.
The best of three counts, to exclude the cost of other programs. `bench_dataset.py` makes the
labels, which are exported like the labels of any run.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.bench_dataset import fill, write_run
from benchmarks.record import arguments, record, timed
from data.runs import RunFolder
from data.store.feedback_store import FeedbackStore
from data.tables.parquet import export
from tests.support.analysts_page import questions

REPEATS = 3


def fastest(ask: Callable[[], object]) -> dict[str, float]:
    """Return the least wall-clock seconds and the least processor seconds."""
    ask()
    times = [timed(ask) for _ in range(REPEATS)]
    return {unit: round(min(one[unit] for one in times), 3) for unit in times[0]}


def ask_both(
    connection: duckdb.DuckDBPyConnection, title: str, sql: str, python: str
) -> dict[str, Any]:
    """Return the figures of one query."""
    rows = len(connection.sql(sql).df())
    with_pandas = compile(python, title, "exec")
    in_sql = fastest(lambda: connection.sql(sql).df())
    in_pandas = fastest(lambda: exec(with_pandas, {}))  # noqa: S102 - the page's own code
    return {"question": title, "rows": rows, "duckdb": in_sql, "pandas": in_pandas}


def main() -> None:
    """Make the labels, ask, and write the figures."""
    count = arguments(__doc__, labels=100_000).labels
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        image_ids = write_run(run, count // 10)
        with FeedbackStore.open(run.store_url) as store:
            fill(store, image_ids, count)
            export(store, run)
        home = Path.cwd()
        os.chdir(run.latest)
        with duckdb.connect() as connection:
            rows = [ask_both(connection, *question) for question in questions()]
        os.chdir(home)
    record("bench_queries", {"labels": count, "duckdb": duckdb.__version__, "questions": rows})
    for row in rows:
        duckdb_s, pandas_s = row["duckdb"]["seconds"], row["pandas"]["seconds"]
        times = f"duckdb {duckdb_s:.3f} s, pandas {pandas_s:.3f} s"
        print(f"{row['question']:60s} {times}, {row['rows']} rows")


if __name__ == "__main__":
    main()
