"""Float PyTorch models, through Brevitas' own graph quantization."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from gfb_brevitas.adapters.copying import copied, with_plain_weights
from gfb_brevitas.adapters.tracing import ExampleInputs, require_module, run
from gfb_brevitas.errors import UntraceableModelError


def quantize_float_model(
    model: nn.Module, example_inputs: ExampleInputs, *, merge_batchnorm: bool = True
) -> nn.Module:
    """Turn a float model into a Brevitas model with 8-bit quantizers everywhere.

    Brevitas' graph quantization does the work: it traces the model, inserts input, weight, activation
    and residual quantizers, and shares scales where branches meet. Calibrate or train the result (for
    example with :func:`gfb_brevitas.fit`) before trusting its numbers.

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
    training = model.training
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from brevitas.graph.quantize import preprocess_for_quantize, quantize  # slow, and warns

            prepared = preprocess_for_quantize(
                with_plain_weights(copied(model)).eval(), merge_bn=merge_batchnorm
            )
            quantized: nn.Module = quantize(prepared)
            with torch.no_grad():
                run(quantized.eval(), example_inputs)
    except Exception as error:
        raise UntraceableModelError(
            f"Brevitas could not quantize {type(model).__name__}: {type(error).__name__}: {error}. "
            "Graph quantization needs a model that torch.fx can trace (no data-dependent control flow); "
            "otherwise build the model from brevitas.nn layers."
        ) from error
    return quantized.train(training)
