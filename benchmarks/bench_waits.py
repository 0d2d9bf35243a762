"""Counts of what a GPU would wait for: synchronizations, copies and launches, by place in the code.

Run as `python -m benchmarks.bench_waits`; the figures are in `results/bench_waits.json` and
`bench_waits.md`. There is no GPU in it: `tests.support.pretended_gpu` computes on the CPU and
counts. The models are tiny and random, so launches are few beside a real model's; what is waited
for does not depend on the size of a model.
"""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, Row, record
from data.runs import RunFolder
from finetune.model.sampler import draw
from finetune.settings.sampler import Sampler
from pipelines.methods import METHODS
from tests.support.demo_run import command, sets
from tests.support.gpu_training import FAMILIES, GPU, of_one_iteration, opened, training_on_gpu
from tests.support.pretended_gpu import BLOCKING, COPIES, LAUNCHES, WAITS, pretended_gpu
from tests.support.tiny_models import write_tiny_models

KINDS = (WAITS, BLOCKING, COPIES, LAUNCHES)
IMAGES, STEPS = 4, 4
"""Images of a denoising loop, and its steps."""
PLACES = 8
"""Places that are listed of each row."""
STAGES = ("images", "simulate", "reward", "score", "best-of-n", "finetune", "evaluate")


def row_of(spent: Counter[tuple[str, str]], count: int = 1) -> Row:
    """Return the number of each kind, for each of `count`, and the places that are waited at."""
    totals, places = Counter[str](), Counter[str]()
    for (kind, place), number in spent.items():
        totals[kind] += number
        if kind in (WAITS, BLOCKING):
            places[place] += number
    listed = dict(places.most_common(PLACES))
    return {**{kind: totals[kind] / count for kind in KINDS}, "places": listed}


def of_drawing(folder: Path, family: str) -> Row:
    """Return what an image costs of a denoising loop of `IMAGES` in `STAGES` steps."""
    with pretended_gpu() as counts:
        model = opened(folder, family)
        model.encode_prompts(["", "a cat"])
        counts.by_place.clear()
        sampler = Sampler(steps=STEPS, eta=1.0, guidance=2.0)
        draw(model, ["a cat"] * IMAGES, sampler, seeds=range(IMAGES), batch=IMAGES)
    return row_of(counts.by_place, IMAGES)


def of_iteration(folder: Path, method: str) -> Row:
    """Return what an iteration or update costs without a validation."""
    with pretended_gpu() as counts:
        run = training_on_gpu(opened(folder, "sd1"), method)
        return row_of(of_one_iteration(run, counts))


def of_stages(folder: Path) -> dict[str, Row]:
    """Return what each stage of a tiny run costs, loading of its models included."""
    settings, run, rows = write_tiny_models(folder), RunFolder(folder / "run"), {}
    for stage in STAGES:
        ways = METHODS if stage == "finetune" else [""]
        for way in ways:
            words = [*sets(f"run.device={GPU}"), *(["--method", way] if way else [])]
            words += ["--config", str(settings)] if stage == "images" else []
            with pretended_gpu() as counts:
                if command(run, stage, *words):
                    raise SystemExit(f"{stage} {way} failed")
            rows[f"{stage} {way}".strip()] = row_of(counts.by_place)
    return rows


def table(title: str, rows: dict[str, Row]) -> str:
    """Return a Markdown table of rows, with the places that are waited at."""
    head = [title, *KINDS, "waited at"]
    lines = [head, ["---"] * len(head)]
    for name, row in rows.items():
        places = ", ".join(f"{place} {number}" for place, number in row["places"].items())
        lines.append([name, *(f"{row[kind]:g}" for kind in KINDS), places])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Count, and write the figures and the page."""
    with tempfile.TemporaryDirectory() as root:
        place = Path(root)
        folders = {name: write(place / name) for name, (write, _) in FAMILIES.items()}
        figures: dict[str, Any] = {
            "drawing": {name: of_drawing(folders[name], name) for name in FAMILIES},
            "iterations": {method: of_iteration(folders["sd1"], method) for method in METHODS},
            "stages": of_stages(place / "models"),
        }
    record("bench_waits", figures)
    page = (
        "# What a GPU would wait for\n\nMade by `python -m benchmarks.bench_waits`, on a pretended "
        "GPU and tiny models; how: see there.\nBlocking copies wait as synchronizations do.\n\n"
        f"## An image of a loop of {IMAGES} images in {STEPS} steps\n\n"
        f"{table('family', figures['drawing'])}\n"
        "## An iteration of an online method, or an update of the others\n\nWithout a validation; "
        "an iteration draws in one denoising loop.\n\n"
        f"{table('method', figures['iterations'])}\n"
        "## A stage of a tiny run\n\nWith loading its models, and two validations of each "
        f"training.\n\n{table('stage', figures['stages'])}"
    )
    (RESULTS / "bench_waits.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
