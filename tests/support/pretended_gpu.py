"""A pretended GPU: its tensors say that they are on `gpu:0`, and compute on the CPU.

It refuses what CUDA refuses: operands on two devices or of two types, a generator of the CPU, a
GPU's tensor as an array. And it counts what costs time on a real GPU, by place in the code:

- synchronizations, where the program waits for the GPU: a value that is read (`.item()`, `bool()`,
  `.tolist()`, printing), a copy to the CPU, a result whose shape depends on values (`nonzero`, a
  mask as an index), and events that are waited for;
- copies to the GPU; without `non_blocking` the program waits for them too;
- launches: calls of operators that compute.

It is PyTorch's own hook for a backend in Python. Under autocast its operators cast as on CUDA.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
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
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

WAITS, BLOCKING, COPIES, LAUNCHES = "synchronizations", "blocking copies", "copies", "launches"
CHECKOUT = f"{Path(__file__).parents[2]}/"
PACKAGES = tuple(f"{CHECKOUT}{name}/" for name in ("finetune", "reward", "pipelines", "world"))

aten = torch.ops.aten
_COPIES = {aten._to_copy.default, aten.copy_.default}
_WRITES_AT = {aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
_INDEXING = {aten.index.Tensor, *_WRITES_AT}
_SHAPED_BY_VALUES = {
    *(aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default),
    *(aten.equal.default, aten._unique2.default, aten.bincount.default),
    aten.repeat_interleave.Tensor,
}
_AUTOCAST = "AutocastPrivateUse1"
_NORMS = {aten.native_layer_norm.default, aten.native_group_norm.default}
# As in ATen/autocast_mode.h, without what no model here uses.
_IN_HALF = (
    "conv1d conv2d conv3d conv_transpose2d.input addmm addbmm baddbmm bmm mm mv matmul linear"
    " prelu scaled_dot_product_attention einsum"
)
_IN_FLOAT32 = (
    "exp expm1 log log1p reciprocal rsqrt pow.Tensor_Scalar pow.Tensor_Tensor softplus layer_norm"
    " rms_norm upsample_nearest2d"
    " group_norm cosine_similarity mse_loss binary_cross_entropy_with_logits cdist logsumexp"
    " softmax.int log_softmax.int prod cumsum sum sum.dim_IntList"
)
_IN_WIDEST = "addcdiv addcmul atan2 bilinear dot grid_sampler scatter_add cat stack"


class Counts:
    """Number of events on the GPU, by kind and place in the code."""

    def __init__(self) -> None:
        """Start at zero."""
        self.by_place: Counter[tuple[str, str]] = Counter()
        self.waits, self.is_busy = 0, False

    def add(self, kind: str) -> None:
        """Count an event of a kind where the packages' code is now."""
        self.by_place[kind, _place()] += 1
        self.waits, self.is_busy = self.waits + (kind == WAITS), kind != WAITS

    def by_kind(self) -> Counter[str]:
        """Return the number of events of each kind."""
        found = Counter[str]()
        for (kind, _), number in self.by_place.items():
            found[kind] += number
        return found


_counts = [Counts()]


def _place() -> str:
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGES):
            return f"{code.co_filename.removeprefix(CHECKOUT)} {code.co_qualname}"
        frame = frame.f_back  # type: ignore[assignment]
    return "backward"  # autograd computes in a thread of its own


class GpuTensor(Tensor):
    """A tensor on the pretended GPU; `kept` holds its values."""

    kept: Tensor

    @staticmethod
    def __new__(cls, kept: Tensor) -> "GpuTensor":
        """Return the tensor around `kept`."""
        layout = {name: getattr(kept, name) for name in ("dtype", "layout")}
        strides, offset = kept.stride(), kept.storage_offset()
        device = torch.device("gpu:0")
        made: GpuTensor = Tensor._make_wrapper_subclass(
            cls, kept.size(), strides=strides, storage_offset=offset, device=device, **layout
        )
        made.kept = kept
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:  # `Module.to` asks for it
        return ["kept"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, *_: Any) -> "GpuTensor":
        return GpuTensor(inner["kept"])

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _call(func, args, kwargs or {})

    def __getitem__(self, index: Any) -> Tensor:
        return Tensor.__getitem__(self, _moved(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, int | float):
            value = torch.full((), value, dtype=self.dtype, device="gpu:0")
        Tensor.__setitem__(self, _moved(index), value)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"GpuTensor({self.detach().cpu()})"


def _moved(index: Any) -> Any:
    """Return an index with its lists on the GPU."""
    if isinstance(index, tuple):
        return tuple(_moved(one) for one in index)
    return torch.tensor(index).to("gpu:0") if isinstance(index, list) else index


def _is_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "gpu"


def _check(func: Any, args: Any, tensors: list[Tensor]) -> None:
    """Refuse what CUDA refuses of operands, at least one of which is on the GPU."""
    others = [one for one in tensors if not isinstance(one, GpuTensor)]
    if func in _INDEXING and not isinstance(args[0], GpuTensor):
        raise RuntimeError(f"indices should be on the device of the indexed tensor, cpu: {func}")
    if func in _WRITES_AT:
        others = [one for one in others if one is args[2]]
    if func not in {aten.index.Tensor, *_COPIES} and any(one.dim() > 0 for one in others):
        shapes = [(str(one.device), tuple(one.shape)) for one in tensors]
        raise RuntimeError(f"Expected all tensors to be on the same device: {func} {shapes}")
    if func in _NORMS and len({one.dtype for one in tensors}) > 1:
        raise RuntimeError(f"expected one scalar type: {func} {[one.dtype for one in tensors]}")


def _count(func: Any, args: Any, kwargs: Any, *, to_gpu: bool) -> None:
    """Count what one call costs."""
    add, is_read = _counts[-1].add, func in _SHAPED_BY_VALUES
    if func in _INDEXING:
        indices = [one for one in args[1] if one is not None]
        is_read = any(one.dtype == torch.bool for one in indices)
        for one in indices:
            if not isinstance(one, GpuTensor):
                add(BLOCKING)
    if func in _COPIES:
        source = args[func is aten.copy_.default]
        is_read = isinstance(source, GpuTensor) and not to_gpu
        if to_gpu and not isinstance(source, GpuTensor):
            add(COPIES if kwargs.get("non_blocking") or any(args[2:]) else BLOCKING)
            return
    if not (func.is_view or func in (aten.detach.default, aten.empty.memory_format)):
        add(LAUNCHES)
    if is_read:
        add(WAITS)


def _mapped(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return the arguments of an operator with each tensor changed; `tree_map` is slower."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)([_mapped(change, one) for one in value])
    if isinstance(value, dict):
        return {key: _mapped(change, one) for key, one in value.items()}
    return value


def _call(func: Any, args: Any, kwargs: Any) -> Any:
    """Call an operator on what the pretended tensors hold."""
    tensors = list[Tensor]()

    def held(one: Tensor) -> Tensor:
        tensors.append(one)
        return one.kept if isinstance(one, GpuTensor) else one

    inner, inner_kwargs = _mapped(held, args), _mapped(held, kwargs)
    has_gpu = any(isinstance(one, GpuTensor) for one in tensors)
    target, generator = kwargs.get("device"), kwargs.get("generator")
    to_gpu = has_gpu if target is None else _is_gpu(target)
    if func is aten.copy_.default:
        to_gpu = isinstance(args[0], GpuTensor)
    if not (has_gpu or to_gpu):
        return func(*args, **kwargs)
    if func is aten._fused_sdp_choice.default:
        return 0  # the kernel that consists of other operators
    if has_gpu:
        _check(func, args, tensors)
    if to_gpu and generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"Expected a 'gpu' device type for generator but found 'cpu': {func}")
    _count(func, args, kwargs, to_gpu=to_gpu)
    if target is not None:
        inner_kwargs["device"] = "cpu"
    out, name = func(*inner, **inner_kwargs), func._schema.name
    if name.endswith("_") and not name.endswith("__") and args and isinstance(args[0], Tensor):
        return args[0]
    if "out" in kwargs or not to_gpu:
        return kwargs.get("out", out)
    return _mapped(lambda one: GpuTensor(one) if type(one) is Tensor else one, out)


class _Operators(TorchDispatchMode):
    """Sees operators that make tensors on the GPU from nothing or from the CPU's."""

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


class _Makers(TorchFunctionMode):
    """Sees functions that make tensors from numbers."""

    def __torch_function__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and _is_gpu(kwargs.get("device")):
            return func(*args, **{**kwargs, "device": "cpu"}).to(kwargs["device"])
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
            _counts[-1].add(WAITS)

    def elapsed_time(self, end: "_Event") -> float:
        return (end.time - self.time) * 1000


def _register() -> tuple[torch.library.Library, ...]:
    """Register the device and its autocast; return what keeps the registration alive."""
    _setup_privateuseone_for_python_backend("gpu")
    module = torch.get_device_module("gpu")
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    module.Event, module.current_stream = _Event, lambda _: None
    module.device_count = lambda: 0  # `fork_rng` has nothing to keep there
    others, library = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, _AUTOCAST)
    half = partial(torch.get_autocast_dtype, "gpu")
    for names, choose in (
        (_IN_HALF, lambda _: half()),
        (_IN_FLOAT32, lambda _: torch.float32),
        (_IN_WIDEST, lambda types: torch.float32 if torch.float32 in types else half()),
    ):
        for name in names.split():
            packet, _, overload = name.partition(".")
            func = getattr(getattr(aten, packet), overload or "default")
            library.impl(func, _casting(func, choose), _AUTOCAST)
    return others, library


def _casting(func: Any, choose: Callable[[set[torch.dtype]], torch.dtype]) -> Callable[..., Any]:
    """Return `func` with its floating-point tensors cast to the type that `choose` names."""
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, _AUTOCAST))

    def is_cast(one: Tensor) -> bool:
        return one.is_floating_point() and one.dtype != torch.float64

    def cast(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(keys):
            types = set[torch.dtype]()

            def seen(one: Tensor) -> Tensor:
                types.update([one.dtype] if is_cast(one) else [])
                return one

            _mapped(seen, (args, kwargs))
            dtype = choose(types)
            args, kwargs = _mapped(
                lambda one: one.to(dtype) if is_cast(one) else one, (args, kwargs)
            )
            return func(*args, **kwargs)

    return cast


def _patch(owner: Any, name: str, change: Callable[..., Any]) -> Any:
    """Patch a function: `change` gets the real one, then the arguments."""
    real = getattr(owner, name)

    @wraps(real)
    def changed(*args: Any, **kwargs: Any) -> Any:
        return change(real, *args, **kwargs)

    return mock.patch.object(owner, name, changed)


def _refuse_arrays(real: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    if isinstance(tensor, GpuTensor):
        raise TypeError("can't convert gpu:0 device type tensor to numpy")
    return real(tensor, *args, **kwargs)


def _with_cpu(real: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
    """Give a function of C++ tensors that have memory."""
    down = tree_map(lambda one: one.detach().cpu() if isinstance(one, GpuTensor) else one, values)
    return real(down, *args, **kwargs)


def _new_tensor(real: Any, like: Tensor, data: Any, **kwargs: Any) -> Tensor:
    if not isinstance(like, GpuTensor):
        made: Tensor = real(like, data, **kwargs)
        return made
    return torch.tensor(data, **{"dtype": like.dtype, **kwargs}).to("gpu:0")


def _load_plainly(owner: Any) -> Any:
    real = owner.from_pretrained.__func__

    @wraps(real)
    def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return real(cls, *args, **kwargs)

    return mock.patch.object(owner, "from_pretrained", classmethod(from_pretrained))


@contextmanager
def pretended_gpu() -> Iterator[Counts]:
    """Give the block a device `gpu:0`; yield the counts of what happens on it."""
    models = transformers.PreTrainedModel, diffusers.ModelMixin, diffusers.DiffusionPipeline
    counts = Counts()
    with ExitStack() as stack:
        for patch in (
            _patch(Tensor, "numpy", _refuse_arrays),
            _patch(Tensor, "__array__", _refuse_arrays),
            _patch(Tensor, "tolist", _with_cpu),
            _patch(Tensor, "new_tensor", _new_tensor),
            _patch(torch, "save", _with_cpu),
            _patch(safetensors.torch, "save_file", _with_cpu),
            _patch(torch, "inference_mode", lambda _real, _mode=True: torch.no_grad()),
            *map(_load_plainly, models),
        ):
            stack.enter_context(patch)
        stack.callback(_counts.remove, counts)
        _counts.append(counts)
        stack.enter_context(_Operators())  # type: ignore[no-untyped-call]
        stack.enter_context(_Makers())
        yield counts


_LIBRARIES = _register()
"""Made by the import: a process's first backward pass makes queues for known devices alone."""
