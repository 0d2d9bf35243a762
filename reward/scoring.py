"""The embeddings of many picture files, some of which cannot be read."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from data.errors import PictuneError
from reward.backbone import ClipBackbone
from reward.cache import EmbeddingCache
from reward.examples import Track, embed_images


def embed_readable(
    paths: Sequence[Path],
    backbone: ClipBackbone,
    *,
    batch_size: int,
    skipped: Callable[[PictuneError], None],
    track: Track = iter,
    cache: EmbeddingCache | None = None,
) -> tuple[Tensor, list[int]]:
    """The embeddings [N, D] of the pictures that can be read, and which of `paths` they are; `skipped` hears of each of the others."""
    found, rows = [torch.empty(0, backbone.dim, device=backbone.device)], list[int]()
    for start in track(range(0, len(paths), batch_size)):
        some = range(start, min(start + batch_size, len(paths)))
        try:
            found.append(
                embed_images([paths[i] for i in some], backbone, batch_size=batch_size, cache=cache)
            )
            rows += some
        except PictuneError:  # one of them at least: look at each alone
            for i in some:
                try:
                    found.append(embed_images([paths[i]], backbone, batch_size=1, cache=cache))
                    rows.append(i)
                except PictuneError as error:
                    skipped(error)
    return torch.cat(found), rows
