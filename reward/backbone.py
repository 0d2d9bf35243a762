"""The frozen CLIP that the reward stands on: any `CLIPModel` folder or hub name of transformers.

Pictures are prepared in torch (antialiased bicubic resize, centre crop, mean and standard deviation of the folder's own image
processor), so gradients reach the pixels. Prompts are padded to the longest of their batch, which is exact for CLIP: attention is
causal and the embedding is read at the first end-of-text token.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer, PreTrainedTokenizerBase

from data.errors import PictuneError

TEXT_BATCH = 256
"""Prompts encoded in one forward pass."""


@dataclass(frozen=True)
class Preprocessing:
    """How pixels in [0, 1] become the backbone's input."""

    shortest_edge: int | None
    """Pixels that the shorter side is resized to; None stretches the picture to the backbone's square."""
    crop: int
    """Side in pixels of the backbone's input."""
    mean: tuple[float, ...]
    """Subtracted per channel."""
    std: tuple[float, ...]
    """Divided by per channel."""

    @classmethod
    def of(cls, processor: CLIPImageProcessorPil, image_size: int) -> Self:
        """The steps of a folder's image processor, ending at the `image_size` that the backbone wants."""
        edge = processor.size["shortest_edge"] if processor.do_resize and processor.do_center_crop else None
        normalised = processor.do_normalize
        mean = tuple(processor.image_mean) if normalised else (0.0, 0.0, 0.0)
        std = tuple(processor.image_std) if normalised else (1.0, 1.0, 1.0)
        return cls(None if edge is None else max(edge, image_size), image_size, mean, std)

    def __call__(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> normalised [B, 3, crop, crop]; differentiable."""
        height, width = images.shape[-2:]
        if self.shortest_edge is None:
            size = (self.crop, self.crop)
        else:
            scale = self.shortest_edge / min(height, width)
            size = (max(self.crop, int(height * scale)), max(self.crop, int(width * scale)))
        if size != (height, width):
            # Bicubic overshoots; pictures in files cannot, so neither do these.
            images = F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        top, left = (size[0] - self.crop) // 2, (size[1] - self.crop) // 2
        images = images[..., top : top + self.crop, left : left + self.crop]
        mean, std = images.new_tensor(self.mean), images.new_tensor(self.std)
        return (images - mean[:, None, None]) / std[:, None, None]


class ClipBackbone(nn.Module):
    """CLIP in evaluation mode with frozen weights; embeddings are L2-normalised."""

    def __init__(self, name: str, clip: CLIPModel, tokenizer: PreTrainedTokenizerBase, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.name = name
        """The folder or hub name that it was loaded from."""
        self.clip = clip.requires_grad_(False)
        self.clip.train(False)
        self.tokenizer = tokenizer
        self.preprocess = preprocessing
        self._fingerprint: str | None = None

    @classmethod
    def from_pretrained(cls, folder_or_id: str | Path) -> Self:
        """Loads the weights (safetensors only, as float32), the tokenizer and the image processor's settings.

        Raises:
            PictuneError: there is no such folder or model, files are missing or broken, or it is not a CLIP model.
        """
        name = str(folder_or_id)
        _check_name(name)
        try:
            clip = _load_clip(name)
            tokenizer = CLIPTokenizer.from_pretrained(name)
            processor = CLIPImageProcessorPil.from_pretrained(name)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
            raise PictuneError(_explain(name, error)) from error
        if len(tokenizer) <= 3:  # transformers makes an empty tokenizer where the files are missing
            raise PictuneError(f"{name}: no tokenizer in this folder; copy vocab.json, merges.txt and tokenizer_config.json of the model")
        return cls(name, clip, tokenizer, Preprocessing.of(processor, clip.vision_model.config.image_size))

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        dim: int = self.clip.visual_projection.out_features
        return dim

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.clip.device
        return device

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights, the vocabulary and the preprocessing: the same whatever the folder, the file format or the device."""
        if self._fingerprint is None:
            digest = hashlib.sha256(json.dumps([asdict(self.preprocess), self.tokenizer.get_vocab()], sort_keys=True).encode())
            for name, weight in sorted(self.clip.state_dict().items()):
                digest.update(name.encode())
                digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002 (the signature is torch's)
        """Stays in evaluation mode: the backbone is frozen, and its dropout would make scores random."""
        return super().train(False)

    def image_embedding(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> [B, D] of unit length; differentiable to the pixels."""
        return self.encode_pixels(self.preprocess(images.to(self.device, torch.float32)))

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Preprocessed [B, 3, S, S] -> [B, D] of unit length."""
        pooled = self.clip.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(self.clip.visual_projection(pooled), dim=-1)

    @torch.no_grad()
    def text_embedding(self, prompts: Sequence[str]) -> Tensor:
        """Prompts -> [B, D] of unit length, without gradients; each distinct prompt is encoded once."""
        distinct = list(dict.fromkeys(prompts))
        encoded = torch.cat([self._encode_text(distinct[i : i + TEXT_BATCH]) for i in range(0, len(distinct), TEXT_BATCH)])
        position = {prompt: i for i, prompt in enumerate(distinct)}
        return encoded[[position[prompt] for prompt in prompts]]

    def _encode_text(self, prompts: list[str]) -> Tensor:
        longest = self.clip.text_model.config.max_position_embeddings
        tokens: Any = self.tokenizer(prompts, padding="longest", truncation=True, max_length=longest, return_tensors="pt")
        pooled = self.clip.text_model(input_ids=tokens.input_ids.to(self.device)).pooler_output
        return F.normalize(self.clip.text_projection(pooled), dim=-1)

    def clip_score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Cosine of each picture with its prompt, [B] in [-1, 1]; the baseline that the learned reward is compared with."""
        return (self.image_embedding(images) * self.text_embedding(prompts)).sum(-1)


def _check_name(name: str) -> None:
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise PictuneError(f"{name}: no config.json in this folder; give the folder of a CLIP model of transformers")
    elif len(path.parts) != 2 or Path(path.parts[0]).is_dir():
        # A hub name is owner/model. Asking the hub for a mistyped folder would take half a minute of retries without a network.
        raise PictuneError(f"{name}: no such folder; give the folder of a CLIP model, or a hub name such as openai/clip-vit-large-patch14")


def _load_clip(name: str) -> CLIPModel:
    config = AutoConfig.from_pretrained(name)
    if not isinstance(config, CLIPConfig):
        raise PictuneError(f"{name}: holds a model of type {config.model_type!r}, not clip; give the folder of a CLIP model")
    loaded: Any = CLIPModel.from_pretrained(name, dtype=torch.float32, use_safetensors=True, output_loading_info=True)
    clip, loading = loaded
    missing = sorted(loading["missing_keys"])  # transformers fills these at random and only logs it
    if missing:
        raise PictuneError(f"{name}: {len(missing)} weights are missing, {missing[0]} first; fetch the model again")
    assert isinstance(clip, CLIPModel)
    return clip


def _explain(name: str, error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if Path(name).is_dir():
        return (
            f"{name}: not a whole CLIP model ({lines[0]}); it needs config.json, model.safetensors, tokenizer and preprocessor_config.json"
        )
    return f"{name}: no folder here, and the hub did not hand it out ({lines[0]}); check `backbone`"
