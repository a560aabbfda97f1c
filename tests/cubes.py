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
