"""What to do about failures inside Brevitas, PyTorch's exporter and QONNX."""

from __future__ import annotations

_ADVICE = (
    (
        "Scaling factors are different",
        "Branches that meet in an addition or a concatenation need one scale: let them share one quantizer "
        "module.",
    ),
    (
        "Custom op_type",
        "QONNX has no implementation of this operation: replace it by layers that it has.",
    ),
    (
        "is not supported",
        "ONNX has no such operation in this operator set: replace it, or try another `opset`.",
    ),
)


def explain(error: Exception) -> str:
    """A message for a failed export: the cause, and what to do where that is known."""
    cause = str(error).strip() or type(error).__name__
    advice = next((what for pattern, what in _ADVICE if pattern in cause), None)
    return f"The model cannot be exported to QONNX: {cause.rstrip('.')}." + (f" {advice}" if advice else "")


def explain_forward(error: Exception) -> str:
    """A message for a model that does not even run on the example input."""
    cause = str(error).strip() or type(error).__name__
    advice = next((what for pattern, what in _ADVICE if pattern in cause), None)
    fallback = "Give an example that model.eval()(*example_input) accepts."
    return (
        f"The model does not run on the example input in evaluation mode: {cause.rstrip('.')}. "
        f"{advice or fallback}"
    )
