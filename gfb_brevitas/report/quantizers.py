"""A table of a model's quantizers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.table import Table

from gfb_brevitas.costs.operator_costs import unknown_in_words
from gfb_brevitas.floating_point import float_layers_in_words
from gfb_brevitas.profile import ModelProfile, QuantizerInfo
from gfb_brevitas.report.names import Name
from gfb_brevitas.terminal import compact_table


def profile_table(profile: ModelProfile, allocation: Mapping[str, int] | None = None) -> Table:
    """A table for the terminal: what is searched, with what it feeds.

    Below it: which quantizers the model ties to one width, what is not searched and what stays in floating
    point, with the reason, and which operators nobody knows the cost of.

    Args:
        profile: The model's quantizers.
        allocation: Bit widths to show; by default the range of each quantizer.
    """
    table = compact_table(caption_justify="left")
    notes = [*_ties(profile), *_refusals(profile), *float_layers_in_words(profile.float_layers)]
    notes += map(unknown_in_words, profile.unknown_operators)
    table.caption = "\n".join(["", *notes]) if notes else None
    table.add_column("quantizer")
    numbered = any(info.has_numbered_layer and info.layer for info in profile)
    if numbered:
        table.add_column("layer")
    table.add_column("kind", no_wrap=True)
    for heading in ("bits", "elements", "MACs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("scale per")
    for info in profile:
        name, *others = _cells(info, allocation)
        table.add_row(name, *([info.layer] if numbered else []), *others)
    return table


def _cells(info: QuantizerInfo, allocation: Mapping[str, int] | None) -> tuple[str | Name, ...]:
    width = f"{info.min_bits}-{info.max_bits}" if allocation is None else str(allocation[info.name])
    scale = info.granularity if info.scaling == "learned" else f"{info.granularity} (Brevitas')"
    return Name(info.name), info.kind, width, f"{info.elements:,}", f"{info.macs:,}", scale


def _ties(profile: ModelProfile) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for info in profile:
        groups.setdefault(info.tie_group, []).append(info.name)
    for names in groups.values():
        if len(names) > 1:
            yield f"one width: {', '.join(names)}"


def _refusals(profile: ModelProfile) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for item in profile.refused:
        groups.setdefault(item.reason, []).append(item.name)
    for reason, names in groups.items():
        yield f"not searched ({reason}): {', '.join(names)}"
