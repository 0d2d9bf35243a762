"""Stage `dataset`: exports the labels to Parquet, checks that store, files and tables agree, and says what they hold."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from data.errors import PictuneError
from data.publication import DatasetConfig, published_faults
from data.quality import Judgments, agreement_of
from data.runs import RunFolder
from data.schema import PROMPTS, RATERS, read_table
from data.verification import store_to_read, verify
from pipelines.config import Settings
from pipelines.label_statistics import RATERS_OF
from pipelines.tasks import export_labels, open_store


def main(run: RunFolder, settings: Settings, *, check: bool = False) -> int:
    """Exports, then verifies; returns 1 when something does not agree, after a line for each fault, else 0.

    With `check` it only reads, and works on a disk that cannot be written.

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
    print(
        f"dataset: {written}{f', a copy in {target}' if target else ''}: all of it agrees with the store and the files"
    )
    print("\n".join(_summary(run.latest.resolve())))
    return 0


def _summary(folder: Path) -> list[str]:
    judgments = Judgments.read(folder)
    prompts = read_table(folder / "prompts.parquet", PROMPTS)
    raters = read_table(folder / "raters.parquet", RATERS)
    verdicts = judgments.binary["label"].value_counts()
    named = {
        key: name
        for key, name in zip(
            *(prompts[c].to_pylist() for c in ("prompt_id", "category")), strict=True
        )
        if name
    }
    measured = agreement_of(judgments, named)
    among = RATERS_OF[measured["source"]]
    return [
        f"  {len(judgments.binary)} verdicts: {', '.join(f'{count} {name}' for name, count in verdicts.items()) or 'none'}",
        f"  {len(judgments.rankings)} rankings",
        f"  {_active(raters)} raters with labels",
        *(_agreement_line(kind, measured[kind], among) for kind in ("binary", "ranking")),
        *(
            f"  {_agreement_line(part['category'], part, among)}"
            for part in measured["binary"]["categories"]
        ),
    ]


def _active(raters: pa.Table) -> int:
    return sum(n > 0 for n in raters["n"].to_pylist())


def _agreement_line(name: str, measured: dict[str, Any], among: str) -> str:
    if measured["alpha"] is None and measured["n_tasks"]:
        return f"  {name}: agreement unknown, {among} gave the same answer to everything"
    if measured["alpha"] is None:
        return f"  {name}: agreement unknown, no two {among} have judged the same"
    interval = f"{measured['alpha_ci_low']:.2f} to {measured['alpha_ci_high']:.2f}"
    return f"  {name}: Krippendorff's alpha {measured['alpha']:.2f} ({interval}) on {measured['n_tasks']} tasks with two {among} or more"
