"""Tests of ``hybridcsp dataset``."""

import json

import ase.io
import pytest
from ase.build import bulk
from command_line import hybridcsp
from crystals import quartz, rutile
from typer.testing import CliRunner

from hybridcsp.cli.app import app
from hybridcsp.datasets.relaxed_files import RelaxedFiles
from hybridcsp.errors import HybridCSPError


def run(*arguments):
    done = CliRunner().invoke(app, ["dataset", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture
def library(tmp_path):
    ase.io.write(tmp_path / "library.extxyz", [rutile(), quartz()])
    return tmp_path / "library.extxyz"


def test_substitute_relax_convert_augment_and_card(library, tmp_path):
    ase.io.write(tmp_path / "alloys.extxyz", [bulk("Cu", "hcp", a=2.6, c=4.2), bulk("Ni", a=3.6)])
    made = tmp_path / "made.extxyz"
    run("substitute", "Au", "--library", tmp_path / "alloys.extxyz", "--output", made)
    assert len(ase.io.read(made, ":")) == 2
    done = hybridcsp(
        "dataset", "relax", made, "--output", "relaxed", "--calculator", "emt", "--workers", 1, cwd=tmp_path
    )
    assert "2 of 2 crystals relaxed, 0 failed" in done.stdout
    assert "hybridcsp dataset convert relaxed --fold" in done.stdout
    assert (tmp_path / "relaxed" / "relaxed.card.txt").read_text().startswith("2 crystals of 1 formulas")
    run("convert", tmp_path / "relaxed", "--fold", "--output", tmp_path / "all.extxyz")
    run("augment", tmp_path / "all.extxyz", "--per-composition", 5, "--output", tmp_path / "five.extxyz")
    assert len(ase.io.read(tmp_path / "five.extxyz", ":")) == 5
    card = json.loads(run("card", tmp_path / "five.extxyz", "--json").stdout)
    assert card["crystals"] == 5
    chain = []
    while "inputs" in card:
        chain.append(card["made_by"].split()[-1])
        card = card["inputs"][0].get("card", {})
    assert chain == ["augment", "convert", "relax", "substitute"]


def test_counts_by_reason_are_printed(library, tmp_path):
    done = run("substitute", "SnO2", "--library", library, "--max-atoms", 6, "--output", tmp_path / "sno2.extxyz")
    assert "left out 1: fewer than 1 or more than 6 atoms" in done.output
    assert "Wrote 1 crystals of 1 formulas" in done.output


def test_similar_elements(tmp_path):
    crystals = [bulk(symbol, "fcc", a=4.0) for symbol in ("Cu", "Ag", "Au", "Ni", "Pd")]
    ase.io.write(
        tmp_path / "metals.extxyz", [*crystals, bulk("NaCl", "rocksalt", a=5.6), bulk("KF", "rocksalt", a=5.4)]
    )
    arguments = ("substitute", "any", "--library", tmp_path / "metals.extxyz", "--count", 2, "--new-formulas")
    for name in ("a.extxyz", "b.extxyz"):
        run(*arguments, "--output", tmp_path / name, "--seed", 3)
    assert (tmp_path / "a.extxyz").read_text() == (tmp_path / "b.extxyz").read_text()
    assert json.loads((tmp_path / "a.card.json").read_text())["settings"]["seed"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("substitute", "V-o", "--output", "a.extxyz"), "TARGET = 'V-o'"),
        (("substitute", "any", "--output", "a.extxyz"), "--count is missing"),
        (("substitute", "V-O", "--output", "a.cif"), "--output = 'a.cif'"),
        (("substitute", "V-O", "--output", "a.extxyz", "--max-edge", "-3"), "--max-edge = -3"),
        (("substitute", "V-O", "--output", "a.extxyz", "--min-similarity", "2"), "--min-similarity = '2'"),
        (("substitute", "V-O", "--output", "a.extxyz", "--library", "nowhere"), "--library = 'nowhere'"),
        (("substitute", "any", "--count", "2", "--subsystems", "--output", "a.extxyz"), "--subsystems needs"),
        (("substitute", "V-O", "--max-atoms", "2", "--min-atoms", "3", "--output", "a.extxyz"), "--max-atoms = 2"),
        (("augment", "a.extxyz", "--per-composition", "2", "--output", "b.extxyz"), "no such file"),
        (("augment", "a", "--per-composition", "2", "--output", "b.extxyz", "--operation", "axs"), "did you mean"),
        (("relax", "a.extxyz", "--output", "b", "--fmax", "-1"), "--fmax = -1"),
        (("relax", "nowhere.extxyz", "--output", "b"), "no such file"),
        (("from-search", "nowhere", "--output", "b.extxyz"), "no such file"),
        (("card", "nowhere"), "no such file"),
    ],
)
def test_bad_input_is_named_before_anything_is_computed(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HybridCSPError, match=message):
        run(*arguments)
    assert not list(tmp_path.iterdir())


def test_calculator_that_is_not_known_is_named(library, tmp_path):
    with pytest.raises(HybridCSPError, match="--calculator = 'emtt'"):
        run("relax", library, "--output", tmp_path / "b", "--calculator", "emtt")
    assert not (tmp_path / "b").exists()


def test_substitution_without_a_result_says_why(library, tmp_path):
    with pytest.raises(HybridCSPError, match="no crystal is left"):
        run("substitute", "Mg-Mn-O", "--library", library, "--output", tmp_path / "a.extxyz")


def test_card_of_a_relaxation_counts_its_failures_before_anything_has_converged(tmp_path):
    with RelaxedFiles(tmp_path / "relaxed", {}) as files:
        for number in (0, 1, 1):
            failed = bulk("Fe", a=3.0 + number)
            failed.info["reason"] = "unconverged"
            files.add_failed(number, failed)
    card = json.loads(run("card", tmp_path / "relaxed", "--json").stdout)
    assert (card["crystals"], card["left_out"]) == (0, {"failed: unconverged": 2})
    with pytest.raises(HybridCSPError, match="no crystal has converged yet, 2 have failed"):
        run("convert", tmp_path / "relaxed", "--output", tmp_path / "all.extxyz")
