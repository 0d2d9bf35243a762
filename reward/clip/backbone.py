"""The CLIP or SigLIP backbone of the reward, from a folder or a hub name of transformers.

Images are preprocessed in torch, so gradients reach the pixels: antialiased resize, center crop,
and normalization with the mean and standard deviation of the folder's image processor.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedTokenizerBase

from data.errors import PictuneError
from data.weights import check_finite
from reward.clip.families import FAMILIES, ModelFamily

BILINEAR = 2
"""`resample` of an image processor that resizes bilinearly."""

TEXT_BATCH = 256
"""Prompts encoded in one forward pass."""

_LOADING_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    TypeError,
    ImportError,
    SafetensorError,
)
"""Errors of transformers for a folder with an incomplete or broken model."""

PREPROCESSING_VERSION = 1
"""Increased when preprocessing returns other numbers for the same settings."""


@dataclass(frozen=True)
class Preprocessing:
    """The steps that turn pixels in [0, 1] into the backbone's input."""

    shortest_edge: int | None
    """Length of the shorter side after resizing, in pixels. With None the image is stretched to the
    backbone's square."""
    crop: int
    """Side in pixels of the backbone's input."""
    mean: tuple[float, ...]
    """Mean, subtracted per channel."""
    std: tuple[float, ...]
    """Standard deviation; each channel is divided by it."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """Interpolation for resizing."""

    @classmethod
    def from_processor(cls, processor: Any, image_size: int) -> Self:
        """Return the steps of a folder's image processor, ending at the backbone's `image_size`."""
        edge = None
        if processor.do_resize and processor.do_center_crop:
            edge = processor.size["shortest_edge"]
        normalized = processor.do_normalize
        return cls(
            shortest_edge=None if edge is None else max(edge, image_size),
            crop=image_size,
            mean=tuple(processor.image_mean) if normalized else (0.0, 0.0, 0.0),
            std=tuple(processor.image_std) if normalized else (1.0, 1.0, 1.0),
            interpolation="bilinear" if processor.resample == BILINEAR else "bicubic",
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Turn [B, 3, H, W] in [0, 1] into normalized [B, 3, crop, crop]; differentiable."""
        height, width = images.shape[-2:]
        if self.shortest_edge is None:
            size = (self.crop, self.crop)
        else:
            scale = self.shortest_edge / min(height, width)
            size = (max(self.crop, int(height * scale)), max(self.crop, int(width * scale)))
        if size != (height, width):
            # Bicubic interpolation overshoots [0, 1]; 8-bit images in files cannot.
            images = F.interpolate(
                images, size=size, mode=self.interpolation, antialias=True, align_corners=False
            ).clamp(0, 1)
        top, left = (size[0] - self.crop) // 2, (size[1] - self.crop) // 2
        images = images[..., top : top + self.crop, left : left + self.crop]
        both = torch.tensor([self.mean, self.std], dtype=images.dtype)
        mean, std = both[..., None, None].to(images.device, non_blocking=True).unbind()
        return (images - mean) / std


class ClipBackbone(nn.Module):
    """CLIP or SigLIP in evaluation mode, with frozen weights; embeddings are L2-normalized."""

    def __init__(
        self, name: str, clip: Any, tokenizer: PreTrainedTokenizerBase, preprocessing: Preprocessing
    ) -> None:
        super().__init__()
        self.name = name
        """Folder or hub name of the loaded model."""
        self.clip = clip.requires_grad_(False)
        self.clip.train(False)
        self.family: ModelFamily = FAMILIES[clip.config.model_type]
        self.tokenizer = tokenizer
        self.preprocess = preprocessing
        self._fingerprint: str | None = None

    @classmethod
    def from_pretrained(
        cls, folder_or_id: str | Path, *, processor: str | Path | None = None
    ) -> Self:
        """Load the weights (safetensors only, as float32), the tokenizer and the image processor.

        `processor` is the folder or hub name of tokenizer and image processor, if it differs.

        Raises:
            PictuneError: there is no such folder or model, files are missing or broken, weights are
                not numbers, or the model is neither CLIP nor SigLIP.
        """
        name, beside = str(folder_or_id), str(processor or folder_or_id)
        _check_name(name)
        try:
            family, clip = _load_clip(name)
            tokenizer = family.tokenizer_class.from_pretrained(beside)
            images = family.processor_class.from_pretrained(beside)
        except _LOADING_ERRORS as error:
            raise PictuneError(_explain(name, error)) from error
        if len(tokenizer) <= 3:  # transformers makes an empty tokenizer if the files are missing
            raise PictuneError(
                f"{beside}: no tokenizer in this folder; copy vocab.json, merges.txt and "
                "tokenizer_config.json of the model"
            )
        image_size = clip.config.vision_config.image_size
        return cls(name, clip, tokenizer, Preprocessing.from_processor(images, image_size))

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.family.dim(self.clip)

    @property
    def feature_dim(self) -> int:
        """Length of an image's features: its embedding, then its pooled patches."""
        width: int = self.clip.config.vision_config.hidden_size
        return self.dim + 3 * width

    @property
    def logit_scale(self) -> float:
        """Factor of the cosine in the pretraining loss."""
        return float(self.clip.logit_scale.exp())

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        device: torch.device = self.clip.device
        return device

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the loaded weights, the vocabulary and the preprocessing.

        It does not depend on the folder, the file format or the device.
        """
        if self._fingerprint is None:
            steps = asdict(self.preprocess)
            if steps["interpolation"] == "bicubic":
                # Without this field, fingerprints of earlier reward models stay valid.
                del steps["interpolation"]
            settings = json.dumps([steps, self.tokenizer.get_vocab()], sort_keys=True)
            digest = hashlib.sha256(settings.encode())
            for name, weight in sorted(self.clip.state_dict().items()):
                digest.update(name.encode())
                digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    @property
    def text_space(self) -> str:
        """Name of the space of text embeddings, for the cache."""
        return f"{self.fingerprint}-v{PREPROCESSING_VERSION}-text"

    @property
    def image_space(self) -> str:
        """Name of the space of image features, for the cache."""
        return f"{self.fingerprint}-v{PREPROCESSING_VERSION}-features"

    @property
    def patch_space(self) -> str:
        """Name of the space of patch tokens, for the cache."""
        return f"{self.fingerprint}-v{PREPROCESSING_VERSION}-patches"

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Number P of an image's patches, and length W of their tokens."""
        vision = self.clip.config.vision_config
        return (vision.image_size // vision.patch_size) ** 2, vision.hidden_size

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002 (the signature is torch's)
        """Stay in evaluation mode: dropout would make scores random."""
        return super().train(False)

    def image_embedding(self, images: Tensor) -> Tensor:
        """Embed [B, 3, H, W] in [0, 1] as [B, D] of unit length; differentiable to the pixels."""
        return self.image_features(images)[:, : self.dim]

    def image_features(self, images: Tensor) -> Tensor:
        """Return features [B, F] of images [B, 3, H, W] in [0, 1]; differentiable to the pixels.

        The first D are the embedding, of unit length. The others are mean, maximum and standard
        deviation of the patches after the last block. They show amounts that the embedding lacks,
        since it was trained on captions, which seldom mention amounts.
        """
        return self.encode_pixels(self.preprocess(images.to(self.device, torch.float32)))

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Return the features [B, F] of preprocessed [B, 3, S, S]."""
        tokens = self._image_tokens(pixels)
        embedding = F.normalize(self.family.leave(self.clip, tokens), dim=-1)
        patches = tokens[:, self.family.patches]
        # The square root has no gradient at 0, where all patches are equal.
        spread = (patches.var(1, correction=0) + 1e-8).sqrt()
        return torch.cat([embedding, patches.mean(1), patches.amax(1), spread], dim=-1)

    def patch_tokens(self, pixels: Tensor) -> Tensor:
        """Return the tokens [B, P, W] of patches after the last block, of pixels [B, 3, S, S].

        The pixels are preprocessed; P patches are a square, row by row.
        """
        return self._image_tokens(pixels)[:, self.family.patches]

    def _image_tokens(self, pixels: Tensor) -> Tensor:
        tokens = self.family.enter(self.clip, pixels)
        for block in self.clip.vision_model.encoder.layers:
            tokens = block(tokens, attention_mask=None)
        return tokens

    @torch.no_grad()
    def text_embedding(self, prompts: Sequence[str]) -> Tensor:
        """Embed prompts as [B, D] of unit length, without gradients; each distinct prompt once."""
        distinct = list(dict.fromkeys(prompts))
        starts = range(0, len(distinct), TEXT_BATCH)
        encoded = torch.cat([self._encode_text(distinct[i : i + TEXT_BATCH]) for i in starts])
        position = {prompt: i for i, prompt in enumerate(distinct)}
        rows = torch.tensor([position[prompt] for prompt in prompts])
        return encoded[rows.to(self.device, non_blocking=True)]

    def _encode_text(self, prompts: list[str]) -> Tensor:
        ids = self._tokens(prompts).input_ids.to(self.device, non_blocking=True)
        return F.normalize(self.family.read(self.clip, ids), dim=-1)

    def count_truncated(self, prompts: Sequence[str]) -> int:
        """Return the number of prompts that are longer than the text tower reads."""
        encodings = self._tokens(list(prompts)).encodings or ()
        return sum(bool(encoding.overflowing) for encoding in encodings)

    def _tokens(self, prompts: list[str]) -> Any:
        longest = self.clip.config.text_config.max_position_embeddings
        return self.tokenizer(
            prompts,
            padding=self.family.padding,
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        )

    def clip_score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return the cosine of each image with its prompt, [B] in [-1, 1].

        This is the baseline of the learned reward.
        """
        return (self.image_embedding(images) * self.text_embedding(prompts)).sum(-1)


def _check_name(name: str) -> None:
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise PictuneError(
                f"{name}: no config.json in this folder; give the folder of a CLIP model of "
                "transformers"
            )
    elif len(path.parts) != 2 or Path(path.parts[0]).is_dir():
        # A hub name is owner/model. For a mistyped folder without a network, the hub's
        # retries would take half a minute.
        raise PictuneError(
            f"{name}: no such folder; give the folder of a CLIP model, or a hub name such as "
            "openai/clip-vit-large-patch14"
        )


def _load_clip(name: str) -> tuple[ModelFamily, Any]:
    config = AutoConfig.from_pretrained(name)
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise PictuneError(
            f"{name}: holds a model of type {config.model_type!r}, not clip or siglip; give the "
            "folder of a CLIP model"
        )
    clip, loading = family.model_class.from_pretrained(
        name, dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    missing = sorted(loading["missing_keys"])  # transformers only logs it
    if missing:
        raise PictuneError(
            f"{name}: {len(missing)} weights are missing, {missing[0]} first; fetch the model again"
        )
    check_finite(clip.state_dict(), name)
    return family, clip


def _explain(name: str, error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if Path(name).is_dir():
        needed = "config.json, model.safetensors, tokenizer and preprocessor_config.json"
        return f"{name}: not a whole CLIP model ({lines[0]}); it needs {needed}"
    return f"{name}: no folder here, and the hub did not hand it out ({lines[0]}); check `backbone`"
