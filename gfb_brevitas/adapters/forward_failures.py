"""What a forward pass on example inputs failed of."""

from __future__ import annotations

_LET_THROUGH = (
    "put a QuantIdentity in front of it, and give the quantizers and layers between return_quant_tensor=True."
)
_NOT_QUANTIZED_IN_FRONT = {
    "Input scale required": (
        "A layer with a quantized bias reads values that no quantizer has rounded, or whose scale did not "
        f"come through: {_LET_THROUGH} Or leave its bias in floats (bias_quant=None)."
    ),
    "QuantLayer is not correctly configured": (
        "A layer is to return quantized values (return_quant_tensor=True) and reads values that no quantizer "
        f"has rounded, or whose scale did not come through: {_LET_THROUGH}"
    ),
}
"""What Brevitas says where a layer gets no quantized input, and what it comes of."""


def why_it_failed(error: Exception) -> str:
    """The message of a failure, and what to do about it."""
    failed = f"The model failed on the example inputs: {type(error).__name__}: {error}. "
    for said, advice in _NOT_QUANTIZED_IN_FRONT.items():
        if said in str(error):
            return failed + advice
    return failed + (
        "Pass example_inputs that its forward accepts: a tensor, a tuple of positional arguments, "
        "or a mapping of keyword arguments."
    )
