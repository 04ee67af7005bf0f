"""What makes a run what it is, as plain data: compared when a run is resumed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gfb_brevitas.adapters.eligibility import tensor_quantizer
from gfb_brevitas.profile import QuantizerInfo
from gfb_brevitas.quant import LearnedClippingQuantizer

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel


def described(value: Any) -> Any:
    """Settings as plain data; functions and other objects by name."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: described(getattr(value, f.name)) for f in fields(value) if f.repr}
        return {"class": type(value).__name__, **parts}
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [described(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return described(value.tolist())
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    # The address in a default repr differs between processes.
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def described_model(model: SearchableModel) -> dict[str, Any]:
    """A model's quantizers, the shapes of its parameters and the widths that its quantizers may take."""
    # Not the state dict: Brevitas leaves out of it what has not been collected from data yet.
    parameters = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    space = {c.name: [c.min_bits, c.max_bits, *c.quantizers[1:]] for c in model.space.coordinates}
    quantizers = {info.name: _described_quantizer(model, info) for info in model.profile}
    return {"quantizers": quantizers, "parameters": parameters, "search_space": space}


def _described_quantizer(model: SearchableModel, info: QuantizerInfo) -> dict[str, Any]:
    proxy: Any = model.model.get_submodule(info.name)
    quantizer = tensor_quantizer(proxy)
    learned = quantizer if isinstance(quantizer, LearnedClippingQuantizer) else None
    return {
        "clipping": None if learned is None else type(learned.clipping).__name__,
        "normalize": learned is not None and learned.normalize,
        "scaling": info.scaling,
        "signed": info.signed,
        "narrow_range": info.narrow_range,
    }
