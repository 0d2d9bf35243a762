"""Agreement of raters on marks: who marks an image, where, and how far maps of marks are alike.

Raters of the same image are compared two by two, or one with all others. People agree little on
edges: in SDG-30K (2026, arXiv 2606.06113) a second person's boxes have an F1 of .28 to .41 at an
IoU of .5. So presence comes first, and no single rater's box is the truth.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from data.regions import Box, Mark, box_of, map_of, mask_of

IOUS = (0.1, 0.5)
"""Least intersection over union of two boxes that are taken for the same one."""

MAP_SIZE = 64
"""Pixels of the longer side of the maps that are compared."""

ANY = "any"
"""Stands for the marks of all aspects together."""

Looks = Mapping[str, Mapping[str, Sequence[Mark]]]
"""The marks of each rater on each image, by image id and rater id; empty if nothing was found."""


def region_agreement(
    marks: Iterable[Mapping[str, Any]],
    repeats: Container[str],
    sizes: Mapping[str, tuple[int, int]],
) -> dict[str, Any] | None:
    """Compute how far raters agree on marks.

    Args:
        marks: rows of `data.regions.LABELS_REGIONS`.
        repeats: ids of tasks that ask again; they are left out.
        sizes: height and width of each image by its id; marks on other images are left out.

    Returns:
        None without marks; else `source`, whose marks are compared (people before other raters),
        `n_images`, the images on which two raters or more looked, and `aspects`: the figures of
        `figures_of`, with the name as `aspect`, for all aspects together and for each.
    """
    rows = [
        row
        for row in marks
        if row["task_id"] not in repeats
        and row["image_id"] in sizes
        and row["source"] != "adjudicator"
    ]
    if not rows:
        return None
    source = min(row["source"] for row in rows)
    looks = looks_of(row for row in rows if row["source"] == source)
    shared = {image_id: raters for image_id, raters in looks.items() if len(raters) > 1}
    given = (own for raters in shared.values() for own in raters.values())
    aspects = (ANY, *sorted({mark.aspect for own in given for mark in own}))
    figures = [{"aspect": name} | figures_of(about(shared, name), sizes) for name in aspects]
    return {"source": source, "n_images": len(shared), "aspects": figures}


def looks_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, list[Mark]]]:
    """Return the marks of rows of LABELS_REGIONS by image id and rater id."""
    looks: dict[str, dict[str, list[Mark]]] = {}
    for row in rows:
        own = looks.setdefault(row["image_id"], {}).setdefault(row["rater_id"], [])
        if row["kind"] != "none":
            # not checked: rounding to float32 may have made a thin box empty
            known = {name: row[name] for name in Mark.model_fields if row[name] is not None}
            own.append(Mark.model_construct(**known))
    return looks


def figures_of(looks: Looks, sizes: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """Compute the agreement of two raters or more on each image.

    Args:
        looks: the marks.
        sizes: height and width of each image.

    Returns:
        `n_pairs`, pairs of raters of an image; `presence_f1` and `kappa`, see there; `box_f1`, a
        list with the F1 at each of `IOUS`; `map_cc`, the mean correlation of a rater's map with
        that of all others, the ceiling of any predictor of maps, over `n_maps` raters of images
        that somebody marked. A figure is None where it is not defined.
    """
    seen, boxes, correlations = [], [], []
    for image_id, raters in looks.items():
        height, width = sizes[image_id]
        for one, other in combinations(sorted(raters), 2):
            seen.append((one, other, bool(raters[one]), bool(raters[other])))
            boxes.append([[box_of(m, height, width) for m in raters[r]] for r in (one, other)])
        if any(raters.values()):
            correlations += map_correlations(list(raters.values()), height / width)
    return {
        "n_pairs": len(seen),
        "presence_f1": presence_f1((a, b) for _, _, a, b in seen),
        "kappa": cohens_kappa(seen),
        "box_f1": [box_f1(boxes, least) for least in IOUS],
        "map_cc": float(np.mean(correlations)) if correlations else None,
        "n_maps": len(correlations),
    }


def presence_f1(pairs: Iterable[tuple[bool, bool]]) -> float | None:
    """Return the F1 of one rater's marking an image at all, the other rater's taken for right.

    It is 2 * both / (2 * both + one alone), the same whoever is right (Dice 1945).
    """
    given = [a + b for a, b in pairs]
    return 2 * given.count(2) / sum(given) if sum(given) else None


def cohens_kappa(seen: Sequence[tuple[str, str, bool, bool]]) -> float | None:
    """Return Cohen's kappa (1960) of marking an image at all, the mean over pairs of raters.

    A pair's kappa is (p - e) / (1 - e), where p is the share of their images on which both mark or
    neither does, and e the share that their own rates of marking give by chance. Pairs count by
    their number of images; a pair of which nobody, or everybody, marks each image has no kappa.
    """
    table = pd.DataFrame(seen, columns=["one", "other", "a", "b"]).astype({"a": int, "b": int})
    table["equal"] = (table["a"] == table["b"]).astype(int)
    by_pair = table.groupby(["one", "other"])[["a", "b", "equal"]]
    n, (a, b, equal) = by_pair.size(), by_pair.mean().to_numpy().T
    chance = a * b + (1 - a) * (1 - b)
    known = chance < 1
    if not known.any():
        return None
    kappas = (equal[known] - chance[known]) / (1 - chance[known])
    return float(np.average(kappas, weights=n[known]))


def box_f1(pairs: Iterable[Sequence[Sequence[Box]]], least: float) -> float | None:
    """Return 2 * matches / boxes of both, over all pairs of raters' boxes on an image.

    The boxes with the largest intersection over union are matched first, each box once, down to
    the overlap `least`.
    """
    n_matches = n_boxes = 0
    for ours, theirs in pairs:
        n_boxes += len(ours) + len(theirs)
        overlaps = {(i, j): iou(a, b) for i, a in enumerate(ours) for j, b in enumerate(theirs)}
        while overlaps and overlaps[best := max(overlaps, key=overlaps.__getitem__)] >= least:
            n_matches += 1
            overlaps = {
                pair: value
                for pair, value in overlaps.items()
                if pair[0] != best[0] and pair[1] != best[1]
            }
    return 2 * n_matches / n_boxes if n_boxes else None


def iou(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes (x0, y0, x1, y1)."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0) * max(height, 0)
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return both / max(sum(areas) - both, 1e-12)


def map_correlations(looks: Sequence[Sequence[Mark]], ratio: float) -> list[float]:
    """Return the correlation of each rater's map with that of all others (leave one rater out).

    It is Pearson's over pixels (CC of RichHF-18K, arXiv 2312.10240), and 0 where either map is
    empty. A rater is left out where either map is the same everywhere, as after marks on the whole
    image: then there is no correlation.

    Args:
        looks: the marks of each rater of an image.
        ratio: its height over its width.
    """
    longer = max(ratio, 1)
    height, width = (max(round(MAP_SIZE * side / longer), 1) for side in (ratio, 1))
    masks = [mask_of(own, height, width) for own in looks]
    correlations = []
    for number, mask in enumerate(masks):
        others = map_of(masks[:number] + masks[number + 1 :])
        if not (mask.any() and others.any()):
            correlations.append(0.0)
        elif not mask.all() and others.min() < others.max():
            correlations.append(float(np.corrcoef(mask.flat, others.flat)[0, 1]))
    return correlations


def about(looks: Looks, aspect: str) -> Looks:
    """Return the looks with the marks of an aspect alone."""
    return {
        image_id: {
            rater: [mark for mark in own if aspect in (ANY, mark.aspect)]
            for rater, own in raters.items()
        }
        for image_id, raters in looks.items()
    }
