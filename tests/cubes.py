"""A generator of simple cubic crystals, and a predictor of their volume."""

from __future__ import annotations

import numpy as np
from ase.build import bulk

from hybridcsp.generators.base import Generator, Reject, Sample
from hybridcsp.predictors.base import Prediction, Predictor


class Cubes(Generator):
    """Simple cubic crystals with uniformly distributed edges from 2 to 3 Å."""

    name = "cubes"

    def fit(self, examples, **settings):
        raise NotImplementedError

    def sample(self, requests, rng):
        self.asked = getattr(self, "asked", 0) + len(requests)
        return [
            Sample(atoms=bulk(next(iter(request.contents)), "sc", a=rng.uniform(2, 3)), request=i)
            if "Xe" not in request.contents
            else Reject(request=i, reason="a noble gas")
            for i, request in enumerate(requests)
        ]

    def save(self, folder):
        raise NotImplementedError

    @classmethod
    def load(cls, folder):
        raise NotImplementedError


class Volume(Predictor):
    """The volume, exactly; silver is unknown."""

    name = "volume"

    def __init__(self, quantity="volume"):
        self.card = {"property": quantity}

    def fit(self, data, **settings):
        raise NotImplementedError

    def predict(self, crystals):
        values = np.array([atoms.get_volume() for atoms in crystals])
        unseen = tuple(("Ag",) if "Ag" in atoms.symbols else () for atoms in crystals)
        ends = np.stack([values, values], axis=1)
        return Prediction(mean=values, standard_deviation=0 * values, interval_50=ends, interval_90=ends, unseen=unseen)

    def save(self, folder):
        raise NotImplementedError

    @classmethod
    def load(cls, folder):
        raise NotImplementedError


class LearningCubes(Cubes):
    """Cubes whose edges are distributed around those of the crystals that were learned."""

    name = "learning-cubes"

    def __init__(self, middle=2.5, targets=frozenset()):
        self.middle = middle
        self.targets = frozenset(targets)
        self.card = {"weights_sha256": f"{middle:.6f}"}

    def fit(self, examples, *, seed=0, checkpoint=None, on_epoch=None, **settings):
        edges = [example.atoms.get_volume() ** (1 / 3) for example in examples for _ in range(1)]
        self.middle = float(np.average(edges, weights=[example.weight for example in examples]))

    def sample(self, requests, rng):
        return [
            Sample(atoms=bulk(next(iter(request.contents)), "sc", a=rng.normal(self.middle, 0.3)), request=i)
            for i, request in enumerate(requests)
        ]

    def save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "middle").write_text(repr(self.middle))

    @classmethod
    def load(cls, folder):
        return cls(float((folder / "middle").read_text()))
