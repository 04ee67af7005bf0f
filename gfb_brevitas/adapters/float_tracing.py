"""Tracing a float model with ``torch.fx``, and the cause where it cannot be followed."""

from __future__ import annotations

import inspect
import traceback
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import brevitas
import torch
from torch import nn

from gfb_brevitas.adapters.brevitas_fx import GraphModule, Node, Proxy, TraceError, Tracer, map_arg
from gfb_brevitas.adapters.tracing import ExampleInputs
from gfb_brevitas.errors import UntraceableModelError

_LIBRARIES = tuple(str(Path(found.__file__).parent) for found in (torch, brevitas) if found.__file__)
_OURS = str(Path(__file__).parent)
_READS_VALUES = ("item", "tolist", "__int__", "__float__", "__bool__", "numpy")

WEIGHT_LAYERS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.Bilinear, nn.MultiheadAttention),
    *(nn.RNNBase, nn.RNNCellBase),
)
"""PyTorch's layers that hold weights."""


class FloatTracer(Tracer):
    """Follows a float model; decisions by shapes are made as the example inputs have them.

    Attributes:
        decided: Whether one was made.
    """

    def __init__(self, arguments: Mapping[str, Any], left: Collection[nn.Module]) -> None:
        super().__init__()
        self.decided = False
        self._arguments, self._left = arguments, set(left)
        self._values: dict[Node, Any] = {}
        self._evaluating = False
        self._within: list[str] = []
        self.failed_in = ""

    # --- what torch.fx asks

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """PyTorch's and Brevitas' layers, but not those of which layers with weights are parts."""
        home = type(m).__module__
        if m in self._left or home.startswith("brevitas."):
            return True
        parts = any(isinstance(part, WEIGHT_LAYERS) for part in m.modules() if part is not m)
        composed = isinstance(m, nn.Sequential) or (parts and not isinstance(m, WEIGHT_LAYERS))
        return home.startswith("torch.nn") and not composed

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Note where a failure happened."""
        if self._evaluating:
            return forward(*args, **kwargs)
        self._within.append(self.path_of_module(m))
        result = super().call_module(m, forward, args, kwargs)
        self._within.pop()
        return result

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Parameters are not proxies while values are computed."""
        return attr_val if self._evaluating else super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: Node) -> Proxy:
        """A proxy that can be counted with, where it stands for a size."""
        return _SizeProxy(node, self)

    def to_bool(self, obj: Proxy) -> bool:
        """Decide by sizes, never by values."""
        return bool(self.size(obj.node))

    def iter(self, obj: Proxy) -> Iterator[Any]:
        """The parts of what has as many for every input of a shape: sizes, and results in a tuple."""
        value = self._value(obj.node)
        if not isinstance(value, (tuple, list)):
            return super().iter(obj)
        parts: Any = obj
        return iter([parts[place] for place in range(len(value))])

    # --- sizes

    def size(self, node: Node) -> Any:
        """The number that a node is for the example inputs.

        Raises:
            TraceError: If it depends on values.
        """
        value = self._value(node)
        if not isinstance(value, (bool, int, float)):
            raise TraceError("its forward decides by the values of its input")
        self.decided = True
        return value

    def _value(self, node: Node) -> Any:
        if node not in self._values:
            arguments = map_arg(node.args, self._value), map_arg(node.kwargs, self._value)
            self._evaluating = True
            try:
                with torch.no_grad():
                    self._values[node] = self._computed(node, *arguments)
            finally:
                self._evaluating = False
        return self._values[node]

    def _computed(self, node: Node, args: Any, kwargs: Any) -> Any:
        target = cast(Any, node.target)
        if node.op == "placeholder" and target in self._arguments:
            return self._arguments[target]
        if node.op == "get_attr":
            return _attribute(self.root, target)
        if node.op == "call_function":
            return target(*args, **kwargs)
        if node.op == "call_module":
            return self.root.get_submodule(target)(*args, **kwargs)
        if node.op == "call_method" and target not in _READS_VALUES:
            return getattr(args[0], target)(*args[1:], **kwargs)
        raise TraceError("its forward decides by the values of its input")

    @property
    def within(self) -> str:
        """The innermost module that was being followed."""
        return self._within[-1] if self._within else ""


class _SizeProxy(Proxy):
    def __index__(self) -> int:
        return int(cast(FloatTracer, self.tracer).size(self.node))

    __int__ = __index__


def trace_float_model(
    model: nn.Module, example_inputs: ExampleInputs, left: Collection[nn.Module]
) -> tuple[GraphModule, list[str]]:
    """The graph of a float model, and what was decided while it was made, one sentence each.

    Layers with weights that cannot be followed are left as they are.

    Args:
        model: The model; its layers become those of the graph.
        example_inputs: One batch, whose shapes decide where the model decides by shapes.
        left: Layers that are not to be looked into.

    Raises:
        UntraceableModelError: Naming the layer, the line and the cause.
    """
    given, unset = arguments_of(model, example_inputs)
    left = list(left)
    while True:
        tracer = FloatTracer(given, left)
        try:
            graph = _traced(tracer, model, unset)
        except Exception as error:
            layer = model.get_submodule(tracer.within)
            if tracer.within and isinstance(layer, WEIGHT_LAYERS) and layer not in left:
                left.append(layer)
                continue
            raise UntraceableModelError(_why(model, tracer.within, error)) from error
        sizes = "Decisions by shapes were made as the shapes of the example inputs have them."
        return graph, [sizes] if tracer.decided else []


def _traced(tracer: FloatTracer, model: nn.Module, unset: dict[str, Any]) -> GraphModule:
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # no decisions about it within attention
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from brevitas.fx import brevitas_tracer  # slow, and warns

            graph = brevitas_tracer._symbolic_trace(tracer, model, unset or None)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    for node in [n for n in graph.graph.nodes if n.op == "placeholder" and n.target in unset]:
        for user in list(node.users):
            graph.graph.erase_node(user)  # a check that the argument is what it was
        graph.graph.erase_node(node)
    graph._tracer_cls = graph.graph._tracer_cls = Tracer  # copies and files hold no class of ours
    graph.recompile()
    return cast(GraphModule, graph)


def arguments_of(model: nn.Module, inputs: ExampleInputs) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of the example by name, and the defaults of those that it leaves out."""
    signature = inspect.signature(model.forward)
    if isinstance(inputs, Mapping):
        bound = signature.bind(**inputs)
    elif isinstance(inputs, tuple) and not hasattr(inputs, "_fields"):
        bound = signature.bind(*inputs)
    else:
        bound = signature.bind(inputs)
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    unset = {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if name not in bound.arguments and parameter.kind in kinds
    }
    return dict(bound.arguments), unset


def _attribute(root: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(root.get_submodule(owner), name)


def _why(model: nn.Module, path: str, error: Exception) -> str:
    layer = model.get_submodule(path)
    where = f"its layer {path!r} ({type(layer).__name__})" if path else type(model).__name__
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_users(f.filename)]
    line = f", at {frames[-1].filename}:{frames[-1].lineno} ({frames[-1].line})" if frames else ""
    cause = f"{type(error).__name__}: {error}"
    return (
        f"Brevitas could not quantize {type(model).__name__}: torch.fx cannot follow {where}{line}. {cause}. "
        "Graph quantization needs a forward that does the same for every input of a shape. Write that place "
        "without decisions by values, or build the model from brevitas.nn layers."
    )


def node_of(error: Exception) -> Node | None:
    """The node that Brevitas was about when it failed."""
    found, frame = None, error.__traceback__
    while frame is not None:
        known = frame.tb_frame.f_locals
        at = known.get("node", known.get("n"))
        found = at if isinstance(at, Node) else found
        frame = frame.tb_next
    return found


def _is_users(filename: str) -> bool:
    return not filename.startswith(("<", _OURS, *_LIBRARIES))
