"""What is said of the layers that stay in floating point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gfb_brevitas.profile import FloatLayer

LARGE_SHARE = 0.05
"""Part of the multiply-accumulates, or of the weights, from which on floating point is warned of."""


def stays_in_floats(layers: Sequence[FloatLayer]) -> bool:
    """Whether so much stays in floating point that it is warned of."""
    kept = _with_weights(layers)
    return max(sum(x.macs_share for x in kept), sum(x.weights_share for x in kept), 0) >= LARGE_SHARE


def float_layers_headline(layers: Sequence[FloatLayer]) -> str:
    """How much stays in floating point, in one sentence, or ``""`` where nothing does."""
    kept, rest = _with_weights(layers), [x for x in layers if x.operands == "inputs"]
    parts = []
    if kept:
        parts.append(
            f"{_counted(kept)} in floating point: {sum(x.macs_share for x in kept):.0%} of the "
            f"multiply-accumulates and {sum(x.weights_share for x in kept):.0%} of the weights, of which "
            "no budget sees a width."
        )
    if rest:
        parts.append(
            f"{_counted(rest, 'reads', 'read')} inputs in floating point: "
            f"{sum(x.macs_share for x in rest):.0%} of the multiply-accumulates."
        )
    return " ".join(parts)


def float_layers_in_words(layers: Sequence[FloatLayer]) -> Iterator[str]:
    """One line for each reason, with the layers that it holds for and their shares."""
    reasons: dict[str, list[FloatLayer]] = {}
    for layer in layers:
        reasons.setdefault(layer.reason, []).append(layer)
    for reason, found in reasons.items():
        named = ", ".join(f"{x.name or 'the model itself'} ({x.kind}, {_share(x)})" for x in found[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        yield f"in floating point ({reason}): {named}{more}"


_NAMED = 8


def _with_weights(layers: Sequence[FloatLayer]) -> list[FloatLayer]:
    return [layer for layer in layers if layer.operands != "inputs"]


def _counted(layers: Sequence[FloatLayer], one: str = "stays", several: str = "stay") -> str:
    return f"1 layer {one}" if len(layers) == 1 else f"{len(layers)} layers {several}"


def _share(layer: FloatLayer) -> str:
    shares = [f"{layer.macs_share:.1%} of the MACs"] if layer.macs else []
    shares += [f"{layer.weights_share:.1%} of the weights"] if layer.weights else []
    return ", ".join(shares) or "0 MACs"
