"""Compares the results of two commits: `python -m benchmarks.same_results --against COMMIT`.

It is for changes that must not alter results. Both commits run every stage on the same tiny random
models, on one thread, with the clock and the system's random numbers pinned. The files that they
make are compared bit by bit: images, reward, adapters, sheets; the Parquet tables column by column,
JSON files value by value (without times, settings, and figures that only one of the commits has).
The earlier commit writes the settings, so renamed settings are tested as well.
"""

import argparse
import datetime as dt
import hashlib
import importlib
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

STAGES = (
    "images",
    "simulate",
    "reward",
    "finetune rwl",
    "finetune dpok",
    "finetune ddpo",
    "finetune nft",
    "finetune preference",
    "finetune reward_gradient",
    "evaluate",
)
WRITERS = ("tests.support.tiny_models", "tests.tiny_models")
"""Modules that write the models and settings, the current one first."""
START = 1_700_000_000
"""Start of the pinned clock, in seconds since 1970."""
COPIES = {"checkpoints", "parts", "snapshots"}
"""Folders whose contents are compared elsewhere, or have names that vary."""
VARYING = {
    *("settings", "seconds", "seconds_in_all", "share_of_time", "peak_memory_gb", "created_at"),
}
"""Names of values that may differ between two runs of one commit, or that contain settings."""


def main() -> None:
    """Run both commits and record which values differ."""
    # Not above: with `pinned`, this file runs with the code of another commit.
    from benchmarks.record import CHECKOUT, checked_out, record  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", required=True, metavar="COMMIT", help="the earlier commit")
    against = parser.parse_args().against
    with tempfile.TemporaryDirectory() as folder, checked_out(against) as before:
        place = Path(folder)
        settings = write_models(before, place / "models")
        results = [
            results_of(root, place / name, settings)
            for name, root in (("before", before), ("after", CHECKOUT))
        ]
    earlier, later = results
    shared = earlier.keys() & later.keys()
    row = {
        "against": against,
        "compared": len(shared),
        "differ": sorted(name for name in shared if not is_same(earlier[name], later[name])),
        "only_before": sorted(earlier.keys() - later.keys()),
        "only_after": sorted(later.keys() - earlier.keys()),
    }
    record("same_results", row)
    print(json.dumps(row, indent=2))


def write_models(root: Path, folder: Path) -> Path:
    """Write the tiny models by the code of this checkout; return their settings file."""
    # By file, since a namespace package such as `tests` may have parts in several checkouts.
    module = next(one for one in WRITERS if (root / f"{one.replace('.', '/')}.py").is_file())
    code = f"from pathlib import Path; from {module} import write_tiny_models; "
    run_in(root, ["-c", f"{code}write_tiny_models(Path({str(folder)!r}))"])
    return folder / "tiny.toml"


def run_in(root: Path, words: list[str]) -> None:
    """Run Python with the code of this checkout, on one thread."""
    from benchmarks.record import run_python  # noqa: PLC0415 - see `main`

    run_python(root, words, OMP_NUM_THREADS="1")


def results_of(root: Path, folder: Path, settings: Path) -> dict[str, Any]:
    """Return the results of all stages, by file and column or key."""
    run = folder / "run"
    for stage in STAGES:
        name, _, method = stage.partition(" ")
        words = [name, "--runs", str(folder), "--run", run.name]
        words += ["--method", method] if method else []
        words += ["--config", str(settings)] if name == "images" else []
        run_in(root, [__file__, "pinned", *words])
        for image in (run / "images").glob("*.png"):
            os.utime(image, (START, START))
    return {name: value for path in sorted(run.rglob("*")) for name, value in values_in(path, run)}


def values_in(path: Path, run: Path) -> Iterator[tuple[str, Any]]:
    """Yield the compared values of a file, by name."""
    name = str(path.relative_to(run))
    if COPIES & set(path.parts) or not path.is_file():
        return
    if path.suffix in (".safetensors", ".png"):
        yield name, hashlib.sha256(path.read_bytes()).hexdigest()
    elif path.suffix == ".parquet":
        table = pq.read_table(path)
        for column in table.column_names:
            if column not in VARYING:
                yield f"{name}: {column}", str(table[column].to_pylist())
    elif path.suffix == ".jsonl":
        yield name, [known(json.loads(line)) for line in path.read_text().splitlines()]
    elif path.suffix == ".json" and path.name != "stage.json":
        for key, value in known(json.loads(path.read_text())).items():
            yield f"{name}: {key}", value


def known(value: Any) -> Any:
    """Return a value without varying parts and without None."""
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if key not in VARYING and one is not None}
        return {key: known(one) for key, one in kept.items()}
    return [known(one) for one in value] if isinstance(value, list) else value


def is_same(one: Any, other: Any) -> bool:
    """Whether both values agree on the keys that both have."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(is_same(one[key], other[key]) for key in one.keys() & other.keys())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)


def run_pinned(words: list[str]) -> int:
    """Run a stage with a clock that advances one second per call, and without system randomness."""
    random.SystemRandom = lambda: random.Random(0)  # type: ignore[assignment, misc]
    cli = importlib.import_module("pipelines.cli")
    for name in ("simulate", "images", "reward", "evaluate"):
        importlib.import_module("pipelines.stage_list").STAGES[name].load()
    looks = iter(range(1, 10**9))

    class Pinned(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            return dt.datetime.fromtimestamp(START + next(looks), tz)

        @classmethod
        def fromtimestamp(cls, timestamp: float, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            return dt.datetime.fromtimestamp(timestamp, tz)

    for name, module in list(sys.modules.items()):
        is_ours = name.partition(".")[0] in ("data", "labeling_app", "pipelines")
        if is_ours and getattr(module, "datetime", None) is dt.datetime:
            module.datetime = Pinned  # type: ignore[attr-defined]
    status: int = cli.main(words)
    return status


if __name__ == "__main__":
    if sys.argv[1:2] == ["pinned"]:
        sys.exit(run_pinned(sys.argv[2:]))
    main()
