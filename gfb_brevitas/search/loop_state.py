"""The state of a user's training loop as a checkpoint can hold it: plain data that loads without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gfb_brevitas.errors import ConfigurationError

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


def plain_state(state: object, name: str) -> dict[str, Any]:
    """A copy of a ``state_dict`` on the CPU that training does not change.

    Args:
        state: What the user's ``state_dict`` returned.
        name: What it is called in messages.

    Raises:
        ConfigurationError: If it holds anything that ``torch.load(..., weights_only=True)`` would refuse;
            says where.
    """
    if not isinstance(state, Mapping):
        raise ConfigurationError(
            f"{name} must return a dict; it returned {type(state).__name__!r}. A loop that keeps nothing "
            "between epochs returns {}."
        )
    copied: dict[str, Any] = _plain(state, name)
    return copied


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {_key(key, name): _plain(item, f"{name}[{key!r}]") for key, item in value.items()}
    if type(value) in (list, tuple, torch.Size):
        items = [_plain(item, f"{name}[{place}]") for place, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if type(value) in _PLAIN:
        return value
    if isinstance(value, float):  # np.float64, in which schedulers compute
        return float(value)
    raise _unfit(value, name)


def _key(key: Any, name: str) -> Any:
    if type(key) in (str, int, bool, float):
        return key
    raise _unfit(key, f"a key of {name}")


def _unfit(value: object, name: str) -> ConfigurationError:
    return ConfigurationError(
        "What a training loop keeps must be dicts, lists and tuples of tensors, numbers, strings and None, "
        f"so that checkpoints load without running code; {name} is of type "
        f"{type(value).__module__}.{type(value).__qualname__}. Turn it into one of these (an array with "
        "torch.from_numpy, an object with its own state_dict)."
    )
