"""Our calculators and relaxations against ASE's and CHGNet's own."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.spacegroup import crystal
from ase.stress import full_3x3_to_voigt_6_stress
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.core.records import Candidate, Job, Limits, Proposal
from hybridcsp.relaxation.calculators.registry import build_calculator
from hybridcsp.relaxation.relax import run_job
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.utils.quiet import quiet


def rutile():
    basis = [(0, 0, 0), (0.305, 0.305, 0)]
    return crystal("TiO", basis, spacegroup=136, cellpar=[4.6, 4.6, 2.96, 90, 90, 90])


CRYSTALS = {
    "TiO2": rutile(),
    "2 x TiO2": rutile() * (1, 1, 2),
    "SrTiO3": crystal(
        "SrTiO", [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)], spacegroup=221, cellpar=[3.9] * 3 + [90] * 3
    ),
    "NaCl": bulk("NaCl", "rocksalt", a=5.6),
    "Fe": bulk("Fe"),
    "NaCl without short bonds": bulk("NaCl", "rocksalt", a=7.5),
}


@pytest.fixture(scope="module")
def ours():
    calculator, label = build_calculator("chgnet")
    assert "its own" not in label
    return calculator


@pytest.fixture(scope="module")
def theirs():
    with quiet():
        from chgnet.model.dynamics import CHGNetCalculator

        return CHGNetCalculator(use_device="cpu")


def relaxed(atoms, calculator, level="refine", **settings):
    candidate = Candidate(proposal=Proposal(atoms=atoms, operator="test"), id=1, source="test")
    job = Job(candidate=candidate, atoms=atoms, level=level, limits=Limits())
    return run_job(job, calculator, "label", RelaxationSettings(**settings))


def relaxed_by_ase(atoms, calculator, pressure_gpa):
    atoms = atoms.copy()
    atoms.calc = calculator
    with BFGS(FrechetCellFilter(atoms, scalar_pressure=pressure_gpa * units.GPa), logfile=None) as optimizer:
        assert optimizer.run(fmax=0.003, steps=300)
    return atoms


@pytest.mark.parametrize("name", CRYSTALS)
@given(seed=st.integers(0, 2**31), strength=st.sampled_from([0.0, 0.03, 0.1]), sheared=st.booleans())
@settings(deadline=None, max_examples=4, derandomize=True)
def test_chgnet_gives_what_its_own_calculator_gives(ours, theirs, name, seed, strength, sheared):
    rng = np.random.default_rng(seed)
    atoms = CRYSTALS[name].copy()
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strength * rng.normal(size=(3, 3))), scale_atoms=True)
    atoms.positions += strength * rng.normal(size=(len(atoms), 3))
    if sheared:  # another cell of the same crystal, and atoms outside it
        atoms.set_cell(np.array([[1, 0, 0], [2, 1, 0], [0, -1, 1]]) @ atoms.cell.array)
        atoms.positions += rng.integers(-2, 3, size=(len(atoms), 3)) @ atoms.cell.array
    with quiet():
        theirs.calculate(atoms)
    expected = theirs.results
    ours.calculate(atoms)
    # both work in single precision: their numbers are as far from double precision as ours are
    rounding = 1e-5 * np.abs(expected["forces"]).max()
    assert ours.results["energy"] / len(atoms) == pytest.approx(expected["energy"] / len(atoms), abs=1e-5)
    np.testing.assert_allclose(ours.results["forces"], expected["forces"], rtol=0, atol=1e-4 + rounding)
    stress = full_3x3_to_voigt_6_stress(expected["stress"])
    np.testing.assert_allclose(ours.results["stress"], stress, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.results["magmoms"], expected["magmoms"], rtol=0, atol=1e-4)
    assert ours.results["free_energy"] == ours.results["energy"]


def test_chgnet_forces_and_stress_are_derivatives_of_its_energy(ours):
    atoms = rutile()
    atoms.rattle(0.05, seed=5)
    atoms.calc = ours
    forces, stress = atoms.get_forces(), atoms.get_stress()
    step = 5e-3

    def energy(moved):
        moved.calc = ours
        return moved.get_potential_energy()

    def displaced(sign):
        moved = atoms.copy()
        moved.positions[2, 1] += sign * step
        return energy(moved)

    def strained(sign):
        moved = atoms.copy()
        moved.set_cell(moved.cell.array @ (np.eye(3) + sign * step * np.diag([0, 0, 1])), scale_atoms=True)
        return energy(moved)

    assert (displaced(-1) - displaced(1)) / (2 * step) == pytest.approx(forces[2, 1], rel=0.01, abs=0.01)
    assert (strained(1) - strained(-1)) / (2 * step * atoms.get_volume()) == pytest.approx(stress[2], rel=0.02)


@pytest.mark.parametrize("pressure", [0.0, 50.0])
def test_a_relaxation_under_pressure_ends_where_ase_ends(pressure):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    outcome = relaxed(atoms, EMT(), pressure_gpa=pressure)
    expected = relaxed_by_ase(atoms, EMT(), pressure)
    assert outcome.atoms.get_volume() == pytest.approx(expected.get_volume(), rel=1e-3)
    enthalpy = expected.get_potential_energy() + pressure * units.GPa * expected.get_volume()
    assert outcome.evaluation.enthalpy == pytest.approx(enthalpy, abs=1e-3)


def test_at_50_gpa_the_stress_is_minus_the_pressure():
    outcome = relaxed(bulk("Al", cubic=True), EMT(), pressure_gpa=50.0)
    stress = outcome.atoms.get_stress()
    np.testing.assert_allclose(stress[:3], -50.0 * units.GPa, atol=0.1 * units.GPa)
    np.testing.assert_allclose(stress[3:], 0.0, atol=0.1 * units.GPa)


def test_pressure_is_minus_the_slope_of_energy_over_volume():
    energies, volumes = [], []
    for pressure in (19.0, 21.0):
        outcome = relaxed(bulk("Cu"), EMT(), pressure_gpa=pressure, refine_max_force=0.001)
        energies.append(outcome.evaluation.energy)
        volumes.append(outcome.atoms.get_volume())
    slope = (energies[1] - energies[0]) / (volumes[1] - volumes[0])
    assert -slope / units.GPa == pytest.approx(20.0, rel=0.01)


def test_a_chgnet_relaxation_ends_where_chgnets_own_ends(ours, theirs):
    atoms = rutile()
    atoms.rattle(0.1, seed=2)
    atoms.set_cell(atoms.cell.array @ np.diag([1.05, 0.97, 1.02]), scale_atoms=True)
    outcome = relaxed(atoms, ours)
    with quiet():
        expected = relaxed_by_ase(atoms, theirs, 0.0)
    assert outcome.converged
    assert outcome.evaluation.energy == pytest.approx(expected.get_potential_energy(), abs=2e-3)
    assert outcome.atoms.get_volume() == pytest.approx(expected.get_volume(), rel=2e-3)


def test_a_relaxation_does_not_depend_on_how_the_crystal_is_turned():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.15, seed=4)
    turned = atoms.copy()
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    first, second = (relaxed(each, EMT()) for each in (atoms, turned))
    assert first.evaluation.energy == pytest.approx(second.evaluation.energy, abs=1e-4)
    assert first.atoms.get_volume() == pytest.approx(second.atoms.get_volume(), rel=1e-3)


def test_a_noble_gas_is_not_taken_for_isolated_atoms():
    outcome = relaxed(
        Atoms("He", cell=bulk("He", "fcc", a=4.2).cell, pbc=True), build_calculator("lj")[0], level="evaluate"
    )
    assert outcome.converged
