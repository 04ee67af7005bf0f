"""Export to ONNX's own quantization operators (QCDQ), and proof that ONNX Runtime computes the same.

:func:`export_qcdq` writes a plain Brevitas model with ``QuantizeLinear``, ``Clip`` and ``DequantizeLinear``
nodes, :func:`run` executes the file, :func:`verify` compares its outputs with the model's, and
:func:`qcdq_limits` says beforehand which quantizers the format cannot carry.
All need ``pip install '.[export]'``.
"""

from gfb_integrations.onnxruntime.execution import run
from gfb_integrations.onnxruntime.export import QcdqExport, export_qcdq
from gfb_integrations.onnxruntime.limits import QcdqLimit, qcdq_limits
from gfb_integrations.onnxruntime.verification import OutputDifference, QcdqVerification, verify

__all__ = [
    "OutputDifference",
    "QcdqExport",
    "QcdqLimit",
    "QcdqVerification",
    "export_qcdq",
    "qcdq_limits",
    "run",
    "verify",
]
