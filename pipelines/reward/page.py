"""The page on the quality of a reward: `reward/report.html`, self-contained."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data.runs import RunFolder
from pipelines.pages.charts import RED, training_chart
from pipelines.pages.page import file_uri, image_uri, interval, number, signed, svg_uri, write_page
from pipelines.reward.text import (
    TESTS,
    MainFigure,
    elsewhere,
    headline,
    main_part,
    scorers,
)
from pipelines.run.metrics_log import read_metrics
from reward.learning.examples import Examples
from reward.measuring.evaluation import ScoredImages
from reward.measuring.report import (
    MODEL,
    PartReport,
    RewardReport,
    TypesReport,
)

REPORT_FILE = "report.html"
RELIABILITY = "reliability.png"
OTHERS = "other raters"
VERDICTS = {
    "roc_auc": "ROC-AUC",
    "roc_auc_macro": "ROC-AUC, by prompt",
    "brier": "Brier score",
    "ece": "calibration error",
    "good_at_1": "best is good",
}
PAIRS = {
    "pairwise_accuracy": "right",
    "pairwise_accuracy_macro": "right, by prompt",
}
MAP_FIGURES = {
    "cc": "CC",
    "kld": "KLD",
    "sim": "SIM",
    "nss": "NSS",
    "auc_judd": "AUC-Judd",
    "mse": "MSE",
    "mse_clean": "MSE, clean images",
}
MAIN_FIGURES: dict[MainFigure, str] = {
    "roc_auc": "ROC-AUC",
    "pairwise_accuracy": "pairwise accuracy",
}
LOSSES = {"val_loss": "validation", "binary_loss": "training, verdicts"}
MOST_PROMPTS = 24
"""Largest number of prompts with contact sheets."""
IMAGES_PER_SHEET = 4
"""Largest number of images in each column of a contact sheet."""


def write_report(
    run: RunFolder,
    report: RewardReport,
    examples: Examples,
    images: ScoredImages,
    maps: Sequence[dict[str, Any]] = (),
) -> None:
    """Write the page from the figures, the training's curves, the images and overlays of maps."""
    context = _context(run, report, examples, images) | {"maps": maps, "map_figures": MAP_FIGURES}
    write_page("reward_report.html.jinja", context, run.reward_dir / REPORT_FILE)


def do_types_help(types: TypesReport) -> str:
    """Return a sentence on the comparison with held-out raters."""
    if types.gain is None or types.gain.interval is None:
        return (
            "There are too few raters, or labels of each, to say whether several types help: let "
            "more people label."
        )
    gain, (low, high) = types.gain.value, types.gain.interval
    if low > 0:
        loss = f"{number(gain, 3)} ({interval((low, high), 3)})"
        return f"Several rewards predict them better than one: the log loss falls by {loss}."
    if high < 0:
        loss = f"{number(-gain, 3)} ({interval((-high, -low), 3)})"
        found = (
            f"One reward predicts them better than several, with which the log loss rises by {loss}"
        )
        return f"{found}: set reward.rater_types to 1."
    found = f"the log loss falls by {number(gain, 3)} ({interval((low, high), 3, sign=True)})"
    return f"It is not shown that several predict them better than one: {found}."


def doubts(part: PartReport, figure: MainFigure = "roc_auc") -> list[str]:
    """Return the reasons not to trust the reward, one sentence each; `part` must have `figure`."""
    found = []
    title = MAIN_FIGURES[figure]
    rows = part.scorers | {OTHERS: part.human.others}
    values = {name: getattr(row, figure) for name, row in rows.items()}
    known = {name: value for name, value in values.items() if value is not None}
    ours = known[MODEL]
    if part.resampled == "images":
        found.append(
            f"Only {part.counts['prompts']} prompts are held out, so the intervals resample "
            "images: of other prompts they say nothing."
        )
    bounds = part.gain[figure].interval
    if bounds is not None and bounds[0] <= 0:
        between = f"between {signed(bounds[0])} and {signed(bounds[1])}"
        found.append(
            f"It is not surely better than the CLIP score: the gain in {title} lies {between}."
        )
    for name, what in (("image_only", "image alone"), ("prompt_only", "prompt alone")):
        if known.get(name, -1) >= ours:
            found.append(
                f"A head that sees the {what} does at least as well ({title} {known[name]:.2f}): "
                "the two need not be compared."
            )
    found += [
        f"{name} predicts the labels at least as well ({title} {known[name]:.2f})."
        for name in elsewhere(part)
        if known.get(name, -1) >= ours
    ]
    if known.get(OTHERS, ours) < ours:
        found.append(
            f"It predicts a label better ({title} {ours:.2f}) than the other raters of the image "
            f"do ({known[OTHERS]:.2f}): the labels limit it."
        )
    return found


def _context(
    run: RunFolder, report: RewardReport, examples: Examples, images: ScoredImages
) -> dict[str, Any]:
    main = main_part(report)
    tests = {name: report.part(name) for name in TESTS}
    types = report.rater_types
    return {
        "run": run.root.name,
        "folder": run.reward_dir,
        "headline": headline(report),
        "report": report,
        "main": main and report.part(main[0]),
        "main_title": main and TESTS.get(main[0], "Validation labels"),
        "main_figure": main and main[1],
        "main_figures": MAIN_FIGURES,
        "doubts": doubts(report.part(main[0]), main[1]) if main else [],
        "parts": tests,
        "tests": {
            name: TESTS[name] for name, part in tests.items() if part.model.n or part.model.n_pairs
        },
        "scorers": scorers(report),
        "elsewhere": elsewhere(report.test_unseen),
        "others": OTHERS,
        "verdict_figures": VERDICTS,
        "pair_figures": PAIRS,
        "reliability": file_uri(run.reward_dir / RELIABILITY, "image/png"),
        "types": types,
        "do_types_help": do_types_help(types) if types else "",
        "curve": svg_uri(
            training_chart(read_metrics(run.reward_dir), LOSSES, color=RED, ylabel="loss")
        ),
        "sheets": list(_sheets(examples, images)),
        "prompts": len(np.unique(images.prompt)),
    }


def _sheets(examples: Examples, images: ScoredImages) -> Iterator[dict[str, Any]]:
    """Yield the contact sheet of each prompt, unseen ones first.

    A sheet has the images with the highest score, the lowest score, and the largest spread of the
    members.
    """
    held_out = set(examples.split.test_unseen.labeled_prompts.tolist())
    prompts = sorted(np.unique(images.prompt).tolist(), key=lambda prompt: prompt not in held_out)
    for prompt in prompts[:MOST_PROMPTS]:
        rows = np.flatnonzero(images.prompt == prompt)
        by_score, by_std = (
            rows[np.argsort(-values[rows], kind="stable")]
            for values in (images.probability, images.std)
        )
        chosen = {"best": by_score, "most uncertain": by_std, "worst": by_score[::-1]}
        yield {
            "prompt": examples.dataset.prompts[prompt],
            "held_out": prompt in held_out,
            "n": len(rows),
            "columns": [
                (title, [_image(examples, images, row) for row in some[:IMAGES_PER_SHEET]])
                for title, some in chosen.items()
            ],
        }


def _image(examples: Examples, images: ScoredImages, row: int) -> dict[str, Any]:
    return {
        "uri": image_uri(examples.dataset.paths[images.image[row]]),
        "score": float(images.probability[row]),
        "std": float(images.std[row]),
        "good": None if np.isnan(images.good[row]) else float(images.good[row]),
    }
