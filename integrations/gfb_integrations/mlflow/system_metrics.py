"""The machine's load, under the names that MLflow shows in its tab of system metrics."""

from __future__ import annotations

import importlib
import logging
import math
import os
import time
from typing import Any

INTERVAL_S = 10.0
"""Seconds between samples, unless MLflow's variable for that says otherwise."""
_INTERVAL_VARIABLE = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"

_MONITORS = ("cpu_monitor.CPUMonitor", "disk_monitor.DiskMonitor", "network_monitor.NetworkMonitor")
_MONITORS_OF_GPUS = ("gpu_monitor.GPUMonitor", "rocm_monitor.ROCMMonitor")
_logger = logging.getLogger(__name__)


class SystemMetrics:
    """Samples the load with MLflow's monitors [ours: MLflow's own sender drops what a server does not take].

    Args:
        samples: How many samples were taken before.
    """

    def __init__(self, samples: int = 0) -> None:
        self._samples = samples
        self._interval_s = float(os.environ.get(_INTERVAL_VARIABLE) or INTERVAL_S)
        self._due = time.monotonic() + self._interval_s
        self._monitors: list[Any] = []
        try:
            importlib.import_module("psutil")
        except ImportError:
            _logger.info("Without the package 'psutil' there are no system metrics.")
            return
        self._monitors = [_monitor(name) for name in _MONITORS]
        for name in _MONITORS_OF_GPUS:
            try:
                self._monitors.append(_monitor(name))
            except Exception:  # no such GPU, or not its package
                continue

    def sample(self) -> tuple[int, dict[str, float]] | None:
        """The number of a sample and its values, when the next one is due."""
        if not self._monitors or time.monotonic() < self._due:
            return None
        self._due = time.monotonic() + self._interval_s
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values.update(monitor.aggregate_metrics())
            monitor.clear_metrics()
        self._samples += 1
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        return self._samples, {f"system/{name}": value for name, value in finite.items()}


def _monitor(name: str) -> Any:
    module, _, name = name.partition(".")
    return getattr(importlib.import_module(f"mlflow.system_metrics.metrics.{module}"), name)()
