"""Memory of drawing and tuning, computed from shapes alone, before any weight is loaded.

The model's own code runs on PyTorch's fake tensors, which have shapes and types but no values. Each
storage counts from its creation to its release. So the figures hold for every architecture, and
include what the backward pass keeps. They leave out a GPU's context (about 0.5 GB), the workspaces
of its kernels, and gaps between allocations. Attention counts as a fused kernel, except on a CPU
for U-Nets, which use plain matrix products there.
"""

import math
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from finetune.model.diffusion import DiffusionModel
from finetune.model.family import Family, modules_of
from finetune.model.model_folder import TYPES, Weights, family_of
from finetune.settings.model import AdapterSettings, Arithmetic

BITS = {"int8": 8.0}
"""Bits of a quantized weight with its share of the scales, by `run.weights`."""
ADAM = 4
"""Copies of a trained weight on the device: itself, its gradient and AdamW's two moments."""


class Work(NamedTuple):
    """Sizes of the largest calls of a training; a call of 0 does not happen."""

    drawn: int
    """Images drawn at a time."""
    decoded: int
    """Images whose latents are decoded together."""
    rows: int = 0
    """Rows of a network call with gradient, before guidance doubles them."""
    guidance: float = 1.0
    """Guidance of the call with gradient."""
    chains: int = 0
    """Latents of the denoising chains that a policy gradient keeps."""
    steps_back: int = 0
    """Denoising steps that a reward's gradient passes through; 0 without such a gradient."""
    checkpointing: bool = False
    """Whether activations are computed again in the backward pass."""


@dataclass(frozen=True)
class Memory:
    """Memory in bytes."""

    weights: Mapping[str, int]
    """Weights of each part of the pipeline, by its name."""
    adapter: int
    """The adapter with its gradient, AdamW's moments and the moving average, if any."""
    calls: Mapping[str, int]
    """Largest sum of all other tensors in each kind of call: encoding, drawing, decoding,
    training."""

    @property
    def peak(self) -> int:
        """The largest sum over the training."""
        return sum(self.weights.values()) + self.adapter + max(self.calls.values())


class _Peak(TorchDispatchMode):
    """Counts the storages that operations create, until they are released.

    Storages of `weights`, of which operations return views, are not counted.
    """

    def __init__(self, weights: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        kept = (weight.untyped_storage() for weight in weights)
        self._known: dict[int, Any] = {id(storage): storage for storage in kept}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor):
                self._count(one.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return

        def released(_: Any) -> None:
            self.now -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, released)
        self.now += size
        self.peak = max(self.peak, self.now)


def outline(source: str, weights: Weights, image_size: int | None = None) -> Family:
    """Return the family of a diffusers folder or of a model of the hub, without its weights.

    Raises:
        PictuneError: as `finetune.model.model_folder.family_of`.
    """
    kind, about = family_of(source), DiffusionPipeline.load_config(source)
    parts, rest = dict[str, Any](), dict[str, Any]()
    for name, value in about.items():
        if not isinstance(value, list | tuple):
            rest[name] = value
        elif None in value or name in ("safety_checker", "feature_extractor"):
            parts[name] = None
        else:
            parts[name] = _part(source, name, *value, weights=weights)
    known = kind.pipeline_class.__init__.__code__.co_varnames
    rest = {name: value for name, value in rest.items() if name in known}
    return kind(kind.pipeline_class(**parts, **rest), image_size)


def _part(source: str, name: str, library: str, kind: str, *, weights: Weights) -> Any:
    cls = getattr(diffusers if library == "diffusers" else transformers, kind)
    if "tokenizer" in name or name == "scheduler":
        return cls.from_pretrained(source, subfolder=name)
    with without_weights(weights):
        if library == "diffusers":
            return cls.from_config(cls.load_config(source, subfolder=name))
        return cls(transformers.AutoConfig.from_pretrained(source, subfolder=name))


@contextmanager
def without_weights(weights: Weights) -> Iterator[None]:
    """Create networks of the type of `weights` without memory inside the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(TYPES[weights])
    try:
        with torch.device("meta"):
            yield
    finally:
        torch.set_default_dtype(before)


class Outline:
    """A model without its weights, which measures the memory of its calls."""

    def __init__(
        self,
        family: Family,
        adapter: AdapterSettings,
        *,
        precision: Arithmetic,
        weights: Weights = "fp32",
        device: str = "cuda",
        offload_encoders: bool = False,
    ) -> None:
        """Take a family that was created inside `without_weights`; add a fresh adapter."""
        model = self._model = DiffusionModel(family, precision=precision)
        model.device = torch.device("cpu")  # whose operations fake tensors know on every machine
        if device == "cpu":
            family.suit_device(model.device)
        parts = modules_of(family.pipeline)
        largest = family.largest_parts if weights in BITS else ()
        self._weights = {
            name: _bytes(part, BITS[weights] if name in largest else None)
            for name, part in parts.items()
        }
        away = family.text_encoders if offload_encoders else ()
        self._encoders = sum(self._weights.pop(name) for name in away if name in self._weights)
        fresh = adapter.model_copy(update={"start": "base"})
        model.add_adapter(fresh, generator=torch.Generator())
        trained = sum(weight.numel() for weight in model.adapter.parameters().values())
        self._adapter = trained * (ADAM + (adapter.ema_decay > 0)) * 4  # float32
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        for part in parts.values():
            _make_fake(part, self._mode)

    def memory(self, work: Work) -> Memory:
        """Return the memory of a training whose largest calls are those of `work`."""
        model = self._model
        for part in (model.network, model.pipeline.vae):
            part.disable_gradient_checkpointing()
        if work.checkpointing:
            model.checkpoint_gradients()
        model.forget_prompts()
        calls = {"encoding": self._encoders + self._peak(lambda: model.encode_prompts([""]))}
        if work.drawn:
            calls["drawing"] = self._peak(lambda: self._draw(work.drawn))
        if work.decoded:
            calls["decoding"] = self._peak(lambda: self._decode(work.decoded))
        if work.rows:
            kept = 4 * work.chains * math.prod(model.latent_shape)  # float32
            calls["training"] = kept + self._peak(lambda: self._train(work))
        return Memory(self._weights, self._adapter, calls)

    def _peak(self, call: Callable[[], object]) -> int:
        parts = modules_of(self._model.pipeline).values()
        weights = [one for part in parts for one in (*part.parameters(), *part.buffers())]
        counted = _Peak(weights)
        with warnings.catch_warnings(), self._mode, counted:
            warnings.simplefilter("ignore")  # on speed, which fake tensors have none of
            call()
        return counted.peak

    @torch.no_grad()
    def _draw(self, images: int) -> None:
        self._predict(self._noise(images), 2.0)

    @torch.no_grad()
    def _decode(self, images: int) -> None:
        self._model.decode(self._noise(images))

    def _train(self, work: Work) -> None:
        latents = self._noise(work.rows)
        if not work.steps_back:
            self._predict(latents, work.guidance).square().mean().backward()
            return
        for _ in range(work.steps_back):
            latents = latents - self._predict(latents, work.guidance)
        some = latents.detach()[: self._model.differentiable_images].requires_grad_()
        (gradient,) = torch.autograd.grad(self._model.decode(some).sum(), some)
        latents.backward(gradient.new_ones(()).expand_as(latents))

    def _predict(self, latents: Tensor, guidance: float) -> Tensor:
        count = len(latents)
        prompt = self._model.encode_prompts([""]).expand(count, -1, -1)
        return self._model.predict(latents, torch.ones(count), prompt, prompt, guidance)

    def _noise(self, count: int) -> Tensor:
        return torch.randn(count, *self._model.latent_shape)


def _bytes(part: nn.Module, bits: float | None) -> int:
    """Return the size of the weights; `bits` is that of a linear layer's weight, if quantized."""
    total = 0.0
    linear = {id(one.weight) for one in part.modules() if isinstance(one, nn.Linear)}
    for weight in (*part.parameters(), *part.buffers()):
        is_quantized = bits is not None and id(weight) in linear
        total += weight.numel() * (bits / 8 if is_quantized and bits else weight.element_size())
    return round(total)


def _make_fake(part: nn.Module, mode: FakeTensorMode) -> None:
    """Replace the weights by fake ones on the CPU; shared weights stay shared."""
    made: dict[int, tuple[Tensor, Tensor]] = {}  # with the old weight, whose id must stay taken
    for module in part.modules():
        for place in (module._parameters, module._buffers):  # noqa: SLF001 - a swap is refused
            for name, old in place.items():
                if old is None:
                    continue
                if id(old) not in made:
                    shape = torch.empty_like(old, device="meta")
                    new: Tensor = FakeTensor(mode, shape, torch.device("cpu"))
                    if isinstance(old, nn.Parameter):
                        new = nn.Parameter(new, requires_grad=old.requires_grad)
                    made[id(old)] = new, old
                place[name] = made[id(old)][0]  # type: ignore[assignment]
