"""``hybridcsp train`` and ``predict`` with predictors, and predictors as objectives."""

import csv
import io
import json

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from crystals import InlineBackend
from labelled_crystals import PROPERTY, crystals, with_property
from typer.testing import CliRunner

from hybridcsp import Search
from hybridcsp.cli.app import app
from hybridcsp.errors import InputError
from hybridcsp.objectives import ObjectiveChoice
from hybridcsp.objectives.registry import build_objective
from hybridcsp.predictors import loading
from hybridcsp.predictors.base import Predictor
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.training.epoch import Epoch

GOLD = Atoms("AuCl", cell=[4, 4, 4], positions=[[0] * 3, [2] * 3], pbc=True)
QUICK = ("--epochs", "2", "--set", "batch_size=8", "--set", "device=cpu")


def hybridcsp(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with data and a trained predictor."""
    where = tmp_path_factory.mktemp("predictor")
    data = with_property()
    del data[3].info[PROPERTY]
    data[5].info[PROPERTY] = np.nan
    ase.io.write(where / "data.extxyz", data)
    ase.io.write(where / "new.extxyz", [*crystals(3, seed=4), GOLD])
    arguments = ("train", "cgcnn", "--data", where / "data.extxyz", "--property", PROPERTY, "--members", "2")
    done = hybridcsp(*arguments, "--output", where / "mine", *QUICK)
    (where / "output.txt").write_text(done.output)
    return where


def test_train_reports_errors_and_coverage_and_writes_all_files(folder):
    output = " ".join((folder / "output.txt").read_text().split())
    assert (
        "38 crystals with hardness_gpa (left out: 1 without hardness_gpa, 1 whose hardness_gpa is not finite)" in output
    )
    assert "held-out crystals: mean absolute error" in output
    assert "Values within the calibrated 50% intervals" in output
    names = {file.name for file in (folder / "mine").iterdir()}
    assert names == {"weights.safetensors", "card.json", "curve.csv", "curve.png", "held-out.png"}
    card = json.loads((folder / "mine" / "card.json").read_text())
    assert (card["predictor"], card["unit"], card["data"]["files"][0]["name"]) == ("cgcnn", "GPa", "data.extxyz")


def test_predict_as_table_json_csv_and_structures(folder):
    new = folder / "new.extxyz"
    table = hybridcsp("predict", folder / "mine", new, "--output", folder / "out.extxyz").output
    assert "Au" in table
    assert "cannot be trusted" in table
    about = json.loads(hybridcsp("predict", folder / "mine", new, "--json").stdout)
    assert (about["property"], about["unit"], len(about["crystals"])) == (PROPERTY, "GPa", 4)
    assert [row["unseen_elements"] for row in about["crystals"]] == ["", "", "", "Au"]
    rows = list(csv.DictReader(io.StringIO(hybridcsp("predict", folder / "mine", new, "--csv", "--sort").stdout)))
    values = [float(row[PROPERTY]) for row in rows]
    assert values == sorted(values)
    written = ase.io.read(folder / "out.extxyz", ":")
    assert [atoms.info[f"predicted_{PROPERTY}"] for atoms in written] == pytest.approx(
        [row[PROPERTY] for row in about["crystals"]], rel=1e-6
    )
    assert written[3].info["unseen_elements"] == "Au"


def test_structures_that_are_no_crystals_are_named(folder, tmp_path):
    ase.io.write(tmp_path / "some.extxyz", [Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.7]]), crystals(1)[0]])
    done = hybridcsp("predict", folder / "mine", tmp_path / "some.extxyz", "--csv")
    assert done.exit_code == 1
    assert "line 1" in done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_predictors_are_listed():
    assert {row["name"] for row in json.loads(hybridcsp("predictors", "--json").stdout)} == {
        "cgcnn",
        "equivariant",
        "synthesizability",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cgcnn", "--property", "hardnes_gpa"), "did you mean 'hardness_gpa'"),
        (("cgcnn", "--property", "colour"), "Properties of the frames are hardness_gpa"),
        (("cgcnn",), "--property is missing: cgcnn learns one property"),
        (("cgcnn", "--property", PROPERTY, "--configuration", "old"), "one of corrected, published"),
        (("cgcnn", "--property", PROPERTY, "--max-atoms", "1"), "38 frames with more than 1 atoms"),
        (("flow", "--log"), "it is for predictors"),
        (("flow", "--configuration", "published"), "flow has only one configuration"),
        (("cgcnn", "--property", "a", "--property", "b"), "cgcnn learns one property"),
        (("{folder}/mine", "--property", PROPERTY), "trained from random weights"),
        (("cgcn", "--property", PROPERTY), "did you mean 'cgcnn'"),
    ],
)
def test_wrong_choices_of_a_training(folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    given = [text.format(folder=folder) for text in arguments]
    with pytest.raises(InputError, match=message):
        hybridcsp("train", *given, "--data", folder / "data.extxyz", *QUICK)
    assert not list(tmp_path.iterdir())


def test_a_value_that_is_no_number_is_named(tmp_path):
    data = with_property(12)
    data[2].info[PROPERTY] = "hard"
    ase.io.write(tmp_path / "data.extxyz", data)
    arguments = ("train", "cgcnn", "--data", tmp_path / "data.extxyz", "--property", PROPERTY)
    with pytest.raises(InputError, match=r"frame 2.*hardness_gpa = 'hard' is not a number"):
        hybridcsp(*arguments, "--output", tmp_path / "o")


def test_predictor_is_an_objective(folder):
    objective = build_objective(f"predictor:{folder / 'mine'}")
    assert objective.unit == "GPa"
    assert objective.value(crystals(1)[0]) > 0
    with pytest.raises(ValueError, match="trained without Au"):
        objective.value(GOLD)
    assert np.isfinite(build_objective(f"predictor:{folder / 'mine'}", {"extrapolate": True}).value(GOLD))
    with pytest.raises(InputError, match="needs the folder of a trained predictor"):
        build_objective("predictor")


def test_search_records_a_predicted_property(tmp_path):
    rng = np.random.default_rng(0)
    copper = [bulk("Cu", ("fcc", "bcc", "sc")[i % 3], a=float(a)) for i, a in enumerate(rng.uniform(2.5, 4.5, 30))]
    for crystal in copper:
        crystal.info["softness"] = crystal.get_volume()
    ase.io.write(tmp_path / "data.extxyz", copper)
    folder = tmp_path / "soft"
    hybridcsp(
        "train", "cgcnn", "--data", tmp_path / "data.extxyz", "--property", "softness", "--output", folder, *QUICK
    )
    choices = [ObjectiveChoice.of(f"predictor:{folder}:min")]
    common = {"formula_units": 1, "calculator": "emt", "sources": ["random"], "objectives": choices}
    backend = InlineBackend(Relaxer(calculator="emt", objectives=choices)())
    with Search("Cu", directory=tmp_path / "run", backend=backend, **common) as search:
        search.run(relaxations=3, refine=0)
        best = search.minima(1)[0]
    assert np.isfinite(best.objectives["predictor"])
    with pytest.raises(InputError, match="trained without Au"), Search("Au", directory=tmp_path / "no", **common):
        pass


class Mean(Predictor):
    """A predictor of another package, whose card has no scores."""

    name = "mean"

    def fit(self, data, *, on_epoch=None, **settings):
        on_epoch(Epoch(number=1, losses={"train": 1.0, "held_out": 1.0}, seconds=0.0, best=True, at_start=None))
        self.held_out = "of another kind"
        self.card = {"property": data.name, "mean": float(data.values.mean())}

    def predict(self, crystals):
        raise NotImplementedError

    def save(self, folder):
        (folder / "card.json").write_text(json.dumps(self.card))

    @classmethod
    def load(cls, folder):
        raise NotImplementedError


def test_predictor_of_another_package_needs_no_scores_in_its_card(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "new_predictor", lambda name, configuration: Mean())
    ase.io.write(tmp_path / "data.extxyz", with_property(12))
    arguments = ("--data", tmp_path / "data.extxyz", "--property", PROPERTY, "--output", tmp_path / "mean")
    assert "Wrote weights to" in hybridcsp("train", "cgcnn", *arguments).output
    assert json.loads((tmp_path / "mean" / "card.json").read_text())["mean"] > 0
