"""Importing FINN where there is neither Vivado nor PyTorch.

Two modules of FINN ask for more than estimates need. ``finn.custom_op.fpgadataflow.layernorm`` imports
PyTorch, which only the execution of a LayerNorm uses; ``finn.xsi`` builds a simulator with Vivado when one of
its names is looked up.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import types
from typing import Any

_TORCH = ("torch", "torch.nn", "torch.nn.functional")


class _Absent(types.ModuleType):
    """Stands for a module while another one is imported that needs it only when it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self.__name__}.{name}")


def load_finn() -> dict[str, str]:
    """Import FINN; returns the versions of the packages that take part."""
    absent = [name for name in _TORCH if importlib.util.find_spec("torch") is None]
    sys.modules.update((name, _Absent(name)) for name in absent)
    try:
        importlib.import_module("finn.custom_op.fpgadataflow.layernorm")
    finally:
        for name in absent:
            del sys.modules[name]
    simulator = importlib.import_module("finn.xsi")
    for name in simulator._LAZY_NAMES:
        setattr(simulator, name, None)
    importlib.import_module("finn.builder.build_dataflow_steps")
    return {name: importlib.metadata.version(name) for name in ("finn-plus", "qonnx", "onnx", "numpy")}
