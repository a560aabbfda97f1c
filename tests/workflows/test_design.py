"""Inverse design by active transfer learning."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest
from ase import Atoms
from ase.build import bulk
from cubes import LearningCubes, Volume
from typer.testing import CliRunner

from hybridcsp.cli.app import app
from hybridcsp.errors import InputError
from hybridcsp.generators.base import Example
from hybridcsp.io.structure_files import read_structures
from hybridcsp.workflows import design as room
from hybridcsp.workflows.design import Design, Designer
from hybridcsp.workflows.design_contents import contents_of_round
from hybridcsp.workflows.design_lessons import lessons, replayed_with
from hybridcsp.workflows.design_rounds import CRYSTALS, FOUND, GENERATOR

TARGET = {"volume": (20.0, 30.0)}
CELLS = tuple({symbol: 1} for symbol in ("Al", "Cu", "Pd", "Pt", "Au", "Zr", "Nb", "Mg", "Pb", "Ti"))


@pytest.fixture(autouse=True)
def cubes(monkeypatch, tmp_path):
    monkeypatch.setattr(room, "open_generator", lambda text: LearningCubes())
    monkeypatch.setattr("hybridcsp.predictors.loading.open_predictor", lambda text: Volume(text))
    monkeypatch.chdir(tmp_path)


VOLUME = Volume()


def designer(directory, *, predictors=(VOLUME,), checks=(), on_progress=lambda _: None, examples=(), **settings):
    design = Design(**{"generator": "cubes", "targets": TARGET, "cells": CELLS, "rounds": 3, "samples": 40, **settings})
    return Designer(design, directory, predictors=predictors, checks=checks, examples=examples, on_progress=on_progress)


def without_seconds(accounts):
    return [{key: value for key, value in asdict(account).items() if key != "seconds"} for account in accounts]


def atoms_of(path):
    return [frame.atoms for frame in read_structures(path)]


def test_share_within_the_target_rises_and_everything_is_counted(tmp_path):
    accounts = designer(tmp_path / "run", checks=[Volume()]).run()
    first, last = accounts[0], accounts[-1]
    assert [account.number for account in accounts] == [1, 2, 3]
    assert first.share < 0.5 < last.share
    assert first.drawn == 40 >= first.valid >= first.unique == first.evaluated > first.within
    assert first.learned == {}
    assert accounts[1].learned["designed"] == first.within == first.new
    assert last.checked["volume"]["within"] == 1.0
    assert last.checked["volume"]["all"] == pytest.approx(last.share)
    assert 20 <= last.best["volume"] <= 30


def test_crystals_within_the_target_are_written_with_their_properties(tmp_path):
    accounts = designer(tmp_path / "run").run()
    found = atoms_of(tmp_path / "run" / FOUND)
    assert len(found) == sum(account.new for account in accounts)
    for atoms in found:
        assert 20 <= atoms.info["volume"] == pytest.approx(atoms.get_volume(), abs=1e-4)
        assert atoms.info["round"] in (1, 2, 3)
    record = json.loads((tmp_path / "run" / "accounts.json").read_text())
    assert [one["within"] for one in record["rounds"]] == [account.within for account in accounts]


@pytest.mark.parametrize("step", ["sampling", "evaluating", "training"])
def test_interrupted_design_ends_like_one_without_interruption(tmp_path, step):
    class Killed(BaseException):
        pass

    def kill(text):
        if step in text and (tmp_path / "b" / "round-2").exists():
            raise Killed

    whole = designer(tmp_path / "a").run()
    with pytest.raises(Killed):
        designer(tmp_path / "b", on_progress=kill).run()
    resumed = designer(tmp_path / "b").run()
    assert without_seconds(resumed) == without_seconds(whole)
    for number in (1, 2, 3):
        first, second = (tmp_path / run / f"round-{number}" / CRYSTALS for run in "ab")
        assert first.read_text() == second.read_text()


def test_design_can_be_continued_with_more_rounds_and_not_with_other_settings(tmp_path):
    first = designer(tmp_path / "run", rounds=1).run()
    both = designer(tmp_path / "run", rounds=2).run()
    assert without_seconds(both)[:1] == without_seconds(first)
    assert (tmp_path / "run" / "round-2" / GENERATOR).is_dir()
    with pytest.raises(InputError, match="another samples"):
        designer(tmp_path / "run", samples=20).run()


def test_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        designer(tmp_path).run()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"targets": {"gap": (1.0, 2.0)}}, "no target"),
        ({"targets": {"gap": (1.0, 2.0)}, "predictors": ()}, "it has no predictor"),
        ({"targets": {"energy_per_atom": (1.0, 2.0)}, "predictors": ()}, "calculator"),
        ({"cells": ()}, "needs a formula"),
        ({"targets": {}}, "at least one target"),
        ({"samples": 0}, "samples = 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, change, reason):
    with pytest.raises(InputError, match=reason):
        designer(tmp_path / "run", **change)
    assert not (tmp_path / "run").exists()


def test_property_that_follows_from_the_structure_needs_no_predictor(tmp_path):
    target = {"density": (0.0, 5.0)}
    (account,) = designer(tmp_path / "run", predictors=(), targets=target, rounds=1).run()
    assert 0 < account.within < account.unique
    assert all(atoms.info["density"] <= 5 for atoms in atoms_of(tmp_path / "run" / FOUND))


def evaluated(*volumes):
    found = []
    for volume in volumes:
        atoms = bulk("Cu", "sc", a=volume ** (1 / 3))
        atoms.info = {"volume": volume, "within": 20 <= volume <= 30}
        found.append(atoms)
    return found


def test_generator_learns_from_crystals_within_the_target_or_else_from_the_nearest():
    learned = lessons(evaluated(19.0, 25.0, 30.0), TARGET, conditioned=False)
    assert [round(example.atoms.get_volume()) for example in learned] == [25, 30]
    assert not learned[0].properties
    nearest = lessons(evaluated(10.0, 18.0, 50.0), TARGET, conditioned=False)
    assert [round(example.atoms.get_volume()) for example in nearest] == [18]


def test_conditioned_generator_learns_from_all_crystals_with_their_properties():
    crystals = [*evaluated(19.0, 25.0), Atoms("Cu", cell=[3, 3, 3], pbc=True, info={"within": False})]
    learned = lessons(crystals, TARGET, conditioned=True)
    assert [example.properties for example in learned] == [{"volume": 19.0}, {"volume": 25.0}]


def test_training_data_are_learned_again(tmp_path):
    import numpy as np

    data = [Example(atoms=bulk("Cu"), properties={"volume": 11.0}) for _ in range(40)]
    learned = lessons(evaluated(25.0, 26.0), TARGET, conditioned=True)
    again = replayed_with(learned, data, np.random.default_rng(0), conditioned=True)
    assert len(again) == 16
    assert again[0].properties == {"volume": 11.0}
    assert not replayed_with(learned, data, np.random.default_rng(0), conditioned=False)[0].properties
    assert replayed_with([], data, np.random.default_rng(0), conditioned=True) == []


def test_known_crystals_are_not_new(tmp_path):
    data = [Example(atoms=bulk(symbol, "sc", a=2.8)) for symbol in ("Al", "Zr", "Nb", "Mg", "Pb", "Ti")]
    (account,) = designer(tmp_path / "run", rounds=1, targets={"volume": (19.0, math.inf)}, examples=data).run()
    assert account.new < account.within


def test_command_prints_a_row_for_each_round(tmp_path):
    arguments = ["cubes", "--formula", "Cu", "--target", "volume=16..", "--predictor", "volume", "--check", "volume"]
    more = ["--rounds", "2", "--n", "20", "--directory", "run"]
    done = CliRunner().invoke(app, ["design", *arguments, *more])
    assert done.exit_code == 0, done.output
    assert "Crystals within the targets are in" in done.output
    assert (tmp_path / "run" / "design.png").stat().st_size > 1000
    listed = CliRunner().invoke(app, ["design", *arguments, *more, "--json"])
    assert [one["number"] for one in json.loads(listed.stdout)["rounds"]] == [1, 2]


def test_later_rounds_prefer_contents_within_the_target_and_substitute_elements():
    import numpy as np

    known = [{symbol: 1, "O": 1} for symbol in ("Mg", "Ca", "Sr", "Ba", "Zn")] * 20
    found = evaluated(25.0, 18.0)
    found[0].symbols[:] = "Ca"
    rng = np.random.default_rng(0)
    first = contents_of_round(200, known, [], TARGET, rng)
    assert {tuple(one) for one in first} == {tuple(one) for one in known}
    later = contents_of_round(200, known, found, TARGET, rng)
    preferred, others = later[:100], later[100:]
    assert {tuple(one) for one in preferred} > {("Ca",)}
    assert all(len(one) == 1 and set(one) <= {"Mg", "Ca", "Sr", "Ba", "Zn", "O"} for one in preferred)
    assert all(one in known for one in others)


def test_design_without_a_formula_takes_its_contents_from_the_training_data(tmp_path):
    data = [Example(atoms=bulk(symbol, "sc", a=3.0)) for symbol in ("Al", "Zr", "Nb", "Mg", "Pb", "Ti")]
    accounts = designer(tmp_path / "run", cells=(), examples=data, rounds=2).run()
    crystals = atoms_of(tmp_path / "run" / "round-2" / CRYSTALS)
    assert accounts[1].valid > 0
    assert {atoms.get_chemical_symbols()[0] for atoms in crystals} <= {"Al", "Zr", "Nb", "Mg", "Pb", "Ti"}


def test_command_refuses_a_directory_that_cannot_be_written_before_anything_is_loaded(monkeypatch):
    def fail(text):
        raise AssertionError("loaded")

    monkeypatch.setattr(room, "open_generator", fail)
    monkeypatch.setattr("hybridcsp.predictors.loading.open_predictor", fail)
    done = CliRunner().invoke(app, ["design", "cubes", "--target", "volume=24..", "--directory", "/proc/self/design"])
    assert isinstance(done.exception, InputError)
    assert "--directory" in str(done.exception)
