"""The columns of the paper's Table 1 (Bodner et al., 2022, doi:10.3390/s22249772)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.search.config import SearchConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings of one of the paper's benchmarks. Its budgets: ``gfb_brevitas.constraints``.

    Attributes:
        name: Name of the benchmark.
        search: Settings of the search, pretraining included.
        training: Settings of the training.
        batch_size: Samples per minibatch.
        log2_range: Range of the log-precision vector v.
        decoder_learning_rate: Learning rate of the decoder where it has its own, to be used as
            ``learning_rates=(("decoder.*", preset.decoder_learning_rate),)``.
    """

    name: str
    search: SearchConfig
    training: TrainingConfig
    batch_size: int
    log2_range: tuple[float, float]
    decoder_learning_rate: float | None = None

    @property
    def bits(self) -> tuple[int, int]:
        """Smallest and largest bit width, r = round(2^v) at the ends of the range."""
        return round(math.exp2(self.log2_range[0])), round(math.exp2(self.log2_range[1]))


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="cifar",
            search=SearchConfig(method="cma-es", choose_by="loss", pretrain_epochs=300),
            training=TrainingConfig(optimizer="sgd", learning_rate=0.1),
            batch_size=128,
            log2_range=(0.0, 3.0),
        ),
        Preset(
            name="imagenet",
            search=SearchConfig(
                method="cma-es",
                choose_by="loss",
                rounds=3,
                epochs_per_round=5,
                super_batch_size=16,
                pretrain_epochs=30,
            ),
            training=TrainingConfig(optimizer="sgd", learning_rate=0.001),
            batch_size=100,
            log2_range=(0.0, 3.0),
        ),
        Preset(
            name="cityscapes",
            search=SearchConfig(
                method="cma-es",
                choose_by="loss",
                rounds=3,
                evaluations_per_step=512,
                super_batch_size=16,
                pretrain_epochs=80,
            ),
            training=TrainingConfig(optimizer="sgd", learning_rate=1e-4),
            batch_size=4,
            log2_range=(0.0, 3.6),
            decoder_learning_rate=0.1,
        ),
    )
}


def preset(name: str) -> Preset:
    """The preset of a benchmark: ``"cifar"``, ``"imagenet"`` or ``"cityscapes"``.

    Example:
        >>> preset("cityscapes").bits
        (1, 12)

    Raises:
        ConfigurationError: If there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigurationError(f"There is no preset {name!r}. There are: {', '.join(PRESETS)}.")
    return PRESETS[name]
