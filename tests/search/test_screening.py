import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from crystals import relaxed, rutile

from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate, Proposal, RejectionReason, as_rival
from hybridcsp.search.screening import Screen


def reason(problem, atoms):
    return Screen(problem).check(atoms).reason


def test_a_sound_structure_passes():
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
def test_what_breaks_a_rule_is_rejected_for_it(options, atoms, expected):
    verdict = Screen(Problem("TiO2", **options)).check(atoms)
    assert verdict.reason is expected
    assert verdict.detail


class TestVolumes:
    """Default bounds are an estimate: what a person brings, and what a search has found, knows better."""

    DENSE = rutile(a=3.3, c=2.1)  # 3.8 Å³ per atom, estimated 4.4 to 28
    LOOSE = rutile(a=6.6, c=4.2)

    @pytest.mark.parametrize("atoms", [DENSE, LOOSE], ids=["dense", "loose"])
    def test_a_structure_that_a_person_brings_may_have_any(self, atoms):
        screen = Screen(Problem("TiO2", distance_fraction=0.3))
        assert screen.check(atoms).reason is RejectionReason.VOLUME
        assert screen.check(atoms, given=True).reason is None
        asked = Screen(Problem("TiO2", distance_fraction=0.3, volume_per_atom=(10, 12)))
        assert asked.check(atoms, given=True).reason is None

    @pytest.mark.parametrize("atoms", [DENSE, LOOSE], ids=["dense", "loose"])
    def test_relatives_of_a_minimum_may_have_its_own(self, atoms):
        screen = Screen(Problem("TiO2", distance_fraction=0.3))
        candidate = Candidate(proposal=Proposal(atoms=atoms, operator="seed", given=True), id=1, source="seeds")
        screen.relaxed(relaxed(candidate, -9.0))
        child = atoms.copy()
        child.positions[2] += (0.2, 0.3, 0.1)
        assert screen.check(child).reason is None

    def test_what_did_not_converge_widens_nothing(self):
        screen = Screen(Problem("TiO2", distance_fraction=0.3))
        candidate = Candidate(proposal=Proposal(atoms=self.DENSE, operator="seed", given=True), id=1, source="seeds")
        screen.relaxed(relaxed(candidate, -9.0, converged=False))
        assert screen.check(rutile(a=3.31, c=2.1)).reason is RejectionReason.VOLUME

    def test_minima_do_not_widen_bounds_that_were_asked_for(self):
        screen = Screen(Problem("TiO2", distance_fraction=0.3, volume_per_atom=(8, 12)))
        candidate = Candidate(proposal=Proposal(atoms=self.DENSE, operator="seed", given=True), id=1, source="seeds")
        screen.relaxed(relaxed(candidate, -9.0))
        assert screen.check(rutile(a=3.31, c=2.1)).reason is RejectionReason.VOLUME

    def test_overlapping_atoms_are_refused_whoever_brings_them(self):
        verdict = Screen(Problem("TiO2")).check(rutile(u=0.05), given=True)
        assert verdict.reason is RejectionReason.DISTANCE
        assert "Ti-O 0.33 Å, at least 1.13" in verdict.detail

    def test_a_persons_structure_may_be_closer_than_random_ones_have_to_be(self):
        careful = Problem("TiO2", distance_fraction=0.95)
        assert reason(careful, rutile()) is RejectionReason.DISTANCE
        assert Screen(careful).check(rutile(), given=True).reason is None


def test_allowed_cells_and_space_groups_pass():
    problem = Problem("TiO2", spacegroups=(136,), length_bounds=(2.5, 5), angle_bounds=(80, 100))
    assert reason(problem, make_supercell(rutile(), [[1, 1, 0], [0, 1, 0], [0, 2, 1]])) is None


def test_a_fixed_cell_may_be_turned():
    problem = Problem("TiO2", formula_units=2, cell=(4.6, 4.6, 2.96, 90, 90, 90))
    turned = rutile()
    turned.rotate(33, (1, 2, 3), rotate_cell=True)
    assert reason(problem, turned) is None


class TestDuplicates:
    def candidate(self, atoms, id_=5):
        return Candidate(proposal=Proposal(atoms=atoms, operator="made"), id=id_, source="random")

    def test_of_a_start_at_any_volume_are_rejected(self):
        screen = Screen(Problem("TiO2"))
        screen.accepted(self.candidate(rutile()), screen.check(rutile()).described)
        copy = rutile(a=4.6 * 1.05, c=2.96 * 1.05)
        copy.rotate(33, (1, 2, 3), rotate_cell=True)
        verdict = screen.check(copy[[3, 0, 5, 1, 4, 2]])
        assert verdict.reason is RejectionReason.DUPLICATE
        assert "start of candidate 5" in verdict.detail

    def test_of_where_a_relaxation_ended_are_rejected(self):
        screen = Screen(Problem("TiO2"))
        screen.relaxed(relaxed(self.candidate(rutile(u=0.33)), -9.0, rutile()))
        verdict = screen.check(rutile())
        assert verdict.reason is RejectionReason.DUPLICATE
        assert "relaxed structure of candidate 5" in verdict.detail

    def test_what_did_not_converge_is_not_known(self):
        screen = Screen(Problem("TiO2"))
        screen.relaxed(relaxed(self.candidate(rutile(u=0.33)), -9.0, rutile(), converged=False))
        assert screen.check(rutile()).reason is None

    def test_a_start_that_differs_visibly_is_none(self):
        screen = Screen(Problem("TiO2"))
        screen.accepted(self.candidate(rutile()), screen.check(rutile()).described)
        assert screen.check(rutile(u=0.33)).reason is None

    def test_of_several_starts_the_one_that_was_relaxed_is_known(self):
        screen = Screen(Problem("TiO2"))
        first, second = rutile(u=0.32), rutile(u=0.29)
        proposal = Proposal(atoms=first, operator="made", level="lowest", tag={"rivals": [as_rival(second, first)]})
        candidate = Candidate(proposal=proposal, id=5, source="x")
        screen.accepted(candidate, screen.check(first).described)
        assert screen.check(first).reason is None
        screen.relaxed(relaxed(candidate, -9.0, rutile(), level="lowest", start_enthalpies=(-8.7, -8.8)))
        assert screen.check(first).reason is None
        assert "start of candidate 5" in screen.check(second).detail
