"""Export to QONNX, and proof that the file computes what the model does.

:func:`export_qonnx` writes a plain Brevitas model as a cleaned QONNX file, the input of FINN and of other
compilers for FPGAs. :func:`verify` runs the file with QONNX and compares it with the model layer by layer.
Both need ``pip install '.[export]'``.
"""

from gfb_integrations.qonnx.export import ExportReport, TensorInfo, export_qonnx, require_export
from gfb_integrations.qonnx.verification import VerificationReport, verify

__all__ = ["ExportReport", "TensorInfo", "VerificationReport", "export_qonnx", "require_export", "verify"]
