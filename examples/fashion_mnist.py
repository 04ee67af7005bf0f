"""Fashion-MNIST: a small residual network, searched under the budget of uniform 2 bits.

    gfb run examples/fashion_mnist --data data/fashion_mnist --run-folder runs/fashion

The four original files are downloaded into the --data folder if they are not there.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import urllib.request
from pathlib import Path

import brevitas.nn as qnn
import numpy as np
import torch
from experiment import Data, Experiment, compare
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.errors import GfbError
from gfb_brevitas.files import replacing

SOURCE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
HEADER_BYTES = {"images-idx3": 16, "labels-idx1": 8}
MEAN, STD = 0.2860, 0.3530


def _file(folder: Path, name: str) -> bytes:
    path = folder / name
    if not path.is_file():
        print(f"downloading {SOURCE}/{name}")
        try:
            with replacing(path) as temporary:
                urllib.request.urlretrieve(f"{SOURCE}/{name}", temporary)
        except OSError as error:
            raise GfbError(
                f"{name} is not in {str(folder)!r} and cannot be downloaded ({error}). Fetch the four files "
                "of https://github.com/zalandoresearch/fashion-mnist and pass their folder with --data."
            ) from error
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise GfbError(
            f"{str(path)!r} is not the original {name}: its SHA-256 differs. Remove it to download it."
        )
    return content


def _samples(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    arrays = []
    for kind, header in HEADER_BYTES.items():
        raw = gzip.decompress(_file(folder, f"{part}-{kind}-ubyte.gz"))
        arrays.append(np.frombuffer(raw, dtype=np.uint8, offset=header).copy())
    images = torch.from_numpy(arrays[0]).reshape(-1, 1, 28, 28).float() / 255
    return (images - MEAN) / STD, torch.from_numpy(arrays[1]).long()


def fashion_data(folder: Path, train_samples: int = 6_000, test_samples: int = 10_000) -> Data:
    """The first samples of the training files for training, their last 4,000 for validation."""
    images, labels = _samples(folder, "train")
    test_images, test_labels = _samples(folder, "t10k")
    return Data(
        train=(images[:train_samples], labels[:train_samples]),
        validation=(images[-4000:], labels[-4000:]),
        test=(test_images[:test_samples], test_labels[:test_samples]),
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; both branches of the addition share one quantizer."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = qnn.QuantConv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = qnn.QuantReLU(return_quant_tensor=True)
        self.conv2 = qnn.QuantConv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(
            qnn.QuantConv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
        )
        self.branch_quant = qnn.QuantIdentity(return_quant_tensor=True)
        self.relu2 = qnn.QuantReLU(return_quant_tensor=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(self.branch_quant(y) + self.branch_quant(self.shortcut(x)))


def fashion_model() -> nn.Module:
    """A stem, three residual blocks and a linear layer; 28x28 images."""
    return nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(1, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        qnn.QuantReLU(return_quant_tensor=True),
        ResidualBlock(8, 8, 1),
        ResidualBlock(8, 16, 2),
        ResidualBlock(16, 32, 2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        qnn.QuantLinear(32 * 2 * 2, 10, bias=True),
    )


def fashion_experiment(data: Data, seed: int = 0, *, quick: bool = False) -> Experiment:
    """The settings of the example and of its benchmark."""
    search = gfb.SearchConfig(
        method="cma-es",  # the paper's
        pretrain_epochs=1 if quick else 5,
        pretrain_bits=4,
        rounds=1 if quick else 2,
        steps_per_round=1,
        evaluations_per_step=30 if quick else 800,
        epochs_per_round=1 if quick else 5,
        super_batch_size=2,
        seed=seed,
    )
    training = gfb.TrainingConfig(optimizer="adam", learning_rate=2e-3, weight_decay=1e-4)
    return Experiment(
        make_model=fashion_model, data=data, search=search, training=training, batch_size=128, rho=20.0
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(prog="fashion_mnist", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/fashion_mnist"), help="folder of the files")
    parser.add_argument("--run-folder", type=Path, default=Path("runs/fashion_mnist"))
    parser.add_argument("--bits", type=int, default=2, help="budgets of so many uniform bits")
    parser.add_argument("--train-samples", type=int, default=6_000, help="at most 56,000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few epochs on little data only")
    options = parser.parse_args(arguments)
    samples = 1_000 if options.quick else min(options.train_samples, 56_000)
    data = fashion_data(options.data, samples, 1_000 if options.quick else 10_000)
    compare(
        fashion_experiment(data, options.seed, quick=options.quick),
        options.bits,
        options.run_folder,
        title=f"Fashion-MNIST, {samples} training and {len(data.test[1])} test images",
    )


if __name__ == "__main__":
    main()
