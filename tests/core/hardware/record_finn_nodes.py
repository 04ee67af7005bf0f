"""Record what FINN estimates for random nodes, for tests that run without it.

Runs in FINN's own environment (``gfb finn install``), and writes ``finn_nodes.json`` beside this file:

    PYTHON_OF_FINN tests/core/hardware/record_finn_nodes.py
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILE = HERE / "finn_nodes.json"
LOADING = HERE.parents[2] / "integrations/gfb_integrations/finn/worker/loading.py"
PARTS = ("xc7z020clg400-1", "xczu7ev-ffvc1156-2-e", "xcvc1902-vsva2197-2MP-e-S")
STYLES = ("auto", "block", "distributed", "ultra")
NODES_PER_KIND = 60

Attributes = dict[str, Any]
draw = random.Random(0)


def matrix_vector(kind: str) -> Attributes:
    rtl, fused = kind.endswith("rtl"), draw.random() < 0.5 and not kind.endswith("rtl")
    inputs, outputs = draw.choice((9, 27, 64, 144, 784, 2304)), draw.choice((1, 10, 16, 96, 512))
    accumulator = f"INT{draw.randint(4, 32)}"
    return {
        "MW": inputs,
        "MH": outputs,
        "SIMD": _divisor(inputs),
        "PE": _divisor(outputs),
        "numInputVectors": [1, draw.randint(1, 30), draw.randint(1, 30)],
        "noActivation": int(not fused),
        # Narrower ones without thresholds, so that FINN too makes these of LUTs.
        "inputDataType": f"UINT{draw.randint(4, 8)}" if rtl else draw.choice(("BIPOLAR", "INT3", "UINT2")),
        "weightDataType": f"INT{draw.randint(4 if rtl else 2, 8)}",
        "outputDataType": f"UINT{draw.randint(1, 8)}" if fused else accumulator,
        "accDataType": accumulator,
        "ram_style": draw.choice(STYLES),
        "ram_style_thresholds": draw.choice(STYLES[:3]),
        "resType": draw.choice(("lut", "dsp")),
    }


def depthwise(kind: str) -> Attributes:
    channels, kernel = draw.choice((1, 8, 24, 96, 512)), [draw.randint(1, 5), draw.randint(1, 5)]
    pe, rtl = _divisor(channels), kind.endswith("rtl")
    return {
        "Channels": channels,
        "Kernel": kernel,
        "Dim": [draw.randint(1, 40), draw.randint(1, 40)],
        "PE": pe,
        "SIMD": _divisor(kernel[0] * kernel[1]) if pe == channels else 1,
        "noActivation": int(rtl),
        "inputDataType": f"UINT{draw.randint(4 if rtl else 1, 8)}",
        "weightDataType": f"INT{draw.randint(4 if rtl else 2, 8)}",
        "outputDataType": f"UINT{draw.randint(1, 8)}",
        "accDataType": f"INT{draw.randint(4, 24)}",
        "ram_style": draw.choice(STYLES),
        "resType": draw.choice(("auto", "lut")),
    }


def thresholds(_: str) -> Attributes:
    channels = draw.choice((1, 3, 16, 64, 256))
    return {
        "NumChannels": channels,
        "PE": _divisor(channels),
        "numSteps": 1,
        "numInputVectors": [1, draw.randint(1, 40), draw.randint(1, 40)],
        "inputDataType": "INT16",
        "weightDataType": draw.choice((f"INT{draw.randint(1, 24)}", "FLOAT32")),
        "outputDataType": f"UINT{draw.randint(1, 8)}",
    }


def sliding_window(_: str) -> Attributes:
    channels, whole, deep = draw.choice((1, 3, 8, 64)), draw.random() < 0.3, draw.randint(0, 1)
    image = [draw.choice((17, 32, 64, 224)), draw.choice((17, 32, 64, 224))]
    kernel, stride, dilation = ([draw.randint(1, most) for _ in image] for most in (7, 3, 2))
    row = draw.random() < 0.2
    if row:
        axis = draw.randint(0, 1)
        image[axis] = kernel[axis] = stride[axis] = dilation[axis] = 1
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    return {
        "IFMChannels": channels,
        "ConvKernelDim": kernel,
        "IFMDim": image,
        "OFMDim": [(i - e) // s + 1 for i, e, s in zip(image, extents, stride, strict=True)],
        "Stride": stride,
        "Dilation": dilation,
        "SIMD": channels if whole and not deep else _divisor(channels),
        "parallel_window": int(whole),
        "depthwise": deep,
        "is1D": int(row),
        "ram_style": draw.choice(STYLES),
        "inputDataType": f"UINT{draw.randint(1, 8)}",
        "outputDataType": "UINT8",
    }


def padding(_: str) -> Attributes:
    channels = draw.choice((1, 8, 24))
    return {
        "ImgDim": [draw.randint(1, 40), draw.randint(1, 40)],
        "Padding": [draw.randint(0, 3) for _ in range(4)],
        "NumChannels": channels,
        "SIMD": _divisor(channels),
        "inputDataType": "UINT4",
    }


def pool(_: str) -> Attributes:
    channels = draw.choice((1, 8, 24))
    return {
        "Channels": channels,
        "PE": _divisor(channels),
        "KernelSize": [draw.randint(1, 4), draw.randint(1, 4)],
        "OutImgDims": [draw.randint(1, 20), draw.randint(1, 20)],
        "Function": "MaxPool",
        "InputDataType": "UINT4",
        "OutputDataType": "UINT4",
    }


KINDS: dict[str, Callable[[str], Attributes]] = {
    "MVAU_hls": matrix_vector,
    "MVAU_rtl": matrix_vector,
    "VVAU_hls": depthwise,
    "VVAU_rtl": depthwise,
    "Thresholding_rtl": thresholds,
    "ConvolutionInputGenerator_rtl": sliding_window,
    "FMPadding_rtl": padding,
    "Pool_hls": pool,
}


def _divisor(number: int) -> int:
    return draw.choice([d for d in range(1, number + 1) if number % d == 0])


def record() -> Iterator[dict[str, Any]]:
    """Nodes of every kind with FINN's numbers of them."""
    from onnx import helper
    from qonnx.custom_op.registry import getCustomOp

    for kind, attributes_of in KINDS.items():
        for _ in range(NODES_PER_KIND):
            attributes = attributes_of(kind)
            part = PARTS[2] if kind == "VVAU_rtl" else draw.choice(PARTS)
            domain = f"finn.custom_op.fpgadataflow.{kind[-3:]}"
            node = helper.make_node(kind, ["x"], ["y"], domain=domain, backend="fpgadataflow", **attributes)
            found = getCustomOp(node)
            resources = found.node_res_estimation(part)
            yield {
                "part": part,
                "kind": kind,
                "cycles": int(found.get_exp_cycles()),
                **{name.lower(): resources[name] for name in ("LUT", "BRAM_18K", "URAM", "DSP")},
                "attributes": attributes,
            }


def main() -> None:
    """Import FINN as the worker does, and write the file."""
    specification = importlib.util.spec_from_file_location("loading", LOADING)
    assert specification is not None and specification.loader is not None
    loading = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(loading)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(FINN_BUILD_DIR=folder, FINN_SETTINGS=f"{folder}/settings.yaml")
        loading.load_finn()
        lines = ",\n".join(json.dumps(entry) for entry in record())
    FILE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
