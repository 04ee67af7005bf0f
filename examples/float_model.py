"""From a float PyTorch model to a quantized one with searched widths, on handwritten digits.

    gfb run examples/float_model

A float residual network is trained, quantized by Brevitas, and searched under the budgets of uniform 4 bits.
"""

from __future__ import annotations

import argparse

import torch
from digits import digits_data
from experiment import accuracy, cross_entropy
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.report import TerminalProgress, profile_table
from gfb_brevitas.terminal import plain_console


class ResidualNetwork(nn.Module):
    """A float network: nothing in it knows of quantization."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        self.branch = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
        self.head = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(channels * 16, 10))

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        return self.head(x + self.branch(x))


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(prog="float_model", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    quick = parser.parse_args(arguments).quick
    torch.manual_seed(0)
    console, data, model = plain_console(), digits_data(), ResidualNetwork()
    batches = data.loader(batch_size=64)

    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(2 if quick else 10):
        model.train()
        for batch in batches:
            optimizer.zero_grad()
            cross_entropy(model, batch).backward()
            optimizer.step()
    console.print(f"float: {accuracy(model, data.test):.2%} of the test images")

    example = data.train[0][:2]
    searchable = gfb.make_searchable(gfb.quantize_float_model(model, example), example)
    result = gfb.fit(
        searchable,
        loss=cross_entropy,
        train_batches=batches,
        budgets=gfb.paper_budgets(4, rho=20.0),
        metric=lambda candidate: accuracy(candidate, data.validation),
        search=gfb.SearchConfig(
            rounds=1 if quick else 2,
            steps_per_round=1,
            evaluations_per_step=30 if quick else 200,
            epochs_per_round=1 if quick else 5,
            super_batch_size=4,
        ),
        training=gfb.TrainingConfig(optimizer="adam", learning_rate=1e-3),
        callbacks=[TerminalProgress()],
    )
    console.print(profile_table(searchable.profile, result.allocation))
    console.print(f"searched: {accuracy(result.model, data.test):.2%} of the test images")


if __name__ == "__main__":
    main()
