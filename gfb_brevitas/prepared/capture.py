"""From a model and its inputs to a graph of plain tensor operations.

The model runs once while its operations are recorded. Everything that Brevitas computes
beside the values (accumulator widths, zero points, validity) falls away unless the output needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from gfb_brevitas.errors import GfbError
from gfb_brevitas.prepared.dependencies import depends_on_input
from gfb_brevitas.prepared.leaf_operators import quantizers_as_leaves
from gfb_brevitas.prepared.record_operations import is_functional, record
from gfb_brevitas.prepared.site_values import WidthInForce

_READS_A_NUMBER = ("_local_scalar_dense", "is_nonzero", "equal", "allclose", "item")


class NotCapturableError(GfbError):
    """A model does something that one recorded run cannot stand for."""


@dataclass(frozen=True)
class Call:
    """The arguments of a forward call, as tensors and the rest.

    Attributes:
        tensors: All tensors in the arguments.
        signature: What a captured graph is good for: the structure, all other arguments, and the
            shapes, strides and types of the tensors.
        spec: How to put the arguments together again.
        constants: The arguments that are no tensors, by position; ``None`` where one is.
    """

    tensors: tuple[Tensor, ...]
    signature: tuple[Any, ...]
    spec: pytree.TreeSpec
    constants: tuple[Any, ...]

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """Take arguments apart.

        Raises:
            NotCapturableError: If an argument is neither made of tensors nor a plain value, or automatic
                casting is on, which a recorded graph would go through twice.
        """
        if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            raise NotCapturableError("it is called under torch.autocast")
        leaves, spec = pytree.tree_flatten((args, dict(kwargs)))
        for leaf in leaves:
            if not isinstance(leaf, Tensor | int | float | bool | str | None | torch.dtype | torch.device):
                raise NotCapturableError(f"an argument of the model is a {type(leaf).__name__}")
            if isinstance(leaf, Tensor) and (leaf.layout != torch.strided or leaf.is_quantized):
                raise NotCapturableError(f"an argument of the model is a {leaf.layout} tensor")
        tensors = tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))
        constants = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        described = tuple(
            (t.shape, t.stride(), t.dtype, t.device) if isinstance(t, Tensor) else (type(t), t)
            for t in leaves
        )
        return cls(tensors, (spec, described), spec, constants)

    def arguments(self, tensors: tuple[Tensor, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with other tensors in place of these."""
        remaining = iter(tensors)
        is_tensor = [len(d) == 4 and isinstance(d[0], torch.Size) for d in self.signature[1]]
        leaves = [next(remaining) if t else c for t, c in zip(is_tensor, self.constants, strict=True)]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return args, kwargs


@dataclass
class Captured:
    """What a model does with inputs of one signature.

    Attributes:
        graph: From the tensors of a call to the tensors of the result.
        sites: The quantizers that the graph's operators name by number.
        spec: How the results are put together.
        constants: Parts of the result that are no tensors, by position.
        on_cpu: Whether the inputs and the model are there.
    """

    graph: fx.GraphModule
    sites: list[WidthInForce]
    spec: pytree.TreeSpec
    constants: tuple[Any, ...]
    on_cpu: bool = True

    def result(self, tensors: list[Tensor]) -> Any:
        """The model's result from its tensors."""
        remaining = iter(tensors)
        leaves = [next(remaining) if constant is Tensor else constant for constant in self.constants]
        return pytree.tree_unflatten(leaves, self.spec)


def _require_plain(leaves: list[Any]) -> None:
    """A number may hide a width or a value, and an object of another type tensors that nothing replaces."""
    for leaf in leaves:
        if not (leaf is None or isinstance(leaf, (Tensor, str, bool))):
            raise NotCapturableError(f"it returns a {type(leaf).__name__} among its outputs")


def capture(model: nn.Module, call: Call) -> Captured:
    """Record what ``model`` does with the arguments of ``call``; without gradients.

    Raises:
        NotCapturableError: If the recording would not hold for other inputs: the model draws random
            numbers, looks at values to decide what to do, changes its own state, or fails.
    """
    outcome: dict[str, Any] = {}
    _require_no_hooks(model)
    before = _attributes(model)

    def run(*tensors: Tensor) -> list[Tensor]:
        args, kwargs = call.arguments(tensors)
        leaves, outcome["spec"] = pytree.tree_flatten(model(*args, **kwargs))
        _require_plain(leaves)
        outcome["constants"] = tuple(Tensor if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    with quantizers_as_leaves(model) as sites:
        try:
            with _NothingLeaves():
                graph = record(run, call.tensors, {id(p): name for name, p in model.named_parameters()})
            _require_repeatable(graph)
            if not is_functional(graph):
                graph = _without_mutation(graph, call.tensors)
        except GfbError:
            raise
        except Exception as error:  # whatever tracing a user's model may raise
            raise NotCapturableError(f"recording it fails: {type(error).__name__}: {error}") from error
    graph.graph.eliminate_dead_code()
    _require_unchanging(graph)
    if _attributes(model) != before:
        raise NotCapturableError("it keeps something of its forward pass in an attribute")
    graph.recompile()
    tensors = (*call.tensors, *model.parameters(), *model.buffers())
    on_cpu = all(tensor.device.type == "cpu" for tensor in tensors)
    return Captured(graph, sites, outcome["spec"], outcome["constants"], on_cpu)


class _NothingLeaves(TorchFunctionMode):
    """Refuses to record values that are read from outside PyTorch: what happens to them there is not seen."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _LEAVES_PYTORCH and isinstance(args[0], Tensor) and args[0].is_floating_point():
            raise NotCapturableError(f"values leave PyTorch by .{name}()")
        return func(*args, **(kwargs or {}))


_LEAVES_PYTORCH = {"numpy", "__array__", "tolist", "__dlpack__"}


def _without_mutation(recorded: fx.GraphModule, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """The same graph with in-place operations as ordinary ones."""
    # Functionalization follows what is derived from arguments: the graph's constants become such.
    constants: list[Any] = []
    metas: list[dict[str, Any]] = []
    for node in recorded.graph.find_nodes(op="get_attr"):
        constants.append(_attribute(recorded, str(node.target)))
        metas.append(node.meta)
        first = next(iter(recorded.graph.nodes))
        last_placeholder = recorded.graph.find_nodes(op="placeholder")[-1:] or [first]
        with recorded.graph.inserting_after(last_placeholder[0]):
            node.replace_all_uses_with(recorded.graph.placeholder(f"constant_{len(constants)}"))
        recorded.graph.erase_node(node)
    recorded.recompile()
    tensors = [c for c in constants if isinstance(c, Tensor)]
    trace = make_fx(torch.func.functionalize(recorded), _error_on_data_dependent_ops=False)
    functional = trace(*inputs, *tensors)
    placeholders = functional.graph.find_nodes(op="placeholder")[len(inputs) :]
    for number, (node, tensor, meta) in enumerate(zip(placeholders, tensors, metas, strict=True)):
        functional.register_buffer(f"constant_{number}", tensor)
        with functional.graph.inserting_before(node):
            constant = functional.graph.get_attr(f"constant_{number}")
        constant.meta = meta
        node.replace_all_uses_with(constant)
        functional.graph.erase_node(node)
    return functional


def _attribute(module: nn.Module, path: str) -> Any:
    value: Any = module
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _require_no_hooks(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise NotCapturableError(f"{name or 'it'!r} has a forward hook, which a program would not call")


def _attributes(model: nn.Module) -> dict[tuple[str, str], tuple[int, int]]:
    """Identity and size of everything that modules hold besides parameters and modules."""
    return {
        (name, key): (id(value), len(value) if isinstance(value, list | dict | set) else 0)
        for name, module in model.named_modules()
        for key, value in (*vars(module).items(), *module._buffers.items())
        if isinstance(value, Tensor | tuple | list | dict | set)
        and not (key.startswith("_") and type(module).__module__.startswith(("torch.", "brevitas.")))
    }


def _require_repeatable(recorded: fx.GraphModule) -> None:
    for node in depends_on_input(recorded.graph):
        name = _operator_name(node)
        tags = getattr(node.target, "tags", ())
        if name in _READS_A_NUMBER or torch.Tag.data_dependent_output in tags:
            raise NotCapturableError(f"it decides by the values of its inputs (aten.{name})")
        if torch.Tag.dynamic_output_shape in tags and not _is_lookup(node):
            raise NotCapturableError(f"the shape of a result depends on values (aten.{name})")
    for node in recorded.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise NotCapturableError(f"it draws random numbers (aten.{_operator_name(node)})")


def _is_lookup(node: fx.Node) -> bool:
    """Whether a node takes values by whole numbers; a mask gives a shape that depends on values."""
    if node.target is not torch.ops.aten.index.Tensor:
        return False
    indices: Any = node.args[1]
    return all(i is None or i.meta["tensor_meta"].dtype not in (torch.bool, torch.uint8) for i in indices)


def _require_unchanging(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.is_mutable:
            raise NotCapturableError(f"it changes a tensor of its own (aten.{_operator_name(node)})")


def _operator_name(node: fx.Node) -> str:
    packet = getattr(node.target, "overloadpacket", None)
    return str(node.target) if packet is None else packet.__name__
