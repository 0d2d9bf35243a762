"""Scores of images for prompts by a reward; each distinct image and prompt is encoded once."""

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from tqdm import tqdm

from data.errors import PictuneError
from finetune.model.processes import Processes
from pipelines.reward.score_request import SCORES, Request
from pipelines.reward.sharing import encode_in_shares
from reward.clip.cache import EmbeddingCache
from reward.embedding import ENCODE_BATCH, embed_prompts, embed_readable
from reward.model import RewardModel

ROWS = 65_536
"""Number of pairs scored at a time."""


def embed(
    model: RewardModel,
    folder: Path,
    image_ids: dict[str, str],
    cache: EmbeddingCache,
    processes: Processes,
) -> tuple[torch.Tensor, dict[str, int]] | None:
    """Encode files of these paths and hashes; return features and the row of each image id.

    Files with the same bytes are encoded once, and a file that is no image is reported. Each
    process encodes a share; only the first process returns a result.
    """

    def skip(error: PictuneError) -> None:
        tqdm.write(f"skipped: {error}", file=sys.stderr)

    first = {image_id: path for path, image_id in reversed(image_ids.items())}
    encode = partial(
        embed_readable,
        [folder / path for path in first.values()],
        model.backbone,
        batch_size=ENCODE_BATCH,
        cache=cache,
    )
    track = encode_in_shares(lambda own: encode(skipped=_ignore, track=own), processes)
    if not processes.is_first:
        return None
    features, rows = encode(skipped=skip, track=track)
    distinct = list(first)
    return features, {distinct[i]: number for number, i in enumerate(rows)}


def _ignore(error: PictuneError) -> None:
    """Do nothing: the first process reports unreadable images at the end."""


@torch.no_grad()
def scores(
    model: RewardModel,
    request: Request,
    rows: Sequence[int],
    features: torch.Tensor,
    *,
    image_ids: dict[str, str],
    cache: EmbeddingCache,
) -> Iterator[pa.Table]:
    """Yield the scores of all pairs, in tables of `SCORES`.

    `rows` has the row in `features` of each path, -1 for an image that cannot be read.
    """
    texts = embed_prompts(request.prompts, model.backbone, cache=cache)
    at = np.array(rows)
    readable = np.flatnonzero(at[request.path] >= 0)
    for start in range(0, len(readable), ROWS):
        chosen = readable[start : start + ROWS]
        path, prompt = request.path[chosen], request.prompt[chosen]
        score, std = model.score_features_with_std(
            image_features=features[torch.from_numpy(at[path])],
            text_embeddings=texts[torch.from_numpy(prompt)],
        )
        paths = [request.paths[i] for i in path]
        columns = {
            "image_id": [image_ids[one] for one in paths],
            "path": paths,
            "prompt": [request.prompts[i] for i in prompt],
        }
        yield pa.table(
            columns | {"score": score.cpu().numpy(), "std": std.cpu().numpy()}, schema=SCORES
        )
