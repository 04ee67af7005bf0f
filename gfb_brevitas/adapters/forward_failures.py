"""What a forward pass on example inputs failed of."""

from __future__ import annotations

from gfb_brevitas.users_frames import failed_in, users_frames

_LET_THROUGH = (
    "put a QuantIdentity in front of it, and give the quantizers and layers between return_quant_tensor=True."
)
_ADVICE = {
    "Input scale required": (
        "A layer with a quantized bias reads values that no quantizer has rounded, or whose scale did not "
        f"come through: {_LET_THROUGH} Or leave its bias in floats (bias_quant=None)."
    ),
    "QuantLayer is not correctly configured": (
        "A layer is to return quantized values (return_quant_tensor=True) and reads values that no quantizer "
        f"has rounded, or whose scale did not come through: {_LET_THROUGH}"
    ),
    "QuantTensor' object has no attribute": (
        "A quant tensor has fewer methods than a tensor: take its values (x.value), or let the layer before "
        "return a tensor (return_quant_tensor=False)."
    ),
}
"""What Brevitas says, and what it comes of."""


def why_it_failed(error: Exception) -> str:
    """The message of a failure, with the user's lines that it came through, and what to do about it."""
    failed = f"The model failed on the example inputs: {failed_in(error)}"
    for said, advice in _ADVICE.items():
        if said in str(error):
            return failed + advice
    mend = "Mend these lines, or pass" if users_frames(error) else "Pass"
    return failed + (
        f"{mend} example_inputs that its forward accepts: a tensor, a tuple of positional arguments, or a "
        "mapping of keyword arguments."
    )
