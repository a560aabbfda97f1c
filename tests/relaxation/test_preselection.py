"""Preselection: the most promising structure is relaxed, at one force call for each structure."""

import math
from collections import Counter

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from crystals import random_crystal

from hybridcsp.core.outcomes import Failed, FailureReason, Relaxed
from hybridcsp.core.records import LOWEST, Candidate, Job, Limits, Proposal
from hybridcsp.relaxation import preselection
from hybridcsp.relaxation.descent import Descent
from hybridcsp.relaxation.preselection import FALL_PER_FORCE, LARGEST_FORCE
from hybridcsp.relaxation.relax import run_job
from hybridcsp.relaxation.settings import RelaxationSettings


def run(structures, settings=None, calculator=None, **limits):
    first, *others = structures
    proposal = Proposal(atoms=first, operator="test", alternatives=tuple(others), level=LOWEST)
    job = Job(
        candidate=Candidate(proposal=proposal, id=1, source="test"), atoms=first, level=LOWEST, limits=Limits(**limits)
    )
    return run_job(job, calculator or EMT(), "emt", settings or RelaxationSettings())


def copper(a):
    return bulk("Cu", a=a)


def enthalpy(atoms, pressure=0.0):
    atoms = atoms.copy()
    atoms.calc = EMT()
    return atoms.get_potential_energy() + pressure * atoms.get_volume()


def promise(atoms, pressure=0.0):
    """The enthalpy per atom, less what the largest force promises."""
    atoms = atoms.copy()
    atoms.calc = EMT()
    force = np.linalg.norm(atoms.get_forces(), axis=1).max()
    return enthalpy(atoms, pressure) / len(atoms) - FALL_PER_FORCE * min(force, LARGEST_FORCE)


@pytest.mark.parametrize("pressure_gpa", [0.0, 100.0])
def test_the_most_promising_structure_is_relaxed(pressure_gpa, monkeypatch):
    monkeypatch.setattr(preselection, "ROUNDS", (1,))
    settings = RelaxationSettings(pressure_gpa=pressure_gpa)
    structures = [random_crystal("Cu4", volume, np.random.default_rng(volume)) for volume in (9, 11, 13, 15, 17)]
    best = min(structures, key=lambda atoms: promise(atoms, settings.pressure))
    outcome, alone = run(structures, settings), run([best], settings)
    assert isinstance(outcome, Relaxed)
    assert isinstance(alone, Relaxed)
    assert outcome.level == LOWEST
    assert structures[outcome.chosen] is best
    assert outcome.enthalpy_per_atom == pytest.approx(alone.enthalpy_per_atom, abs=1e-4)
    # One call for each of the others; EMT's neighbour list depends on its past, and the way down a little with it.
    assert outcome.cost.force_calls == pytest.approx(alone.cost.force_calls + len(structures) - 1, abs=5)


def test_in_each_round_the_better_half_goes_on(monkeypatch):
    before = Descent.advance

    def counting(self, steps):
        known.setdefault(id(self), len(known))
        steps_of[known[id(self)]] += steps
        descents.append(self)  # so that no id is used again
        before(self, steps)

    known, steps_of, descents = {}, Counter(), []
    monkeypatch.setattr(Descent, "advance", counting)
    structures = [random_crystal("Cu4", volume, np.random.default_rng(volume)) for volume in range(14, 22)]
    outcome = run(structures)
    assert isinstance(outcome, Relaxed)
    assert sorted(steps_of.values()) == [1] * 4 + [6] * 2 + [12] * 2
    assert steps_of[outcome.chosen] == 12
    order = sorted(range(8), key=lambda number: outcome.start_estimates[number] or math.inf)
    assert [steps_of[number] for number in order] == [12, 12, 6, 6, 1, 1, 1, 1]


def test_where_the_better_half_fails_the_others_go_on():
    class Trap(EMT):
        """Fails for the third structure, the second of the better of two."""

        seen: list[float] = []  # noqa: RUF012

        def calculate(self, atoms=None, *arguments, **options):
            if atoms.get_volume() not in self.seen:
                self.seen.append(atoms.get_volume())
            if self.seen.index(atoms.get_volume()) == 2:
                raise RuntimeError("did not converge")
            super().calculate(atoms, *arguments, **options)

    outcome = run([copper(3.75), copper(3.9)], calculator=Trap())
    assert isinstance(outcome, Relaxed)
    assert outcome.converged
    assert outcome.start_estimates[0] is None
    assert outcome.chosen == 1


def test_structures_that_cannot_be_evaluated_are_skipped():
    overlapping = bulk("Cu", cubic=True)
    overlapping.positions[1] = overlapping.positions[0] + [0.05, 0, 0]
    outcome = run([overlapping, bulk("Cu", cubic=True, a=3.7), bulk("Cu", cubic=True, a=30.0)])
    assert isinstance(outcome, Relaxed)
    assert outcome.converged
    assert outcome.atoms.get_volume() / 4 == pytest.approx(copper(3.59).get_volume(), rel=0.02)


def test_first_reason_is_reported_if_all_are_skipped():
    outcome = run([copper(1.0), copper(30.0)])
    assert isinstance(outcome, Failed)
    assert outcome.reason in (FailureReason.VOLUME, FailureReason.OVERLAP)
    assert outcome.cost.force_calls == 0


def test_failure_for_one_structure_skips_only_this_one():
    class Fussy(EMT):
        def calculate(self, atoms=None, *arguments, **options):
            if atoms.get_volume() > 12.0:
                raise RuntimeError("did not converge")
            super().calculate(atoms, *arguments, **options)

    outcome = run([copper(3.7), copper(3.58)], calculator=Fussy())
    assert isinstance(outcome, Relaxed)
    assert outcome.converged


def test_limits_of_the_job_are_obeyed():
    outcome = run([copper(3.4), copper(3.5), copper(3.8), copper(3.9)], force_calls=2)
    assert isinstance(outcome, Relaxed)
    assert not outcome.converged
    assert outcome.cost.force_calls == 2


def test_of_two_structures_of_one_energy_that_with_forces_to_follow_is_relaxed(monkeypatch):
    monkeypatch.setattr(preselection, "ROUNDS", (1,))

    class Hills(EMT):
        """Energies that are equal, and forces that differ."""

        def calculate(self, atoms=None, *arguments, **options):
            super().calculate(atoms, *arguments, **options)
            self.results["energy"] = self.results["free_energy"] = 1.0

    at_rest, displaced = bulk("Cu", cubic=True), bulk("Cu", cubic=True)
    displaced.positions[0, 0] += 0.4
    outcome = run([at_rest, displaced], calculator=Hills(), force_calls=3)
    assert outcome.start_enthalpies == pytest.approx((0.25, 0.25))
    assert outcome.chosen == 1
    assert outcome.start_estimates[1] < outcome.start_estimates[0] == pytest.approx(0.25, abs=1e-6)


def test_outcome_contains_the_enthalpy_of_each_structure():
    settings = RelaxationSettings(pressure_gpa=20.0)
    structures = [copper(3.5), copper(1.0), copper(3.7)]
    outcome = run(structures, settings)
    first, second, third = outcome.start_enthalpies
    assert second is None  # passed over
    assert (first, third) == pytest.approx([enthalpy(structures[n], settings.pressure) for n in (0, 2)], abs=1e-6)
    failed = run([copper(3.5), copper(3.7)], calculator=EMT(), force_calls=1)
    assert failed.start_enthalpies == ()  # it ended before the last
