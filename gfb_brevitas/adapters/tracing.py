"""What a model's quantizers feed: one forward pass in which values carry where they came from.

Every quantizer marks its output. Operations that only move values (reshape, permute, pooling by
maximum, concatenation, ...) pass the mark on, all others drop it. Where two marked or unmarked
tensors meet in a matrix product or convolution, its multiply-accumulates are noted with the marks of
both sides. That needs no knowledge of layer types: it holds for attention, recurrent cells, tied
weights and functional code alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import reduce
from itertools import product
from typing import Any, Protocol

import torch
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary

from gfb_brevitas.adapters.forward_failures import why_it_failed
from gfb_brevitas.errors import ConfigurationError, UntraceableModelError
from gfb_brevitas.profile import FLOAT_BITS, Operand, Product

ExampleInputs = Tensor | tuple[Any, ...] | Mapping[str, Any]

aten = torch.ops.aten
_MOVES_VALUES = {
    getattr(aten, name)
    for name in [
        "view",
        "_unsafe_view",
        "reshape",
        "permute",
        "transpose",
        "t",
        "expand",
        "slice",
        "select",
        "unbind",
        "split",
        "split_with_sizes",
        "chunk",
        "squeeze",
        "unsqueeze",
        "clone",
        "contiguous",
        "detach",
        "alias",
        "cat",
        "stack",
        "index_select",
        "index",
        "gather",
        "embedding",
        "max_pool1d_with_indices",
        "max_pool2d_with_indices",
        "max_pool3d_with_indices",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "adaptive_max_pool3d",
        "constant_pad_nd",
        "reflection_pad1d",
        "reflection_pad2d",
        "replication_pad1d",
        "replication_pad2d",
        "relu",
        "neg",
        "abs",
        "roll",
        "flip",
        "repeat",
        "upsample_nearest1d",
        "upsample_nearest2d",
        "upsample_nearest3d",
        "pixel_shuffle",
        "_to_copy",
        "_reshape_alias",
        "movedim",
        "masked_fill",
        "where",
    ]
    if hasattr(aten, name)
}
_PRODUCT_OPERANDS = {aten.mm: (0, 1), aten.addmm: (1, 2), aten.bmm: (0, 1), aten.baddbmm: (1, 2)}


@dataclass(frozen=True)
class Mark:
    """Where a tensor's values come from: quantizer names, or the width of an unsearched quantizer."""

    names: tuple[str, ...] = ()
    constant_bits: float = FLOAT_BITS

    def join(self, other: Mark) -> Mark:
        """The mark of values that come from both."""
        names = tuple(dict.fromkeys((*self.names, *other.names)))
        widths = [m.constant_bits for m in (self, other) if not m.names]
        return Mark(names, max(widths) if widths else FLOAT_BITS)

    def operand(self) -> Operand:
        """The mark as one side of a product."""
        return Operand(quantizers=self.names, constant_bits=self.constant_bits)


@dataclass
class Trace:
    """What one forward pass showed.

    Attributes:
        order: Quantizer names in the order of their first call.
        elements: Elements that each quantizer put out, summed over its calls (whole batch).
        largest_call: Elements of the largest single call (whole batch).
        products: Layer name, multiply-accumulates (whole batch) and the two marks.
        meetings: Pairs of quantizers whose outputs were added or concatenated as quant tensors.
    """

    order: list[str] = field(default_factory=list)
    elements: dict[str, int] = field(default_factory=dict)
    largest_call: dict[str, int] = field(default_factory=dict)
    products: list[tuple[str, int, Mark, Mark]] = field(default_factory=list)
    meetings: list[tuple[str, str]] = field(default_factory=list)

    def profile_products(self, batch_size: int) -> tuple[Product, ...]:
        """The products per sample; those of one layer with the same operands are added."""
        totals: dict[tuple[str, Mark, Mark], int] = {}
        for layer, macs, left, right in self.products:
            key = (layer, left, right)
            totals[key] = totals.get(key, 0) + macs
        return tuple(
            Product(layer=layer, macs=round(macs / batch_size), left=left.operand(), right=right.operand())
            for (layer, left, right), macs in totals.items()
        )


def trace(
    model: nn.Module,
    example_inputs: ExampleInputs,
    searched: Mapping[nn.Module, str],
    unsearched: Sequence[nn.Module],
) -> Trace:
    """Run ``model`` once in evaluation mode and note what its quantizers feed.

    Args:
        model: The model; its training flags are restored.
        example_inputs: One batch: a tensor, a tuple of positional or a mapping of keyword arguments.
        searched: Quantizer modules and their names.
        unsearched: Other quantizer modules, whose width is taken from what they return.

    Raises:
        UntraceableModelError: If the forward pass fails, with its cause.
    """
    recorder = _Recorder()
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(_hooks(model, recorder, searched, unsearched))
            stack.enter_context(noting_meetings(recorder))
            stack.enter_context(recorder)
            run(model, example_inputs)
    except (ConfigurationError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise UntraceableModelError(why_it_failed(error)) from error
    finally:
        for module, training in flags:
            module.training = training
    return recorder.trace


def run(model: nn.Module, inputs: ExampleInputs) -> Any:
    """Call ``model`` on example inputs of any of the three forms."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple) and not hasattr(inputs, "_fields"):
        return model(*inputs)
    return model(inputs)


def require_module(model: object) -> None:
    """Check that ``model`` is a module.

    Raises:
        ConfigurationError: If it is something else, such as the class of one.
    """
    if not isinstance(model, nn.Module):
        got = f"the class {model.__name__}" if isinstance(model, type) else repr(model)
        raise ConfigurationError(f"model must be an instance of torch.nn.Module; got {got}.")


def batch_size_of(inputs: ExampleInputs) -> int:
    """Length of the first dimension of the first tensor in ``inputs``.

    Raises:
        UntraceableModelError: If there is no tensor with a first dimension.
    """
    if isinstance(inputs, Mapping):
        inputs = tuple(inputs.values())
    elif not isinstance(inputs, (Tensor, tuple, list)):
        raise UntraceableModelError(
            "example_inputs must be one batch: a tensor, a tuple of positional arguments, or a mapping of "
            f"keyword arguments; got {type(inputs).__name__!r}. To pass another kind of object as the only "
            "argument, state batch_size too."
        )
    for value in [inputs] if isinstance(inputs, Tensor) else inputs:
        if isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] > 0:
            return int(value.shape[0])
    raise UntraceableModelError(
        "example_inputs hold no tensor with a batch dimension (or an empty one); "
        "pass a batch of at least one sample, and batch_size=1 for models without one."
    )


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace()
        self.layers: list[str] = []
        self._marks: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._scales: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def mark_of(self, tensor: Any) -> Mark:
        mark: Mark = self._marks.get(tensor, Mark()) if isinstance(tensor, Tensor) else Mark()
        return mark

    def on_quantized(self, name: str, values: Tensor) -> None:
        if values.dim() == 0:
            return  # Brevitas probes quantizers with a scalar to read their scale
        trace = self.trace
        if name not in trace.elements:
            trace.order.append(name)
        trace.elements[name] = trace.elements.get(name, 0) + values.numel()
        trace.largest_call[name] = max(trace.largest_call.get(name, 0), values.numel())
        self._marks[values] = Mark((name,))
        self._scales[values] = (name,)

    def on_unsearched(self, values: Tensor, bits: float) -> None:
        self._marks[values] = Mark((), bits)

    def on_meeting(self, one: IntQuantTensor, other: IntQuantTensor) -> bool:
        left, right = self._scale_names(one.value), self._scale_names(other.value)
        self.trace.meetings.extend((a, b) for a, b in product(left, right) if a != b)
        return True

    def on_arithmetic(self, result: Any, *operands: Any) -> None:
        """A sum, negative or magnitude of quant tensors has the scale that they have."""
        if isinstance(result, IntQuantTensor):
            values = [o.value for o in operands if isinstance(o, IntQuantTensor)]
            self._scales[result.value] = self._scale_names(*values)

    def _scale_names(self, *values: Tensor) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for v in values for name in self._scales.get(v, ())))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in _MOVES_VALUES:
            self._pass_on(args, out)
        elif packet in flop_registry:
            self._note_product(packet, args, kwargs, out)
        return out

    def _pass_on(self, args: tuple[Any, ...], out: Any) -> None:
        sources = [t for t in tensors_of(args) if t.is_floating_point() and t.dim() > 0]
        results = tensors_of(out if isinstance(out, (tuple, list)) else (out,))
        moved = [t for t in results if t.is_floating_point()]
        if sources and all(t in self._marks for t in sources):
            joined = reduce(Mark.join, map(self.mark_of, sources))
            self._marks.update((t, joined) for t in moved)
        names = self._scale_names(*sources)
        if names:
            self._scales.update((t, names) for t in moved)

    def _note_product(self, packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        count: Callable[..., int] = flop_registry[packet]
        macs = int(count(*args, **kwargs, out_val=out)) // 2
        left, right = _PRODUCT_OPERANDS.get(packet, (0, 1))
        layer = next((name for name in reversed(self.layers) if not _is_private(name)), "")
        self.trace.products.append((layer, macs, self.mark_of(args[left]), self.mark_of(args[right])))


def _is_private(name: str) -> bool:
    return name.rpartition(".")[2].startswith("_")


def tensors_of(values: Sequence[Any]) -> Iterator[Tensor]:
    """All tensors in nested tuples and lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from tensors_of(value)


@contextmanager
def _hooks(
    model: nn.Module, recorder: _Recorder, searched: Mapping[nn.Module, str], unsearched: Sequence[nn.Module]
) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(_enter(recorder, name)))
        handles.append(module.register_forward_hook(_leave(recorder), always_call=True))
    for quantizer, name in searched.items():
        handles.append(quantizer.register_forward_hook(_quantized(recorder, name)))
    for quantizer in unsearched:
        handles.append(quantizer.register_forward_hook(_unsearched(recorder)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _MeetingRecorder(Protocol):
    def on_meeting(self, one: IntQuantTensor, other: IntQuantTensor) -> bool: ...

    def on_arithmetic(self, result: Any, *operands: Any) -> None: ...


@contextmanager
def noting_meetings(recorder: _MeetingRecorder) -> Iterator[None]:
    """Tell ``recorder`` where quant tensors are added or concatenated.

    Brevitas compares their scales and widths there. Within this ``with`` block they may differ: that they
    meet is what a trace is to find out.
    """

    def note(one: IntQuantTensor, other: IntQuantTensor) -> bool:
        return recorder.on_meeting(one, other)

    changed: dict[str, Any] = dict.fromkeys(("check_scaling_factors_same", "check_bit_width_same"), note)
    for name in ("__add__", "__neg__", "__abs__"):
        changed[name] = _noting_arithmetic(recorder, getattr(IntQuantTensor, name))
    own = {name: vars(IntQuantTensor)[name] for name in changed if name in vars(IntQuantTensor)}
    for name, method in changed.items():
        setattr(IntQuantTensor, name, method)
    try:
        yield
    finally:
        for name in changed:
            if name in own:
                setattr(IntQuantTensor, name, own[name])
            else:
                delattr(IntQuantTensor, name)


def _noting_arithmetic(recorder: _MeetingRecorder, method: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*operands: Any) -> Any:
        result = method(*operands)
        recorder.on_arithmetic(result, *operands)
        return result

    return noted


def _enter(recorder: _Recorder, name: str) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any) -> None:
        recorder.layers.append(name)

    return hook


def _leave(recorder: _Recorder) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, _output: Any) -> None:
        recorder.layers.pop()

    return hook


def _quantized(recorder: _Recorder, name: str) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        recorder.on_quantized(name, output[0])

    return hook


def _unsearched(recorder: _Recorder) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        width = output[3] if isinstance(output, tuple) and len(output) == 4 else None
        if isinstance(width, Tensor) and width.numel() == 1:
            recorder.on_unsearched(output[0], float(width))

    return hook
