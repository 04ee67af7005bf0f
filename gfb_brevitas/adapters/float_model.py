"""Float PyTorch models, through Brevitas' own graph quantization."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from gfb_brevitas.adapters.brevitas_fx import GraphModule, Node
from gfb_brevitas.adapters.copying import copied, with_plain_weights
from gfb_brevitas.adapters.float_batchnorm import merge_grouped_transposed
from gfb_brevitas.adapters.float_calls import separate_meetings, settle_sizes, standardize_calls
from gfb_brevitas.adapters.float_copies import (
    CopiedCall,
    copy_shared_layers,
    reunite,
    shared_parameters,
    tie_parameters,
)
from gfb_brevitas.adapters.float_examples import (
    ExampleValues,
    is_float,
    noise_like,
    placeholder_values,
    placeholders,
)
from gfb_brevitas.adapters.float_layers import float_weight_layers, why_float
from gfb_brevitas.adapters.float_paddings import paddings_hidden, settle_paddings
from gfb_brevitas.adapters.float_products import products_to_layers
from gfb_brevitas.adapters.float_quantizers import (
    Unpacking,
    pass_integers_on,
    quantize_activation_products,
    quantize_embeddings,
)
from gfb_brevitas.adapters.float_tracing import WEIGHT_LAYERS, node_of, trace_float_model
from gfb_brevitas.adapters.forward_failures import why_it_failed
from gfb_brevitas.adapters.tracing import ExampleInputs, require_module, run
from gfb_brevitas.errors import UntraceableModelError

_logger = logging.getLogger(__name__)


def quantize_float_model(
    model: nn.Module, example_inputs: ExampleInputs, *, merge_batchnorm: bool = True
) -> nn.Module:
    """Turn a float model into a Brevitas model with 8-bit quantizers everywhere.

    Brevitas' graph quantization does the work: it traces the model, inserts input, weight, activation
    and residual quantizers, and shares scales where branches meet. Before that the trace is brought into a
    form that Brevitas knows, and proved to compute the same:

    - Subclasses of PyTorch's layers with a forward of their own, and functions called with a parameter as
      weight, become PyTorch's layers; zeros that they pad become the layer's padding, or a layer in front.
    - A layer that is called several times keeps one weight and one weight quantizer; every call has its own
      activation quantizers. Where different BatchNorms follow its calls they become layers of their own.
    - Methods and aliases of functions become the functions that Brevitas knows.

    Embeddings and products of activations (attention written by hand, too) get quantizers afterwards. What
    was done is logged; what stays in floating point is a warning, and is listed in
    :attr:`~gfb_brevitas.ModelProfile.float_layers` of the searchable model. Calibrate or train the result
    (for example with :func:`gfb_brevitas.fit`) before trusting its numbers.

    Args:
        model: A float model that ``torch.fx`` can trace; it is left as it is.
        example_inputs: One batch, to prove that the result runs.
        merge_batchnorm: Fold BatchNorm into the layer before it.

    Returns:
        A Brevitas model, in the training mode of ``model``.

    Raises:
        UntraceableModelError: If tracing, quantization or the first forward fails, with its cause.
        ConfigurationError: If ``model`` is not a module.
    """
    require_module(model)
    training, tied = model.training, shared_parameters(model)
    float_model = with_plain_weights(copied(model)).eval()
    samples = [example_inputs, noise_like(example_inputs)]
    wanted = [_floats_of(_run(float_model, sample)) for sample in samples]
    traced, done = _prepared(float_model, example_inputs)
    for sample, expected in zip(samples, wanted, strict=True):
        _prove(traced, model, sample, expected)
    copies = copy_shared_layers(traced)
    quantized = _quantize(traced, model, example_inputs, merge_batchnorm)
    done += _in_words(copies, reunite(quantized, copies))
    tie_parameters(quantized, tied)
    done += quantize_embeddings(quantized)
    quantize_activation_products(quantized)
    _settle(quantized, model, example_inputs)
    for sentence in done:
        _logger.info("%s", sentence)
    if left := [f"{name} ({why_float(layer)})" for name, layer in float_weight_layers(quantized)]:
        _logger.warning("The weights of %d layers stay in floating point: %s.", len(left), "; ".join(left))
    return quantized.train(training)


def _prepared(model: nn.Module, inputs: ExampleInputs) -> tuple[GraphModule, list[str]]:
    """The trace of a model in the form that Brevitas knows, and what was done, one sentence each."""
    left: list[nn.Module] = []
    while True:
        graph, done = trace_float_model(model, inputs, left)
        rewritten = products_to_layers(graph, model)
        more = [module for module in rewritten.left if module not in left]
        if not more:
            break
        left += more
    example = ExampleValues(graph, placeholder_values(graph, model, inputs))
    standardize_calls(graph, example)
    padded = settle_paddings(graph, example)
    settle_sizes(graph)
    classes = Counter(name for name, _ in rewritten.layers)
    for name, count in classes.items():
        paths = [path or "the model itself" for kind, path in rewritten.layers if kind == name]
        done.append(f"{count} products of {name} became PyTorch's layers: {_some(paths)}.")
    if padded:
        done.append(f"Zeros are put in front by layers of their own: {_some(padded)}.")
    return graph, done


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - 5} more" if len(paths) > 6 else ""
    return ", ".join(paths[: 5 if more else 6]) + more


def _prove(graph: GraphModule, model: nn.Module, inputs: ExampleInputs, wanted: list[Tensor]) -> None:
    found = _floats_of(_run(graph, inputs))
    if _alike(found, wanted) or not _alike(_floats_of(_run(copied(model).eval(), inputs)), wanted):
        return  # the same, or a model that differs from itself
    raise UntraceableModelError(
        f"Brevitas could not quantize {type(model).__name__}: what torch.fx traced of it computes something "
        "else than it does on inputs like the example. Does its forward keep values between calls? "
        "Build that part from brevitas.nn layers."
    )


def _alike(found: list[Tensor], wanted: list[Tensor]) -> bool:
    return len(found) == len(wanted) and all(
        a.shape == b.shape and bool((a - b).abs().max() <= _TOLERANCE * b.abs().max())
        for a, b in zip(found, wanted, strict=True)
        if b.numel() and b.isfinite().all()
    )


_TOLERANCE = 1e-3
"""Largest difference of a trace from its model, relative to the largest output: rounding, not more."""


def _quantize(
    graph: GraphModule, model: nn.Module, inputs: ExampleInputs, merge_batchnorm: bool
) -> GraphModule:
    """Brevitas' graph quantization of a trace."""
    try:
        with _quietly():
            from brevitas.graph import quantize as brevitas_quantize  # slow

            if merge_batchnorm:
                merge_grouped_transposed(graph)
            prepared = brevitas_quantize.preprocess_for_quantize(
                graph, trace_model=False, merge_bn=merge_batchnorm, relu6_to_relu=False
            )
            bounded = _relu6(prepared)
            quantized = _with_quantizers(prepared)
            _keep_bounds(quantized, bounded)
    except Exception as error:
        raise UntraceableModelError(_why(model, node_of(error), error)) from error
    given = dict(zip(placeholders(quantized), placeholder_values(quantized, model, inputs), strict=True))
    pass_integers_on(quantized, lambda node: is_float(given[node]))
    return quantized


def _with_quantizers(graph: GraphModule) -> GraphModule:
    from brevitas.graph import quantize, quantize_impl

    spare, limit = cast(GraphModule, copied(graph)), quantize_impl.MAX_RESIDUAL_ITERS
    quantize_impl.MAX_RESIDUAL_ITERS = _MEETING_ROUNDS + len(graph.graph.nodes)
    try:
        for attempt in (graph, spare):
            try:
                with paddings_hidden(attempt):
                    known = quantize.COMPUTE_LAYER_MAP | _unknown(attempt)
                    return cast(GraphModule, quantize.quantize(attempt, compute_layer_map=known))
            except RuntimeError as error:
                if attempt is spare or "align scale factors" not in str(error):
                    raise
                separate_meetings(spare)
        raise AssertionError("the second attempt returns or fails")
    finally:
        quantize_impl.MAX_RESIDUAL_ITERS = limit


_MEETING_ROUNDS = 50
"""Rounds that Brevitas gets to bring the scales of sums together, besides one for each operation."""


def _relu6(graph: GraphModule) -> list[str]:
    calls = [str(n.target) for n in graph.graph.nodes if n.op == "call_module"]
    return [path for path in calls if type(graph.get_submodule(path)) is nn.ReLU6]


def _keep_bounds(graph: GraphModule, paths: list[str]) -> None:
    """Let activations that end at 6 end there; Brevitas takes them for ones without an end."""
    for path in paths:
        layer: Any = graph.get_submodule(path)
        if hasattr(layer, "act_quant"):
            proxy, bounded = layer.act_quant, nn.Sequential(nn.ReLU6())  # alone, Brevitas leaves it out
            proxy.quant_injector = proxy.quant_injector.let(act_impl=bounded)  # for when it is made anew
            proxy.fused_activation_quant_proxy.activation_impl = bounded


def _unknown(graph: GraphModule) -> dict[type[nn.Module], None]:
    """Subclasses of layers, which Brevitas would look up as if they were these."""
    return {
        type(module): None
        for module in graph.modules()
        if isinstance(module, WEIGHT_LAYERS) and not type(module).__module__.startswith("torch.nn")
    }


def _settle(graph: GraphModule, model: nn.Module, inputs: ExampleInputs) -> None:
    """Let every operation get what it can read, and run the whole once."""
    with _quietly():
        found = Unpacking(graph)
        try:
            found.settle(placeholder_values(graph, model, inputs))
            _run(graph.eval(), inputs)
        except Exception as error:
            raise UntraceableModelError(_why(model, found.at, error)) from error


def _why(model: nn.Module, node: Node | None, error: Exception) -> str:
    where = "" if node is None else f" at {node.target if node.op == 'call_module' else node.format_node()}"
    return (
        f"Brevitas could not quantize {type(model).__name__}{where}: {type(error).__name__}: {error}. "
        "Write that place in another way, or build the model from brevitas.nn layers."
    )


def _in_words(copies: list[CopiedCall], different: list[CopiedCall]) -> list[str]:
    shared = dict.fromkeys(c.layer for c in copies if c not in different)
    done = [f"{layer} is called several times, with one weight quantizer." for layer in shared]
    return done + [
        f"{c.copy} is a layer of its own now: another BatchNorm follows this call of {c.layer}."
        for c in different
    ]


def _run(model: nn.Module, inputs: ExampleInputs) -> Any:
    try:
        with torch.no_grad():
            return run(model, tree_map_only(Tensor, Tensor.clone, inputs))
    except Exception as error:
        raise UntraceableModelError(why_it_failed(error)) from error


def _floats_of(outputs: Any) -> list[Tensor]:
    return [t for t in tree_leaves(outputs) if isinstance(t, Tensor) and t.is_floating_point()]


@contextmanager
def _quietly() -> Iterator[None]:
    """Without Brevitas' warnings; its setting about missing keys is back afterwards, also after a failure."""
    import brevitas.config

    before = brevitas.config.IGNORE_MISSING_KEYS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        brevitas.config.IGNORE_MISSING_KEYS = before
