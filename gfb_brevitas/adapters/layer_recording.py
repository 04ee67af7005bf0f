"""Recording a :class:`~gfb_brevitas.layer_graph.LayerGraph` from one forward pass.

PyTorch's operators are noted where they are called, so functional code is seen as well as modules. What
runs within a Brevitas quantizer becomes one node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from gfb_brevitas.adapters import layer_operations
from gfb_brevitas.adapters.eligibility import kind_of, named_proxies
from gfb_brevitas.adapters.forward_failures import why_it_failed
from gfb_brevitas.adapters.operator_products import multiplies
from gfb_brevitas.adapters.tracing import (
    ExampleInputs,
    batch_size_of,
    noting_meetings,
    operators_one_by_one,
    require_module,
    run,
    tensors_of,
)
from gfb_brevitas.errors import ConfigurationError, UntraceableModelError
from gfb_brevitas.layer_graph import LayerGraph, LayerNode, LayerOperation


def record_layers(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    batch_size: int | None = None,
    names: Mapping[str, str] | None = None,
) -> LayerGraph:
    """Run a Brevitas model once in evaluation mode and note every operation.

    Example:
        >>> graph = record_layers(model, torch.randn(1, 1, 28, 28))  # doctest: +SKIP
        >>> [node.name for node in graph.of("conv")]  # doctest: +SKIP
        ['conv1', 'conv2']

    Args:
        model: A Brevitas model, or the one within a searchable model; its training flags are restored.
        example_inputs: One batch: a tensor, a tuple of positional or a mapping of keyword arguments.
        batch_size: Samples in ``example_inputs``; by default the first dimension of its first tensor.
        names: Names of quantizers by the dotted path of their proxy, where they differ from it.

    Raises:
        UntraceableModelError: If the forward pass fails, with its cause.
        ConfigurationError: If ``model`` is not a module.
    """
    require_module(model)
    samples = batch_size_of(example_inputs) if batch_size is None else batch_size
    recorder = _Recorder(names or {}, samples)
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(_hooks(model, recorder))
            stack.enter_context(noting_meetings(recorder))
            recorder.note_inputs(example_inputs)
            stack.enter_context(operators_one_by_one())
            stack.enter_context(_NotingFlatten(recorder))
            stack.enter_context(recorder)
            recorder.note_outputs(run(model, example_inputs))
    except (ConfigurationError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise UntraceableModelError(why_it_failed(error)) from error
    finally:
        for module, training in flags:
            module.training = training
    return LayerGraph(nodes=tuple(recorder.nodes))


class _NotingFlatten(TorchFunctionMode):
    """Tells a recorder where values are flattened, of which only a view is left below."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in (torch.flatten, Tensor.flatten):
            return func(*args, **(kwargs or {}))
        self._recorder.flattens = True
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self._recorder.flattens = False


class _Recorder(TorchDispatchMode):
    """Notes operators; values computed from the input carry the name of the node that made them."""

    supports_higher_order_operators = True

    def __init__(self, names: Mapping[str, str], batch_size: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nodes: list[LayerNode] = []
        self.modules: list[str] = [""]
        self.within_quantizer = 0
        self.flattens = False
        self.batch_size = batch_size
        self._names = names
        self._taken: dict[str, int] = {}
        self._nodes_of: WeakIdKeyDictionary = WeakIdKeyDictionary()  # tensor -> name of a node
        self._parameters: WeakIdKeyDictionary = WeakIdKeyDictionary()  # tensor -> what its quantizer says

    # --- what the hooks report

    def note_inputs(self, inputs: Any) -> None:
        for tensor in tensors_of(_leaves(inputs)):
            if tensor.dim() > 0:
                self.add("input", (), tensor, {}, name="input")

    def note_outputs(self, outputs: Any) -> None:
        for tensor in tensors_of(_leaves(outputs)):
            source = self._nodes_of.get(tensor)
            if source is not None:
                self.add("output", (source,), tensor, {}, name="output", module="")

    def on_quantized(self, path: str, proxy: QuantProxyFromInjector, source: Any, result: Any) -> None:
        name, kind = self._names.get(path, path), kind_of(proxy)
        value = (
            result.value if isinstance(result, IntQuantTensor) else next(tensors_of(_leaves(result)), None)
        )
        if value is None or value.dim() == 0:
            return  # Brevitas probes quantizers with a scalar to read their scale
        attributes = layer_operations.quantizer(name, kind, proxy, result)
        sources = [self._nodes_of[t] for t in tensors_of(_leaves(source)) if t in self._nodes_of]
        if kind in ("weight", "bias"):
            self._parameters[value] = attributes
        elif sources:
            self.add("quantize", tuple(sources[:1]), value, attributes, name=name)

    def on_meeting(self, one: IntQuantTensor, other: IntQuantTensor) -> bool:
        """Scales and widths that differ are not this recorder's business."""
        return True

    def on_arithmetic(self, result: Any, *operands: Any) -> None:
        """The sums themselves are noted as operators."""

    # --- operators

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not self.within_quantizer:
            self._note(func, args, kwargs, out)
        return out

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        operator = getattr(func, "_overloadpacket", func)  # higher-order operators have none
        operands = list(tensors_of((*args, *kwargs.values())))
        sources = tuple(self._nodes_of[t] for t in operands if t in self._nodes_of)
        results = [t for t in tensors_of(out if isinstance(out, (tuple, list)) else (out,)) if t.dim() > 0]
        if not results:
            return
        if not sources:
            self._pass_parameter_on(operands, results)
        elif layer_operations.keeps_values(operator) and len(sources) == 1:
            self._nodes_of.update((t, sources[0]) for t in results)
        else:
            op, attributes = layer_operations.describe(
                operator, args, kwargs, results[0], lambda t: t in self._nodes_of, self._parameters.get
            )
            if op == "reshape" and self.flattens:
                attributes["target"] = "aten.flatten"
            if op == "other":
                attributes["multiplies"] = multiplies(func)
            if op == "linear":
                attributes["vectors"] = results[0].numel() // results[0].shape[-1] // self.batch_size
            name = self.add(op, sources, results[0], attributes)
            self._nodes_of.update((t, name) for t in results)

    def _pass_parameter_on(self, operands: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        marked = [self._parameters[t] for t in operands if t in self._parameters]
        if len(operands) == 1 and marked:  # a view of a quantized weight
            self._parameters.update((t, marked[0]) for t in results)

    def add(
        self,
        op: LayerOperation,
        inputs: tuple[str, ...],
        result: Tensor,
        attributes: Mapping[str, Any],
        *,
        name: str | None = None,
        module: str | None = None,
    ) -> str:
        """Append a node under a name of its own, and mark its result with it."""
        where = self.modules[-1] if module is None else module
        wanted = name or (where if op in ("conv", "linear") and where else f"{where}.{op}".lstrip("."))
        count = self._taken[wanted] = self._taken.get(wanted, 0) + 1
        unique = wanted if count == 1 else f"{wanted}#{count}"
        node = LayerNode(
            name=unique,
            op=op,
            module=where,
            inputs=inputs,
            shape=self._shape_per_sample(result),
            attributes=dict(attributes),
        )
        self.nodes.append(node)
        self._nodes_of[result] = unique
        return unique

    def _shape_per_sample(self, result: Tensor) -> tuple[int, ...]:
        if result.is_nested:
            return ()
        rows, *rest = (int(n) for n in result.shape)
        vectors, left = divmod(rows, self.batch_size)
        return (vectors, *rest) if vectors > 1 and not left else tuple(rest)


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, IntQuantTensor):
        return [value.value]
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in _leaves(item)]
    return []


@contextmanager
def _hooks(model: nn.Module, recorder: _Recorder) -> Iterator[None]:
    handles = []
    proxies: dict[nn.Module, str] = {proxy: path for path, proxy in named_proxies(model)}
    inner = {m for proxy in proxies for m in proxy.modules() if m is not proxy}
    for path, module in model.named_modules():
        if module in proxies:
            handles.append(module.register_forward_pre_hook(_enter_quantizer(recorder)))
            handles.append(module.register_forward_hook(_left_quantizer(recorder, proxies[module])))
            handles.append(module.register_forward_hook(_leave_quantizer(recorder), always_call=True))
        elif module not in inner:
            handles.append(module.register_forward_pre_hook(_enter(recorder, path)))
            handles.append(module.register_forward_hook(_leave(recorder), always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _enter(recorder: _Recorder, path: str) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any) -> None:
        recorder.modules.append(path)

    return hook


def _leave(recorder: _Recorder) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, _output: Any) -> None:
        recorder.modules.pop()

    return hook


def _enter_quantizer(recorder: _Recorder) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any) -> None:
        recorder.within_quantizer += 1

    return hook


def _left_quantizer(recorder: _Recorder, path: str) -> Callable[..., None]:
    def hook(module: Any, args: Any, output: Any) -> None:
        if recorder.within_quantizer == 1:
            recorder.on_quantized(path, module, args, output)

    return hook


def _leave_quantizer(recorder: _Recorder) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, _output: Any) -> None:
        recorder.within_quantizer -= 1

    return hook
