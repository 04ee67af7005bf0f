"""Repairs of Brevitas where a layer that we support does not run at all."""

from __future__ import annotations

from brevitas.quant_tensor import IntQuantTensor, QuantTensor


def restore_quant_cat() -> None:
    """Make ``brevitas.nn.QuantCat`` run.

    In Brevitas 0.13 its forward calls ``QuantTensor.cat``, which that class lost when the integer quant
    tensor became a class of its own. Releases that have it are left alone.
    """
    if not hasattr(QuantTensor, "cat"):
        QuantTensor.cat = staticmethod(IntQuantTensor.cat)
