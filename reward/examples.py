"""What training and evaluation work on: the split labels, and the embeddings of every picture and prompt, computed once."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, NonNegativeInt, PositiveInt
from torch import Tensor

from data.errors import PictuneError
from reward.backbone import ClipBackbone
from reward.contrastive import negatives, vocabulary
from reward.dataset import FeedbackDataset
from reward.split import Split, SplitConfig, split_feedback

Track = Callable[[range], Iterable[int]]
"""Wraps the loop over batches, to show its progress; `iter` shows nothing."""


class ExamplesConfig(BaseModel, frozen=True, extra="forbid"):
    """What the labels are turned into."""

    backbone: str = "models/emoji-clip"
    """Folder or hub name of a CLIP model of transformers."""
    negatives: NonNegativeInt = 9
    """Wrong prompts for each prompt, the paper's N - 1."""
    vocabulary_prompts: tuple[str, ...] = ()
    """Prompts whose words are swapped in beside those of the labelled prompts."""
    encode_batch: PositiveInt = 64
    """Pictures that the backbone encodes at a time."""
    split: SplitConfig = SplitConfig()
    """What is held out."""
    seed: int = 0
    """Of the head's start, the order of the labels and the choice of wrong prompts."""


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


def prepare(dataset: FeedbackDataset, config: ExamplesConfig, backbone: ClipBackbone, *, track: Track = iter) -> Examples:
    """Splits the labels, makes wrong prompts, and encodes every picture and prompt once; `track` wraps the loop over picture batches.

    Raises:
        PictuneError: a picture cannot be read, or the backbone gives embeddings that are not finite.
    """
    words = vocabulary([*dataset.prompts, *config.vocabulary_prompts])
    rng = random.Random(config.seed)
    wrong_texts = [negatives(prompt, words, config.negatives, rng) for prompt in dataset.prompts]
    row = {text: len(dataset.prompts) + i for i, text in enumerate(dict.fromkeys(text for texts in wrong_texts for text in texts))}
    wrong = torch.full((len(dataset.prompts), config.negatives), -1)
    for prompt, texts in enumerate(wrong_texts):
        wrong[prompt, : len(texts)] = torch.tensor([row[text] for text in texts], dtype=torch.long)
    return Examples(
        dataset=dataset,
        split=split_feedback(dataset, config.split),
        image_embeddings=embed_images(dataset.paths, backbone, batch_size=config.encode_batch, track=track),
        text_embeddings=embed_prompts([*dataset.prompts, *row], backbone),
        wrong=wrong.to(backbone.device),
    )


def read_image(path: Path) -> Tensor:
    """A picture file as [3, H, W] in [0, 1].

    Raises:
        PictuneError: the file is missing, truncated or no picture.
    """
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictuneError(f"{path}: not a readable picture ({error}); put the file back or remove its labels") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div(255)


def embed_images(paths: Sequence[Path], backbone: ClipBackbone, *, batch_size: int, track: Track = iter) -> Tensor:
    """The embedding of each picture, [len(paths), D] of unit length, each encoded once; the pictures may differ in size.

    Raises:
        PictuneError: a picture cannot be read, or its embedding is not finite.
    """
    batches = []
    for start in track(range(0, len(paths), batch_size)):
        with torch.inference_mode():
            pixels = [backbone.preprocess(read_image(path)[None].to(backbone.device)) for path in paths[start : start + batch_size]]
            batches.append(backbone.encode_pixels(torch.cat(pixels)))
    # Joined outside of inference mode, so that autograd may keep the result.
    embeddings = torch.cat(batches)
    broken = (~embeddings.isfinite().all(-1)).nonzero().flatten().tolist()
    if broken:
        raise PictuneError(f"{paths[broken[0]]}: {backbone.name} gives no finite embedding of it ({len(broken)} in all); check the weights")
    return embeddings


def embed_prompts(prompts: Sequence[str], backbone: ClipBackbone) -> Tensor:
    """The embedding of each prompt, [len(prompts), D] of unit length.

    Raises:
        PictuneError: an embedding is not finite.
    """
    embeddings = backbone.text_embedding(prompts)
    broken = (~embeddings.isfinite().all(-1)).nonzero().flatten().tolist()
    if broken:
        raise PictuneError(f"{prompts[broken[0]]!r}: {backbone.name} gives no finite embedding of it; check the weights")
    return embeddings
