"""Repairs of Brevitas where a layer that we support does not run, or not load, at all."""

from __future__ import annotations

from functools import wraps
from typing import Any

from brevitas.nn import quant_rnn
from brevitas.quant_tensor import IntQuantTensor, QuantTensor


def restore_quant_cat() -> None:
    """Make ``brevitas.nn.QuantCat`` run.

    In Brevitas 0.13 its forward calls ``QuantTensor.cat``, which that class lost when the integer quant
    tensor became a class of its own. Releases that have it are left alone.
    """
    if not hasattr(QuantTensor, "cat"):
        QuantTensor.cat = staticmethod(IntQuantTensor.cat)


def restore_recurrent_loading() -> None:
    """Make ``load_state_dict`` work on a recurrent layer that has run.

    Its first forward keeps a cell that holds the layer's quantizers a second time. State dicts leave that
    cell out, but loading asks for it, and would leave it with the quantizers from before. It is made anew
    by the next forward.
    """
    for layer in (quant_rnn._QuantRNNLayer, quant_rnn._QuantLSTMLayer):
        layer._load_from_state_dict = _without_fast_cell(layer._load_from_state_dict)


def _without_fast_cell(load: Any) -> Any:
    @wraps(load)
    def load_from_state_dict(self: Any, *args: Any, **kwargs: Any) -> None:
        self._fast_cell = None
        load(self, *args, **kwargs)

    return load_from_state_dict
