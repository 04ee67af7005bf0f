"""Bit allocations: one integer bit width per quantizer, readable by people and machines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sized
from numbers import Integral
from pathlib import Path
from typing import Any

from gfb_brevitas.errors import AllocationError
from gfb_brevitas.files import (
    CHECKSUM,
    refuse_duplicate_keys,
    sealed,
    unsealed_if_sealed,
    write_text_atomically,
)

FORMAT = "gfb_brevitas.allocation"
VERSION = 1
MAX_BITS = 32


class BitAllocation(Mapping[str, int]):
    """An immutable mapping from quantizer name to bit width.

    Example:
        >>> allocation = BitAllocation({"conv.weight_quant": 3, "relu.act_quant": 4})
        >>> allocation["conv.weight_quant"]
        3
        >>> BitAllocation.from_json(allocation.to_json()) == allocation
        True

    Args:
        bits: Bit width per quantizer name; each a whole number from 1 to 32.

    Raises:
        AllocationError: If ``bits`` is not a mapping, or a width is not a whole number in that range.
    """

    __slots__ = ("_bits",)

    def __init__(self, bits: Mapping[str, int]) -> None:
        require_mapping(bits)
        checked: dict[str, int] = {}
        for name, width in bits.items():
            if isinstance(width, bool) or not isinstance(name, str):
                raise AllocationError(f"An allocation maps names to whole numbers; got {name!r}: {width!r}.")
            try:
                whole = int(width)
            except (TypeError, ValueError, OverflowError):
                whole = 0
            if whole != width or not 1 <= whole <= MAX_BITS:
                raise AllocationError(
                    f"The bit width of {name!r} must be a whole number from 1 to {MAX_BITS}; got {width!r}."
                )
            checked[name] = whole
        self._bits = checked

    def __getitem__(self, name: str) -> int:
        return self._bits[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._bits)

    def __len__(self) -> int:
        return len(self._bits)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BitAllocation):
            return self._bits == other._bits
        return NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self._bits.items()))

    def __repr__(self) -> str:
        return f"BitAllocation({self._bits!r})"

    def replace(self, **bits: int) -> BitAllocation:
        """A copy with some widths changed; ``BitAllocation({**a, ...})`` where names are no identifiers."""
        return BitAllocation({**self._bits, **bits})

    def require_names(self, names: Iterable[str]) -> None:
        """Check that the allocation names exactly ``names``.

        Raises:
            AllocationError: Naming what is missing and what is unknown.
        """
        expected = set(names)
        missing = sorted(expected - self._bits.keys())
        unknown = sorted(self._bits.keys() - expected)
        if missing or unknown:
            parts = []
            if missing:
                parts.append(f"it lacks {', '.join(missing)}")
            if unknown:
                parts.append(f"the model has no {', '.join(unknown)}")
            raise AllocationError(f"The allocation does not fit the model: {'; '.join(parts)}.")

    def to_json(self) -> str:
        """The allocation as versioned JSON text, with a checksum."""
        document = sealed({"format": FORMAT, "version": VERSION, "bits": self._bits})
        return json.dumps(document, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> BitAllocation:
        """Read what :meth:`to_json` wrote.

        Raises:
            AllocationError: If the text is not such a document, of a later version, or its checksum, if it
                has one, is of another content.
        """
        try:
            document: Any = json.loads(text, object_pairs_hook=refuse_duplicate_keys)
        except (ValueError, RecursionError) as error:
            raise AllocationError(f"Not an allocation file: it is not valid JSON ({error}).") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise AllocationError(
                f'Not an allocation file: it must be a JSON object with "format": "{FORMAT}".'
            )
        if document.get("version") != VERSION:
            raise AllocationError(
                f"This release reads allocation files of version {VERSION}; got {document.get('version')!r}."
            )
        unknown = sorted(document.keys() - {"format", "version", "bits", CHECKSUM})
        if unknown:
            raise AllocationError(
                f"An allocation file has the keys format, version, bits, {CHECKSUM}; got {unknown[0]!r} too."
            )
        try:
            bits = unsealed_if_sealed(document).get("bits")
        except ValueError as error:
            raise AllocationError(f"The allocation file is damaged: {error}.") from error
        if not isinstance(bits, dict):
            raise AllocationError('Not an allocation file: "bits" must map quantizer names to bit widths.')
        return cls(bits)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the allocation to ``path``, whole or not at all."""
        write_text_atomically(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BitAllocation:
        """Read an allocation file.

        Raises:
            AllocationError: If the file cannot be read or is not an allocation.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise AllocationError(
                f"The allocation file {os.fspath(path)!r} cannot be read: {error}."
            ) from error
        try:
            return cls.from_json(text)
        except AllocationError as error:
            raise AllocationError(f"{os.fspath(path)}: {error}") from error


def require_mapping(bits: object) -> None:
    """Check that ``bits`` can be an allocation at all.

    Raises:
        AllocationError: If it is not a mapping.
    """
    if isinstance(bits, Mapping):
        return
    hint = ""
    if isinstance(bits, str | os.PathLike):
        hint = " Read a file with BitAllocation.load(path)."
    elif isinstance(bits, Integral):
        hint = f" For one width everywhere: model.space.uniform({bits})."
    elif isinstance(bits, Sized):
        hint = " For a row of bit widths: model.space.allocation(row)."
    raise AllocationError(f"An allocation maps quantizer names to bit widths; got {bits!r}.{hint}")
