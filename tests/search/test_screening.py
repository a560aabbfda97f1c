import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from crystals import relaxed, rutile

from hybridcsp.core.outcomes import RejectionReason
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate, Proposal
from hybridcsp.search.screening import Screen


def reason(problem, atoms):
    return Screen(problem).check(atoms).reason


def test_valid_structure_is_accepted():
    assert reason(Problem("TiO2"), rutile()) is None


@pytest.mark.parametrize(
    ("options", "atoms", "expected"),
    [
        ({}, Atoms("TiO2", positions=[[np.nan] * 3] * 3, cell=[4, 4, 4], pbc=True), RejectionReason.INVALID),
        ({}, bulk("NaCl", "rocksalt", a=5.6), RejectionReason.COMPOSITION),
        ({"formula_units": 1}, rutile(), RejectionReason.COMPOSITION),
        ({}, rutile(a=9), RejectionReason.VOLUME),
        ({"volume_per_atom": (5, 9)}, rutile(), RejectionReason.VOLUME),
        ({"length_bounds": (3, 10)}, rutile(), RejectionReason.CELL),
        ({"angle_bounds": (100, 120)}, rutile(), RejectionReason.CELL),
        ({"formula_units": 2, "cell": (4.6, 4.6, 3.0, 90, 90, 91)}, rutile(c=3.0), RejectionReason.CELL),
        ({}, rutile(u=0.15), RejectionReason.DISTANCE),
        ({"min_distances": {"Ti-O": 2.2}}, rutile(), RejectionReason.DISTANCE),
        ({"spacegroups": (1, 2, 225)}, rutile(), RejectionReason.SPACEGROUP),
    ],
)
def test_rejection_names_the_violated_requirement(options, atoms, expected):
    verdict = Screen(Problem("TiO2", **options)).check(atoms)
    assert verdict.reason is expected
    assert verdict.detail


class TestVolumes:
    """Default bounds are estimates: structures of the user and minima take precedence."""

    DENSE = rutile(a=3.3, c=2.1)  # 3.8 Å³ per atom, estimated 4.4 to 28
    LOOSE = rutile(a=6.6, c=4.2)

    @pytest.mark.parametrize("atoms", [DENSE, LOOSE], ids=["dense", "loose"])
    def test_structure_of_the_user_may_have_any_volume(self, atoms):
        screen = Screen(Problem("TiO2", distance_fraction=0.3))
        assert screen.check(atoms).reason is RejectionReason.VOLUME
        assert screen.check(atoms, given=True).reason is None
        asked = Screen(Problem("TiO2", distance_fraction=0.3, volume_per_atom=(10, 12)))
        assert asked.check(atoms, given=True).reason is None

    @pytest.mark.parametrize("atoms", [DENSE, LOOSE], ids=["dense", "loose"])
    def test_volume_bounds_are_widened_to_minima(self, atoms):
        screen = Screen(Problem("TiO2", distance_fraction=0.3))
        candidate = Candidate(proposal=Proposal(atoms=atoms, operator="seed", given=True), id=1, source="seeds")
        screen.relaxed(relaxed(candidate, -9.0))
        child = atoms.copy()
        child.positions[2] += (0.2, 0.3, 0.1)
        assert screen.check(child).reason is None

    def test_unconverged_relaxations_do_not_widen_bounds(self):
        screen = Screen(Problem("TiO2", distance_fraction=0.3))
        candidate = Candidate(proposal=Proposal(atoms=self.DENSE, operator="seed", given=True), id=1, source="seeds")
        screen.relaxed(relaxed(candidate, -9.0, converged=False))
        assert screen.check(rutile(a=3.31, c=2.1)).reason is RejectionReason.VOLUME

    def test_requested_bounds_are_not_widened(self):
        screen = Screen(Problem("TiO2", distance_fraction=0.3, volume_per_atom=(8, 12)))
        candidate = Candidate(proposal=Proposal(atoms=self.DENSE, operator="seed", given=True), id=1, source="seeds")
        screen.relaxed(relaxed(candidate, -9.0))
        assert screen.check(rutile(a=3.31, c=2.1)).reason is RejectionReason.VOLUME

    def test_overlapping_atoms_are_always_rejected(self):
        verdict = Screen(Problem("TiO2")).check(rutile(u=0.05), given=True)
        assert verdict.reason is RejectionReason.DISTANCE
        assert "Ti-O 0.33 Å, at least 1.13" in verdict.detail

    def test_structure_of_the_user_may_have_shorter_distances(self):
        careful = Problem("TiO2", distance_fraction=0.95)
        assert reason(careful, rutile()) is RejectionReason.DISTANCE
        assert Screen(careful).check(rutile(), given=True).reason is None


def test_allowed_cells_and_space_groups_are_accepted():
    problem = Problem("TiO2", spacegroups=(136,), length_bounds=(2.5, 5), angle_bounds=(80, 100))
    assert reason(problem, make_supercell(rutile(), [[1, 1, 0], [0, 1, 0], [0, 2, 1]])) is None


def test_fixed_cell_may_be_rotated():
    problem = Problem("TiO2", formula_units=2, cell=(4.6, 4.6, 2.96, 90, 90, 90))
    turned = rutile()
    turned.rotate(33, (1, 2, 3), rotate_cell=True)
    assert reason(problem, turned) is None


class TestDuplicates:
    def candidate(self, atoms, id_=5):
        return Candidate(proposal=Proposal(atoms=atoms, operator="made"), id=id_, source="random")

    def test_scaled_copy_of_a_start_is_rejected(self):
        screen = Screen(Problem("TiO2"))
        screen.accepted(self.candidate(rutile()), screen.check(rutile()).described)
        copy = rutile(a=4.6 * 1.05, c=2.96 * 1.05)
        copy.rotate(33, (1, 2, 3), rotate_cell=True)
        verdict = screen.check(copy[[3, 0, 5, 1, 4, 2]])
        assert verdict.reason is RejectionReason.DUPLICATE
        assert "start of candidate 5" in verdict.detail

    def test_copy_of_a_relaxed_structure_is_rejected(self):
        screen = Screen(Problem("TiO2"))
        screen.relaxed(relaxed(self.candidate(rutile(u=0.33)), -9.0, rutile()))
        verdict = screen.check(rutile())
        assert verdict.reason is RejectionReason.DUPLICATE
        assert "relaxed structure of candidate 5" in verdict.detail

    def test_copy_of_an_unconverged_structure_is_accepted(self):
        screen = Screen(Problem("TiO2"))
        screen.relaxed(relaxed(self.candidate(rutile(u=0.33)), -9.0, rutile(), converged=False))
        assert screen.check(rutile()).reason is None

    def test_different_start_is_accepted(self):
        screen = Screen(Problem("TiO2"))
        screen.accepted(self.candidate(rutile()), screen.check(rutile()).described)
        assert screen.check(rutile(u=0.33)).reason is None

    def test_only_the_relaxed_one_of_several_starts_is_known(self):
        screen = Screen(Problem("TiO2"))
        first, second = rutile(u=0.32), rutile(u=0.29)
        proposal = Proposal(atoms=first, operator="made", level="lowest", alternatives=(second,))
        candidate = Candidate(proposal=proposal, id=5, source="x")
        screen.accepted(candidate, screen.check(first).described)
        assert screen.check(first).reason is None
        screen.relaxed(relaxed(candidate, -9.0, rutile(), level="lowest", start_enthalpies=(-8.7, -8.8)))
        assert screen.check(first).reason is None
        assert "start of candidate 5" in screen.check(second).detail
