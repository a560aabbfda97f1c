"""Refinements end in symmetric structures where these are minima."""

import numpy as np
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from hybridcsp.core.records import REFINE, Candidate, Job, Limits, Proposal
from hybridcsp.relaxation.relax import run_job
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.structure.symmetry import spacegroup


def refine(atoms, calculator=None, calls=500, **settings):
    candidate = Candidate(proposal=Proposal(atoms=atoms, operator="test"), id=7, source="test")
    job = Job(candidate=candidate, atoms=atoms, level=REFINE, limits=Limits(force_calls=calls))
    return run_job(job, calculator or EMT(), "emt", RelaxationSettings(**settings))


def nearly_fcc(by=0.01):
    """Four atoms that are symmetric at 0.1 Å but not at 0.01 Å, with forces within the tolerances."""
    atoms = bulk("Cu", cubic=True, a=3.59)
    atoms.rattle(by, seed=1)
    return atoms


def test_a_nearly_symmetric_end_becomes_symmetric_in_the_given_cell_and_order_of_atoms():
    start = nearly_fcc()
    loose = {"refine_max_force": 0.5, "max_force": 0.5}  # so that it stops where it starts
    end = refine(start, **loose)
    assert spacegroup(start) == 1
    assert spacegroup(end.atoms) == 225
    assert end.detail == "symmetrised"
    assert end.converged
    assert np.abs(end.atoms.positions - start.positions).max() < 0.1
    again = end.atoms.copy()
    again.calc = EMT()
    assert abs(end.evaluation.energy - again.get_potential_energy()) < 1e-9


class Pinned(Calculator):
    """Springs that hold the atoms where they are at first."""

    implemented_properties = ("energy", "forces", "stress")
    held = None

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.held is None:
            self.held = atoms.positions.copy()
        moved = atoms.positions - self.held
        self.results = {"energy": 5 * float((moved**2).sum()), "forces": -10 * moved, "stress": np.zeros(6)}


def test_a_structure_stays_where_the_symmetric_one_lies_higher():
    start = nearly_fcc()
    end = refine(start, Pinned())
    assert spacegroup(end.atoms) == 1
    assert end.detail == ""
    assert np.array_equal(end.atoms.positions, start.positions)
    assert end.evaluation.energy == 0.0
    assert end.cost.force_calls > 1


def test_a_limit_of_force_calls_keeps_the_refined_structure():
    start = nearly_fcc()
    end = refine(start, calls=1, refine_max_force=0.5, max_force=0.5)
    assert end.converged
    assert end.cost.force_calls == 1
    assert np.array_equal(end.atoms.positions, start.positions)
