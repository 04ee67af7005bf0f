"""Handwritten digits: a small convolutional network, searched under the budget of uniform 2 bits.

    gfb run examples/digits --run-folder runs/digits

The data comes with scikit-learn: 1,797 images of 8x8 pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import brevitas.nn as qnn
import torch
from experiment import Data, Experiment, compare
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import gfb_brevitas as gfb


def digits_data() -> Data:
    """60 % training, 15 % validation, 25 % test; every class in proportion, always the same."""
    images, labels = load_digits(return_X_y=True)
    rest, test, rest_labels, test_labels = train_test_split(
        images, labels, test_size=0.25, random_state=0, stratify=labels
    )
    train, validation, train_labels, validation_labels = train_test_split(
        rest, rest_labels, test_size=0.2, random_state=0, stratify=rest_labels
    )

    def tensors(x: object, y: object) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = torch.as_tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
        return pixels, torch.as_tensor(y)

    return Data(
        train=tensors(train, train_labels),
        validation=tensors(validation, validation_labels),
        test=tensors(test, test_labels),
    )


def digits_model() -> nn.Module:
    """Four 3x3 convolutions and a linear layer; every width starts at Brevitas' 8 bits."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [
            qnn.QuantConv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            qnn.QuantReLU(return_quant_tensor=True),
        ]

    return nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        *block(1, 8),
        *block(8, 16),
        nn.MaxPool2d(2),
        *block(16, 16),
        *block(16, 32),
        nn.MaxPool2d(2),
        nn.Flatten(),
        qnn.QuantLinear(32 * 2 * 2, 10, bias=True),
    )


def digits_experiment(seed: int = 0, *, quick: bool = False) -> Experiment:
    """The settings of the example and of its benchmarks."""
    search = gfb.SearchConfig(
        method="cma-es",  # the paper's
        pretrain_epochs=4 if quick else 20,
        pretrain_bits=8,
        rounds=2 if quick else 4,
        steps_per_round=1,
        evaluations_per_step=60 if quick else 300,
        epochs_per_round=2 if quick else 10,
        super_batch_size=8,
        seed=seed,
    )
    training = gfb.TrainingConfig(optimizer="adam", learning_rate=2e-3, weight_decay=1e-4)
    return Experiment(
        make_model=digits_model, data=digits_data(), search=search, training=training, batch_size=64
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(prog="digits", description=__doc__)
    parser.add_argument("--run-folder", type=Path, default=Path("runs/digits"))
    parser.add_argument("--bits", type=int, default=2, help="budgets of so many uniform bits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    options = parser.parse_args(arguments)
    compare(
        digits_experiment(options.seed, quick=options.quick),
        options.bits,
        options.run_folder,
        others=() if options.quick else (options.bits + 1,),
        title=f"digits, {len(digits_data().test[1])} test images",
    )


if __name__ == "__main__":
    main()
