"""FINN's estimates of a model."""

from __future__ import annotations

from functools import partial
from typing import Any

from finn.analysis.fpgadataflow.dataflow_performance import dataflow_performance
from finn.analysis.fpgadataflow.exp_cycles_per_layer import exp_cycles_per_layer
from finn.analysis.fpgadataflow.res_estimation import res_estimation
from finn.builder.build_dataflow_steps import step_generate_estimate_reports
from finn.transformation.fpgadataflow.annotate_cycles import AnnotateCycles
from finn.util.fpgadataflow import is_fpgadataflow_node

from .describing import describe_nodes
from .failures import failing_as
from .stages import make_config, run_stages


def estimate(model: str, output: str, settings: dict[str, Any], reports: bool) -> dict[str, Any]:
    """Run the flow up to estimates.

    Args:
        model: Path of a QONNX file.
        output: Folder for what FINN writes; the last graph is saved there as ``model.onnx``.
        settings: See :func:`~.stages.make_config`.
        reports: Whether FINN writes its reports, to ``report`` in that folder.

    Returns:
        ``part``, ``nodes`` (see :func:`~.describing.describe_nodes`), ``host_nodes``, the names of the nodes
        that stay outside the accelerator, ``critical_path_cycles``, ``max_cycles`` and ``graph``, the path of
        the last graph.
    """
    configuration = make_config(output, settings)
    host_nodes: list[str] = []
    for stage, last in run_stages(model, configuration):
        if stage.executable:  # those behind hold the accelerator alone
            host_nodes = [node.name for node in last.graph.node if not is_fpgadataflow_node(node)]
    with failing_as("estimates"):
        part = configuration._resolve_fpga_part()
        cycles = last.analysis(exp_cycles_per_layer)
        resources = last.analysis(partial(res_estimation, fpgapart=part))
        performance = last.transform(AnnotateCycles()).analysis(dataflow_performance)
    if reports:
        with failing_as("reports"):
            step_generate_estimate_reports(last, configuration)
    graph = f"{output}/model.onnx"
    last.save(graph)
    return {
        "part": part,
        "nodes": describe_nodes(last, cycles, resources),
        "host_nodes": host_nodes,
        "critical_path_cycles": int(performance["critical_path_cycles"]),
        "max_cycles": int(performance["max_cycles"]),
        "graph": graph,
    }
