"""Encoding of image files and prompts, each distinct one once, or not at all if it is cached."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data import image_files
from data.errors import PictuneError
from data.files import sha256_of
from reward.clip.backbone import TEXT_BATCH, ClipBackbone
from reward.clip.cache import EmbeddingCache

_logger = logging.getLogger(__name__)

ENCODE_BATCH = 64
"""Images per call of the backbone."""

Track = Callable[[range], Iterable[int]]
"""Wraps the loop over batches to show its progress; `iter` shows nothing. If it skips batches, only
the rest is computed and cached, and the rows of skipped batches are invalid."""
_ADVICE = "put the file back or remove its labels"


def read_image(path: Path) -> Tensor:
    """Return the image of a file as [3, H, W] in [0, 1].

    Raises:
        PictuneError: the file is missing, truncated or no image, or has too many pixels.
    """
    pixels = np.array(image_files.read_image(path, _ADVICE).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div(255)


def file_digests(paths: Sequence[Path]) -> list[bytes]:
    """Return the SHA-256 of each file's bytes.

    Raises:
        PictuneError: a file cannot be read.
    """
    digests = []
    for path in paths:
        try:
            digests.append(bytes.fromhex(sha256_of(path)))
        except OSError as error:
            raise PictuneError(f"{path}: cannot be read as an image; {_ADVICE}") from error
    return digests


def embed_images(
    paths: Sequence[Path],
    backbone: ClipBackbone,
    *,
    batch_size: int,
    track: Track = iter,
    cache: EmbeddingCache | None = None,
    digests: Sequence[bytes] | None = None,
) -> Tensor:
    """Return the features of each image file, [len(paths), F].

    The images may differ in size. Files with the same bytes are encoded once; files in `cache` are
    not encoded. `digests` are the SHA-256 hashes of the files, if the caller has them.

    Raises:
        PictuneError: an image cannot be read, or its embedding is not finite.
    """

    def encode(rows: Sequence[int]) -> Tensor:
        some = [paths[i] for i in rows]
        return _check_finite(backbone.encode_pixels(_pixels(some, backbone)), some, backbone)

    return _encode_once(
        file_digests(paths) if digests is None else digests,
        encode,
        space=backbone.image_space,
        length=backbone.feature_dim,
        backbone=backbone,
        cache=cache,
        batch_size=batch_size,
        track=track,
    )


def embed_patches(
    paths: Sequence[Path],
    backbone: ClipBackbone,
    *,
    digests: Sequence[bytes],
    cache: EmbeddingCache | None = None,
) -> Tensor:
    """Return the patch tokens of each image file, [len(paths), P, W].

    Files in `cache` are not encoded; `digests` are their SHA-256 hashes. One image takes 4 P W
    bytes, so hand over a batch at a time.

    Raises:
        PictuneError: an image cannot be read, or a token is not finite.
    """

    def encode(rows: Sequence[int]) -> Tensor:
        some = [paths[i] for i in rows]
        tokens = backbone.patch_tokens(_pixels(some, backbone)).flatten(1)
        return _check_finite(tokens, some, backbone)

    patches, width = backbone.patch_shape
    found = _encode_once(
        digests,
        encode,
        space=backbone.patch_space,
        length=patches * width,
        backbone=backbone,
        cache=cache,
        batch_size=ENCODE_BATCH,
    )
    return found.view(len(paths), patches, width)


def embed_readable(
    paths: Sequence[Path],
    backbone: ClipBackbone,
    *,
    batch_size: int,
    skipped: Callable[[PictuneError], None],
    track: Track = iter,
    cache: EmbeddingCache | None = None,
) -> tuple[Tensor, list[int]]:
    """Return the features [N, F] of the images that can be read, and their indices in `paths`.

    `skipped` is called with the error of each of the other images.
    """
    found, rows = [torch.empty(0, backbone.feature_dim, device=backbone.device)], list[int]()
    for start in track(range(0, len(paths), batch_size)):
        some = range(start, min(start + batch_size, len(paths)))
        batch = [paths[i] for i in some]
        try:
            found.append(embed_images(batch, backbone, batch_size=batch_size, cache=cache))
            rows += some
        except PictuneError:  # at least one image of the batch is broken: try each alone
            for i in some:
                try:
                    found.append(embed_images([paths[i]], backbone, batch_size=1, cache=cache))
                    rows.append(i)
                except PictuneError as error:
                    skipped(error)
    return torch.cat(found), rows


def embed_prompts(
    prompts: Sequence[str], backbone: ClipBackbone, *, cache: EmbeddingCache | None = None
) -> Tensor:
    """Return the embedding of each prompt, [len(prompts), D] of unit length.

    Each distinct prompt is encoded once; prompts in `cache` are not encoded. Prompts that are too
    long for the backbone are reported in the log.

    Raises:
        PictuneError: an embedding is not finite.
    """

    def encode(rows: Sequence[int]) -> Tensor:
        some = [prompts[i] for i in rows]
        names = [repr(prompt) for prompt in some]
        return _check_finite(backbone.text_embedding(some), names, backbone)

    if prompts and (truncated := backbone.count_truncated(prompts)):
        _logger.warning(
            "%s: %s are longer than its text tower reads, so their end is ignored; shorten them",
            backbone.name,
            f"{truncated / len(prompts):.0%} of the prompts",
        )
    return _encode_once(
        [hashlib.sha256(prompt.encode()).digest() for prompt in prompts],
        encode,
        space=backbone.text_space,
        length=backbone.dim,
        backbone=backbone,
        cache=cache,
        batch_size=TEXT_BATCH,
    )


def _encode_once(
    keys: Sequence[bytes],
    encode: Callable[[Sequence[int]], Tensor],
    *,
    space: str,
    length: int,
    backbone: ClipBackbone,
    cache: EmbeddingCache | None,
    batch_size: int,
    track: Track = iter,
) -> Tensor:
    """Return the embeddings [len(keys), length] on the backbone's device.

    `encode` is called with one row for each distinct key whose embedding is not in `cache`.
    """
    distinct = list(dict.fromkeys(keys))
    position = {key: i for i, key in enumerate(distinct)}
    row = {position[key]: i for i, key in reversed(list(enumerate(keys)))}
    vectors = np.zeros((len(distinct), length), np.float32)
    known = np.zeros(len(distinct), np.bool_)
    if cache:
        vectors, known = cache.read(space, distinct, length)
    missing = np.flatnonzero(~known).tolist()
    for start in track(range(0, len(missing), batch_size)):
        some = missing[start : start + batch_size]
        with torch.inference_mode():
            vectors[some] = encode([row[i] for i in some]).cpu().numpy()
        if cache:
            cache.append(space, [distinct[i] for i in some], vectors[some])
    embeddings = torch.from_numpy(vectors).to(backbone.device)
    if len(distinct) == len(keys):
        return embeddings  # without a copy, which may be large
    return embeddings[[position[key] for key in keys]]


def _pixels(paths: Sequence[Path], backbone: ClipBackbone) -> Tensor:
    """Return the images as the backbone's input, [len(paths), 3, S, S]."""
    images = (read_image(path)[None].to(backbone.device) for path in paths)
    return torch.cat([backbone.preprocess(image) for image in images])


def _check_finite(embeddings: Tensor, names: Sequence[object], backbone: ClipBackbone) -> Tensor:
    broken = (~embeddings.isfinite().all(-1)).nonzero().flatten().tolist()
    if broken:
        raise PictuneError(
            f"{names[broken[0]]}: {backbone.name} gives no finite embedding of it "
            f"({len(broken)} in all); check the weights"
        )
    return embeddings
