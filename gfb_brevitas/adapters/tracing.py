"""What a model's quantizers feed: one forward pass in which values carry where they came from.

Every quantizer marks its output. Operations that only move values (reshape, permute, pooling by
maximum, concatenation, ...) pass the mark on, all others drop it. Where two marked or unmarked
tensors meet in a matrix product or convolution, its multiply-accumulates are noted with the marks of
both sides. That needs no knowledge of layer types: it holds for attention, recurrent cells, tied
weights and functional code alike. How operators are told apart stands in
:mod:`~gfb_brevitas.adapters.product_recorder`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any, Protocol

import torch
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from gfb_brevitas.adapters.forward_failures import why_it_failed
from gfb_brevitas.adapters.product_recorder import ProductRecorder, Surroundings, Trace, tensors_held_by
from gfb_brevitas.errors import ConfigurationError, UntraceableModelError

ExampleInputs = Tensor | tuple[Any, ...] | Mapping[str, Any]


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
    telling = tree_map(_telling, example_inputs)
    if any(a is not b for a, b in zip(tree_leaves(telling), tree_leaves(example_inputs), strict=True)):
        with suppress(UntraceableModelError):  # a model that wants the example's very values gets them
            return _traced(model, telling, searched, unsearched)
    return _traced(model, example_inputs, searched, unsearched)


def _telling(value: Any) -> Any:
    """Noise in place of an example without content: among zeros, what is computed equals what is moved."""
    if not (isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 1):
        return value
    if bool((value != value.flatten()[0]).any()):
        return value
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    return noise.to(value.device, value.dtype)


def _traced(
    model: nn.Module,
    example_inputs: ExampleInputs,
    searched: Mapping[nn.Module, str],
    unsearched: Sequence[nn.Module],
) -> Trace:
    recorder = ProductRecorder([*tensors_held_by(model), *tensors_of(tree_leaves(example_inputs))])
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(_hooks(model, recorder, searched, unsearched))
            stack.enter_context(noting_meetings(recorder))
            stack.enter_context(operators_one_by_one())
            stack.enter_context(Surroundings(recorder))
            stack.enter_context(recorder)
            recorder.look_for_outside(run(model, example_inputs))
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


def tensors_of(values: Sequence[Any]) -> Iterator[Tensor]:
    """All tensors in nested tuples and lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from tensors_of(value)


@contextmanager
def _hooks(
    model: nn.Module,
    recorder: ProductRecorder,
    searched: Mapping[nn.Module, str],
    unsearched: Sequence[nn.Module],
) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(_enter(recorder, name)))
        handles.append(module.register_forward_hook(_leave(recorder), always_call=True))
    for quantizer in (*searched, *unsearched):
        handles.append(quantizer.register_forward_pre_hook(_enter_quantizer(recorder)))
        handles.append(quantizer.register_forward_hook(_leave_quantizer(recorder), always_call=True))
    for quantizer, name in searched.items():
        handles.append(quantizer.register_forward_hook(_quantized(recorder, name)))
    for quantizer in unsearched:
        handles.append(quantizer.register_forward_hook(_unsearched(recorder)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def operators_one_by_one() -> Iterator[None]:
    """Run PyTorch's layers by their operators, not by kernels that compute a whole layer at once.

    Compiled parts of a model run as they were written, too: what compiled code does is not seen.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


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


def _enter(recorder: ProductRecorder, name: str) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any) -> None:
        recorder.layers.append(name)

    return hook


def _leave(recorder: ProductRecorder) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        recorder.leave_layer(output)

    return hook


def _enter_quantizer(recorder: ProductRecorder) -> Callable[..., None]:
    def hook(_module: nn.Module, args: Any) -> None:
        recorder.enter_quantizer(args)

    return hook


def _leave_quantizer(recorder: ProductRecorder) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, _output: Any) -> None:
        recorder.leave_quantizer()

    return hook


def _quantized(recorder: ProductRecorder, name: str) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        recorder.on_quantized(name, output[0])

    return hook


def _unsearched(recorder: ProductRecorder) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        width = output[3] if isinstance(output, tuple) and len(output) == 4 else None
        if isinstance(width, Tensor) and width.numel() == 1:
            recorder.on_unsearched(output[0], float(width))

    return hook
