"""The page that says how far a reward can be trusted: `reward/report.html`, one file that holds everything it shows."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.runs import RunFolder
from pipelines.charts import COLORS, learning_chart, training_chart
from pipelines.metrics_log import read_metrics
from pipelines.page import (
    file_uri,
    interval,
    number,
    percent,
    picture_uri,
    signed,
    svg_uri,
    write_page,
)
from reward.dataset import Indices
from reward.evaluation import CLIP_SCORE, MODEL, PARTS, UNCALIBRATED, ScoredPictures
from reward.examples import Examples

FILE = "report.html"
RELIABILITY = "reliability.png"
SCORERS = {
    MODEL: "this model",
    UNCALIBRATED: "before calibration",
    CLIP_SCORE: "CLIP score",
    "image_only": "picture alone",
    "prompt_only": "prompt alone",
    "majority": "majority",
    "random": "random",
}
"""What the scorers of `metrics.json` are called."""
OTHERS = "other raters"
VERDICTS = {
    "roc_auc": "ROC-AUC",
    "roc_auc_macro": "ROC-AUC, by prompt",
    "average_precision": "average precision",
    "brier": "Brier score",
    "nll": "log loss",
    "ece": "calibration error",
    "good_at_1": "best is good",
}
PAIRS = {
    "pairwise_accuracy": "right",
    "pairwise_accuracy_macro": "right, by prompt",
    "kendall_tau": "Kendall's tau",
    "recall_at_1": "recall@1",
}
CONVENTIONS = {
    "strict": ("strict", "ties of raters are left out, equal scores count as half right"),
    "imagereward": ("ImageReward", "ties of raters are left out, equal scores count as wrong"),
    "hpsv2": (
        "HPSv2",
        (
            "ties of raters count as right, equal scores as half right, and the mean is over prompts; each rater's own "
            "ranking counts, where published figures on HPDv2 have one that is pooled over raters"
        ),
    ),
    "pickscore": (
        "PickScore",
        "scores tie where the chances to win are close, by a threshold from validation labels; a tie that one side sees is half right",
    ),
}
"""The conventions of `reward.metrics.pair_accuracy`: what each is called, and how it counts."""
TESTS = {"test_unseen": "Prompts that it never saw", "test_seen": "New pictures of known prompts"}
LEGENDS = {"test_unseen": "unseen prompts", "test_seen": "new pictures", "val": "validation"}
MOST_PROMPTS = 24
"""Prompts with contact sheets."""
SHOWN = 4
"""Pictures in a contact sheet."""
MOST_RATERS = 30
"""Raters in a table, those with most labels."""

Report = dict[str, Any]


def write_report(
    run: RunFolder, report: Report, examples: Examples, pictures: ScoredPictures
) -> None:
    """Writes the page from what `metrics.json` will hold, the training's curves and the pictures."""
    write_page(
        "reward_report.html.jinja", _context(run, report, examples, pictures), run.reward_dir / FILE
    )


def headline(report: Report) -> str:
    """How well it does, in a few words, on unseen prompts or else on unseen pictures."""
    part = main_part(report)
    if part is None:
        return "too few held-out labels to measure it"
    words = {
        "test_unseen": "unseen prompts",
        "test_seen": "unseen pictures",
        "val": "validation labels",
    }[part]
    ours, theirs = report[part][MODEL], report[part][CLIP_SCORE]
    return f"ROC-AUC {ours['roc_auc']:.2f} on {words} (CLIP score {theirs['roc_auc']:.2f})"


def scorers(report: Report) -> dict[str, str]:
    """What the scorers of a report are called; rewards from elsewhere have their own names."""
    return SCORERS | {name: name for name in _elsewhere(report["test_unseen"])}


def by_convention(report: Report, convention: str) -> str:
    """The pairwise accuracies of the model and its baselines as one of `CONVENTIONS` counts them, a line for each test."""
    title, meaning = CONVENTIONS[convention]
    lines = [f"ranked pairs in the right order as {title} counts them ({meaning}):"]
    for name, test in TESTS.items():
        rows = report[name]["conventions"]
        lines.append(
            f"{test}: {', '.join(f'{words} {percent(rows[each][convention])}' for each, words in scorers(report).items())}"
        )
    return "\n".join(lines)


def main_part(report: Report) -> str | None:
    """The most telling part that has a ROC-AUC."""
    return next(
        (part for part in reversed(PARTS) if report[part][MODEL]["roc_auc"] is not None), None
    )


def do_types_help(types: Report) -> str:
    """What the comparison on raters whom nobody learned from says, in a sentence."""
    if "gain" not in types:
        return "There are too few raters, or labels of each, to say whether several types help: let more people label."
    gain, bounds = types["gain"]["value"], types["gain"]["interval"]
    if bounds[0] > 0:
        loss = f"{number(gain, 3)} ({interval(bounds, 3)})"
        return f"Several rewards predict them better than one: the log loss falls by {loss}."
    if bounds[1] < 0:
        loss = f"{number(-gain, 3)} ({interval((-bounds[1], -bounds[0]), 3)})"
        found = (
            f"One reward predicts them better than several, with which the log loss rises by {loss}"
        )
        return f"{found}: set reward.rater_types to 1."
    found = f"the log loss falls by {number(gain, 3)} ({interval(bounds, 3, sign=True)})"
    return f"It is not shown that several predict them better than one: {found}."


def doubts(part: Report) -> list[str]:
    """What speaks against trusting the reward, a sentence each."""
    found = []
    ours = part[MODEL]["roc_auc"]
    if part["resampled"] == "images":
        found.append(
            f"Only {part['counts']['prompts']} prompts are held out, so the intervals resample pictures: of other prompts they say nothing."
        )
    low, high = part["gain"]["roc_auc"]["interval"]
    if low <= 0:
        bounds = f"between {signed(low)} and {signed(high)}"
        found.append(
            f"It is not surely better than the CLIP score: the gain in ROC-AUC lies {bounds}."
        )
    for name, what in (("image_only", "picture alone"), ("prompt_only", "prompt alone")):
        blind = part[name]["roc_auc"]
        if blind >= ours:
            found.append(
                f"A head that sees the {what} does at least as well (ROC-AUC {blind:.2f}): the two need not be compared."
            )
    for name in _elsewhere(part):
        theirs = part[name]["roc_auc"]
        if theirs >= ours:
            found.append(f"{name} foretells the labels at least as well (ROC-AUC {theirs:.2f}).")
    human = part["human"]["others"]["roc_auc"]
    if human is not None and human < ours:
        found.append(
            f"It foretells a label better (ROC-AUC {ours:.2f}) than the other raters of the picture do ({human:.2f}): the labels limit it."
        )
    return found


def _context(
    run: RunFolder, report: Report, examples: Examples, pictures: ScoredPictures
) -> dict[str, Any]:
    part = main_part(report)
    return {
        "run": run.root.name,
        "folder": run.reward_dir,
        "headline": headline(report),
        "report": report,
        "main": part and report[part],
        "main_title": part and TESTS.get(part, "Validation labels"),
        "doubts": doubts(report[part]) if part else [],
        "tests": {
            name: title
            for name, title in TESTS.items()
            if report[name][MODEL]["n"] or report[name][MODEL]["n_pairs"]
        },
        "ranked": any(report[name][MODEL]["n_pairs"] for name in TESTS),
        "scorers": scorers(report),
        "elsewhere": _elsewhere(report["test_unseen"]),
        "conventions": CONVENTIONS,
        "others": OTHERS,
        "verdict_figures": VERDICTS,
        "pair_figures": PAIRS,
        "raters": {name: _raters(report[name]["by_rater"]) for name in TESTS},
        "reliability": file_uri(run.reward_dir / RELIABILITY, "image/png"),
        "types": report.get("rater_types"),
        "do_types_help": do_types_help(report["rater_types"]) if "rater_types" in report else "",
        "curves": list(_curves(run.reward_dir, report)),
        "sheets": list(_sheets(examples, pictures)),
        "prompts": len(np.unique(pictures.prompt)),
    }


def _elsewhere(part: Report) -> list[str]:
    """The scorers of a part that come from elsewhere."""
    return [name for name in part["conventions"] if name not in SCORERS]


def _raters(rows: dict[str, Report]) -> list[Report]:
    by_labels = sorted(
        rows.items(), key=lambda item: -(item[1][MODEL]["n"] + item[1][MODEL]["n_pairs"])
    )
    return [{"rater_id": name, **row} for name, row in by_labels[:MOST_RATERS]]


def _curves(folder: Path, report: Report) -> Iterator[tuple[str, str]]:
    """Titles and SVG pictures."""
    points = report["learning_curve"]
    for figure, title in (("roc_auc", "ROC-AUC"), ("pairwise_accuracy", "ranked pairs right")):
        if any(point[part][figure] is not None for point in points for part in PARTS):
            yield (
                f"Would more labels help? {title}",
                svg_uri(learning_chart(points, LEGENDS, figure, title)),
            )
    lines = read_metrics(folder)
    values = {"val_loss": "validation", "binary_loss": "training, verdicts"}
    yield (
        "Training: loss",
        svg_uri(training_chart(lines, values, color=COLORS["dpok"], ylabel="loss")),
    )


def _sheets(examples: Examples, pictures: ScoredPictures) -> Iterator[dict[str, Any]]:
    """For each prompt, unseen ones first, the pictures with the highest and lowest score and those that the members differ on most."""
    unseen = examples.split.test_unseen
    held_out = set(np.concatenate([unseen.verdicts.prompt, unseen.pairs.prompt]).tolist())
    prompts = sorted(np.unique(pictures.prompt).tolist(), key=lambda prompt: prompt not in held_out)
    for prompt in prompts[:MOST_PROMPTS]:
        rows = np.flatnonzero(pictures.prompt == prompt)
        by_score, by_std = (
            rows[np.argsort(-values[rows], kind="stable")]
            for values in (pictures.probability, pictures.std)
        )
        chosen = {
            "best": by_score[:SHOWN],
            "most uncertain": by_std[:SHOWN],
            "worst": by_score[::-1][:SHOWN],
        }
        yield {
            "prompt": examples.dataset.prompts[prompt],
            "held_out": prompt in held_out,
            "n": len(rows),
            "columns": [
                (title, _pictures(examples, pictures, some)) for title, some in chosen.items()
            ],
        }


def _pictures(
    examples: Examples, pictures: ScoredPictures, rows: Indices
) -> Sequence[dict[str, Any]]:
    return [
        {
            "uri": picture_uri(examples.dataset.paths[pictures.image[row]]),
            "score": pictures.probability[row],
            "std": pictures.std[row],
            "good": None if np.isnan(pictures.good[row]) else float(pictures.good[row]),
        }
        for row in rows
    ]
