"""Discovery, widths, freezing and export on the models that Brevitas ships, with random weights.

For every model: the quantizers that are found, how they are tied, which are refused and why, the largest
difference between the searchable and the frozen model over random allocations (it should be 0), and between
the model at 4 bits and its exported QONNX file (but for the rounding error of float32 it should be 0).
"""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from configparser import ConfigParser
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _harness import Figures, Settings, run_benchmark
from torch import Tensor, nn

from gfb_brevitas.adapters import SearchableModel, make_searchable, quantize_float_model
from gfb_brevitas.errors import ExportError, GfbError, NothingSearchableError

EXAMPLES = "brevitas_examples"
Case = tuple[Callable[[], nn.Module], tuple[int, ...]]


def measure(settings: Settings) -> Figures:
    rows = [row(name, settings) for name in settings["models"]]
    measured = [r for r in rows if r["freeze difference"] is not None]
    return {
        "models": rows,
        "models measured": len(measured),
        "largest freeze difference": max((r["freeze difference"] for r in measured), default=None),
        "largest export difference": max(
            (r["export difference"] for r in measured if r["export difference"] is not None), default=None
        ),
    }


def row(name: str, settings: Settings) -> dict[str, Any]:
    empty = dict.fromkeys(
        (
            "quantizers",
            "of them",
            "coordinates",
            "tied",
            "refused",
            "freeze difference",
            "output range",
            "export difference",
            "flips",
            "note",
        )
    )
    torch.manual_seed(0)
    build, shape = case(name)
    try:
        model = build()
    except ImportError as error:
        return {"model": name, **empty, "note": f"skipped: {error}"}
    x = torch.rand(settings["samples"], *shape)
    try:
        searchable = make_searchable(warmed_up(model, x), x[:1])
    except NothingSearchableError as error:
        return {"model": name, **empty, "note": str(error).partition(".")[0]}
    searchable.calibrate([x])
    return {"model": name, **empty, **discovery(searchable), **exactness(searchable, x, settings)}


def discovery(searchable: SearchableModel) -> dict[str, Any]:
    """What was found."""
    profile, space = searchable.profile, searchable.space
    kinds = Counter((info.kind, info.scaling) for info in profile)
    return {
        "quantizers": len(profile),
        "of them": ", ".join(f"{n} {scaling} {kind}" for (kind, scaling), n in kinds.items()),
        "coordinates": len(space),
        "tied": sum(len(c.quantizers) for c in space.coordinates if len(c.quantizers) > 1),
        "refused": ", ".join(f"{n} × {why}" for why, n in Counter(r.reason for r in profile.refused).items()),
    }


def exactness(searchable: SearchableModel, x: Tensor, settings: Settings) -> dict[str, Any]:
    """Differences of the frozen and of the exported model."""
    space, generator = searchable.space, np.random.default_rng(0)
    drawn = space.decode(generator.uniform(space.lower, space.upper, (settings["allocations"], len(space))))
    differences = []
    for allocation in [space.smallest(), space.largest(), *map(space.allocation, drawn)]:
        searchable.set_allocation(allocation)
        frozen = searchable.eval().freeze()
        differences.append((outputs(frozen, x) - outputs(searchable, x)).abs().max().item())
    exported = searchable.freeze(space.uniform(4))
    return {
        "freeze difference": max(differences),
        "output range": (outputs(exported, x).max() - outputs(exported, x).min()).item(),
        **export(exported, x[: settings["exported_samples"]]),
    }


def export(frozen: nn.Module, x: Tensor) -> dict[str, Any]:
    """The exported file against the model that it was exported from."""
    try:
        from gfb_integrations.qonnx import export_qonnx

        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = export_qonnx(frozen, x[:1], Path(folder) / "model.onnx", verify_on=x)
    except GfbError as error:
        reason = "differs" if isinstance(error, ExportError) and "differ" in str(error) else "not exported"
        return {"note": f"{reason}: {str(error)[:300]}"}
    found = report.verification
    return {"export difference": found.max_abs_diff, "flips": found.rounding_flips}


@torch.no_grad()
def outputs(model: nn.Module, x: Tensor) -> Tensor:
    values = model.eval()(x)
    return getattr(values, "value", values)


@torch.no_grad()
def warmed_up(model: nn.Module, x: Tensor) -> nn.Module:
    """The model after a few training passes, in which Brevitas and BatchNorm collect statistics."""
    model.train()
    for _ in range(3):
        model(x)
    return model.eval()


# --- the models -----------------------------------------------------------------------------------


def case(name: str) -> Case:
    """How to build a model, and the shape of its samples."""
    if name in CASES:
        return CASES[name]
    shape = (3, 32, 32) if name.startswith(("cnv", "resnet")) else (1, 28, 28)
    return lambda: bnn_pynq(name), shape


def bnn_pynq(name: str) -> nn.Module:
    models = import_module(f"{EXAMPLES}.bnn_pynq.models")
    model: nn.Module = models.model_with_cfg(name, pretrained=False)[0]
    return model


def imagenet_settings(name: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_string((files(EXAMPLES) / f"imagenet_classification/models/cfg/{name}.ini").read_text())
    return parser


def mobilenet_v1_4b() -> nn.Module:
    models = import_module(f"{EXAMPLES}.imagenet_classification.models.mobilenetv1")
    return for_small_images(models.quant_mobilenet_v1(imagenet_settings("quant_mobilenet_v1_4b")))


def proxylessnas_mobile14_4b() -> nn.Module:
    models = import_module(f"{EXAMPLES}.imagenet_classification.models.proxylessnas")
    settings = imagenet_settings("quant_proxylessnas_mobile14_4b")
    return for_small_images(models.quant_proxylessnas_mobile14(settings))


def for_small_images(model: nn.Module) -> nn.Module:
    """The last pooling fitted to images of 64 x 64 instead of 224 x 224."""
    model.final_pool.kernel_size = 2
    return model


class ResidualNet(nn.Module):
    """A small float network with branches that are added."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.BatchNorm2d(channels),
            )
            for _ in range(3)
        )
        self.relu = nn.ReLU()
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = self.relu(x + block(x))
        return self.head(torch.mean(x, (2, 3)))


def graph_quantized_residual_net() -> nn.Module:
    x = torch.rand(4, 3, 32, 32)
    return quantize_float_model(warmed_up(ResidualNet(), x), x)


CASES: dict[str, Case] = {
    "mobilenet_v1_4b": (mobilenet_v1_4b, (3, 64, 64)),
    "proxylessnas_mobile14_4b": (proxylessnas_mobile14_4b, (3, 64, 64)),
    "graph_quantized_residual_net": (graph_quantized_residual_net, (3, 32, 32)),
}

FULLY_CONNECTED = [f"{size}_{bits}" for size in ("tfc", "sfc") for bits in ("1w1a", "1w2a", "2w2a")]
MODELS = [
    *FULLY_CONNECTED,
    "lfc_1w1a",
    "lfc_1w2a",
    "cnv_1w1a",
    "cnv_1w2a",
    "cnv_2w2a",
    "resnet18_4w4a",
    *CASES,
]

if __name__ == "__main__":
    run_benchmark(
        "compat",
        measure,
        settings={"models": MODELS, "samples": 8, "allocations": 10, "exported_samples": 4},
        quick={"samples": 4, "allocations": 2, "exported_samples": 1},
    )
