"""Changes that make FINN build a model, made only when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import brevitas.nn as qnn
from brevitas.quant import TruncTo8bit
from torch import Tensor, nn

from gfb_brevitas.adapters import record_layers
from gfb_brevitas.adapters.copying import copied
from gfb_brevitas.adapters.tracing import ExampleInputs
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.layer_graph import LayerGraph, LayerNode
from gfb_integrations.finn.checking import check_layers

Mend = Literal["input quantizer", "shared quantizer", "truncation"]
"""Rules of the check whose findings can be mended."""


@dataclass(frozen=True, kw_only=True)
class MendedModel:
    """A model after mending.

    Attributes:
        model: A changed copy; train or calibrate it before use, since it computes something else.
        changes: What was done, one sentence each.
    """

    model: nn.Module
    changes: tuple[str, ...]


def mend(model: nn.Module, example_inputs: ExampleInputs, mends: Sequence[Mend]) -> MendedModel:
    """Change a copy of a model so that FINN builds it.

    - ``"input quantizer"``: a QuantIdentity of 8 bits in front of a model of one input.
    - ``"shared quantizer"``: one QuantIdentity for all branches of an addition; where the branches have other
      layers than QuantIdentity the finding is left.
    - ``"truncation"``: TruncAvgPool2d truncates by FLOOR.

    Example:
        >>> mended = mend(model, images[:1], ["input quantizer"])  # doctest: +SKIP
        >>> mended.changes  # doctest: +SKIP
        ('A QuantIdentity of 8 bits was put in front of the model.',)

    Args:
        model: A Brevitas model; it is not changed.
        example_inputs: One batch.
        mends: What to mend.

    Raises:
        ConfigurationError: If a mend is unknown.
        UntraceableModelError: If the model fails on ``example_inputs``.
    """
    unknown = [name for name in mends if name not in get_args(Mend)]
    if unknown:
        raise ConfigurationError(
            f"`mends` must be among {', '.join(get_args(Mend))}; got {', '.join(map(repr, unknown))}."
        )
    mended = copied(model)
    graph = record_layers(mended, example_inputs)
    changes: list[str] = []
    for finding in check_layers(graph).findings:
        if finding.rule in mends and finding.rule != "input quantizer":
            changes += _MENDS[finding.rule](mended, graph, graph[finding.layer])
    if (
        "input quantizer" in mends
        and isinstance(example_inputs, Tensor)
        and any(f.rule == "input quantizer" for f in check_layers(graph).findings)
    ):
        mended = nn.Sequential(qnn.QuantIdentity(bit_width=8, return_quant_tensor=True), mended)
        changes.append("A QuantIdentity of 8 bits was put in front of the model.")
    return MendedModel(model=mended, changes=tuple(changes))


def _share_quantizer(model: nn.Module, graph: LayerGraph, node: LayerNode) -> list[str]:
    layers = [_module_of_quantizer(model, source) for source in graph.producers(node)]
    paths = [path for path, _ in layers]
    if len(set(paths)) < 2 or not all(isinstance(layer, qnn.QuantIdentity) for _, layer in layers):
        return []
    kept_path, kept = layers[0]
    for path, _ in layers[1:]:
        _replace(model, path, kept)
    return [f"{', '.join(paths[1:])} is {kept_path} now: one quantizer for the addition {node.name!r}."]


def _truncate_by_floor(model: nn.Module, _: LayerGraph, node: LayerNode) -> list[str]:
    path = str(node.attributes["quantizer"]).rpartition(".")[0]
    old: Any = model.get_submodule(path)
    if not isinstance(old, qnn.TruncAvgPool2d):
        return []
    new = qnn.TruncAvgPool2d(
        old.kernel_size,
        stride=old.stride,
        trunc_quant=TruncTo8bit,
        bit_width=int(node.attributes["bits"]),
        float_to_int_impl_type="FLOOR",
        return_quant_tensor=old.return_quant_tensor,
    )
    _replace(model, path, new.train(old.training))
    return [f"{path} truncates by FLOOR."]


_MENDS: dict[str, Callable[[nn.Module, LayerGraph, LayerNode], list[str]]] = {
    "shared quantizer": _share_quantizer,
    "truncation": _truncate_by_floor,
}


def _module_of_quantizer(model: nn.Module, node: LayerNode) -> tuple[str, nn.Module]:
    path = str(node.attributes.get("quantizer", "")).rpartition(".")[0]
    return path, model.get_submodule(path)


def _replace(model: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)
