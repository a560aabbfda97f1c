"""Training, guidance and sizes of ``flow`` and ``diffusion`` by commands."""

import json
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk
from typer.testing import CliRunner

from hybridcsp.cli.app import app
from hybridcsp.errors import InputError


def hybridcsp(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture(autouse=True)
def crystals(tmp_path, monkeypatch):
    """Write crystals with a gap in an empty folder."""
    monkeypatch.chdir(tmp_path)
    salts = [bulk("NaCl", "rocksalt", a=5.6), bulk("KCl", "rocksalt", a=6.3), bulk("KCl", "cesiumchloride", a=3.7)]
    for gap, atoms in enumerate(salts):
        atoms.info["gap"] = float(gap)
    ase.io.write("salts.extxyz", salts)


def test_diffusion_is_trained_and_sampled_with_guidance():
    hybridcsp("train", "diffusion", "--data", "salts.extxyz", "--property", "gap", "--epochs", "1", "--output", "mine")
    card = json.loads(Path("mine/card.json").read_text())
    assert (card["configuration"], card["architecture"]["width"]) == ("corrected", 160)
    ask = ("sample", "./mine", "--formula", "NaCl", "--n", "2", "--target", "gap=1..")
    hybridcsp(*ask, "--output", "plain.extxyz")
    hybridcsp(*ask, "--guidance", "2", "--output", "guided.extxyz")
    assert [str(atoms.symbols) for atoms in ase.io.read("guided.extxyz", ":")] == ["NaCl"] * 2
    with pytest.raises(InputError, match="no target is of one"):
        hybridcsp(
            "sample", "./mine", "--formula", "NaCl", "--target", "mass=1..", "--guidance", "1", "--output", "x.cif"
        )
    with pytest.raises(InputError, match="have a size already"):
        hybridcsp("train", "./mine", "--data", "salts.extxyz", "--size", "gpu", "--output", "other")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "flow", "--size", "gpus"], "did you mean 'gpu'"),
        (["train", "cccgan", "--size", "gpu"], "cccgan has only one size"),
        (["train", "cgcnn", "--size", "gpu", "--property", "gap"], "it is for generators, and cgcnn is a predictor"),
        (["train", "diffusion", "--configuration", "improved"], "improved"),
    ],
)
def test_sizes_and_configurations_that_do_not_exist_are_refused(arguments, expected):
    with pytest.raises(InputError, match=expected):
        hybridcsp(*arguments, "--data", "salts.extxyz", "--output", "mine")
    assert not Path("mine").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["flow", "--guidance", "1"], "only with --target"),
        (["flow", "--guidance", "-1", "--target", "gap=1.."], "a number from 0"),
        (["flow", "--guidance", "much", "--target", "gap=1.."], "a number from 0"),
        (["wyckoff", "--guidance", "1", "--target", "gap=1.."], "samples of wyckoff cannot be guided"),
        (["flow", "--guidance", "1", "--target", "gap=1.."], r"flow has learned \(none\)"),
    ],
)
def test_guidance_that_has_no_meaning_is_refused(arguments, expected):
    with pytest.raises(InputError, match=expected):
        hybridcsp("sample", *arguments, "--formula", "NaCl", "--output", "x.cif")
