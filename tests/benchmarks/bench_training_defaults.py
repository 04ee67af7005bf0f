"""What the first minibatches of training do to a network that is trained already, by optimizer and rate.

A float network that is trained gets uniform widths, is calibrated, and is trained on for so many
minibatches at a constant rate; accuracies are those of samples that it did not see in these. ``start`` is
the accuracy before, ``least clipping`` and ``largest clipping`` are clipping values as multiples of those
at the start. Real data and weights are looked for in ``--data`` (see _trained_networks.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _harness import Figures, Settings, run_benchmark
from _trained_networks import (
    TRAINED,
    Batch,
    MissingDataError,
    arguments,
    cifar10_images,
    cifar10_resnet20,
    loss,
    waveforms,
)
from digits import digits_data
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.search.training import Trainer

Data = tuple[nn.Module, list[Batch], list[Batch]]


def _cut(inputs: Tensor, labels: Tensor, size: int, batches: int | None = None) -> list[Batch]:
    return list(zip(inputs.split(size), labels.split(size), strict=True))[:batches]


def _resnet20(data: Path, steps: int) -> Data:
    train, test = cifar10_images(data, "train", 64 * steps), cifar10_images(data, "test", 500)
    return cifar10_resnet20(data, quantized=True), _cut(*train, 64, steps), _cut(*test, 250)


def _digits(data: Path, steps: int) -> Data:
    images = digits_data()
    model = TRAINED["digits"].load(data, 64).model.freeze()
    return model, (_cut(*images.train, 64) * steps)[:steps], _cut(*images.validation, 250)


def _waveforms(data: Path, steps: int) -> Data:
    model = TRAINED["waveforms"].load(data, 64).model.freeze()
    return model, [waveforms(64, 5_000 + i) for i in range(steps)], [waveforms(500, 77_777)]


NETWORKS: dict[str, Callable[[Path, int], Data]] = {
    "resnet20": _resnet20,
    "digits": _digits,
    "waveforms": _waveforms,
}


@torch.no_grad()
def _accuracy(model: nn.Module, batches: list[Batch]) -> float:
    model.eval()
    right = sum(int((model(*arguments(batch)).argmax(1) == batch[1]).sum()) for batch in batches)
    return right / sum(len(labels) for _, labels in batches)


def _clipping_values(model: gfb.SearchableModel, bits: int) -> Tensor:
    return torch.cat(
        [
            (module.forward(bits).detach() / module.unit).flatten()
            for module in model.modules()
            if hasattr(module, "relative")
        ]
    )


def _row(network: str, data: Path, bits: int, name: str, rate: float, steps: int) -> dict[str, Any]:
    torch.manual_seed(0)
    model, train, test = NETWORKS[network](data, steps)
    searchable = gfb.make_searchable(model, tuple(part[:2] for part in arguments(train[0])))
    searchable.set_allocation(searchable.space.uniform(bits))
    searchable.calibrate(train[:2], forward=lambda batch: searchable(*arguments(batch)))
    start, clipping = _accuracy(searchable, test), _clipping_values(searchable, bits)
    settings = gfb.TrainingConfig(optimizer=name, learning_rate=rate, schedule="constant")
    Trainer(searchable, loss, settings, epochs=1, seed=0).run_epoch(train, 0)
    moved = _clipping_values(searchable, bits) / clipping
    return {
        "network": network,
        "bits": bits,
        "optimizer": name,
        "learning rate": rate,
        "start": start,
        "accuracy": _accuracy(searchable, test),
        "least clipping": float(moved.min()),
        "largest clipping": float(moved.max()),
    }


def measure(settings: Settings) -> Figures:
    """A row for each network, width, optimizer and rate."""
    rows = []
    for network in settings["networks"]:
        for bits in settings["bits"]:
            for name, rate in settings["optimizers"]:
                try:
                    rows.append(_row(network, Path(settings["data"]), bits, name, rate, settings["steps"]))
                except MissingDataError as error:
                    print(f"{network}: {error}")
    return {"training_defaults": rows}


if __name__ == "__main__":
    run_benchmark(
        "training_defaults",
        measure,
        settings={
            "networks": list(NETWORKS),
            "bits": [8, 4, 3],
            "optimizers": [("adam", 1e-3), ("sgd", 0.02), ("sgd", 0.1)],
            "steps": 120,
            "data": os.environ.get("GFB_DATA", "data"),
        },
        quick={"bits": [4], "steps": 20},
        options={"data": "folder of real data and weights"},
    )
