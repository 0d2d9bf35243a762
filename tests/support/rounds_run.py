"""Runs of two rounds on tiny models, one stage after the other as people do it."""

from pathlib import Path

from data.files import sha256_of
from data.runs import RunFolder
from data.schema import IMAGES, read_table
from pipelines.run.record import STAMP
from tests.support.demo_run import command, copy_without, sets
from tests.support.tuned_run import change_adapter

SETTINGS = sets("rounds.images_per_prompt=8")


def write_first_round(ready: RunFolder, folder: Path) -> RunFolder:
    """Copy a run that only wants `finetune`, and tune it by RWL."""
    run = copy_without(ready, folder, symlinks=True)
    assert command(run, "finetune", "--method", "rwl") == 0
    change_adapter(run, "rwl")  # two steps on a tiny model might change nothing
    return run


def write_second_round(run: RunFolder) -> RunFolder:
    """Take the run through its second round, and return it there."""
    for stage, *words in (
        ("images", "--round", "2", *SETTINGS),
        ("simulate",),
        ("reward",),
        ("finetune", "--method", "rwl"),
    ):
        assert command(run, stage, *words) == 0
    return run.in_round(2)


def copy_of(run: RunFolder, folder: Path) -> RunFolder:
    """Copy the run into a folder, and return the copy in the same round."""
    return copy_without(run, folder, symlinks=True).in_round(run.round)


def files_of_first_round(run: RunFolder) -> dict[str, str]:
    """Return the hash of every file that no later round may touch, by path in the run."""
    images = {row["path"] for row in rows_of(run, 1)}
    folders = ("reward", "finetune")
    files = [path for name in folders for path in (run.root / name).rglob("*") if path.is_file()]
    files += [run.root / str(path) for path in images]
    files += [run.prompts_table, run.images_dir / STAMP]
    return {str(path.relative_to(run.root)): sha256_of(path) for path in files}


def rows_of(run: RunFolder, number: int) -> list[dict[str, object]]:
    """Return the rows of `images.parquet` of a round, in their order."""
    rows: list[dict[str, object]] = read_table(run.images_table, IMAGES).to_pylist()
    return [row for row in rows if (row["round"] or 1) == number]
