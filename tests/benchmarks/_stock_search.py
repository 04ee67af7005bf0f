"""What a user would write without this project: stock Brevitas, Optuna's CMA-ES, SQLite.

One model is built per trial with the trial's widths; the trained weights and scales are loaded into it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import brevitas.nn as qnn
import optuna
import torch
from torch import Tensor, nn

Bits = Mapping[str, int]


class ResidualBlock(nn.Module):
    """The block of examples/fashion_mnist.py, with widths as arguments."""

    def __init__(self, inputs: int, outputs: int, stride: int, bits: Bits, name: str) -> None:
        super().__init__()
        w = {part: {"weight_bit_width": bits[f"{name}.{part}.weight_quant"]} for part in ("conv1", "conv2")}
        shortcut = bits[f"{name}.shortcut.0.weight_quant"]
        a = {p: bits[f"{name}.{p}.act_quant"] for p in ("relu1", "branch_quant", "relu2")}
        self.conv1 = qnn.QuantConv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False, **w["conv1"])
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = qnn.QuantReLU(return_quant_tensor=True, bit_width=a["relu1"])
        self.conv2 = qnn.QuantConv2d(outputs, outputs, 3, padding=1, bias=False, **w["conv2"])
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(
            qnn.QuantConv2d(inputs, outputs, 1, stride=stride, bias=False, weight_bit_width=shortcut),
            nn.BatchNorm2d(outputs),
        )
        self.branch_quant = qnn.QuantIdentity(return_quant_tensor=True, bit_width=a["branch_quant"])
        self.relu2 = qnn.QuantReLU(return_quant_tensor=True, bit_width=a["relu2"])

    def forward(self, x: Tensor) -> Tensor:
        """Both branches of the addition share one quantizer."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(self.branch_quant(y) + self.branch_quant(self.shortcut(x)))


def stock_model(bits: Bits) -> nn.Module:
    """The residual network of examples/fashion_mnist.py at these widths."""
    return nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True, bit_width=bits["0.act_quant"]),
        qnn.QuantConv2d(1, 8, 3, stride=2, padding=1, bias=False, weight_bit_width=bits["1.weight_quant"]),
        nn.BatchNorm2d(8),
        qnn.QuantReLU(return_quant_tensor=True, bit_width=bits["3.act_quant"]),
        ResidualBlock(8, 8, 1, bits, "4"),
        ResidualBlock(8, 16, 2, bits, "5"),
        ResidualBlock(16, 32, 2, bits, "6"),
        nn.MaxPool2d(2),
        nn.Flatten(),
        qnn.QuantLinear(32 * 2 * 2, 10, bias=True, weight_bit_width=bits["9.weight_quant"]),
    )


def stock_search(
    state: Mapping[str, Tensor],
    names: Sequence[str],
    batches: Sequence[tuple[Tensor, Tensor]],
    penalty: Callable[[Bits], float],
    *,
    trials: int,
    seed: int,
    storage: str,
    on_trial: Callable[[float], Any],
) -> optuna.Study:
    """Search the widths of a trained model by loss + penalty.

    Args:
        state: State dict of the trained model.
        names: Names of the quantizers.
        batches: What the loss is computed on.
        penalty: Of exceeding the budgets.
        trials: Number of trials.
        seed: Of the sampler.
        storage: URL of the study's storage.
        on_trial: Told every trial's value.
    """

    def objective(trial: optuna.Trial) -> float:
        bits = {name: round(2 ** trial.suggest_float(name, 1.0, 3.0)) for name in names}
        model = stock_model(bits)
        model.load_state_dict(state)
        model.eval()
        with torch.no_grad():
            losses = [nn.functional.cross_entropy(model(x), y) for x, y in batches]
        value = float(torch.stack(losses).mean()) + penalty(bits)
        on_trial(value)
        return value

    study = optuna.create_study(storage=storage, sampler=optuna.samplers.CmaEsSampler(seed=seed))
    study.optimize(objective, n_trials=trials)
    return study
