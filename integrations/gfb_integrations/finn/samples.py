"""Samples and outputs for a verification."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from gfb_brevitas.errors import ConfigurationError, EmptyDataError, ExportError

Array = np.ndarray[Any, Any]

_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    MemoryError,
    BadZipFile,
    zlib.error,
)


def read_samples(path: Path) -> tuple[Array, Array | None]:
    """The arrays ``inputs`` and ``outputs`` of an ``.npz`` file; without the second, ``None``.

    Raises:
        ExportError: If the file cannot be read.
        ConfigurationError: If it has no ``inputs``.
    """
    try:
        with path.open("rb") as stream:  # which NumPy leaves open where the file is damaged
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                arrays = None
            else:
                arrays = {name: loaded[name] for name in ("inputs", "outputs") if name in loaded.files}
                names = sorted(loaded.files)
    except _UNREADABLE as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ExportError(f"{str(path)!r} is not a file of NumPy arrays ({reason}).") from error
    if arrays is None:
        raise ConfigurationError(
            f"{str(path)!r} is a single array. Write one with the array `inputs`, and `outputs` if there are "
            'some: np.savez("samples.npz", inputs=..., outputs=...).'
        )
    if "inputs" not in arrays:
        raise ConfigurationError(
            f"{str(path)!r} must hold an array `inputs`, and may hold `outputs`; it holds "
            f"{', '.join(names) or 'nothing'}."
        )
    return arrays["inputs"], arrays.get("outputs")


def samples_of(values: Any) -> Array:
    """Samples as float32, shape ``(samples, ...)``.

    Raises:
        ConfigurationError: If they are no finite numbers.
        EmptyDataError: If there are none.
    """
    found = _numbers(values, "Samples")
    if not len(found):
        raise EmptyDataError("There are no samples to verify the graph on; give at least one.")
    with np.errstate(over="ignore"):
        samples = found.astype(np.float32)
    if not np.isfinite(samples).all():
        raise ConfigurationError(
            "Samples must be finite numbers of float32; there are NaN, infinities or larger ones among them."
        )
    return samples


def outputs_of(values: Any, samples: int, shape: tuple[int, ...] | None) -> Array:
    """What a model puts out for a number of samples.

    Args:
        values: The outputs.
        samples: How many there must be.
        shape: Shape of the file's output, one sample long; ``None`` where it is not known.

    Raises:
        ConfigurationError: If they are no numbers, or of another shape.
    """
    found = _numbers(values, "Outputs")
    if len(found) != samples:
        raise ConfigurationError(f"There must be as many outputs as samples; got {len(found)} and {samples}.")
    if shape is not None and found.shape[1:] != shape[1:]:
        raise ConfigurationError(
            f"Outputs must have the shape that the file puts out, {(samples, *shape[1:])}; they have "
            f"{found.shape}. Are they, or the model, of another network?"
        )
    return found


def _numbers(values: Any, what: str) -> Array:
    """A tensor, array or nested list as an array of real numbers with samples along its first axis.

    Raises:
        ConfigurationError: If it is something else.
    """
    if hasattr(values, "detach"):  # also one that gradients are computed for
        values = values.detach().cpu()
    try:
        found = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"{what} must be one array of numbers: {error}.") from error
    if found.dtype.kind not in "biuf":
        kind = "None" if values is None else f"values of type {found.dtype}"
        raise ConfigurationError(f"{what} must be real numbers; got {kind}.")
    if found.ndim == 0:
        raise ConfigurationError(f"{what} must have samples along their first axis; got a single number.")
    return found
