"""Following the values of quantizers through one forward pass, down to the products that read them.

Every operator that runs is seen. Those that multiply are noted with where both sides come from; those that
only move, select or pad values hand on where they come from; all others make new values. An operator of which
nobody knows what it multiplies is noted as unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gfb_brevitas.adapters.marks import FLOAT, Mark, Marks, join, whole_memory
from gfb_brevitas.adapters.operator_kinds import decomposition, is_free, is_view, operator_name
from gfb_brevitas.adapters.operator_products import Multiplication, attention, multiplications
from gfb_brevitas.adapters.selections import Sources, results_of, sources_of_results
from gfb_brevitas.costs.operator_costs import operator_cost, stated_macs
from gfb_brevitas.profile import Product, UnknownOperator

_COPIES = {"aten::clone", "aten::_to_copy", "aten::_unsafe_view"}
_LEAVES_TORCH = {"numpy", "__array__", "tolist", "__dlpack__"}
NUMPY = "python::numpy"
KERNEL = "python::kernel"
_NO_FORMULA = "it has neither a formula nor a decomposition, and computes new values"
_CAME_BACK = "values leave PyTorch by .{how}() and come back computed"
_FROM_OUTSIDE = "what it reads was written from outside PyTorch"


@dataclass
class Trace:
    """What one forward pass showed.

    Attributes:
        order: Quantizer names in the order of their first call.
        elements: Elements that each quantizer put out, summed over its calls (whole batch).
        largest_call: Elements of the largest single call (whole batch).
        products: Layer name, multiply-accumulates (whole batch) and the two marks.
        unknown: Operators whose multiply-accumulates are not known, by name and layer.
        meetings: Pairs of quantizers whose outputs were added or concatenated as quant tensors.
    """

    order: list[str] = field(default_factory=list)
    elements: dict[str, int] = field(default_factory=dict)
    largest_call: dict[str, int] = field(default_factory=dict)
    products: list[tuple[str, float, Mark, Mark]] = field(default_factory=list)
    unknown: dict[tuple[str, str], UnknownOperator] = field(default_factory=dict)
    meetings: list[tuple[str, str]] = field(default_factory=list)

    def profile_products(self, batch_size: int) -> tuple[Product, ...]:
        """The products per sample; those of one layer with the same operands are added."""
        totals: dict[tuple[str, Any, Any], float] = {}
        for layer, macs, left, right in self.products:
            key = (layer, left.operand(), right.operand())
            totals[key] = totals.get(key, 0) + macs
        return tuple(
            Product(layer=layer, macs=round(macs / batch_size), left=left, right=right)
            for (layer, left, right), macs in totals.items()
        )


class ProductRecorder(TorchDispatchMode):
    """Notes products, and where their operands come from.

    Args:
        known: Tensors that are there before the forward pass.
    """

    supports_higher_order_operators = True

    def __init__(self, known: Sequence[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace()
        self.layers: list[str] = []
        self._marks = Marks()
        self._made_in: dict[int, str] = {}  # memory that was made without values -> layer
        self._silent = 0
        self._decomposing: list[Any] = []
        self._left: dict[str, tuple[str, ...]] = {}  # how values left PyTorch, and their quantizers
        for tensor in known:
            self._marks[tensor] = FLOAT

    # --- what hooks report

    def leave_layer(self, output: Any) -> None:
        """The layer that was entered last has put out ``output``."""
        if self._left:
            self.look_for_outside(
                [t for t in results_of(_unwrapped(output)) if not self._marks.is_unwritten(t)]
            )
        self.layers.pop()

    @contextmanager
    def silence(self) -> Iterator[None]:
        """A ``with`` block whose operators are not counted."""
        self._silent += 1
        try:
            yield
        finally:
            self._silent -= 1

    def enter_quantizer(self, values: Any) -> None:
        """What runs from here on is a quantizer's own, on ``values``."""
        self.look_for_outside(values)
        self._silent += 1

    def leave_quantizer(self) -> None:
        """The end of it."""
        self._silent -= 1

    def on_quantized(self, name: str, values: Tensor) -> None:
        """A searched quantizer has put out values."""
        if values.dim() == 0:
            return  # Brevitas probes quantizers with a scalar to read their scale
        trace = self.trace
        if name not in trace.elements:
            trace.order.append(name)
        trace.elements[name] = trace.elements.get(name, 0) + values.numel()
        trace.largest_call[name] = max(trace.largest_call.get(name, 0), values.numel())
        self._marks[values] = Mark((name,), scales=(name,))

    def on_unsearched(self, values: Tensor, bits: float) -> None:
        """Another quantizer has put out values."""
        self._marks[values] = Mark(constant_bits=bits)

    def on_meeting(self, one: IntQuantTensor, other: IntQuantTensor) -> bool:
        """Two quant tensors are added or concatenated."""
        left, right = self._marks[one.value].scales, self._marks[other.value].scales
        self.trace.meetings.extend((a, b) for a, b in product(left, right) if a != b)
        return True

    def on_arithmetic(self, result: Any, *operands: Any) -> None:
        """A sum, negative or magnitude of quant tensors has the scale that they have."""
        if not isinstance(result, IntQuantTensor):
            return
        of = [self._marks[o.value] for o in operands if isinstance(o, IntQuantTensor)]
        scales = tuple(dict.fromkeys(name for mark in of for name in mark.scales))
        mark = self._marks[result.value]
        self._marks[result.value] = Mark(mark.names, mark.constant_bits, scales)

    def on_attention(self, query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> None:
        """Attention has run in one call, in whatever way the device and the shapes have for it."""
        self._note_products(attention(query, key, value, out))
        self._marks[out] = FLOAT

    def on_leaving(self, how: str, values: Tensor) -> None:
        """Values are read from outside PyTorch."""
        if not self._silent and values.is_floating_point() and values.dim() > 0:
            names = (*self._left.get(how, ()), *self._marks[values].names)
            self._left[how] = tuple(dict.fromkeys(names))

    # --- operators

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._silent:
            return func(*args, **kwargs)
        if getattr(func, "_schema", None) is None:
            return self._higher_order(func, args, kwargs)
        if operator_cost(operator_name(func)) is None and _is_composite(func):
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        return self._operator(func, args, kwargs)

    def _operator(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if is_view(func):  # marks are those of the memory
            return func(*args, **kwargs)
        written = _written(func, args, kwargs)
        self._look_at_operands(func, args, kwargs, written)
        blank = [t for t in written if self._is_blank(t)]
        before = self._sources(func, args, kwargs, None) if written else None
        out = func(*args, **kwargs)
        made = [*tree_leaves(out), *written]
        counted = self._count(func, args, kwargs, out)
        known = counted or not (_computes(made) or _is_of_others(func))
        sources = before if written else self._sources(func, args, kwargs, out, even_unmarked=not known)
        moves = _computes(made) and _moves_only(made, sources)
        if not (known or moves or self._count_decomposed(func, args, kwargs)):
            self._note_unknown(operator_name(func), _NO_FORMULA, self._names(args, kwargs))
        self._hand_on(func, args, out, sources, written, blank)
        return out

    def _sources(
        self, func: Any, args: Any, kwargs: Any, out: Any, *, even_unmarked: bool = False
    ) -> list[Sources | None] | None:
        """What the results are drawn from, as far as that matters."""
        if torch.Tag.nondeterministic_seeded in func.tags or operator_name(func) in _COPIES:
            return None
        if not (even_unmarked or self._any_marked(args, kwargs)):
            return None
        if func.namespace in ("aten", "prims"):
            return sources_of_results(func, args, kwargs, out, self._is_marked)
        devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices):  # who knows what an operator of others draws
            return sources_of_results(func, args, kwargs, out, self._is_marked)

    def _hand_on(
        self,
        func: Any,
        args: Sequence[Any],
        out: Any,
        sources: list[Sources | None] | None,
        written: Sequence[Tensor],
        blank: Sequence[Tensor],
    ) -> None:
        """Mark the results by their sources."""
        results = results_of(out)
        marks: list[Mark | None] = [FLOAT] * len(results)
        if operator_name(func) in _COPIES:
            marks = [self._marks[args[0]]] * len(results)
        elif sources is not None and len(sources) == len(results):
            marks = [self._joined(found) for found in sources]
        in_place = {id(t) for t in written}
        for result, mark in zip(results, marks, strict=True):
            if id(result) in in_place:
                self._marks.write(result, mark, is_blank=any(result is t for t in blank))
            else:
                self._marks[result] = mark or FLOAT
        for tensor in written:
            if all(tensor is not r for r in results):
                self._marks.write(tensor, FLOAT)
        if operator_name(func).startswith("aten::empty") or operator_name(func).startswith("aten::new_empty"):
            for result in results:
                self._marks[result] = None
                self._made_in[result.untyped_storage()._cdata] = self._layer

    def _joined(self, sources: Sources | None) -> Mark | None:
        """The mark of what was drawn from sources; ``None`` for zeros and constants of their range."""
        if sources is None:
            return FLOAT
        return join(self._marks[t] for t in sources) if sources else None

    # --- counting

    def _count(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> bool:
        """Note what a call multiplies; whether that is known."""
        name = operator_name(func)
        if operator_cost(name) is not None:
            self._note_registered(name, args, kwargs)
            return True
        found = multiplications(name, _by_schema(func, args, kwargs), out)
        if found is not None:
            self._note_products(found)
            return True
        return is_free(func)

    def _count_decomposed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        simpler = decomposition(func)
        if simpler is None or func in self._decomposing:
            return False
        products, unknown = len(self.trace.products), dict(self.trace.unknown)
        self._decomposing.append(func)
        try:
            with self:
                simpler(*args, **kwargs)
            if self.trace.unknown == unknown:
                return True
        except Exception:  # it does not hold for these arguments
            pass
        finally:
            self._decomposing.pop()
        del self.trace.products[products:]
        self.trace.unknown = unknown
        return False

    def _note_registered(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        cost = operator_cost(name)
        if cost is None or not callable(cost.macs):
            return
        macs = stated_macs(name, cost.macs, args, kwargs)
        tensors = results_of((args, kwargs))
        left, right = (self._marks[tensors[i]] if i < len(tensors) else FLOAT for i in cost.operands)
        if macs:
            self.trace.products.append((self._layer, macs, left, right))

    def _note_products(self, found: Sequence[Multiplication]) -> None:
        for one in found:
            left, right = self._operand(one.left), self._operand(one.right)
            self.trace.products.append((self._layer, one.macs, left, right))

    def _note_unknown(
        self, name: str, reason: str, quantizers: Sequence[str], layer: str | None = None
    ) -> None:
        key = name, self._layer if layer is None else layer
        seen = self.trace.unknown[key].quantizers if key in self.trace.unknown else ()
        self.trace.unknown[key] = UnknownOperator(
            name=name,
            layer=key[1],
            reason=reason,
            quantizers=tuple(dict.fromkeys((*seen, *quantizers))),
        )

    def _higher_order(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = operator_name(func)
        out = func(*args, **kwargs)
        self.look_for_outside((args, kwargs))
        if operator_cost(name) is not None:
            self._note_registered(name, args, kwargs)
        elif name == "higher_order::flex_attention":
            self.on_attention(args[0], args[1], args[2], results_of(out)[0])
        else:
            self._note_unknown(name, "what runs within it is not seen", self._names(args, kwargs))
        for result in results_of(out):
            self._marks[result] = FLOAT
        return out

    # --- operands

    @property
    def _layer(self) -> str:
        return next((name for name in reversed(self.layers) if not _is_private(name)), "")

    def _operand(self, tensor: Tensor | None) -> Mark:
        """The mark of one side of a product; integers have the width of their format."""
        if tensor is None or tensor.is_floating_point() or tensor.is_complex():
            return self._marks[tensor]
        return Mark(constant_bits=1 if tensor.dtype is torch.bool else torch.iinfo(tensor.dtype).bits)

    def _is_marked(self, tensor: Tensor) -> bool:
        return self._marks[tensor].is_quantized

    def _any_marked(self, args: Any, kwargs: Any) -> bool:
        marks = [self._marks[t] for t in results_of((args, kwargs))]
        return any(mark.is_quantized or mark.scales for mark in marks)

    def _names(self, args: Any, kwargs: Any) -> tuple[str, ...]:
        return tuple(name for t in results_of((args, kwargs)) for name in self._marks[t].names)

    def _is_blank(self, tensor: Tensor) -> bool:
        """Whether what is written into so far holds nothing but zeros, or nothing at all."""
        if self._marks.is_unwritten(tensor):
            return True
        if not results_of(tensor) or self._marks[tensor].is_quantized:
            return False
        return not bool(whole_memory(tensor).any())

    def _look_at_operands(self, func: Any, args: Any, kwargs: Any, written: Sequence[Tensor]) -> None:
        name = operator_name(func)
        if not (self._decomposing or name.endswith("_like") or "::new_" in name):
            self.look_for_outside([t for t in results_of((args, kwargs)) if all(t is not w for w in written)])

    def look_for_outside(self, values: Any) -> None:
        """Note those of the tensors that are read here whose values come from outside PyTorch."""
        for tensor in () if self._silent else results_of(_unwrapped(values)):
            if self._marks.is_unwritten(tensor):
                layer = self._made_in.get(tensor.untyped_storage()._cdata, self._layer)
                self._note_outside(KERNEL, _FROM_OUTSIDE, (), tensor, layer)
            elif self._left and tensor.dim() > 0 and not self._marks.knows(tensor):
                names = tuple(name for found in self._left.values() for name in found)
                reason = _CAME_BACK.format(how="() or .".join(self._left))
                self._note_outside(NUMPY, reason, names, tensor, self._layer)

    def _note_outside(
        self, name: str, reason: str, quantizers: Sequence[str], result: Tensor, layer: str
    ) -> None:
        if operator_cost(name) is None:
            self._note_unknown(name, reason, quantizers, layer)
        else:
            self._note_registered(name, (result,), {})
        self._marks[result] = FLOAT


class Surroundings(TorchFunctionMode):
    """Tells a recorder what is not seen among operators: attention as a whole, values that leave PyTorch."""

    def __init__(self, recorder: ProductRecorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _LEAVES_TORCH and args and isinstance(args[0], Tensor):
            self._recorder.on_leaving(name, args[0])
        if name != "scaled_dot_product_attention":
            return func(*args, **kwargs)
        operands = [*args[:3], *(kwargs[n] for n in ("query", "key", "value")[len(args) :])]
        if not all(isinstance(t, Tensor) for t in operands):
            return func(*args, **kwargs)  # quant tensors call again with plain ones
        self._recorder.look_for_outside(operands)
        with self._recorder.silence():
            out = func(*args, **kwargs)
        self._recorder.on_attention(operands[0], operands[1], operands[2], out)
        return out


def tensors_held_by(model: nn.Module) -> list[Tensor]:
    """Parameters, buffers, and other tensors that a model's modules have as attributes."""
    return [t for module in model.modules() for t in tree_leaves(vars(module)) if isinstance(t, Tensor)]


def _unwrapped(values: Any) -> list[Any]:
    """What is in nested values; of quant tensors their values alone."""
    leaves = tree_leaves(values, is_leaf=lambda value: isinstance(value, IntQuantTensor))
    return [leaf.value if isinstance(leaf, IntQuantTensor) else leaf for leaf in leaves]


def _is_private(name: str) -> bool:
    return name.rpartition(".")[2].startswith("_")


def _is_composite(func: Any) -> bool:
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return bool(func.namespace != "prim" and func.has_kernel_for_dispatch_key(key))


def _repeatable(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded not in func.tags


def _computes(made: Sequence[Any]) -> bool:
    """Whether there is a result that is not of integers alone."""
    return any(isinstance(t, Tensor) and (t.is_floating_point() or t.is_complex()) for t in made)


def _is_of_others(func: Any) -> bool:
    """Whether an operator is not PyTorch's: its integers may be products, too."""
    return func.namespace not in _PYTORCHS


_PYTORCHS = {"aten", "prim", "prims", "debugprims", "profiler", "c10d", "_c10d_functional"}


def _moves_only(made: Sequence[Any], sources: list[Sources | None] | None) -> bool:
    """Whether it is known of all results where they are drawn from."""
    numbers = {id(t) for t in made if isinstance(t, Tensor) and (t.is_floating_point() or t.is_complex())}
    return sources is not None and len(sources) >= len(numbers) and None not in sources


def _by_schema(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """All arguments in the order of the schema, with its defaults."""
    parameters = func._schema.arguments[len(args) :]
    return [*args, *(kwargs.get(p.name, p.default_value) for p in parameters)]


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that a call writes into."""
    if not func._schema.is_mutable:
        return []
    found = zip(func._schema.arguments, _by_schema(func, args, kwargs), strict=True)
    values = [value for p, value in found if p.alias_info is not None and p.alias_info.is_write]
    return [t for t in tree_leaves(values) if isinstance(t, Tensor)]
