"""The CLIP or SigLIP that the reward stands on: any folder or hub name of transformers that holds one.

Pictures are prepared in torch (antialiased resize, centre crop, mean and standard deviation of the folder's own image processor), so
gradients reach the pixels.
"""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
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
from reward.low_rank import add_low_rank
from reward.towers import FAMILIES, Towers

BILINEAR = 2
"""`resample` of an image processor that resizes bilinearly."""

TEXT_BATCH = 256
"""Prompts encoded in one forward pass."""

PREPROCESSING_VERSION = 1
"""Goes up when the code that prepares pictures and prompts gives other numbers for the same settings."""


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
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """How pictures are resized."""

    @classmethod
    def of(cls, processor: Any, image_size: int) -> Self:
        """The steps of a folder's image processor, ending at the `image_size` that the backbone wants."""
        edge = (
            processor.size["shortest_edge"]
            if processor.do_resize and processor.do_center_crop
            else None
        )
        normalised = processor.do_normalize
        mean = tuple(processor.image_mean) if normalised else (0.0, 0.0, 0.0)
        std = tuple(processor.image_std) if normalised else (1.0, 1.0, 1.0)
        interpolation: Literal["bicubic", "bilinear"] = (
            "bilinear" if processor.resample == BILINEAR else "bicubic"
        )
        return cls(
            None if edge is None else max(edge, image_size), image_size, mean, std, interpolation
        )

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
            images = F.interpolate(
                images, size=size, mode=self.interpolation, antialias=True, align_corners=False
            ).clamp(0, 1)
        top, left = (size[0] - self.crop) // 2, (size[1] - self.crop) // 2
        images = images[..., top : top + self.crop, left : left + self.crop]
        mean, std = images.new_tensor(self.mean), images.new_tensor(self.std)
        return (images - mean[:, None, None]) / std[:, None, None]


class ClipBackbone(nn.Module):
    """CLIP or SigLIP in evaluation mode, with frozen weights unless it is `tunable`; embeddings are L2-normalised."""

    def __init__(
        self, name: str, clip: Any, tokenizer: PreTrainedTokenizerBase, preprocessing: Preprocessing
    ) -> None:
        super().__init__()
        self.name = name
        """The folder or hub name that it was loaded from."""
        self.clip = clip.requires_grad_(False)
        self.clip.train(False)
        self.towers: Towers = FAMILIES[clip.config.model_type]
        self.tokenizer = tokenizer
        self.preprocess = preprocessing
        self.tuned_blocks = 0
        """Blocks at the end of the vision tower that may be trained."""
        self.lora_rank = 0
        """Rank of the updates that are trained in them; 0 where all of their weights are."""
        self._fingerprint: str | None = None

    @classmethod
    def from_pretrained(
        cls, folder_or_id: str | Path, *, processor: str | Path | None = None
    ) -> Self:
        """Loads the weights (safetensors only, as float32), the tokenizer and the image processor's settings.

        `processor` is where the last two are, if elsewhere.

        Raises:
            PictuneError: there is no such folder or model, files are missing or broken, weights are no numbers, or it is
                neither CLIP nor SigLIP.
        """
        name, beside = str(folder_or_id), str(processor or folder_or_id)
        _check_name(name)
        try:
            towers, clip = _load_clip(name)
            tokenizer = towers.tokenizer_class.from_pretrained(beside)
            images = towers.processor_class.from_pretrained(beside)
        except (
            OSError,
            ValueError,
            RuntimeError,
            KeyError,
            TypeError,
            ImportError,
            SafetensorError,
        ) as error:
            raise PictuneError(_explain(name, error)) from error
        if len(tokenizer) <= 3:  # transformers makes an empty tokenizer where the files are missing
            raise PictuneError(
                f"{beside}: no tokenizer in this folder; copy vocab.json, merges.txt and tokenizer_config.json of the model"
            )
        return cls(
            name, clip, tokenizer, Preprocessing.of(images, clip.config.vision_config.image_size)
        )

    def tunable(
        self, last: int, *, lora_rank: int = 0, generator: torch.Generator | None = None
    ) -> Self:
        """A copy whose last blocks of the vision tower may be trained, with the norm and the projection that follow them.

        With a `lora_rank`, which needs a `generator` (CPU), only updates of this rank to the linear layers of these blocks may be. The copy
        shares all weights that stay as they are with this one, and keeps its name and its fingerprint: those of the weights that it came
        from.

        Raises:
            PictuneError: the tower has fewer blocks.
        """
        blocks = len(self.clip.vision_model.encoder.layers)
        if last > blocks:
            raise PictuneError(
                f"reward.tune_last: {self.name} has {blocks} blocks in its vision tower; {last} cannot be trained"
            )
        trained = {
            id(weight)
            for part in self._last_parts(0 if lora_rank else last)
            for weight in part.parameters()
        }
        shared: dict[int, object] = {
            id(weight): weight for weight in self.parameters() if id(weight) not in trained
        }
        _ = self.fingerprint  # so that the copy has it
        twin = copy.deepcopy(self, {id(self.tokenizer): self.tokenizer, **shared})
        twin.tuned_blocks, twin.lora_rank = last, lora_rank
        if lora_rank:
            assert generator is not None
            add_low_rank(
                twin.clip.vision_model.encoder.layers[-last:], lora_rank, generator=generator
            )
        else:
            for part in twin._last_parts(last):  # noqa: SLF001 (its own class)
                part.requires_grad_(True)
        return twin

    def tuned_weights(self) -> dict[str, nn.Parameter]:
        """The weights that may be trained, by their name in `clip`."""
        return {
            name: weight for name, weight in self.clip.named_parameters() if weight.requires_grad
        }

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.towers.dim(self.clip)

    @property
    def logit_scale(self) -> float:
        """What a cosine was multiplied with when the model learned to tell pairs apart."""
        return float(self.clip.logit_scale.exp())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.clip.device
        return device

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights it was loaded with, vocabulary and preprocessing: the same whatever the folder, file format or device."""
        if self._fingerprint is None:
            steps = asdict(self.preprocess)
            if steps["interpolation"] == "bicubic":
                del steps[
                    "interpolation"
                ]  # reward models of the time before it was a field know the fingerprint without it
            digest = hashlib.sha256(
                json.dumps([steps, self.tokenizer.get_vocab()], sort_keys=True).encode()
            )
            self._fingerprint = _digest_of(self.clip.state_dict(), digest).hexdigest()
        return self._fingerprint

    @property
    def text_space(self) -> str:
        """Names what this backbone makes of a prompt; another space has other embeddings."""
        return f"{self.fingerprint}-v{PREPROCESSING_VERSION}-text"

    @property
    def image_space(self) -> str:
        """Names what this backbone makes of a picture, with its trained weights as they are now."""
        digest = (
            _digest_of(self.tuned_weights(), hashlib.sha256()).hexdigest()[:16]
            if self.tuned_blocks
            else "image"
        )
        return f"{self.fingerprint}-v{PREPROCESSING_VERSION}-{digest}"

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002 (the signature is torch's)
        """Stays in evaluation mode: its dropout would make scores random."""
        return super().train(False)

    def image_embedding(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> [B, D] of unit length; differentiable to the pixels."""
        return self.encode_pixels(self.preprocess(images.to(self.device, torch.float32)))

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Preprocessed [B, 3, S, S] -> [B, D] of unit length."""
        return self.embed_tokens(self.image_tokens(pixels, last=0), last=0)

    def image_tokens(self, pixels: Tensor, *, last: int) -> Tensor:
        """Preprocessed [B, 3, S, S] -> [B, T, W] as they enter the last `last` blocks of the vision tower."""
        blocks = self.clip.vision_model.encoder.layers
        tokens = self.towers.enter(self.clip, pixels)
        for block in blocks[: len(blocks) - last]:
            tokens = block(tokens, attention_mask=None)
        return tokens

    def embed_tokens(self, tokens: Tensor, *, last: int) -> Tensor:
        """[B, T, W] from `image_tokens` -> [B, D] of unit length."""
        blocks = self.clip.vision_model.encoder.layers
        for block in blocks[len(blocks) - last :]:
            tokens = block(tokens, attention_mask=None)
        return F.normalize(self.towers.leave(self.clip, tokens), dim=-1)

    @torch.no_grad()
    def text_embedding(self, prompts: Sequence[str]) -> Tensor:
        """Prompts -> [B, D] of unit length, without gradients; each distinct prompt is encoded once."""
        distinct = list(dict.fromkeys(prompts))
        encoded = torch.cat(
            [
                self._encode_text(distinct[i : i + TEXT_BATCH])
                for i in range(0, len(distinct), TEXT_BATCH)
            ]
        )
        position = {prompt: i for i, prompt in enumerate(distinct)}
        return encoded[[position[prompt] for prompt in prompts]]

    def _encode_text(self, prompts: list[str]) -> Tensor:
        return F.normalize(
            self.towers.read(self.clip, self._tokens(prompts).input_ids.to(self.device)), dim=-1
        )

    def cut(self, prompts: Sequence[str]) -> int:
        """How many of the prompts are longer than the text tower reads, so that their end is left out."""
        return sum(
            bool(encoding.overflowing) for encoding in self._tokens(list(prompts)).encodings or ()
        )

    def _tokens(self, prompts: list[str]) -> Any:
        longest = self.clip.config.text_config.max_position_embeddings
        return self.tokenizer(
            prompts,
            padding=self.towers.padding,
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        )

    def _last_parts(self, last: int) -> list[nn.Module]:
        """The last blocks of the vision tower and what comes after them; nothing for 0."""
        return (
            [*self.clip.vision_model.encoder.layers[-last:], *self.towers.after_blocks(self.clip)]
            if last
            else []
        )

    def clip_score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Cosine of each picture with its prompt, [B] in [-1, 1]; the baseline that the learned reward is compared with."""
        return (self.image_embedding(images) * self.text_embedding(prompts)).sum(-1)


def _digest_of(weights: Mapping[str, Tensor], digest: "hashlib._Hash") -> "hashlib._Hash":
    for name, weight in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest


def _check_name(name: str) -> None:
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise PictuneError(
                f"{name}: no config.json in this folder; give the folder of a CLIP model of transformers"
            )
    elif len(path.parts) != 2 or Path(path.parts[0]).is_dir():
        # A hub name is owner/model. Asking the hub for a mistyped folder would take half a minute of retries without a network.
        raise PictuneError(
            f"{name}: no such folder; give the folder of a CLIP model, or a hub name such as openai/clip-vit-large-patch14"
        )


def _load_clip(name: str) -> tuple[Towers, Any]:
    config = AutoConfig.from_pretrained(name)
    towers = FAMILIES.get(config.model_type)
    if towers is None:
        raise PictuneError(
            f"{name}: holds a model of type {config.model_type!r}, not clip or siglip; give the folder of a CLIP model"
        )
    clip, loading = towers.model_class.from_pretrained(
        name, dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    missing = sorted(loading["missing_keys"])  # transformers fills these at random and only logs it
    if missing:
        raise PictuneError(
            f"{name}: {len(missing)} weights are missing, {missing[0]} first; fetch the model again"
        )
    check_finite(clip.state_dict(), name)
    return towers, clip


def _explain(name: str, error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if Path(name).is_dir():
        needed = "config.json, model.safetensors, tokenizer and preprocessor_config.json"
        return f"{name}: not a whole CLIP model ({lines[0]}); it needs {needed}"
    return f"{name}: no folder here, and the hub did not hand it out ({lines[0]}); check `backbone`"
