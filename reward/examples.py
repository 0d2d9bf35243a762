"""What training and evaluation work on: the split labels, and the embeddings of every picture and prompt, computed once."""

import hashlib
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import BaseModel, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor

from data.errors import PictuneError
from data.files import sha256_of
from data.image_files import open_image
from reward.backbone import TEXT_BATCH, ClipBackbone
from reward.cache import EmbeddingCache
from reward.contrastive import negatives, vocabulary
from reward.dataset import FeedbackDataset
from reward.split import Split, SplitConfig, normalised, split_feedback

_logger = logging.getLogger(__name__)

TUNED_BATCH = 256
"""Pictures that go through the trained blocks at a time."""

Track = Callable[[range], Iterable[int]]
"""Wraps the loop over batches, to show its progress; `iter` shows nothing."""


class ExamplesConfig(BaseModel, frozen=True, extra="forbid"):
    """What the labels are turned into."""

    backbone: str = "models/emoji-clip"
    """Folder or hub name of a CLIP or SigLIP model of transformers."""
    negatives: NonNegativeInt = 9
    """Wrong prompts for each prompt, the paper's N - 1."""
    vocabulary_prompts: tuple[str, ...] = ()
    """Prompts whose words are swapped in beside those of the labelled prompts."""
    encode_batch: PositiveInt = 64
    """Pictures that the backbone encodes at a time."""
    tune_last: NonNegativeInt = 0
    """Blocks at the end of the backbone's vision tower that are trained with the head; 0 leaves the backbone as it is.

    What enters these blocks is kept in memory for every picture: 33 KB for the embedded CLIP, 1 MB for CLIP ViT-L/14.
    """
    lora_rank: NonNegativeInt = 0
    """Rank of the updates to the linear layers of these blocks that are trained in the place of all their weights; 0 trains the weights."""
    split: SplitConfig = SplitConfig()
    """What is held out."""
    seed: int = 0
    """Of the head's start, the order of the labels and the choice of wrong prompts."""

    @model_validator(mode="after")
    def _updates_have_blocks(self) -> Self:
        if self.lora_rank and not self.tune_last:
            raise ValueError(
                "lora_rank updates the blocks that tune_last counts; set tune_last to 1 or more"
            )
        return self


@dataclass(frozen=True, eq=False)
class Examples:
    """A dataset as the head sees it; tensors are on the backbone's device."""

    dataset: FeedbackDataset
    split: Split
    image_embeddings: Tensor
    """[images, D] of unit length, in the order of `dataset.image_ids`."""
    text_embeddings: Tensor
    """[prompts + wrong prompts, D] of unit length, `dataset.prompts` first."""
    wrong: Tensor
    """[prompts, N - 1] rows of `text_embeddings` that hold each prompt's wrong versions; -1 where it has fewer."""
    image_tokens: Tensor | None = None
    """[images, T, W] as they enter the blocks that are trained; None where none is."""

    def images_seen_by(self, backbone: ClipBackbone, rows: Tensor) -> Tensor:
        """`image_embeddings`, with those of `rows` as `backbone` gives them now; each distinct picture is encoded once.

        Without trained blocks it is `image_embeddings` itself.
        """
        if not backbone.tuned_blocks or not len(rows):
            return self.image_embeddings
        assert self.image_tokens is not None, "prepare() was called without tune_last"
        rows = rows.to(self.image_tokens.device).unique()
        batches = [
            backbone.embed_tokens(self.image_tokens[some], last=backbone.tuned_blocks)
            for some in rows.split(TUNED_BATCH)
        ]
        return self.image_embeddings.index_copy(0, rows, torch.cat(batches))


def prepare(
    dataset: FeedbackDataset,
    config: ExamplesConfig,
    backbone: ClipBackbone,
    *,
    track: Track = iter,
    cache: EmbeddingCache | None = None,
) -> Examples:
    """Splits the labels, makes wrong prompts, and encodes every picture and prompt once; `track` wraps the loop over picture batches.

    Pictures and prompts that are in `cache` are not encoded; the tokens that `tune_last` needs are too large for it.

    Raises:
        PictuneError: a picture cannot be read or is not the one that was labelled, or the backbone gives embeddings that are not finite.
    """
    split = split_feedback(dataset, config.split)
    taught = np.union1d(split.train.verdicts.prompt, split.train.pairs.prompt).tolist()
    held_out = {normalised(prompt) for i, prompt in enumerate(dataset.prompts) if i not in taught}
    words = vocabulary([*dataset.prompts, *config.vocabulary_prompts])
    rng = random.Random(config.seed)
    wrong_texts = [
        negatives(prompt, words, config.negatives, rng, leave_out=held_out)
        for prompt in dataset.prompts
    ]
    row = {
        text: len(dataset.prompts) + i
        for i, text in enumerate(dict.fromkeys(text for texts in wrong_texts for text in texts))
    }
    wrong = torch.full((len(dataset.prompts), config.negatives), -1)
    for prompt, texts in enumerate(wrong_texts):
        wrong[prompt, : len(texts)] = torch.tensor([row[text] for text in texts], dtype=torch.long)
    paths, batch_size = dataset.paths, config.encode_batch
    keys = _keys_of(paths)
    _check_unchanged(dataset, keys)
    if config.tune_last:
        tokens = image_tokens(
            paths, backbone, last=config.tune_last, batch_size=batch_size, track=track
        )
        images = embed_tokens(tokens, paths, backbone, last=config.tune_last)
    else:
        tokens, images = (
            None,
            embed_images(
                paths, backbone, batch_size=batch_size, track=track, cache=cache, keys=keys
            ),
        )
    return Examples(
        dataset=dataset,
        split=split,
        image_embeddings=images,
        text_embeddings=embed_prompts([*dataset.prompts, *row], backbone, cache=cache),
        wrong=wrong.to(backbone.device),
        image_tokens=tokens,
    )


def read_image(path: Path) -> Tensor:
    """A picture file as [3, H, W] in [0, 1].

    Raises:
        PictuneError: the file is missing, truncated or no picture, or has too many pixels.
    """
    try:
        with open_image(path) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise _unreadable(path, error) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div(255)


def embed_images(
    paths: Sequence[Path],
    backbone: ClipBackbone,
    *,
    batch_size: int,
    track: Track = iter,
    cache: EmbeddingCache | None = None,
    keys: Sequence[bytes] | None = None,
) -> Tensor:
    """The embedding of each picture, [len(paths), D] of unit length; the pictures may differ in size.

    Files with the same bytes are encoded once, and those in `cache` not at all. `keys` are the SHA-256 of the files, where they are known.

    Raises:
        PictuneError: a picture cannot be read, or its embedding is not finite.
    """

    def encode(rows: Sequence[int]) -> Tensor:
        some = [paths[i] for i in rows]
        return _finite(backbone.encode_pixels(_pixels(some, backbone)), some, backbone)

    keys = _keys_of(paths) if keys is None else keys
    space = backbone.image_space
    return _encode_once(
        keys,
        encode,
        space=space,
        backbone=backbone,
        cache=cache,
        batch_size=batch_size,
        track=track,
    )


def embed_prompts(
    prompts: Sequence[str], backbone: ClipBackbone, *, cache: EmbeddingCache | None = None
) -> Tensor:
    """The embedding of each prompt, [len(prompts), D] of unit length; each distinct one is encoded once, and those in `cache` not at all.

    Says so where some are longer than the backbone reads.

    Raises:
        PictuneError: an embedding is not finite.
    """

    def encode(rows: Sequence[int]) -> Tensor:
        return _finite(
            backbone.text_embedding([prompts[i] for i in rows]),
            [repr(prompts[i]) for i in rows],
            backbone,
        )

    if prompts and (cut := backbone.cut(prompts)):
        share = f"{cut / len(prompts):.0%} of the prompts"
        _logger.warning(
            "%s: %s are longer than its text tower reads, so their end is left out; shorten them",
            backbone.name,
            share,
        )
    keys = [hashlib.sha256(prompt.encode()).digest() for prompt in prompts]
    return _encode_once(
        keys,
        encode,
        space=backbone.text_space,
        backbone=backbone,
        cache=cache,
        batch_size=TEXT_BATCH,
    )


def image_tokens(
    paths: Sequence[Path],
    backbone: ClipBackbone,
    *,
    last: int,
    batch_size: int,
    track: Track = iter,
) -> Tensor:
    """[len(paths), T, W] as they enter the last blocks of the backbone's vision tower.

    Raises:
        PictuneError: a picture cannot be read.
    """
    batches = []
    for start in track(range(0, len(paths), batch_size)):
        with torch.inference_mode():
            batches.append(
                backbone.image_tokens(
                    _pixels(paths[start : start + batch_size], backbone), last=last
                )
            )
    return torch.cat(
        batches
    )  # joined outside of inference mode, so that autograd may keep the result


@torch.no_grad()
def embed_tokens(
    tokens: Tensor, paths: Sequence[Path], backbone: ClipBackbone, *, last: int
) -> Tensor:
    """The embedding of each picture, [len(paths), D] of unit length, from its tokens [len(paths), T, W].

    Raises:
        PictuneError: an embedding is not finite.
    """
    batches = [backbone.embed_tokens(some, last=last) for some in tokens.split(TUNED_BATCH)]
    return _finite(torch.cat(batches), paths, backbone)


def _encode_once(
    keys: Sequence[bytes],
    encode: Callable[[Sequence[int]], Tensor],
    *,
    space: str,
    backbone: ClipBackbone,
    cache: EmbeddingCache | None,
    batch_size: int,
    track: Track = iter,
) -> Tensor:
    """[len(keys), D] on the backbone's device; `encode` is asked for the rows, one a key, whose embedding is not in `cache`."""
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    distinct = list(dict.fromkeys(keys))
    nothing = np.zeros((len(distinct), backbone.dim), np.float32), np.zeros(len(distinct), np.bool_)
    vectors, known = cache.read(space, distinct, backbone.dim) if cache else nothing
    missing = np.flatnonzero(~known).tolist()
    for start in track(range(0, len(missing), batch_size)):
        some = missing[start : start + batch_size]
        with torch.inference_mode():
            vectors[some] = encode([first[distinct[i]] for i in some]).cpu().numpy()
        if cache:
            cache.append(space, [distinct[i] for i in some], vectors[some])
    embeddings = torch.from_numpy(vectors).to(backbone.device)
    place = {key: i for i, key in enumerate(distinct)}
    return embeddings if len(distinct) == len(keys) else embeddings[[place[key] for key in keys]]


def _pixels(paths: Sequence[Path], backbone: ClipBackbone) -> Tensor:
    """The pictures as the backbone's input, [len(paths), 3, S, S]."""
    return torch.cat(
        [backbone.preprocess(read_image(path)[None].to(backbone.device)) for path in paths]
    )


def _finite(embeddings: Tensor, names: Sequence[object], backbone: ClipBackbone) -> Tensor:
    broken = (~embeddings.isfinite().all(-1)).nonzero().flatten().tolist()
    if broken:
        raise PictuneError(
            f"{names[broken[0]]}: {backbone.name} gives no finite embedding of it ({len(broken)} in all); check the weights"
        )
    return embeddings


def _keys_of(paths: Sequence[Path]) -> list[bytes]:
    """The SHA-256 of each file's bytes."""
    keys = []
    for path in paths:
        try:
            keys.append(bytes.fromhex(sha256_of(path)))
        except OSError as error:
            raise _unreadable(path, error) from error
    return keys


def _check_unchanged(dataset: FeedbackDataset, keys: Sequence[bytes]) -> None:
    changed = [
        path
        for path, image_id, key in zip(dataset.paths, dataset.image_ids, keys, strict=True)
        if key.hex() != image_id
    ]
    if changed:
        raise PictuneError(
            f"{changed[0]}: not the picture that was labelled ({len(changed)} in all); put the file back or remove its labels"
        )


def _unreadable(path: Path, error: Exception) -> PictuneError:
    return PictuneError(
        f"{path}: not a readable picture ({error}); put the file back or remove its labels"
    )
