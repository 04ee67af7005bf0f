from __future__ import annotations

import pytest

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.search import preset

# Table 1 of doi:10.3390/s22249772: M, N_GF, N_GB, N_rounds, minibatches, batch size, v range, bits,
# pretraining epochs, learning rate, momentum.
TABLE_1 = {
    "cifar": (1024, 4, 16, 5, 32, 128, (0.0, 3.0), (1, 8), 300, 0.1, 0.9),
    "imagenet": (1024, 4, 5, 3, 16, 100, (0.0, 3.0), (1, 8), 30, 0.001, 0.9),
    "cityscapes": (512, 4, 16, 3, 16, 4, (0.0, 3.6), (1, 12), 80, 1e-4, 0.9),
}


@pytest.mark.parametrize("name", TABLE_1)
def test_presets_hold_the_paper_s_values(name: str) -> None:
    p = preset(name)
    search, training = p.search, p.training
    counts = (search.evaluations_per_step, search.steps_per_round, search.epochs_per_round, search.rounds)
    sizes = (search.super_batch_size, p.batch_size, p.log2_range, p.bits, search.pretrain_epochs)
    assert (*counts, *sizes, training.learning_rate, training.momentum) == TABLE_1[name]
    assert (search.super_batch, training.optimizer) == ("moving", "sgd")


def test_the_decoder_s_own_learning_rate() -> None:
    assert preset("cityscapes").decoder_learning_rate == 0.1
    assert preset("cifar").decoder_learning_rate is None


def test_unknown_preset() -> None:
    with pytest.raises(ConfigurationError, match="no preset 'mnist'.*cifar, imagenet, cityscapes"):
        preset("mnist")
