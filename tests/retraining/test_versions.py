"""Folder of one retrained version of a generator."""

import pytest
from ase.build import bulk

from hybridcsp.generators.base import Epoch, Example, Generator
from hybridcsp.retraining import versions


class Listener(Generator):
    """Keeps the examples that it is trained on."""

    name = "listener"

    def fit(self, examples, *, seed=0, checkpoint=None, on_epoch=None, **settings):
        self.heard = list(examples)
        on_epoch(Epoch(number=0, losses={}, seconds=0.0, best=True))

    def sample(self, requests, rng):
        return []

    def save(self, folder):
        folder.mkdir(exist_ok=True)

    @classmethod
    def load(cls, folder):
        return cls()


def test_examples_reach_the_training_with_their_conditions_and_properties(tmp_path):
    sent = [
        Example(atoms=bulk("Si"), weight=0.5, energy_quantile=0.2, pressure_gpa=5.0, properties={"band_gap": 1.1}),
        Example(atoms=bulk("Cu")),
    ]
    versions.version_folder(tmp_path, "generative", 1).parent.mkdir(parents=True)
    folder = versions.prepare(versions.version_folder(tmp_path, "generative", 1), sent, {"seed": 0, "settings": {}})
    generator = Listener()
    versions.train(folder, generator)
    for one, other in zip(sent, generator.heard, strict=True):
        assert other.atoms.get_positions() == pytest.approx(one.atoms.get_positions())
        assert (other.weight, other.energy_quantile) == (one.weight, one.energy_quantile)
        assert other.pressure_gpa == one.pressure_gpa
        assert dict(other.properties) == dict(one.properties)
