"""A pretended GPU: its tensors say that they are on `gpu:0`, and compute on the CPU.

It refuses what CUDA refuses, and counts what costs time on a real card, by place in the code:

- synchronizations, where the program waits for the card: a value that is read (`.item()`, `bool()`,
  `.tolist()`, printing), a copy to the CPU, a result whose shape depends on values (`nonzero`, a
  mask as an index), and `synchronize`;
- copies to the card; one that is not `non_blocking` also waits for the card;
- launches of kernels: calls of operators that compute.

The backend is PyTorch's own hook for one in Python. Under autocast its operators cast as on CUDA.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import Any
from unittest import mock

import diffusers
import safetensors.torch
import torch
import transformers
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

DEVICE = torch.device
CHECKOUT = str(Path(__file__).parents[2])
PACKAGES = tuple(f"{CHECKOUT}/{name}/" for name in ("finetune", "reward", "pipelines", "world"))
aten = torch.ops.aten

_COPIES = {aten._to_copy.default, aten.copy_.default}
_INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
_SHAPED_BY_VALUES = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten._unique2.default,
    aten.bincount.default,
    aten.repeat_interleave.Tensor,
}
_NORMS = {aten.native_layer_norm.default, aten.native_group_norm.default}
_IN_HALF = (
    "conv1d conv2d conv3d conv_transpose2d.input addmm addbmm baddbmm bmm mm mv matmul linear prelu"
    " scaled_dot_product_attention einsum"
)
_IN_FLOAT32 = (
    "acos asin exp expm1 log log10 log2 log1p reciprocal rsqrt pow.Tensor_Scalar pow.Tensor_Tensor softplus"
    " layer_norm group_norm cosine_similarity nll_loss kl_div l1_loss smooth_l1_loss mse_loss"
    " binary_cross_entropy_with_logits cdist logsumexp softmax.int log_softmax.int prod cumsum sum"
    " sum.dim_IntList"
)
_IN_WIDEST = "addcdiv addcmul atan2 bilinear dot grid_sampler scatter_add cat stack"


class RefusedError(RuntimeError):
    """What CUDA would refuse."""


class Counts:
    """What happened on the card, by kind and place in the code."""

    def __init__(self) -> None:
        """Start at zero."""
        self.by_place: Counter[tuple[str, str]] = Counter()
        self.waits = 0
        self.is_busy = False

    def add(self, kind: str) -> None:
        """Count one event of a kind where the packages' code is now."""
        self.by_place[kind, _place()] += 1
        self.waits += kind == "synchronizations"
        self.is_busy = kind != "synchronizations"

    def total(self, kind: str, *, within: str = "") -> int:
        """Return the number of events of a kind, at places that contain the text `within`."""
        return sum(
            n for (own, place), n in self.by_place.items() if own == kind and within in place
        )


_counts = [Counts()]


def _place() -> str:
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGES):
            return f"{code.co_filename[len(CHECKOUT) + 1 :]} {code.co_qualname}"
        frame = frame.f_back  # type: ignore[assignment]
    return "backward"  # autograd calls the kernels in a thread of its own


class GpuTensor(Tensor):
    """A tensor on the pretended GPU; `kept` holds its values on the CPU."""

    kept: Tensor

    @staticmethod
    def __new__(cls, kept: Tensor) -> "GpuTensor":
        """Return the tensor around `kept`."""
        made: GpuTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            kept.size(),
            strides=kept.stride(),
            storage_offset=kept.storage_offset(),
            dtype=kept.dtype,
            layout=kept.layout,
            device="gpu:0",
            requires_grad=False,
        )
        made.kept = kept
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """Name the inner tensor."""
        return ["kept"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, meta: Any, size: Any, stride: Any) -> "GpuTensor":
        """Restore what `__tensor_flatten__` took apart."""
        return GpuTensor(inner["kept"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute on the CPU."""
        return _call(func, args, kwargs or {})

    def __getitem__(self, index: Any) -> Tensor:
        """Move lists of numbers to the card, as CUDA does."""
        return Tensor.__getitem__(self, _moved(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        """Move lists of numbers to the card, as CUDA does."""
        if isinstance(value, int | float):
            value = torch.full((), value, dtype=self.dtype, device="gpu:0")
        Tensor.__setitem__(self, _moved(index), value)

    def __repr__(self, **_: Any) -> str:
        """Read the values."""
        _counts[-1].add("synchronizations")
        return f"GpuTensor({self.kept.detach()})"


def _moved(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(_moved(one) for one in index)
    return torch.tensor(index).to("gpu:0") if isinstance(index, list) else index


def _is_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "gpu"


def _check(func: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> None:
    """Refuse what CUDA refuses of operands, at least one of which is on the card."""
    others = [one for one in tensors if not isinstance(one, GpuTensor)]
    if func in _INDEXING and not isinstance(args[0], GpuTensor):
        raise RefusedError(
            f"indices should be on the same device as the indexed tensor (cpu): {func}"
        )
    mixes = func in _INDEXING | _COPIES
    if not mixes and any(one.dim() > 0 for one in others):
        shapes = [(str(one.device), tuple(one.shape)) for one in tensors]
        raise RefusedError(
            f"Expected all tensors to be on the same device, but found gpu:0 and cpu: {func} {shapes}"
        )
    if func in _NORMS and len({one.dtype for one in tensors}) > 1:
        raise RefusedError(f"expected one scalar type: {func} {[one.dtype for one in tensors]}")


def _count(func: Any, args: Any, kwargs: Any, *, to_gpu: bool) -> None:
    """Count what one call costs on a real card."""
    counts = _counts[-1]
    is_read = func is aten._local_scalar_dense.default or func in _SHAPED_BY_VALUES
    if func in _INDEXING:
        indices = [one for one in args[1] if one is not None]
        is_read = any(one.dtype in (torch.bool, torch.uint8) for one in indices)
        for one in indices:
            if not isinstance(one, GpuTensor):
                counts.add("blocking copies")
    if func in _COPIES:
        source = args[func is aten.copy_.default]
        is_read = isinstance(source, GpuTensor) and not to_gpu
        if to_gpu and not isinstance(source, GpuTensor):
            free = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
            counts.add("copies" if free or source.dim() == 0 else "blocking copies")
            return
    if not (func.is_view or func in (aten.detach.default, aten.empty.memory_format)):
        counts.add("launches")
    if is_read:
        counts.add("synchronizations")


def _call(func: Any, args: Any, kwargs: Any) -> Any:
    """Call an operator on what the pretended tensors hold."""
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    has_gpu = any(isinstance(one, GpuTensor) for one in tensors)
    target, generator = kwargs.get("device"), kwargs.get("generator")
    to_gpu = _is_gpu(target) if target is not None else has_gpu
    if func is aten.copy_.default:
        to_gpu = isinstance(args[0], GpuTensor)
    if not (has_gpu or to_gpu):
        return func(*args, **kwargs)
    if func is aten._fused_sdp_choice.default:
        return 0
    if has_gpu:
        _check(func, args, kwargs, tensors)
    if generator is not None and to_gpu and generator.device.type == "cpu":
        raise RefusedError(f"Expected a 'gpu' device type for generator but found 'cpu': {func}")
    _count(func, args, kwargs, to_gpu=to_gpu)
    if target is not None:
        kwargs = {**kwargs, "device": "cpu"}
    inner = tree_map(lambda one: one.kept if isinstance(one, GpuTensor) else one, (args, kwargs))
    out = func(*inner[0], **inner[1])
    name = func._schema.name
    if name.endswith("_") and not name.endswith("__") and args and isinstance(args[0], Tensor):
        return args[0]
    if "out" in kwargs:
        return kwargs["out"]
    if not to_gpu:
        return out
    return tree_map(lambda one: GpuTensor(one) if type(one) is Tensor else one, out)


class _Kernels(TorchDispatchMode):
    """Sees what makes tensors on the card without having one as an argument."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


class _Makers(TorchFunctionMode):
    """Sees what makes tensors from Python's numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and _is_gpu(kwargs.get("device")):
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


class _Event:
    """A mark in the queue of work."""

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, _stream: None) -> None:
        self.time, self.waits = time.perf_counter(), _counts[-1].waits
        self.is_late = _counts[-1].is_busy

    def synchronize(self) -> None:
        if self.is_late and self.waits == _counts[-1].waits:
            _counts[-1].add("synchronizations")

    def elapsed_time(self, end: "_Event") -> float:
        return (end.time - self.time) * 1000


@cache
def _register() -> None:
    """Register the device with PyTorch, once in a process."""
    _setup_privateuseone_for_python_backend("gpu")
    module = torch.get_device_module("gpu")
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    module.Event, module.current_stream = _Event, lambda _: None
    module.synchronize = lambda _=None: _counts[-1].add("synchronizations")
    others = torch.library.Library("_", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    library = torch.library.Library("aten", "IMPL")
    for names, choose in (
        (_IN_HALF, lambda _: torch.get_autocast_dtype("gpu")),
        (_IN_FLOAT32, lambda _: torch.float32),
        (_IN_WIDEST, _widest),
    ):
        for name in names.split():
            packet, _, overload = name.partition(".")
            func = getattr(getattr(aten, packet), overload or "default")
            library.impl(func, _casting(func, choose), "AutocastPrivateUse1")
    _register.libraries = library, others  # type: ignore[attr-defined] # lives as long as the process


def _floats(values: Any) -> list[Tensor]:
    tensors = (one for one in tree_leaves(values) if isinstance(one, Tensor))
    return [one for one in tensors if one.is_floating_point() and one.dtype != torch.float64]


def _widest(tensors: list[Tensor]) -> torch.dtype:
    is_wide = any(one.dtype == torch.float32 for one in tensors)
    return torch.float32 if is_wide else torch.get_autocast_dtype("gpu")


def _casting(func: Any, choose: Callable[[list[Tensor]], torch.dtype]) -> Callable[..., Any]:
    """Return `func` with its floating-point tensors cast to the type that `choose` names."""
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def cast(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(keys):
            floats = _floats((args, kwargs))
            dtype, chosen = choose(floats), {id(one) for one in floats}
            args, kwargs = tree_map(
                lambda one: one.to(dtype) if id(one) in chosen else one, (args, kwargs)
            )
            return func(*args, **kwargs)

    return cast


def _off_the_card(tensors: Any) -> Any:
    return {k: v.detach().cpu() if isinstance(v, Tensor) else v for k, v in tensors.items()}


@contextmanager
def _patched() -> Iterator[None]:
    """Patch what PyTorch does in C++ with a tensor that has no memory of its own."""
    real_tolist, real_new = Tensor.tolist, Tensor.new_tensor

    def refusing(real: Any) -> Any:
        def to_numpy(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            if isinstance(self, GpuTensor):
                raise TypeError("can't convert gpu:0 device type tensor to numpy")
            return real(self, *args, **kwargs)

        return to_numpy

    def new_tensor(self: Tensor, data: Any, **kwargs: Any) -> Tensor:
        if not isinstance(self, GpuTensor):
            return real_new(self, data, **kwargs)
        return torch.tensor(data, **{"dtype": self.dtype, **kwargs}).to("gpu:0")

    def plainly(cls: Any) -> Any:
        real = cls.from_pretrained.__func__

        @wraps(real)
        def from_pretrained(own: Any, *args: Any, **kwargs: Any) -> Any:
            with _disable_current_modes():
                return real(own, *args, **kwargs)

        return mock.patch.object(cls, "from_pretrained", classmethod(from_pretrained))

    def saving(name: str) -> Any:
        real = getattr(safetensors.torch, name)
        return mock.patch.object(
            safetensors.torch, name, lambda tensors, *a, **k: real(_off_the_card(tensors), *a, **k)
        )

    with ExitStack() as stack:
        for patch in (
            mock.patch.object(Tensor, "numpy", refusing(Tensor.numpy)),
            mock.patch.object(Tensor, "__array__", refusing(Tensor.__array__)),
            mock.patch.object(
                Tensor,
                "tolist",
                lambda self: real_tolist(
                    self.detach().cpu() if isinstance(self, GpuTensor) else self
                ),
            ),
            mock.patch.object(Tensor, "new_tensor", new_tensor),
            mock.patch.object(torch, "inference_mode", lambda _mode=True: torch.no_grad()),
            *map(plainly, (transformers.PreTrainedModel, diffusers.ModelMixin)),
            plainly(diffusers.DiffusionPipeline),
            saving("save_file"),
            saving("save"),
        ):
            stack.enter_context(patch)
        yield


@contextmanager
def pretended_gpu() -> Iterator[Counts]:
    """Give the block a device `gpu:0`; yield the counts of what happens on it."""
    _register()
    counts = Counts()
    _counts.append(counts)
    try:
        with _patched(), _Kernels(), _Makers():
            yield counts
    finally:
        _counts.pop()
