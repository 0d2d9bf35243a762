"""Time of the demo's tuning beside that of an earlier commit: `python -m benchmarks.bench_tuning`.

Both commits draw, label and learn the reward by their own code; these stages are not timed. Then
each cell runs the commands of its commit one after the other, on a run of its own:

- before: RWL and DPOK, with the settings of the earlier commit's preset.
- same settings: the same work by the present code; DPOK goes on from RWL in both.
- own settings: RWL and NFT, with the settings of the present preset.

The present code runs in one process with all cores, and in two with half of them each. `seconds`
are on the clock; `cpu_seconds` are those of the processor, of all processes, which other programs
change less. The loading of torch and the model counts, as it does for people.
"""

import argparse
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import CHECKOUT, Row, checked_out, record, run_python
from tests.support.demo_run import sets
from tests.support.launched_command import TWO_PROCESSES

EARLIER = "44d1006"
SAME = (
    *("rwl.updates=120", "rwl.learning_rate=4e-3", "rwl.validation.every=60"),
    *("rwl.precision='bf16'", "dpok.precision='bf16'"),
)
"""Settings in which the earlier commit's preset differs, of those that its commands read."""


def timed(root: Path, words: Sequence[str], *, processes: int = 1) -> Row:
    """Run a command line by the code of this checkout; return the time that it took."""
    launch: list[str] = []
    environment: dict[str, str] = {}
    if processes == 2:
        launch = ["-m", "pipelines.launch", *TWO_PROCESSES]
        environment["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // 2))
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    run_python(root, [*launch, "-m", "pipelines", *words], **environment)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}


def prepared(root: Path, folder: Path) -> Path:
    """Draw, label and learn the reward by the code of this checkout; return the run's folder."""
    for stage in ("images", "simulate", "reward"):
        run_python(root, ["-m", "pipelines", stage, "--runs", str(folder), "--run", "ready"])
    return folder / "ready"


def tuned(
    root: Path, ready: Path, online: str, *, changes: Sequence[str] = (), processes: int = 1
) -> Row:
    """Time RWL and the online method on a copy of the run; return both and their sum."""
    run = ready.parent / "run"
    shutil.copytree(ready, run)
    row: Row = {}
    for method in ("rwl", online):
        words = ["finetune", "--runs", str(run.parent), "--run", run.name, "--method", method]
        row[method] = timed(root, [*words, *sets(*changes)], processes=processes)
    shutil.rmtree(run)
    both = [row["rwl"], row[online]]
    row["both"] = {key: round(sum(one[key] for one in both), 1) for key in both[0]}
    return row


def main() -> None:
    """Time all cells; print and record them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", default=EARLIER, metavar="COMMIT", help="the earlier commit")
    against = parser.parse_args().against
    with tempfile.TemporaryDirectory() as folder, checked_out(against) as before:
        earlier = prepared(before, Path(folder) / "before")
        present = prepared(CHECKOUT, Path(folder) / "after")
        rows = {"before": tuned(before, earlier, "dpok")}
        for processes in (1, 2):
            where = f"in {processes} process{'es' if processes > 1 else ''}"
            rows[f"same settings {where}"] = tuned(
                CHECKOUT, present, "dpok", changes=SAME, processes=processes
            )
            rows[f"own settings {where}"] = tuned(CHECKOUT, present, "nft", processes=processes)
    for name, row in rows.items():
        ratios = {key: rows["before"]["both"][key] / row["both"][key] for key in row["both"]}
        row["times_as_fast"] = {key: round(value, 2) for key, value in ratios.items()}
        print(name, row, flush=True)
    record("bench_tuning", {"against": against, "rows": rows})


if __name__ == "__main__":
    main()
