"""Values of predictors next to the energies of minima: hybridcsp show, export and hull with --predictor."""

import json

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from crystals import InlineBackend
from typer.testing import CliRunner

from hybridcsp import Search
from hybridcsp.cli.app import app
from hybridcsp.errors import InputError
from hybridcsp.predictors.base import Prediction, Predictor
from hybridcsp.predictors.loading import open_predictor
from hybridcsp.relaxation.relax import Relaxer


class Density(Predictor):
    """Predicts the density, and has learned from copper alone."""

    name = "density"

    def __init__(self, quantity="density"):
        self.card = {"property": quantity, "unit": "g/cm³"}

    def fit(self, data, **settings):
        raise NotImplementedError

    def predict(self, crystals):
        if any(len(atoms) > 20 for atoms in crystals):
            raise InputError("structure", "", reason="it is too large")
        mean = np.array([1.66 * atoms.get_masses().sum() / atoms.get_volume() for atoms in crystals])
        ends = np.stack([mean - 1, mean + 1], axis=-1)
        unseen = tuple(tuple(sorted({*atoms.symbols} - {"Cu"})) for atoms in crystals)
        return Prediction(
            mean=mean, standard_deviation=np.ones(len(mean)), interval_50=ends, interval_90=ends, unseen=unseen
        )

    def save(self, folder):
        raise NotImplementedError

    @classmethod
    def load(cls, folder):
        raise NotImplementedError


@pytest.fixture(autouse=True)
def predictors(monkeypatch):
    def opened(text):
        return Density(str(text)) if str(text) in ("density", "mass") else open_predictor(text)

    monkeypatch.setattr("hybridcsp.predictors.loading.open_predictor", opened)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def copper(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predicted") / "Cu"
    backend = InlineBackend(Relaxer(calculator="emt")())
    options = {"formula_units": 1, "calculator": "emt", "sources": ["random"]}
    with Search("Cu", directory=folder, backend=backend, **options) as search:
        search.run(relaxations=2, refine=0)
    return folder


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predicted") / "Cu-Au"
    known = folder.parent / "known.extxyz"
    ase.io.write(known, [bulk("Cu"), bulk("Au")])
    backend = InlineBackend(Relaxer(calculator="emt")())
    options = {"composition_grid": 2, "max_atoms": 2, "sources": ["prototypes"], "calculator": "emt"}
    with Search("Cu-Au", directory=folder, backend=backend, references=[known], **options) as search:
        search.run(relaxations=4, refine=0)
    return folder


def hybridcsp(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_show_has_a_column_for_each_predictor(copper):
    output = " ".join(hybridcsp("show", copper, "--predictor", "density", "--predictor", "mass").split())
    assert "density" in output
    assert "predicted by density, g/cm³" in output
    minima = json.loads(hybridcsp("show", copper, "--predictor", "density", "--json"))["minima"]
    assert minima[0]["predicted_density"] == pytest.approx(9.0, abs=0.7)
    assert minima[0]["predicted_density_deviation"] == 1
    assert minima[0]["predicted_density_outside"] == ""
    assert "predicted_density" not in hybridcsp("show", copper, "--json")


def test_export_writes_values_into_the_structures(copper, tmp_path):
    hybridcsp("export", copper, "--output", tmp_path / "minima.extxyz", "--predictor", "density")
    assert ase.io.read(tmp_path / "minima.extxyz", 0).info["predicted_density"] == pytest.approx(9.0, abs=0.7)


def test_phases_outside_of_what_was_learned_are_marked(system, tmp_path):
    output = hybridcsp("hull", system, "--predictor", "density", "--export", tmp_path / "p.extxyz", "--window", 500)
    assert "†" in output
    assert "there is no Au in the training set" in " ".join(output.split())
    phases = json.loads(hybridcsp("hull", system, "--predictor", "density", "--json", "--window", 500))["phases"]
    outside = {phase["formula"]: bool(phase["predicted_density_outside"]) for phase in phases}
    assert outside["Cu"] is False
    assert outside["Au"] is True
    written = {atoms.get_chemical_formula(): atoms.info for atoms in ase.io.iread(tmp_path / "p.extxyz", ":")}
    assert "predicted_density_outside" in written["Au"]
    assert "predicted_density_outside" not in written["Cu"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "{run}", "--predictor", "density", "--predictor", "density"), "another predictor of density"),
        (("show", "{run}", "--predictor", "nowhere"), "a folder with the weights of a predictor"),
        (("export", "{run}", "--format", "airss", "--output", "x", "--predictor", "density"), "no place for predicted"),
    ],
)
def test_mistakes_are_explained(copper, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        hybridcsp(*(argument.format(run=copper) for argument in arguments))
