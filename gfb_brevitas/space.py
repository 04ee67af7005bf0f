"""The search space: one log2 coordinate per group of quantizers that share a width.

GradFreeBits searches a *log-precision vector* v with r = round(2^v) (Bodner et al., 2022,
doi:10.3390/s22249772); v in [0, 3] spans 1 to 8 bits.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gfb_brevitas.allocation import MAX_BITS, BitAllocation, require_mapping
from gfb_brevitas.errors import AllocationError, ConfigurationError
from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.rules import Fix, Range, Rule, Tie

if TYPE_CHECKING:
    import optuna

Bits = NDArray[np.int64]
Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Coordinate:
    """One search dimension.

    Attributes:
        name: Name of the first quantizer of the group; also the Optuna parameter's name.
        quantizers: Names of all quantizers that take this width.
        min_bits: Smallest width in bits.
        max_bits: Largest width in bits.
    """

    name: str
    quantizers: tuple[str, ...]
    min_bits: int
    max_bits: int

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to choose."""
        return self.min_bits == self.max_bits


class SearchSpace:
    """All coordinates of a model, and the maps between vectors, bit matrices and allocations.

    Three views of a set of P candidates are used throughout:

    - ``vectors``: shape ``(P, free coordinates)``, float, log2 of the widths (what CMA-ES sees);
    - ``bits``: shape ``(P, quantizers)``, integer, columns as in the profile (what costs see);
    - :class:`~gfb_brevitas.allocation.BitAllocation`: one candidate by name (what people see).

    Args:
        profile: The model's quantizers.
        rules: Ranges, fixed widths and ties. Later ranges win over earlier ones.

    Raises:
        ConfigurationError: If ``rules`` is not a list of rules, a rule matches no quantizer, or rules
            leave a group no common width.
    """

    def __init__(self, profile: ModelProfile, rules: Sequence[Rule] = ()) -> None:
        self.profile = profile
        self.rules = _checked_rules(rules)
        self.coordinates = _build_coordinates(profile, self.rules)
        self.free = tuple(c for c in self.coordinates if not c.is_fixed)
        group_of = {name: k for k, c in enumerate(self.coordinates) for name in c.quantizers}
        self._group = np.array([group_of[name] for name in profile.names], dtype=np.int64)
        self._low = np.array([c.min_bits for c in self.coordinates], dtype=np.int64)
        self._high = np.array([c.max_bits for c in self.coordinates], dtype=np.int64)
        self._free = np.array([not c.is_fixed for c in self.coordinates], dtype=bool)

    def __len__(self) -> int:
        return len(self.free)

    def __repr__(self) -> str:
        lines = [f"SearchSpace of {len(self.free)} free coordinates:"]
        for c in self.coordinates:
            width = f"{c.min_bits}" if c.is_fixed else f"{c.min_bits} to {c.max_bits}"
            tied = "" if len(c.quantizers) == 1 else f", with {', '.join(c.quantizers[1:])}"
            lines.append(f"  {c.name}: {width} bits{tied}")
        return "\n".join(lines)

    @property
    def lower(self) -> Vector:
        """Lower bounds of the free coordinates; shape ``(free,)``, log2 of bits."""
        bounds: Vector = np.log2(self._low[self._free].astype(np.float64))
        return bounds

    @property
    def upper(self) -> Vector:
        """Upper bounds of the free coordinates; shape ``(free,)``, log2 of bits."""
        bounds: Vector = np.log2(self._high[self._free].astype(np.float64))
        return bounds

    def distributions(self) -> dict[str, optuna.distributions.FloatDistribution]:
        """Optuna distributions of the free coordinates."""
        from optuna.distributions import FloatDistribution

        return {
            c.name: FloatDistribution(low, high)
            for c, low, high in zip(self.free, self.lower.tolist(), self.upper.tolist(), strict=True)
        }

    def suggest(self, trial: optuna.trial.BaseTrial) -> BitAllocation:
        """Ask an Optuna trial for an allocation: one log2 float parameter per free coordinate.

        Example:
            >>> def objective(trial):  # doctest: +SKIP
            ...     return evaluate(space.suggest(trial))
        """
        vector = [
            trial.suggest_float(name, distribution.low, distribution.high)
            for name, distribution in self.distributions().items()
        ]
        return self.allocation(self.decode(np.array([vector], dtype=np.float64))[0])

    def decode(self, vectors: ArrayLike) -> Bits:
        """Round vectors to bit widths, r = round(2^v).

        Args:
            vectors: Shape ``(P, free)`` or ``(free,)``, log2 of bits.

        Returns:
            Bit widths, shape ``(P, quantizers)`` or ``(quantizers,)``.

        Raises:
            AllocationError: If the vectors are of another space or hold NaN.
        """
        try:
            vectors = np.asarray(vectors, dtype=np.float64)
        except (TypeError, ValueError):
            raise AllocationError(
                f"A vector of this space is an array of log2 widths; got {vectors!r}."
            ) from None
        if not vectors.ndim or vectors.shape[-1] != len(self.free):
            raise AllocationError(
                f"A vector of this space has {len(self.free)} entries; got "
                f"{vectors.shape[-1] if vectors.ndim else vectors}."
            )
        if np.isnan(vectors).any():
            raise AllocationError("A vector's entries must be numbers (log2 of bits); got NaN.")
        groups = np.broadcast_to(self._low, (*vectors.shape[:-1], len(self.coordinates))).copy()
        # Clipped before the conversion: a very large float has no int64.
        inside = np.clip(vectors, self.lower, self.upper)
        groups[..., self._free] = np.rint(np.exp2(inside)).astype(np.int64)
        return groups[..., self._group]

    def encode(self, allocation: Mapping[str, int]) -> Vector:
        """The vector of an allocation (log2 of its widths), clipped to the bounds; shape ``(free,)``."""
        widths = self._widths(allocation, [c.name for c in self.free])
        return np.clip(np.log2(np.array(widths, dtype=np.float64)), self.lower, self.upper)

    def bits(self, allocation: Mapping[str, int]) -> Bits:
        """The row of a bit matrix of an allocation; shape ``(quantizers,)``."""
        return np.array(self._widths(allocation, self.profile.names), dtype=np.int64)

    def _widths(self, allocation: Mapping[str, int], names: Sequence[str]) -> list[int]:
        require_mapping(allocation)
        missing = [name for name in names if name not in allocation]
        if missing:
            raise AllocationError(f"The allocation does not fit the model: it lacks {', '.join(missing)}.")
        return [allocation[name] for name in names]

    def allocation(self, bits: ArrayLike) -> BitAllocation:
        """The allocation of a row of a bit matrix."""
        row = _row(bits)
        if row is None or row.shape != (len(self.profile),):
            raise AllocationError(
                f"A row of bit widths of this model has shape ({len(self.profile)},); got "
                f"{repr(bits) if row is None else row.shape}."
            )
        return BitAllocation(dict(zip(self.profile.names, row.tolist(), strict=True)))

    def uniform(self, weight_bits: int, activation_bits: int | None = None) -> BitAllocation:
        """All weights at ``weight_bits`` and activations at ``activation_bits`` (default: the same).

        Quantizers that cannot take the width take the nearest one that they can.

        Raises:
            ConfigurationError: If a width is not a whole number from 1 to 32.
        """
        _check_width("weight_bits", weight_bits)
        if activation_bits is not None:
            _check_width("activation_bits", activation_bits)
        wanted = {
            "weight": weight_bits,
            "activation": weight_bits if activation_bits is None else activation_bits,
        }
        first = {c.name: self.profile.quantizers[self.profile.column(c.name)].kind for c in self.coordinates}
        groups = np.array([wanted[first[c.name]] for c in self.coordinates], dtype=np.int64)
        return self.allocation(np.clip(groups, self._low, self._high)[self._group])

    def nearest(self, bits: ArrayLike) -> Bits:
        """The row of the space that is closest to ``bits`` (shape ``(quantizers,)``).

        Each group takes the width of its first member, clipped to the group's range.
        """
        row = np.asarray(bits, dtype=np.int64)
        first = np.array([row[self.profile.column(c.name)] for c in self.coordinates], dtype=np.int64)
        nearest: Bits = np.clip(first, self._low, self._high)[self._group]
        return nearest

    def smallest(self) -> BitAllocation:
        """Every quantizer at its smallest width."""
        return self.allocation(self._low[self._group])

    def largest(self) -> BitAllocation:
        """Every quantizer at its largest width."""
        return self.allocation(self._high[self._group])

    def check(self, allocation: Mapping[str, int]) -> BitAllocation:
        """Check that an allocation fits the space.

        Raises:
            AllocationError: If names differ, a width is outside its range, or tied widths differ.
        """
        checked = BitAllocation(allocation)
        checked.require_names(self.profile.names)
        for c in self.coordinates:
            widths = {name: checked[name] for name in c.quantizers}
            if len(set(widths.values())) > 1:
                listed = ", ".join(f"{name} {bits}" for name, bits in widths.items())
                raise AllocationError(f"These quantizers are tied and need one bit width: {listed}.")
            if not c.min_bits <= widths[c.name] <= c.max_bits:
                raise AllocationError(
                    f"The bit width of {c.name!r} must be from {c.min_bits} to {c.max_bits}; "
                    f"got {widths[c.name]}."
                )
        return checked


def _row(bits: ArrayLike) -> Bits | None:
    try:
        return np.asarray(bits, dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        return None


def _checked_rules(rules: object) -> tuple[Rule, ...]:
    wanted = "`rules` must be a list or tuple of Range, Fix and Tie objects"
    if not isinstance(rules, list | tuple):
        example = f"[{rules!r}]" if isinstance(rules, Range | Fix | Tie) else '[Fix("conv1.*", 8)]'
        raise ConfigurationError(f"{wanted}, such as {example}; got {rules!r}.")
    for rule in rules:
        if not isinstance(rule, Range | Fix | Tie):
            raise ConfigurationError(f'{wanted}, such as [Fix("conv1.*", 8)]; got {rule!r} in it.')
    return tuple(rules)


def _check_width(name: str, bits: object) -> None:
    whole = isinstance(bits, int | np.integer) and not isinstance(bits, bool)
    if not (whole and 1 <= bits <= MAX_BITS):  # type: ignore[operator]
        raise ConfigurationError(f"`{name}` must be a whole number from 1 to {MAX_BITS}; got {bits!r}.")


def _build_coordinates(profile: ModelProfile, rules: Sequence[Rule]) -> tuple[Coordinate, ...]:
    low = {info.name: info.min_bits for info in profile}
    high = {info.name: info.max_bits for info in profile}
    group = {info.name: info.tie_group for info in profile}
    bound = {info.name for info in profile if info.reached}
    for rule in rules:
        if isinstance(rule, Tie):
            _apply_tie(profile, rule, group)
        else:
            bound |= _apply_range(profile, rule, low, high)
    members: dict[str, list[str]] = {}
    for name in profile.names:
        members.setdefault(group[name], []).append(name)
    return tuple(_coordinate(names, bound, low, high) for names in members.values())


def _apply_range(
    profile: ModelProfile, rule: Range | Fix, low: dict[str, int], high: dict[str, int]
) -> set[str]:
    """Set the bounds of a rule; returns the names that it is about."""
    # A range would make a search dimension of a quantizer whose width changes nothing.
    names = frozenset(profile.names)
    named = [info for info in profile if rule.matches(info, names)]
    matched = [info for info in named if info.reached or isinstance(rule, Fix)]
    if not matched:
        raise ConfigurationError(_no_match(profile, rule, bool(named)))
    bounds = (rule.bits, rule.bits) if isinstance(rule, Fix) else (rule.min_bits, rule.max_bits)
    for info in matched:
        if info.scaling == "native" and bounds[0] < info.min_bits:
            raise ConfigurationError(
                f"{info.name!r} keeps Brevitas' own scale and takes no fewer than {info.min_bits} bits; "
                f"{rule} asks for {bounds[0]}."
            )
        low[info.name], high[info.name] = bounds
    return {info.name for info in matched}


def _no_match(profile: ModelProfile, rule: Rule, matches_unreached: bool) -> str:
    if matches_unreached:
        return (
            f"{rule} matches only quantizers that the example inputs never reached, which keep their "
            "widths. Give example inputs that reach them, or set their widths with Fix."
        )
    bracket = (
        " In a pattern, [...] is one character of several, and [[] a bracket." if "[" in str(rule) else ""
    )
    return f"{rule} matches no quantizer. There are: {', '.join(profile.names)}.{bracket}"


def _apply_tie(profile: ModelProfile, rule: Tie, group: dict[str, str]) -> None:
    by_key: dict[Hashable, list[str]] = {}
    matches_unreached, known = False, frozenset(profile.names)
    for info in profile:
        key = rule.key(info, known)
        if key is None:
            continue
        _check_key(key, info.name)
        if info.reached:
            by_key.setdefault(key, []).append(info.name)
        else:
            matches_unreached = True
    if not by_key:
        raise ConfigurationError(_no_match(profile, rule, matches_unreached))
    for names in by_key.values():
        joined = {group[name] for name in names}
        for name, current in group.items():
            if current in joined:
                group[name] = group[names[0]]


def _check_key(key: object, name: str) -> None:
    try:
        hash(key)
    except TypeError as error:
        raise ConfigurationError(
            "`by` of a tie must return something hashable, such as a string or a tuple; "
            f"got {key!r} for {name!r}."
        ) from error


def _coordinate(names: list[str], bound: set[str], low: dict[str, int], high: dict[str, int]) -> Coordinate:
    # A quantizer that was never reached and has no rule of its own takes what the others need.
    deciding = [name for name in names if name in bound] or names
    lowest, highest = max(low[name] for name in deciding), min(high[name] for name in deciding)
    if lowest > highest:
        ranges = ", ".join(f"{name} {low[name]} to {high[name]}" for name in deciding)
        raise ConfigurationError(f"These quantizers are tied but have no width in common: {ranges}.")
    return Coordinate(name=names[0], quantizers=tuple(names), min_bits=lowest, max_bits=highest)
