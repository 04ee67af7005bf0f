"""Starting clipping values at their MSE-optimal values on data."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn

from gfb_brevitas.adapters.conversion import Site
from gfb_brevitas.errors import CalibrationError, EmptyDataError
from gfb_brevitas.quant import Clipping, Samples, mse_optimal_clipping, normalize_weight
from gfb_brevitas.quant.sampling import ValueSampler

_WEIGHT_SAMPLE = 65536
_WEIGHT_SAMPLE_PER_CHANNEL = 4096


@torch.no_grad()
def calibrate(
    model: nn.Module,
    sites: Iterable[Site],
    widths: dict[str, range],
    batches: Iterable[Any],
    forward: Callable[[Any], Any],
) -> None:
    """Fit every learned a(b) to the MSE-optimal clipping values over its widths.

    Weights first, from the tensors themselves; then activations, from one pass over ``batches`` in
    which activations flow unquantized. A BatchNorm that was never trained has no statistics to evaluate
    with; it uses (and starts from) those of the batches. Quantizers that keep Brevitas' scale collect the
    statistics that Brevitas would collect in training.

    Args:
        model: The converted model, in evaluation mode afterwards as before.
        sites: Its searchable quantizers.
        widths: Widths to fit over, per site name.
        batches: At least one batch.
        forward: Runs the model on a batch.

    Raises:
        EmptyDataError: If there is no batch.
        CalibrationError: If a quantizer sees NaN or infinite values.
    """
    sites = list(sites)
    weights = [s for s in sites if s.kind == "weight"]
    _fit(weights, widths, lambda site: _weight_samples(model, site))
    activations = [s for s in sites if s.kind == "activation"]
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        _use_batch_statistics_where_untrained(model)
        with _collecting(activations):
            seen = 0
            for batch in batches:
                forward(batch)
                seen += 1
            if seen == 0:
                raise EmptyDataError("Calibration needs at least one batch; the iterable yielded none.")
            _fit(activations, widths, _activation_samples)
    finally:
        for module, training in flags:
            module.training = training


def _use_batch_statistics_where_untrained(model: nn.Module) -> None:
    for module in model.modules():
        tracked = getattr(module, "num_batches_tracked", None)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and tracked is not None and tracked == 0:
            module.train()


@contextmanager
def _collecting(activations: list[Site]) -> Iterator[None]:
    for site in activations:
        if site.learned is not None:
            site.learned.sampler = ValueSampler(site.channel_dim)
        else:
            site.quantizer.train()
    try:
        with _every_quant_tensor_valid():
            yield
    finally:
        for site in activations:
            if site.learned is not None:
                site.learned.sampler = None
            else:
                site.quantizer.apply(_end_statistics)


_originally_valid = IntQuantTensor.is_valid
_calibrating: set[int] = set()  # identities of threads
_calibrating_changes = threading.Lock()


@contextmanager
def _every_quant_tensor_valid() -> Iterator[None]:
    """Quant tensors hold values that are not quantized now; Brevitas would refuse to negate them.

    In this thread only: others may search or train other models meanwhile.
    """
    own = threading.get_ident()
    with _calibrating_changes:
        _calibrating.add(own)
        IntQuantTensor.is_valid = property(_is_valid)
    try:
        yield
    finally:
        with _calibrating_changes:
            _calibrating.discard(own)
            if not _calibrating:
                del IntQuantTensor.is_valid


def _is_valid(tensor: IntQuantTensor) -> bool:
    return threading.get_ident() in _calibrating or bool(_originally_valid.fget(tensor))


def _end_statistics(module: nn.Module) -> None:
    # Brevitas turns collected statistics into parameters after a number of training steps.
    for finish in ("init_scale", "init_zp"):
        if hasattr(module, finish):
            getattr(module, finish)()


def _fit(sites: list[Site], widths: dict[str, range], samples_of: Callable[[Site], Samples | None]) -> None:
    groups: dict[int, list[Site]] = {}
    for site in sites:
        if site.learned is not None:
            groups.setdefault(id(site.learned.clipping), []).append(site)
    for members in groups.values():
        try:
            samples = [s for s in (samples_of(site) for site in members) if s is not None]
            if samples:
                _fit_clipping(members, samples, widths[members[0].name])
        except CalibrationError as error:
            raise CalibrationError(f"{members[0].name}: {error}") from error


def _fit_clipping(members: list[Site], samples: list[Samples], widths: range) -> None:
    quantizer = members[0].learned
    if quantizer is None:
        return
    clipping: Clipping = quantizer.clipping
    like = clipping(members[0].width.bits)
    targets: dict[int, Tensor] = {
        bits: mse_optimal_clipping(samples, bits).reshape(like.shape).to(like.dtype) for bits in widths
    }
    clipping.fit(targets)


def _activation_samples(site: Site) -> Samples | None:
    quantizer = site.learned
    if quantizer is None or quantizer.sampler is None or len(quantizer.sampler) == 0:
        return None  # not reached by these inputs; it keeps the range it has
    return Samples(values=quantizer.sampler.values(), integers=quantizer.integers)


def _weight_samples(model: nn.Module, site: Site) -> Samples | None:
    if site.learned is None:
        return None
    most = _WEIGHT_SAMPLE if site.channel_dim is None else _WEIGHT_SAMPLE_PER_CHANNEL
    sampler = ValueSampler(site.channel_dim, per_call=most, capacity=1 << 62)
    for layer in site.tracked_layers(model):
        weight = layer.weight.detach()
        sampler.add(normalize_weight(weight) if site.learned.normalize else weight)
    return Samples(values=sampler.values(), integers=site.learned.integers)
