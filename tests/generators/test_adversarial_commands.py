"""Training and sampling of adversarial generators by commands."""

import csv
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk
from typer.testing import CliRunner

from hybridcsp.cli.app import app
from hybridcsp.errors import GeneratorError, InputError

QUICK = ("--epochs", "2", "--set", "width=4")


def hybridcsp(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture(autouse=True)
def crystals(tmp_path, monkeypatch):
    """Write crystals of Na-Cl, K-Cl and Cu-Au in an empty folder."""
    monkeypatch.chdir(tmp_path)
    salts = [bulk("NaCl", "rocksalt", a=5.6), bulk("KCl", "rocksalt", a=6.3), bulk("KCl", "cesiumchloride", a=3.7)]
    alloys = [bulk("CuAu", "cesiumchloride", a=3.1), bulk("CuAu", "rocksalt", a=5.2)]
    ase.io.write("salts.extxyz", salts)
    ase.io.write("alloys.extxyz", alloys)


def test_cccgan_is_trained_plotted_and_sampled():
    arguments = ("--configuration", "corrected", "--data", "alloys.extxyz", "--output", "mine", "--plot", "c.svg")
    output = hybridcsp("train", "cccgan", *arguments, *QUICK, "--set", "per_composition=8").output
    assert "validity" in output
    assert "Assessment: best epoch" in output
    with Path("mine/curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"critic", "generator", "contents", "validity", "coverage", "warning"} <= set(rows[0])
    assert "<!-- coverage -->" in Path("c.svg").read_text()
    hybridcsp("sample", "./mine", "--formula", "CuAu", "--n", "3", "--output", "x.extxyz")
    assert [str(atoms.symbols) for atoms in ase.io.read("x.extxyz", ":")] == ["CuAu"] * 3
    with pytest.raises(InputError, match="the weights have a width already"):
        hybridcsp("train", "./mine", "--data", "alloys.extxyz", "--output", "other", *QUICK)


def test_crystalgan_is_trained_and_sampled():
    arguments = ("--configuration", "corrected", "--data", "salts.extxyz", "--output", "mine", "--set", "joined=4")
    output = hybridcsp("train", "crystalgan", *arguments, *QUICK).output
    assert "binaries, epoch 2" in output
    assert "Assessment of ternaries: best epoch" in output
    hybridcsp("sample", "./mine", "--formula", "NaKCl", "--n", "2", "--output", "x.extxyz")
    assert len(ase.io.read("x.extxyz", ":")) == 2


def test_ccdcgan_is_trained_plotted_sampled_and_evaluated():
    crystals = [bulk("CuAu", "cesiumchloride", a=3.0 + 0.1 * i) for i in range(4)]
    for i, atoms in enumerate(crystals):
        atoms.info["formation_energy_per_atom"] = -0.1 * i
    ase.io.write("alloys.extxyz", crystals)
    quick = ("--epochs", "1", "--set", "batch_size=4", "--set", "steps=2", "--plot", "c.svg")
    data = ("--data", "alloys.extxyz", "--property", "formation_energy_per_atom")
    output = hybridcsp("train", "ccdcgan", *data, "--output", "mine", *quick).output
    for part in ("sites", "cells", "constraint", "networks"):
        assert f"Assessment of {part}" in output
    with Path("mine/curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"critic", "generator", "generator constraint", "validity", "coverage", "warning"} <= set(rows[-1])
    assert Path("c.svg").exists()
    with pytest.raises(GeneratorError, match=r"none of the 2 .*the decoded images show other numbers of atoms"):
        hybridcsp("sample", "./mine", "--formula", "CuAu", "--n", "2", "--output", "x.extxyz")
    table = hybridcsp("evaluate", "--fidelity", "./mine", "--data", "alloys.extxyz").output
    assert "mine" in table
    with pytest.raises(InputError, match="minimises one property"):
        hybridcsp("train", "ccdcgan", "--configuration", "published", "--data", "alloys.extxyz", *quick)
