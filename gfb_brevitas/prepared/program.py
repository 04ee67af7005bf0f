"""Running a prepared graph, computing only what a change of widths touches."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from gfb_brevitas.prepared.dependencies import ORIGIN, depends_on_input
from gfb_brevitas.prepared.site_values import SiteValues, WidthInForce, decode
from gfb_brevitas.prepared.spread_codes import CODES

KEPT_PER_CONSTANT = 16
"""Results that are kept of a computation that no input enters, for different widths."""


@dataclass(frozen=True)
class _Slot:
    """An argument that is another node's value."""

    number: int


@dataclass
class _Step:
    """One operation.

    Attributes:
        run: What is called.
        args, kwargs: Its arguments, with slots in place of values.
        inputs: The slots among them.
        sites: Numbers of the quantizers whose widths the value depends on, itself or through others.
        dynamic: Whether an input of the program reaches it.
        feeds_dynamic: Whether a dynamic step, or the result, takes its value.
        keep: Whether its value stays for the next call.
        last_of: Slots that nothing after this step needs.
    """

    run: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[int, ...]
    sites: tuple[int, ...]
    dynamic: bool
    feeds_dynamic: bool = False
    keep: bool = False
    last_of: tuple[int, ...] = ()


class Program:
    """A graph that runs at the widths in force.

    What no input enters (quantized and packed weights, scales) is computed once per combination of the
    widths that it depends on. When two calls in a row have the same ``inputs_id``, values that are kept
    and that no changed width touches are used again: candidates that agree on the first layers share them.

    Args:
        module: Holds the graph's constants.
        graph: The graph; its output is a list of nodes.
        sites: The quantizers.
        memory_bytes: Most memory for values that are kept between calls, first ones first: candidates
            seldom agree further, and memory that is used again at once is faster than more of it.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        graph: fx.Graph,
        sites: Sequence[WidthInForce],
        *,
        memory_bytes: int = 1 << 25,
    ) -> None:
        self._sites = sites
        nodes = list(graph.nodes)
        numbers = {node: number for number, node in enumerate(nodes)}
        dynamic = set(depends_on_input(graph))
        self._inputs = [numbers[node] for node in nodes if node.op == "placeholder"]
        self._origins = {
            numbers[node]: (node.meta[ORIGIN], node.meta.get(CODES)) for node in nodes if ORIGIN in node.meta
        }
        self._values: list[Any] = [None] * len(nodes)
        self._valid = [False] * len(nodes)
        self._steps: dict[int, _Step] = {}
        for node in nodes:
            if node.op == "get_attr":
                self._values[numbers[node]] = _attribute(module, str(node.target))
                self._valid[numbers[node]] = True
            elif node.op == "call_function":
                self._steps[numbers[node]] = self._step(node, numbers, dynamic)
            elif node.op == "output":
                self._outputs = _slots(node.args[0], numbers)
        self._schedule(memory_bytes, nodes)
        self._constants: dict[int, dict[tuple[int, ...], Any]] = {}
        self._bits: list[int] = [0] * len(sites)
        self._inputs_id: Hashable = None

    def __call__(
        self,
        tensors: Sequence[Tensor],
        inputs_id: Hashable = None,
        observe: Callable[[int, Any], None] | None = None,
    ) -> list[Tensor]:
        """The results.

        Args:
            tensors: The inputs.
            inputs_id: Equal ids mean equal inputs; ``None`` means that nothing is known.
            observe: Called with the number and the value of everything that is computed.
        """
        self._invalidate(inputs_id)
        for number, tensor in zip(self._inputs, tensors, strict=True):
            self._values[number] = tensor
        for number in self._needed():
            step = self._steps[number]
            self._compute(number, step)
            if observe is not None:
                observe(number, self._values[number])
            for finished in step.last_of:
                self._values[finished] = None
        results = [_filled(slot, self._values) for slot in self._outputs]
        for number in self._inputs:
            self._values[number] = None
        self._drop_unkept()
        return results

    def observed(self, tensors: Sequence[Tensor]) -> dict[int, list[Tensor]]:
        """What the program computes for recorded operations on the way to its results.

        Args:
            tensors: The inputs.

        Returns:
            By the numbers of recorded operations (``ORIGIN``), the values that stand for them, codes decoded.
        """
        found: dict[int, list[Tensor]] = {}

        def note(number: int, value: Any) -> None:
            origin, site = self._origins.get(number, (None, None))
            if origin is not None and isinstance(value, Tensor):
                found.setdefault(origin, []).append(_values_of(value, site))

        self(tensors, observe=note)
        return found

    def release(self) -> None:
        """Let go of the values that are kept for a call with equal inputs."""
        self._inputs_id = None
        for number, step in self._steps.items():
            if step.dynamic:
                self._values[number], self._valid[number] = None, False

    def forget(self) -> None:
        """Let go of everything that was computed from weights, which have changed."""
        self.release()
        self._constants.clear()
        for number in self._steps:
            self._values[number], self._valid[number] = None, False
        for site in self._sites:
            site.forget()

    @property
    def order_of_sites(self) -> list[int]:
        """The quantizers' numbers in the order in which the program meets them."""
        met: dict[int, None] = {}
        for step in self._steps.values():
            if step.dynamic:
                met.update(dict.fromkeys(step.sites))
        return list(met)

    def _step(self, node: fx.Node, numbers: dict[fx.Node, int], dynamic: set[fx.Node]) -> _Step:
        sites = {site.index for site in _own_sites(node.target)}
        inputs = tuple(numbers[source] for source in node.all_input_nodes)
        for number in inputs:
            if number in self._steps:
                sites.update(self._steps[number].sites)
        return _Step(
            run=node.target,  # type: ignore[arg-type]
            args=tuple(_slots(argument, numbers) for argument in node.args),
            kwargs={name: _slots(value, numbers) for name, value in node.kwargs.items()},
            inputs=inputs,
            sites=tuple(sorted(sites)),
            dynamic=node in dynamic,
        )

    def _schedule(self, memory_bytes: int, nodes: list[fx.Node]) -> None:
        last: dict[int, int] = {}
        outputs = {slot.number for slot in self._outputs if isinstance(slot, _Slot)}
        for number, step in self._steps.items():
            last.update(dict.fromkeys(step.inputs, number))
            for source in step.inputs:
                if step.dynamic and source in self._steps:
                    self._steps[source].feeds_dynamic = True
        for number in outputs & self._steps.keys():
            self._steps[number].feeds_dynamic = True
        for number, step in self._steps.items():
            size = _size_bytes(nodes[number])
            # A caller may change a result in place.
            kept = step.dynamic and number not in outputs and getattr(step.run, "worth_keeping", False)
            if kept and 0 < size <= memory_bytes:
                step.keep = True
                memory_bytes -= size
        for number, by in last.items():
            freed = self._steps.get(number)
            if freed is not None and freed.dynamic and not freed.keep and number not in outputs:
                self._steps[by].last_of += (number,)

    def _invalidate(self, inputs_id: Hashable) -> None:
        bits = [site.bits for site in self._sites]
        changed = {number for number, width in enumerate(bits) if width != self._bits[number]}
        anew = inputs_id is None or inputs_id != self._inputs_id
        for number, step in self._steps.items():
            if (step.dynamic and anew) or not changed.isdisjoint(step.sites):
                self._valid[number] = False
                self._values[number] = None
        self._bits, self._inputs_id = bits, inputs_id

    def _needed(self) -> list[int]:
        wanted = {slot.number for slot in self._outputs if isinstance(slot, _Slot)}
        needed = []
        for number in reversed(self._steps):
            if number in wanted and not self._valid[number]:
                needed.append(number)
                known = self._known_constant(number)
                if not known:
                    wanted.update(self._steps[number].inputs)
        needed.reverse()
        return needed

    def _known_constant(self, number: int) -> bool:
        step = self._steps[number]
        return not step.dynamic and self._key(step) in self._constants.get(number, ())

    def _key(self, step: _Step) -> tuple[int, ...]:
        return tuple(self._bits[site] for site in step.sites)

    def _compute(self, number: int, step: _Step) -> None:
        if step.dynamic or not step.feeds_dynamic:
            self._values[number] = self._run(step)
        else:
            kept = self._constants.setdefault(number, {})
            key = self._key(step)
            if key not in kept:
                if len(kept) >= KEPT_PER_CONSTANT:
                    del kept[next(iter(kept))]
                kept[key] = self._run(step)
            self._values[number] = kept[key]
        self._valid[number] = True

    def _run(self, step: _Step) -> Any:
        args = [_filled(argument, self._values) for argument in step.args]
        if not step.kwargs:
            return step.run(*args)
        return step.run(*args, **{name: _filled(value, self._values) for name, value in step.kwargs.items()})

    def _drop_unkept(self) -> None:
        for number, step in self._steps.items():
            if not (step.keep if step.dynamic else step.feeds_dynamic):
                self._values[number] = None
                self._valid[number] = False


def _values_of(value: Tensor, site: SiteValues | None) -> Tensor:
    return value if site is None else decode(value, site.scale(), site.low())


def _own_sites(target: object) -> tuple[WidthInForce, ...]:
    owner = getattr(target, "__self__", None)
    if isinstance(owner, WidthInForce):
        return (owner,)
    return tuple(getattr(target, "sites", ()))


def _slots(argument: Any, numbers: dict[fx.Node, int]) -> Any:
    if isinstance(argument, fx.Node):
        return _Slot(numbers[argument])
    if isinstance(argument, list | tuple):
        return [_slots(item, numbers) for item in argument]
    return argument


def _filled(argument: Any, values: list[Any]) -> Any:
    if type(argument) is _Slot:
        return values[argument.number]
    if type(argument) is list:
        return [_filled(item, values) for item in argument]
    return argument


def _attribute(module: fx.GraphModule, path: str) -> Any:
    value: Any = module
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _size_bytes(node: fx.Node) -> int:
    meta: Any = node.meta.get("tensor_meta")
    return int(meta.shape.numel() * meta.dtype.itemsize) if hasattr(meta, "shape") else 0
