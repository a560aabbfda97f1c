"""Checkpoints of trainings: damaged ones and those of other trainings are refused."""

from dataclasses import replace

import pytest
import torch
from toy_training import SETTINGS, Network, NoisyLine

from hybridcsp.errors import InputError
from hybridcsp.training.trainer import Trainer


@pytest.fixture
def checkpoint(tmp_path):
    file = tmp_path / "folder" / "state"
    Trainer(Network(), NoisyLine(), NoisyLine(20), SETTINGS, checkpoint=file).train()
    return file


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"no" + raw[2:], lambda raw: b""])
def test_damaged_checkpoint_is_refused(checkpoint, damage):
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    with pytest.raises(InputError, match=r"the checkpoint is damaged .*delete it to start the training anew"):
        Trainer(Network(), NoisyLine(), NoisyLine(20), SETTINGS, checkpoint=checkpoint)


def other_weights():
    model = Network()
    with torch.no_grad():
        model.out.bias += 0.1
    return model


@pytest.mark.parametrize(
    ("model", "training", "held_out", "settings", "seed"),
    [
        (Network, NoisyLine(51), NoisyLine(20), SETTINGS, 0),
        (Network, NoisyLine(slope=3.1), NoisyLine(20), SETTINGS, 0),
        (Network, NoisyLine(), NoisyLine(20, slope=3.1), SETTINGS, 0),
        (Network, NoisyLine(), None, SETTINGS, 0),
        (Network, NoisyLine(), NoisyLine(20), replace(SETTINGS, epochs=7), 0),
        (Network, NoisyLine(), NoisyLine(20), SETTINGS, 1),
        (other_weights, NoisyLine(), NoisyLine(20), SETTINGS, 0),
    ],
    ids=["size", "data", "held-out data", "nothing held out", "settings", "seed", "initial weights"],
)
def test_checkpoint_of_another_training_is_refused(checkpoint, model, training, held_out, settings, seed):
    with pytest.raises(InputError, match="belongs to a training with other data, settings, seed or initial weights"):
        Trainer(model(), training, held_out, settings, seed=seed, checkpoint=checkpoint)


def test_settings_without_effect_on_the_result_may_change(checkpoint):
    settings = replace(SETTINGS, checkpoint_minutes=1.0, checkpoint_epochs=3)
    history = Trainer(Network(), NoisyLine(), NoisyLine(20), settings, checkpoint=checkpoint).train()
    assert len(history) == SETTINGS.epochs
