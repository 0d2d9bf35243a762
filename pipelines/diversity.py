"""Diverse images: those that `label.order = "diverse"` asks about first.

An image and its prompt are one vector, their CLIP embeddings joined. The images to label next are
those that greedily raise log det(V V^T + 0.05 I) most, V the vectors of all that are chosen: the
greedy mode of a determinantal point process (Kulesza & Taskar 2012, arXiv 1207.6083), the criterion
of D-optimal designs. Images that have labels count as chosen. `benchmarks/label_order.py` measures
what it brings.
"""

import sys
from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from data.runs import RunFolder
from data.schema import IMAGES, read_table
from pipelines.config import Settings, check
from pipelines.models import embedding_bar, open_backbone, open_cache
from reward.embedding import embed_images, embed_prompts
from reward.training import RewardConfig

Vectors = NDArray[np.float64]

RIDGE = 0.05
"""Added to the diagonal, so that more vectors than dimensions may be chosen."""
MOST = 1000
"""Images that are put in order at a start; the others come after them, by chance."""


def diverse_first(run: RunFolder, settings: Settings, labeled: Collection[str]) -> dict[str, float]:
    """Return priorities, above 0 and at most 1, by image id: the image to label first has 1.

    They are of at most `MOST` images that are not in `labeled`. The order of 10,000 images takes a
    core 1 s with the embedded CLIP and 15 s with embeddings of 768 (ViT-L/14), beside the encoding
    of those that no run has encoded yet.

    Raises:
        PictuneError: the settings of the reward are wrong, or its CLIP or an image cannot be read.
    """
    checked = check(settings.tables, ("reward",), 'label.order = "diverse"')
    config = checked.table("reward", RewardConfig)
    table = read_table(run.images_table, IMAGES).select(["image_id", "path", "prompt"])
    rows = list({row["image_id"]: row for row in table.to_pylist()}.values())
    known = [i for i, row in enumerate(rows) if row["image_id"] in labeled]
    if len(known) == len(rows):
        return {}
    disable_progress_bar()
    backbone, cache = open_backbone(config.backbone, settings.run), open_cache(run)
    images = embed_images(
        [run.root / row["path"] for row in rows],
        backbone,
        batch_size=config.encode_batch,
        track=embedding_bar,
        cache=cache,
    )
    texts = embed_prompts([row["prompt"] for row in rows], backbone, cache=cache)
    if cache.failure:
        print(f"label: {cache.failure}", file=sys.stderr)
    order = greedy_log_determinant(joint_vectors(images, texts), MOST, chosen=known)
    return {rows[i]["image_id"]: 1 - place / len(order) for place, i in enumerate(order)}


def joint_vectors(image_features: Tensor, text_embeddings: Tensor) -> Vectors:
    """Return each image's embedding joined with its prompt's, [N, 2 D] of unit length.

    The arguments are what a backbone makes of images, [N, F], and of their prompts, [N, D].
    """
    images = image_features[:, : text_embeddings.shape[1]]
    joint = torch.cat([images, text_embeddings], 1).cpu().double().numpy()
    unit: Vectors = joint / np.linalg.norm(joint, axis=1, keepdims=True)
    return unit


def greedy_log_determinant(
    vectors: Vectors, count: int, *, chosen: Sequence[int] = ()
) -> list[int]:
    """Return `count` further rows of [N, D], or all, that greedily raise the log-determinant most.

    It is that of V V^T + `RIDGE` I, where V has the rows that are chosen. A further row v adds
    log(1 + v^T A v) + log `RIDGE`, with A the inverse [D, D] of V^T V + `RIDGE` I.
    """
    known = vectors[list(chosen)]
    inverse = np.linalg.inv(known.T @ known + RIDGE * np.eye(vectors.shape[1]))
    gains = ((vectors @ inverse) * vectors).sum(1)
    gains[list(chosen)] = -np.inf
    found: list[int] = []
    for _ in range(min(count, len(vectors) - len(set(chosen)))):
        best = int(np.argmax(gains))
        found.append(best)
        step = inverse @ vectors[best] / np.sqrt(1 + gains[best])
        inverse -= np.outer(step, step)  # Sherman and Morrison
        gains -= np.square(vectors @ step)
        gains[best] = -np.inf
    return found
