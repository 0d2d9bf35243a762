"""Scores of images for prompts by a reward; each distinct image and prompt is encoded once."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
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
"""Images and prompts scored at a time."""


@dataclass(frozen=True, eq=False)
class KnownImages:
    """The images that can be read."""

    image_ids: dict[str, str]
    """Image id by path."""
    row: dict[str, int]
    """Row in `embeddings` of each image id."""
    embeddings: torch.Tensor


def embed(
    model: RewardModel,
    folder: Path,
    image_ids: dict[str, str],
    cache: EmbeddingCache,
    processes: Processes,
) -> KnownImages | None:
    """Encode files of these paths and hashes; write a line for each that is no image.

    Those with the same bytes are encoded once. Of several processes each encodes a share, and all
    but the first return None.
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
    embeddings, rows = encode(skipped=skip, track=track)
    distinct = list(first)
    row = {distinct[i]: number for number, i in enumerate(rows)}
    return KnownImages(
        {path: image_id for path, image_id in image_ids.items() if image_id in row}, row, embeddings
    )


def _ignore(error: PictuneError) -> None:
    """Do nothing: the first process says in the end which images cannot be read."""


@torch.no_grad()
def scores(
    model: RewardModel, request: Request, known: KnownImages, cache: EmbeddingCache
) -> Iterator[pa.Table]:
    """Yield the scores of all pairs whose image is known, in tables of `SCORES`."""
    texts = embed_prompts(request.prompts, model.backbone, cache=cache)
    # the row of each path's embedding, -1 for an image that cannot be read
    at = np.array([known.row.get(known.image_ids.get(path, ""), -1) for path in request.paths])
    readable = np.flatnonzero(at[request.path] >= 0)
    for start in range(0, len(readable), ROWS):
        chosen = readable[start : start + ROWS]
        path, prompt = request.path[chosen], request.prompt[chosen]
        score, std = model.score_features_with_std(
            image_features=known.embeddings[torch.from_numpy(at[path])],
            text_embeddings=texts[torch.from_numpy(prompt)],
        )
        paths = [request.paths[i] for i in path]
        columns = {
            "image_id": [known.image_ids[one] for one in paths],
            "path": paths,
            "prompt": [request.prompts[i] for i in prompt],
        }
        yield pa.table(
            columns | {"score": score.cpu().numpy(), "std": std.cpu().numpy()}, schema=SCORES
        )
