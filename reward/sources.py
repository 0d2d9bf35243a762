"""External rewards and what several give together, each as one function of images and prompts.

- clip_score: cosine of image and prompt under a CLIP or SigLIP (Hessel et al. 2021, arXiv
  2104.08718); HPSv2 is this score under a CLIP trained on people's choices (Wu et al. 2023, arXiv
  2306.09341).
- pickscore: this cosine times the checkpoint's scale exp(logit_scale) (Kirstain et al. 2023, arXiv
  2305.01569).
- aesthetic: linear layers on a CLIP's image embedding, without the prompt (LAION's aesthetic
  predictor, 2022).
- model: a reward model of Pictune; python: any function; http, vlm: see reward/services.py.

A source with `options.pairs` compares: its reward is the share of images of the run that an image
wins against (the win rate of Pref-GRPO, Wang et al. 2025, arXiv 2508.20751, against images that
stay the same).
"""

import pkgutil
import re
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from data.errors import PictuneError
from data.weights import check_finite
from reward.clip.backbone import ClipBackbone
from reward.model import RewardModel
from reward.services import Meta, Service
from reward.settings import SERVICES, Combination, RewardSource
from reward.spread import Examples, scale_of

Reward = Callable[[Tensor, Sequence[str]], Tensor]
"""Turns images [B, 3, H, W] in [0, 1] and their prompts into rewards [B]; higher is better."""

LONGEST_REASON = 300
"""Largest number of characters of a function's error in a message."""
_OURS = ("pipelines", "labeling_app", "world")
"""Packages that cannot be a source of rewards: the ground truth must not enter a training."""


def load_reward(
    sources: Sequence[RewardSource],
    *,
    device: torch.device,
    finite: bool = True,
    meta: Meta = MappingProxyType({}),
    examples: Examples | None = None,
    combine: Combination = "sum",
) -> Reward:
    """Return what `sources` give together; differentiable to the pixels if all sources are.

    `meta` has the metadata of prompts, which servers get with them. "sum" is the weighted sum,
    where a source with `normalize` is divided by its spread over the `examples` of a prompt; if
    these are None, it is as it is. "least" is the smallest of weight * (reward - mean) / spread:
    above 0 where each source gives an image more than the mean of its prompt's examples.

    The function raises `PictuneError` if a source fails, does not return one number per image, or
    has no gradient for images that require one. Without `finite` the numbers may be infinite or
    NaN.

    Raises:
        PictuneError: there is no source, or a source cannot be loaded.
    """
    if not sources:
        raise PictuneError("reward sources: there are none; name at least one")
    parts = [(source, _weighted(source, device, meta, examples, combine)) for source in sources]

    def reward(images: Tensor, prompts: Sequence[str]) -> Tensor:
        weighted = [part(images, prompts) for _, part in parts]
        for (source, _), rewards in zip(parts, weighted, strict=True):
            if finite and not (is_number := rewards.isfinite()).all():
                worst = prompts[int((~is_number).nonzero()[0])]
                raise PictuneError(
                    f"{source.path}: gives no finite number for an image of {worst!r}; fix it"
                )
        together = torch.stack(weighted)
        return together.sum(0) if combine == "sum" else together.amin(0)

    return reward


def _weighted(
    source: RewardSource,
    device: torch.device,
    meta: Meta,
    examples: Examples | None,
    combine: Combination,
) -> Reward:
    part = _load(source, device, meta)
    if source.chosen.pairs:
        part = _win_rate(source, part, examples or {})

    def checked(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return _check_rewards(source, part(images, prompts), images)

    if examples is None or (combine == "sum" and not source.chosen.normalize):
        return lambda images, prompts: source.weight * checked(images, prompts)
    scale = scale_of(checked, examples, source.name)

    def scaled(images: Tensor, prompts: Sequence[str]) -> Tensor:
        mean, spread = (one.to(images.device) for one in scale(prompts))
        rewards = checked(images, prompts)
        return source.weight * (rewards if combine == "sum" else rewards - mean) / spread

    return scaled


def _win_rate(source: RewardSource, compare: Callable[..., Tensor], examples: Examples) -> Reward:
    """Return the mean probability that an image is better than images of the run.

    `compare` gives P(image is better than the other) [B] of images, prompts and others. Each pair
    is asked in both orders, since models favor a place.
    """
    others = {prompt: read()[: source.chosen.pairs] for prompt, read in examples.items()}

    def better(images: Tensor, prompts: Sequence[str], rivals: Tensor) -> Tensor:
        chances = _check_rewards(source, compare(images, prompts, rivals), images)
        if ((chances < 0) | (chances > 1)).any():
            raise PictuneError(
                f"{source.path}: gave a number outside 0 to 1 for a pair; with options.pairs it "
                "must give the probability that the first image is better"
            )
        return chances

    def reward(images: Tensor, prompts: Sequence[str]) -> Tensor:
        if missing := [prompt for prompt in prompts if not len(others.get(prompt, ()))]:
            raise PictuneError(
                f"{source.path}: the run has no image of {missing[0]!r} to compare with; draw some "
                "(`make images`); options.pairs works in finetune.rewards alone"
            )
        rows = [row for row, prompt in enumerate(prompts) for _ in others[prompt]]
        rivals = torch.cat([others[prompt] for prompt in prompts]).to(images.device)
        asked = [prompts[row] for row in rows]
        won, lost = better(images[rows], asked, rivals), better(rivals, asked, images[rows])
        index = torch.tensor(rows, device=images.device)
        wins = torch.zeros(len(images), device=images.device).index_add(0, index, won + 1 - lost)
        return wins / (2 * torch.bincount(index))

    return reward


def _load(source: RewardSource, device: torch.device, meta: Meta) -> Reward:
    if source.kind in SERVICES:
        return Service(source, meta)
    if source.kind == "model":
        model = RewardModel.from_pretrained(source.path).to(device).eval()
        return lambda images, prompts: model.score(
            images=images, prompts=prompts, reduce=source.reduce
        )
    if source.kind == "aesthetic":
        assert source.backbone is not None
        backbone = ClipBackbone.from_pretrained(source.backbone).to(device)
        return _aesthetic(Path(source.path), backbone)
    if source.kind == "python":
        return _function(source.path)
    clip = ClipBackbone.from_pretrained(source.path, processor=source.processor).to(device)
    scale = clip.logit_scale if source.kind == "pickscore" else 1.0
    return lambda images, prompts: scale * clip.clip_score(images, prompts)


def _aesthetic(path: Path, clip: ClipBackbone) -> Reward:
    """Return the linear layers of the file `path` as a function of the embeddings of `clip`.

    The layers are ordered by the numbers in their names, without activations between them.
    """
    try:
        saved = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PictuneError(
            f"{path}: not a safetensors file ({error}); convert the layers' state dict with "
            "safetensors.torch.save_file"
        ) from error
    check_finite(saved, str(path))
    layers = (name.removesuffix("weight") for name in saved if name.endswith("weight"))
    names = sorted(layers, key=_numbers_in)
    weight, bias = torch.eye(clip.dim), torch.zeros(clip.dim)
    for name in names:
        layer, offset = saved[f"{name}weight"].float(), saved.get(f"{name}bias")
        follows = layer.ndim == 2 and layer.shape[1] == len(weight)
        if not follows or offset is None or offset.shape != layer.shape[:1]:
            raise PictuneError(
                f"{path}: {name}weight does not follow {len(weight)} values; give the CLIP model "
                "that the layers were made for"
            )
        weight, bias = layer @ weight, layer @ bias + offset.float()
    if not names or len(weight) != 1:
        raise PictuneError(
            f"{path}: holds no linear layers that end in one value; give the layers of an "
            "aesthetic predictor"
        )
    weight, bias = weight[0].to(clip.device), bias.to(clip.device)
    return lambda images, _prompts: clip.image_embedding(images) @ weight + bias


def _function(name: str) -> Reward:
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise PictuneError(
            f"{name}: not a function; write it as module:function, the module as Python imports it"
        )
    if module.split(".")[0] in _OURS:
        raise PictuneError(
            f"{name}: a reward may not come from {module.split('.')[0]}, which knows the right "
            "answers; give one of your own"
        )
    try:
        function = pkgutil.resolve_name(name)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise PictuneError(
            f"{name}: cannot be imported ({reason}); check its name, and that Python finds the "
            "module from here"
        ) from error
    if not callable(function):
        raise PictuneError(
            f"{name}: is no function; it must take images [B, 3, H, W] and their prompts, and give "
            "a tensor [B]"
        )

    def reward(*given: Any) -> Tensor:
        try:
            rewards: Tensor = function(*given)
        except (PictuneError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if "can't allocate memory" in str(error):
                raise
            reason = f"{type(error).__name__}: {error}"[:LONGEST_REASON]
            raise PictuneError(f"{name}: raised {reason} ({_place(error)}); fix it") from error
        return rewards

    return reward


def _place(error: Exception) -> str:
    """Return the last line of the user's code, not of a library, in the error's traceback."""
    _, *frames = traceback.extract_tb(error.__traceback__)  # the first frame is ours
    libraries = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    own = [frame for frame in frames if not frame.filename.startswith((*libraries, "<"))]
    if not own:
        return "in its call"
    return f"{own[-1].filename}, line {own[-1].lineno}"


def _check_rewards(source: RewardSource, rewards: object, images: Tensor) -> Tensor:
    if not isinstance(rewards, Tensor) or rewards.shape != images.shape[:1]:
        returned = f"a {type(rewards).__name__}"
        if isinstance(rewards, Tensor):
            returned = f"a tensor {tuple(rewards.shape)}"
        raise PictuneError(
            f"{source.path}: gave {returned} for {len(images)} images; a reward gives a tensor of "
            "one number an image"
        )
    if torch.is_grad_enabled() and images.requires_grad and not rewards.requires_grad:
        raise PictuneError(
            f"{source.path}: has no gradient to the pixels, as behind bytes or image files; give a "
            "reward that is differentiable, or tune by a method that does without"
        )
    return rewards.to(images.device, torch.float32)


def _numbers_in(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]
