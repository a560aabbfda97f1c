"""The package's predictors conform to their suite, and so does a minimal one; incorrect ones are found."""

import dataclasses
import json

import numpy as np
import pytest

from hybridcsp.errors import InputError
from hybridcsp.predictors import cgcnn, equivariant
from hybridcsp.predictors.base import Prediction, Predictor
from hybridcsp.predictors.domain import unseen_elements
from hybridcsp.predictors.graphs import check_crystal
from hybridcsp.predictors.labelled import check_learnable
from hybridcsp.predictors.loading import new_predictor
from hybridcsp.testing import check_predictor
from hybridcsp.testing.predictors import _halides

SMALL = {
    "cgcnn": cgcnn.Architecture(width=8, layers=1, hidden=8, gaussians=6),
    "equivariant": equivariant.Architecture(channels=4, layers=1, radial=4, hidden=8),
    "synthesizability": cgcnn.Architecture(width=8, layers=1, hidden=8, gaussians=6),
}


@pytest.mark.parametrize("name", SMALL)
def test_shipped_predictors_conform(name, tmp_path):
    def make():
        predictor = new_predictor(name, "corrected")
        predictor.architecture = SMALL[name]
        return predictor

    data = _halides()
    if name == "synthesizability":
        data = dataclasses.replace(data, values=np.arange(40) % 3 % 2.0, name="theoretical", unit="")
    check_predictor(make, tmp_path, data=data)


class Dense(Predictor):
    """A minimal correct predictor, and the base of incorrect ones: a straight line in the density of atoms."""

    name = "dense"

    def feature(self, atoms):
        return len(atoms) / atoms.get_volume()

    def fit(self, data, *, seed=0, checkpoint=None, on_epoch=None, members=None, **settings):
        check_learnable(data, logarithmic=False)
        features = [self.feature(atoms) for atoms in data.crystals]
        line = np.polynomial.Polynomial.fit(features, data.values, 1).convert().coef.tolist()
        errors = np.polynomial.Polynomial(line)(np.array(features)) - data.values
        elements = sorted({symbol for atoms in data.crystals for symbol in atoms.symbols})
        self.card = {"property": data.name, "line": line, "error": float(errors.std()), "elements": elements}

    def predict(self, crystals):
        if not self.card:
            raise InputError("predictor", self.name, reason="the predictor is not trained")
        for atoms in crystals:
            check_crystal(atoms)
        mean = np.polynomial.Polynomial(self.card["line"])(np.array([self.feature(atoms) for atoms in crystals]))
        error = np.full(len(crystals), self.card["error"])
        return Prediction(
            mean=mean,
            standard_deviation=error,
            interval_50=np.stack([mean - 0.7 * error, mean + 0.7 * error], axis=-1),
            interval_90=np.stack([mean - 1.6 * error, mean + 1.6 * error], axis=-1),
            unseen=unseen_elements(crystals, self.card["elements"]),
        )

    def save(self, folder):
        folder.mkdir()
        (folder / "card.json").write_text(json.dumps(self.card))

    @classmethod
    def load(cls, folder):
        predictor = cls()
        predictor.card = json.loads((folder / "card.json").read_text())
        return predictor


def test_minimal_predictor_conforms(tmp_path):
    check_predictor(Dense, tmp_path)


class OfTheCell(Dense):
    def feature(self, atoms):
        return atoms.get_volume()


class OfTheAxes(Dense):
    def feature(self, atoms):
        return np.abs(atoms.cell.array).max()


class OfTheFirstAtom(Dense):
    def feature(self, atoms):
        return float(atoms.numbers[0])


class OfTheOthers(Dense):
    def predict(self, crystals):
        found = super().predict(crystals)
        return dataclasses.replace(found, mean=found.mean - found.mean.mean() if len(crystals) else found.mean)


class Unaware(Dense):
    def predict(self, crystals):
        return dataclasses.replace(super().predict(crystals), outside=("",) * len(crystals))


class Forgetful(Dense):
    def save(self, folder):
        self.card |= {"line": [0.0, 1.0]}
        super().save(folder)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (OfTheCell, "change if a crystal is described by a supercell"),
        (OfTheAxes, "change if a crystal is rotated"),
        (OfTheFirstAtom, "change if the atoms of a crystal are in another order"),
        (OfTheOthers, "for a crystal depend on what is predicted with it"),
        (Unaware, "must name oganesson"),
        (Forgetful, "predicts differently after save and load"),
    ],
)
def test_incorrect_predictors_are_found(wrong, message, tmp_path):
    with pytest.raises(AssertionError, match=message):
        check_predictor(wrong, tmp_path)
