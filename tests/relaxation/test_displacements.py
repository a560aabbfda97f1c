"""Displacements out of a minimum: by molecular dynamics, and along soft modes."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from ase.phonons import Phonons
from crystals import random_crystal

from hybridcsp.core.outcomes import Failed, FailureReason, Relaxed
from hybridcsp.core.records import Candidate, Job, Limits, Proposal
from hybridcsp.relaxation.displacements import (
    AMPLITUDE,
    SEPARATION,
    displacement_patterns,
    escape,
    finite_difference_hessian,
    follow_soft_mode,
)
from hybridcsp.relaxation.relax import run_job
from hybridcsp.relaxation.settings import RelaxationSettings


class Counting(EMT):
    """EMT that counts, and keeps what it has seen."""

    def __init__(self):
        super().__init__()
        self.history = []

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if system_changes:  # not for one more property of the same structure
            self.history.append(self.results["energy"])


class Springs(Calculator):
    """Atoms bound to each other by springs of given stiffness along x, y and z; no cell, minimum where it was made."""

    implemented_properties = ("energy", "forces")

    def __init__(self, atoms, stiffness):
        super().__init__()
        n = len(atoms)
        self.rest = atoms.positions.copy()
        laplacian = n * np.eye(n) - np.ones((n, n))
        self.matrix = np.einsum("ij,a,ab->iajb", laplacian, stiffness, np.eye(3)).reshape(3 * n, 3 * n)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        moved = (self.atoms.positions - self.rest).ravel()
        self.results = {
            "energy": float(moved @ self.matrix @ moved / 2),
            "forces": -(self.matrix @ moved).reshape(-1, 3),
        }


def copper(calculator=None):
    atoms = bulk("Cu", cubic=True)
    atoms.calc = calculator or EMT()
    return atoms


def job(atoms, level, tag, **limits):
    proposal = Proposal(atoms=atoms, operator="test", tag=tag, level=level)
    candidate = Candidate(proposal=proposal, id=1, source="test")
    return Job(candidate=candidate, atoms=atoms, level=level, limits=Limits(**limits))


def run(atoms, level, tag, calculator=None, **limits):
    return run_job(job(atoms, level, tag, **limits), calculator or EMT(), "emt", RelaxationSettings())


class TestEscape:
    def test_energy_is_conserved(self, monkeypatch):
        totals = []
        before = VelocityVerlet.run

        def noting(self, steps):
            before(self, steps)
            totals.append(self.atoms.get_total_energy())

        monkeypatch.setattr(VelocityVerlet, "run", noting)
        atoms = copper()
        escape(atoms, temperature=1000, seed=1, maxima=1000, steps=60)
        assert len(totals) == 60
        kinetic = 1.5 * units.kB * 1000 * 4
        assert np.ptp(totals) < 0.02 * kinetic

    def test_the_centre_of_mass_stays(self):
        atoms = copper()
        before = atoms.get_center_of_mass()
        escape(atoms, temperature=1000, seed=1)
        assert atoms.get_center_of_mass() == pytest.approx(before, abs=1e-9)

    def test_escape_ends_after_the_given_number_of_maxima(self):
        for maxima in (1, 2, 4):
            atoms = copper(Counting())
            escape(atoms, temperature=600, seed=2, maxima=maxima, steps=400)
            energies = np.array(atoms.calc.history)
            peaks = (energies[1:-1] > energies[:-2]) & (energies[1:-1] >= energies[2:])
            assert peaks.sum() == maxima
            assert peaks[-1]

    def test_escape_ends_after_the_given_number_of_steps(self):
        atoms = copper(Counting())
        escape(atoms, temperature=600, seed=2, maxima=1000, steps=12)
        assert len(atoms.calc.history) == 13

    def test_a_single_atom_stays(self):
        atoms = bulk("Cu")
        atoms.calc = EMT()
        escape(atoms, seed=1, steps=2)
        assert atoms.positions == pytest.approx(np.zeros((1, 3)))

    def test_escape_depends_on_the_seed_only(self):
        ends = []
        for seed in (5, 5, 6):
            atoms = copper()
            escape(atoms, temperature=600, seed=seed)
            ends.append(atoms.positions)
            assert not atoms.has("momenta")
        assert (ends[0] == ends[1]).all()
        assert not np.allclose(ends[0], ends[2])

    @pytest.mark.slow
    def test_escape_finds_new_minima_only_at_high_temperature(self):
        # A disordered alloy, whose atoms change places at thousands of kelvins only.
        start = run(random_crystal("Al4Ni4", 14, np.random.default_rng(3)), "relax", {}, force_calls=1000)
        assert isinstance(start, Relaxed)
        assert start.converged

        def new(temperature):
            ends = [
                run(start.atoms, "escape", {"temperature": temperature, "seed": seed, "maxima": 4, "steps": 150})
                for seed in range(3)
            ]
            relaxed = [end for end in ends if isinstance(end, Relaxed)]
            return sum(abs(end.enthalpy_per_atom - start.enthalpy_per_atom) > 0.005 for end in relaxed)

        assert new(20) == 0
        assert new(4000) >= 2


class TestSoftMode:
    def test_hessian_of_springs_is_exact(self):
        atoms = random_crystal("Cu3", 20, np.random.default_rng(0))
        springs = Springs(atoms, [1.0, 2.0, 3.0])
        atoms.calc = springs
        assert finite_difference_hessian(atoms) == pytest.approx(springs.matrix, abs=1e-8)

    def test_hessian_agrees_with_ase(self, tmp_path):
        atoms = copper()
        phonons = Phonons(copper(), EMT(), supercell=(1, 1, 1), delta=0.01, name=str(tmp_path / "phonons"))
        phonons.run()
        phonons.read(acoustic=True)
        mine = finite_difference_hessian(atoms)
        assert mine == pytest.approx(phonons.get_force_constant()[0], abs=0.02 * np.abs(mine).max())
        assert atoms.positions == pytest.approx(copper().positions)

    def test_modes_come_softest_first_without_translations(self):
        atoms = random_crystal("Cu3", 20, np.random.default_rng(0))
        modes = displacement_patterns(Springs(atoms, [3.0, 1.0, 2.0]).matrix)
        assert modes.shape == (6, 3, 3)
        assert modes.sum(axis=1) == pytest.approx(0, abs=1e-9)
        strengths = (modes**2).sum(axis=1)  # along x, y, z
        assert strengths.argmax(axis=1).tolist() == [1, 1, 2, 2, 0, 0]
        assert strengths.max(axis=1) == pytest.approx(1)

    @pytest.mark.parametrize(("mode", "axis"), [(0, 1), (2, 2), (5, 0)])
    def test_atoms_are_displaced_along_the_mode(self, mode, axis):
        atoms = Atoms("Cu3", scaled_positions=[[0, 0, 0], [1 / 3] * 3, [2 / 3] * 3], cell=[9, 9, 9], pbc=True)
        start = atoms.positions.copy()
        for number, sign in ((mode, 1), (mode + 6, -1)):
            atoms.positions = start
            atoms.calc = Springs(atoms, [3.0, 1.0, 2.0])
            follow_soft_mode(atoms, mode=number)
            steps = (atoms.positions - start) * sign
            others = [other for other in range(3) if other != axis]
            assert np.abs(steps[:, others]).max() < 1e-6
            assert np.abs(steps).max() == pytest.approx(AMPLITUDE * (9**3 / 3) ** (1 / 3))
            assert steps.flat[np.abs(steps).argmax()] > 0

    def test_atoms_keep_their_distances(self):
        for mode in range(6):
            atoms = bulk("NiAl", "cesiumchloride", a=2.89).repeat((2, 1, 1))
            atoms.calc = EMT()
            start = atoms.copy()
            follow_soft_mode(atoms, mode=mode)
            distances = atoms.get_all_distances(mic=True)[np.triu_indices(4, 1)]
            assert distances.min() > 0.9 * SEPARATION * (1.21 + 1.24)
            assert np.abs(atoms.positions - start.positions).max() > 0.2

    def test_one_atom_has_no_mode(self):
        atoms = bulk("Cu")
        atoms.calc = EMT()
        follow_soft_mode(atoms, mode=0)
        assert (atoms.positions == 0).all()


class TestJobs:
    @pytest.mark.parametrize("level", ["escape", "soft"])
    def test_jobs_end_in_a_relaxation_and_count_every_call(self, level):
        calculator = Counting()
        start = bulk("Cu", cubic=True)
        start.rattle(0.02, seed=1)
        outcome = run(start, level, {"temperature": 300, "seed": 1, "mode": 0}, calculator)
        assert isinstance(outcome, Relaxed)
        assert outcome.converged
        assert outcome.level == level
        assert outcome.cost.force_calls == len(calculator.history)
        plain = run(start, "relax", {})
        least = {"escape": 5, "soft": 10}[level]
        assert outcome.cost.force_calls > least
        assert plain.cost.force_calls < outcome.cost.force_calls

    def test_jobs_obey_the_limit_of_force_calls(self):
        outcome = run(bulk("Cu", cubic=True), "escape", {"maxima": 1000}, force_calls=20)
        assert isinstance(outcome, Relaxed)
        assert not outcome.converged
        assert outcome.cost.force_calls == 20

    def test_jobs_are_guarded(self):
        outcome = run(bulk("Cu", cubic=True), "escape", {"temperature": 1e7, "maxima": 1000, "steps": 1000})
        assert isinstance(outcome, Failed)
        assert outcome.reason in (FailureReason.OVERLAP, FailureReason.FORCE_EXPLOSION)
