"""Relaxations of symmetric structures go on from saddle points, and end in known basins."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from hybridcsp.core.records import Candidate, Job, KnownMinimum, Limits, Proposal
from hybridcsp.relaxation.relax import run_job
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.structure.symmetry import number_of_operations, spacegroup


def relax(atoms, level="relax", known=(), calls=500, **settings):
    candidate = Candidate(proposal=Proposal(atoms=atoms, operator="test"), id=7, source="test")
    job = Job(candidate=candidate, atoms=atoms, level=level, limits=Limits(force_calls=calls), known=known)
    return run_job(job, EMT(), "emt", RelaxationSettings(**settings))


def known_as(atoms, id_=4):
    end = relax(atoms, level="refine")
    return KnownMinimum(
        id=id_,
        enthalpy_per_atom=end.enthalpy_per_atom,
        numbers=end.atoms.numbers,
        cell=end.atoms.cell.array,
        positions=end.atoms.positions,
    )


def bcc(n_atoms=1):
    return bulk("Cu", "bcc", a=2.85) if n_atoms == 1 else bulk("Cu", "bcc", a=2.85, cubic=True)


class TestSaddles:
    @pytest.mark.parametrize("n_atoms", [1, 2])
    def test_a_symmetric_structure_falls_from_the_saddle_point_to_the_minimum(self, n_atoms):
        at_saddle, fallen = relax(bcc(n_atoms), level="refine"), relax(bcc(n_atoms))
        assert spacegroup(at_saddle.atoms) == 229
        assert spacegroup(fallen.atoms, 0.1) == 225
        assert fallen.converged
        assert fallen.detail == "left 1 saddle point"
        assert fallen.enthalpy_per_atom < at_saddle.enthalpy_per_atom - 0.01

    def test_the_way_down_is_the_same_every_time(self):
        first, second = relax(bcc(2)), relax(bcc(2))
        assert np.array_equal(first.atoms.positions, second.atoms.positions)
        assert first.cost.force_calls == second.cost.force_calls

    def test_a_minimum_keeps_its_structure_and_its_results(self):
        start = bulk("Cu", "hcp", a=2.55, c=4.2)
        end = relax(start)
        assert spacegroup(end.atoms) == 194
        assert end.detail == ""
        again = end.atoms.copy()
        again.calc = EMT()
        assert end.evaluation.energy == pytest.approx(again.get_potential_energy(), abs=1e-9)

    def test_a_start_without_symmetry_is_not_examined(self):
        start = bulk("Cu", cubic=True)
        start.rattle(0.02, seed=1)
        assert number_of_operations(start) == 1
        examined = relax(bulk("Cu", cubic=True))
        assert relax(start).cost.force_calls < examined.cost.force_calls + 10
        assert relax(start).detail == ""

    def test_the_last_end_stays_where_the_limits_end_the_way_down(self):
        enough = relax(bcc(2), level="refine").cost.force_calls
        end = relax(bcc(2), calls=enough + 14)
        assert end.converged
        assert spacegroup(end.atoms) == 229
        assert end.cost.force_calls == enough + 14

    def test_an_end_far_above_the_lowest_known_minimum_is_not_examined(self):
        known = known_as(bulk("Cu"))
        far_below = KnownMinimum(
            id=1, enthalpy_per_atom=known.enthalpy_per_atom - 1, numbers=known.numbers, cell=known.cell,
            positions=known.positions,
        )  # fmt: skip
        assert spacegroup(relax(bcc(2), known=(far_below,)).atoms) == 229
        assert spacegroup(relax(bcc(2), known=(known,)).atoms, 0.1) == 225

    def test_in_a_fixed_cell_only_the_atoms_move(self):
        chain = Atoms("Cu2", scaled_positions=[(0, 0, 0), (0, 0, 0.5)], cell=[2.6, 2.6, 6.4], pbc=True)
        end = relax(chain, fixed_cell=True)
        assert np.array_equal(end.atoms.cell.array, chain.cell.array)
        assert end.enthalpy_per_atom < relax(chain, level="refine", fixed_cell=True).enthalpy_per_atom - 0.01

    def test_one_atom_in_a_fixed_cell_cannot_move(self):
        end = relax(bcc(), fixed_cell=True)
        assert end.converged
        assert end.cost.force_calls == 1


class TestCapture:
    def distorted(self, seed=1, by=0.15):
        atoms = bulk("Cu", "hcp", a=2.6, c=4.3)
        atoms.rattle(by, seed=seed)
        return atoms

    def test_a_relaxation_ends_in_the_basin_of_a_known_minimum(self):
        known = known_as(bulk("Cu", "hcp", a=2.55, c=4.2))
        free, captured = relax(self.distorted()), relax(self.distorted(), known=(known,))
        assert (free.captured_by, captured.captured_by) == (None, 4)
        assert captured.converged
        assert captured.cost.force_calls < free.cost.force_calls

    def test_a_minimum_of_another_structure_or_energy_does_not_capture(self):
        fcc = known_as(bulk("Cu"))
        assert relax(self.distorted(), known=(fcc,)).captured_by is None

    def test_what_lies_below_a_known_minimum_goes_on(self):
        known = known_as(bulk("Cu", "hcp", a=2.55, c=4.2))
        higher = KnownMinimum(
            id=4, enthalpy_per_atom=known.enthalpy_per_atom + 0.1, numbers=known.numbers, cell=known.cell,
            positions=known.positions,
        )  # fmt: skip
        assert relax(self.distorted(), known=(higher,)).captured_by is None

    def test_a_refinement_is_never_captured(self):
        known = known_as(bulk("Cu", "hcp", a=2.55, c=4.2))
        assert relax(self.distorted(), level="refine", known=(known,)).captured_by is None
