"""A table of a model's quantizers."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from gfb_brevitas.profile import ModelProfile


def profile_table(profile: ModelProfile, allocation: Mapping[str, int] | None = None) -> Table:
    """A table for the terminal: what is searched, with what it feeds, and what is not, with the reason.

    Args:
        profile: The model's quantizers.
        allocation: Bit widths to show; by default the range of each quantizer.
    """
    table = Table(title="quantizers", title_justify="left")
    for heading in ("quantizer", "kind", "bits", "elements", "MACs", "scale", "tied to"):
        table.add_column(heading, justify="right" if heading in ("bits", "elements", "MACs") else "left")
    for info in profile:
        width = f"{info.min_bits}-{info.max_bits}" if allocation is None else str(allocation[info.name])
        tie = "" if info.tie_group == info.name else info.tie_group
        scale = f"{info.scaling}, per {info.granularity}"
        table.add_row(info.name, info.kind, width, f"{info.elements:,}", f"{info.macs:,}", scale, tie)
    for item in profile.refused:
        table.add_row(item.name, item.kind, "-", "", "", f"not searched: {item.reason}", "", style="dim")
    return table
