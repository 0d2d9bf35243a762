"""Stage `dataset`: export the labels to Parquet, check them and print a summary.

The check compares store, files and tables.
"""

import argparse
from pathlib import Path
from typing import Any

from data.errors import PictuneError
from data.quality.agreement import agreement_of
from data.quality.judgments import Judgments
from data.runs import RunFolder
from data.schema import PROMPTS, RATERS, read_table
from data.tables.publication import DatasetConfig, published_faults
from data.tables.verification import store_to_read, verify
from pipelines.collect.label_statistics import RATERS_OF
from pipelines.run.campaign import export_labels, open_store
from pipelines.settings.config import Settings


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage."""
    parser.add_argument(
        "--check",
        action="store_true",
        help="only check; exit status 1 and a line for each thing that is wrong",
    )


def main(run: RunFolder, settings: Settings, *, check: bool = False) -> int:
    """Export, then check; return 1 after a line for each error, or 0 without errors.

    With `check` the stage only reads, so it also works on a read-only disk.

    Raises:
        PictuneError: there are no labels.
    """
    if not run.has_store:
        raise PictuneError(
            f"{run.store_file}: no labels yet; run `make label` or `make simulate` first"
        )
    target = settings.table("dataset", DatasetConfig).target
    with store_to_read(run) if check else open_store(run) as store:
        written = "labels" if check else export_labels(store, run, settings)
        faults = verify(store, run)
    if target is not None and not faults:
        faults = published_faults(run, target)
    for fault in faults:
        print(fault)
    if faults:
        print(f"dataset: {len(faults)} faults")
        return 1
    copied = f", a copy in {target}" if target else ""
    print(f"dataset: {written}{copied}: all of it agrees with the store and the files")
    print("\n".join(_summary(run.latest.resolve())))
    return 0


def _summary(folder: Path) -> list[str]:
    judgments = Judgments.read(folder)
    prompts = read_table(folder / "prompts.parquet", PROMPTS)
    raters = read_table(folder / "raters.parquet", RATERS)["n"].to_pylist()
    verdicts = judgments.labels["binary"]["label"].value_counts()
    counts = ", ".join(f"{count} {name}" for name, count in verdicts.items())
    prompt_ids, categories = (prompts[c].to_pylist() for c in ("prompt_id", "category"))
    named = {key: name for key, name in zip(prompt_ids, categories, strict=True) if name}
    measured = agreement_of(judgments, named)
    among = RATERS_OF[measured["source"]]
    return [
        f"  {len(judgments.labels['binary'])} verdicts: {counts or 'none'}",
        f"  {len(judgments.labels['ranking'])} rankings",
        f"  {sum(n > 0 for n in raters)} raters with labels",
        *(_agreement_line(kind, measured[kind], among) for kind in ("binary", "ranking")),
        *(
            f"  {_agreement_line(part['category'], part, among)}"
            for part in measured["binary"]["categories"]
        ),
    ]


def _agreement_line(name: str, measured: dict[str, Any], among: str) -> str:
    if measured["alpha"] is None and measured["n_tasks"]:
        return f"  {name}: agreement unknown, {among} gave the same answer to everything"
    if measured["alpha"] is None:
        return f"  {name}: agreement unknown, no two {among} have judged the same"
    alpha = f"Krippendorff's alpha {measured['alpha']:.2f}"
    if measured["alpha_ci_low"] is None:
        return f"  {name}: {alpha} on one task, which says little"
    interval = f"{measured['alpha_ci_low']:.2f} to {measured['alpha_ci_high']:.2f}"
    tasks = f"{measured['n_tasks']} tasks with two {among} or more"
    return f"  {name}: {alpha} ({interval}) on {tasks}"
