"""Errors of FINN's flow."""

from __future__ import annotations

from gfb_brevitas.errors import ExportError, GfbError

_CHECK = "Run `gfb finn check` on the model: it names the layer and the change."
_SCALED_THRESHOLDS = f"An activation keeps a scale that FINN cannot move out of its thresholds. {_CHECK}"
_HINTS = (
    ("ModelProto", "Give a file that export_qonnx has written."),
    ("There is no board", ""),
    ("one sample at a time", ""),
    ("zero-point == 0", "FINN's activations need the zero point 0; use quantizers without one."),
    ("rounding_mode set to", 'Truncate with trunc_quant=TruncTo8bit and float_to_int_impl_type="FLOOR".'),
    (
        "cannot reshape array of size 1",
        "FINN does not build a quantized bias of a convolution; leave it in floats (bias_quant=None).",
    ),
    ("out_scale=1 or bipolar output needed", _SCALED_THRESHOLDS),
    ("out_scale must be", _SCALED_THRESHOLDS),
    ("Requirement MH divisable", "PE of the folding file must divide the layer's outputs."),
    ("Requirement MW divisable", "SIMD of the folding file must divide the layer's inputs."),
    ("Op has no such attribute", "The folding file sets an attribute that the layer has not."),
    ("Unsupported/unmapped layer(s)", _CHECK),
)
_AT_FOLDING = "If there is a folding file, correct what it says of this layer."


class FinnError(GfbError):
    """FINN's process could not be started, ended, or did not answer."""


class FinnBuildError(ExportError):
    """FINN refuses a model.

    Attributes:
        stage: The stage of its flow.
        node: The node that it names, or ``""``.
        reason: What it said.
    """

    def __init__(self, stage: str, node: str, reason: str) -> None:
        self.stage, self.node, self.reason = stage, node, reason
        otherwise = _AT_FOLDING if stage == "folded" else _CHECK
        hint = next((text for part, text in _HINTS if part in reason), otherwise)
        super().__init__(f"FINN refuses the model at the stage {stage!r}: {reason} {hint}".rstrip())
