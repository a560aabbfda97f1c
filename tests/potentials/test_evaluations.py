"""Tests of the evaluations from which potentials learn."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from hybridcsp import Search
from hybridcsp.errors import InputError
from hybridcsp.potentials.evaluations import diverse, read_evaluations


def evaluated(atoms, label="emt", **results):
    atoms = atoms.copy()
    atoms.calc = EMT()
    found = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
    atoms.calc = SinglePointCalculator(atoms, **{**found, **results})
    if label:
        atoms.info["calculator"] = label
    return atoms


def rattled(n, seed=0, amount=0.1):
    rng = np.random.default_rng(seed)
    crystals = [bulk("Cu", "fcc", a=a, cubic=True) for a in np.linspace(3.4, 3.9, n)]
    for atoms in crystals:
        atoms.positions += rng.normal(scale=amount, size=(4, 3))
    return [evaluated(atoms) for atoms in crystals]


def test_kept_evaluations_of_search_are_read_with_ends_once(tmp_path):
    with Search(
        "Cu", formula_units=(1, 2), calculator="emt", sources=["random"], workers=1, directory=tmp_path / "run",
        keep_evaluations=True,
    ) as search:  # fmt: skip
        search.run(relaxations=3, refine=0)
        force_calls = search.archive.state.cost.force_calls
        label = search.archive.state.calculator
        ids = {minimum.best.candidate.id for minimum in search.minima()}
    found = read_evaluations([tmp_path / "run"])
    assert found.calculator == label
    assert 3 <= len(found) <= force_calls
    assert len(found) + sum(found.left_out.values()) >= force_calls
    assert {f"run, candidate {id_}" for id_ in ids} <= set(found.trajectories)
    lowest = min(found.frames, key=lambda atoms: atoms.get_potential_energy() / len(atoms))
    again = lowest.copy()
    again.calc = EMT()
    assert again.get_potential_energy() == pytest.approx(lowest.get_potential_energy(), abs=1e-6)
    assert np.allclose(again.get_stress(), lowest.get_stress(), atol=1e-6)


def test_search_without_the_setting_keeps_only_ends(tmp_path):
    with Search(
        "Cu", formula_units=1, calculator="emt", sources=["random"], workers=1, directory=tmp_path / "run"
    ) as search:
        search.run(relaxations=2, refine=0)
    assert not (tmp_path / "run" / "evaluations").exists()
    assert 1 <= len(read_evaluations([tmp_path / "run"])) <= 2


def test_steps_of_a_trajectory_belong_together(tmp_path):
    start = bulk("Cu", "fcc", a=3.6, cubic=True)
    steps = []
    for shift in (0.0, 0.1, 0.2):
        atoms = start.copy()
        atoms.positions[0] += shift
        steps.append(evaluated(atoms))
    other = evaluated(bulk("Cu", "bcc", a=2.9, cubic=True) * (2, 1, 1))
    write(tmp_path / "frames.extxyz", [*steps, other])
    found = read_evaluations([tmp_path / "frames.extxyz"])
    assert len(found) == 4
    assert [found.trajectories.index(name) for name in found.trajectories] == [0, 0, 0, 3]


def test_energies_of_several_calculators_are_refused(tmp_path):
    write(tmp_path / "one.extxyz", rattled(2))
    other = rattled(2, seed=1)
    for atoms in other:
        atoms.info["calculator"] = "another"
    write(tmp_path / "two.extxyz", other)
    with pytest.raises(InputError, match="different calculators are not mixed"):
        read_evaluations([tmp_path / "one.extxyz", tmp_path / "two.extxyz"])


def test_structures_without_stress_or_with_huge_forces_are_left_out(tmp_path):
    good, plain, huge = rattled(3)
    del plain.calc.results["stress"]
    huge.calc.results["forces"] = np.full((4, 3), 100.0)
    write(tmp_path / "frames.extxyz", [good, plain, huge])
    found = read_evaluations([tmp_path / "frames.extxyz"])
    assert len(found) == 1
    assert found.left_out == {"without stress": 1, "with a force above 30 eV/Å": 1}


def test_files_without_evaluations_are_refused(tmp_path):
    write(tmp_path / "bare.extxyz", bulk("Cu"))
    with pytest.raises(InputError, match="no structure has an energy, forces and a stress"):
        read_evaluations([tmp_path / "bare.extxyz"])
    with pytest.raises(InputError, match="no such file"):
        read_evaluations([tmp_path / "missing"])


def test_farthest_points_leave_out_near_copies():
    crystals = [*rattled(4), *rattled(4, amount=0.1001)]
    chosen = diverse(crystals, 4)
    assert len({i % 4 for i in chosen}) == 4
    assert diverse(crystals, 20) == list(range(8))


def test_farthest_points_take_every_composition():
    copper = rattled(6)
    silver = evaluated(bulk("Ag", "fcc", a=4.1))
    assert 6 in diverse([*copper, silver], 2)
