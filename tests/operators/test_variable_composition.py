"""Operators whose parents have other compositions than the child."""

from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal
from crystals import random_crystal, rutile
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.core.problem import Problem
from hybridcsp.operators.composition_heredity import CompositionCrossover, CompositionHeredity, lever_share
from hybridcsp.operators.contents import ContentsAdjustment
from hybridcsp.operators.symmetry import operations
from hybridcsp.operators.variable_composition import AdditionRemoval, Substitution, Transmutation
from hybridcsp.sources.variable_composition import COMPOSITION_OPERATORS
from hybridcsp.structure.symmetry import spacegroup
from hybridcsp.structure.validity import violation

TI_O = {
    "Ti": bulk("Ti"),
    "O2": Atoms("O2", cell=[4.0, 4.2, 4.4], positions=[(0, 0, 0), (0.3, 0.1, 1.15)], pbc=True),
    "one atom": Atoms("O", cell=[2.6, 2.6, 2.6], pbc=True),
    "rock salt": bulk("TiO", "rocksalt", a=4.18),
    "rutile": rutile(),
    "no symmetry": random_crystal("Ti3O5", 11, np.random.default_rng(3)),
    "supercell": bulk("TiO", "rocksalt", a=4.18, cubic=True),
}

PROBLEMS = {
    "Ti2O3": Problem("Ti2O3", max_atoms=15),
    "Ti3O": Problem("Ti3O", max_atoms=12),
    "O": Problem("O", formula_units=(1, 4)),
    "TiO": Problem("TiO", formula_units=(1, 4), spacegroups=(1, 2, 225)),
}

OPERATORS = {one.operator.name: one.operator for one in COMPOSITION_OPERATORS}


def first_child(operator, parents, problem, attempts=20):
    children = (operator(parents, problem, np.random.default_rng(seed)) for seed in range(attempts))
    return next((child for child in children if child is not None), None)


@pytest.mark.parametrize("name", OPERATORS)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    formula=st.sampled_from(sorted(PROBLEMS)),
    pair=st.permutations(sorted(TI_O)).map(lambda names: names[:2]),
)
def test_children_have_the_contents_and_distances_of_the_problem_whatever_the_parents(name, seed, formula, pair):
    operator, problem = OPERATORS[name], PROBLEMS[formula]
    parents = [TI_O[parent] for parent in pair][: operator.n_parents]
    before = [parent.copy() for parent in parents]
    child = operator(parents, problem, np.random.default_rng(seed))
    assert parents == before
    again = operator(parents, problem, np.random.default_rng(seed))
    assert (child is None) == (again is None)
    if child is not None and again is not None:
        assert child.positions.tobytes() == again.positions.tobytes()
        volumes = [one.get_volume() / len(one) for one in parents]
        bounds = min(problem.volume_bounds[0], *volumes), max(problem.volume_bounds[1], *volumes)
        assert violation(child, problem, bounds) is None


@pytest.mark.parametrize("name", OPERATORS)
def test_a_fixed_cell_leaves_nothing_to_do(name):
    assert not OPERATORS[name].applies_to(Problem("TiO2", formula_units=1, cell=(4, 4, 4, 90, 90, 90)))


class TestTransmutation:
    def test_orderings_of_the_parents_lattice_are_found(self):
        """Of face-centred copper the L1_2 structure of Cu3Au is among the first children."""
        problem = Problem("Cu3Au", formula_units=1)
        rng = np.random.default_rng(0)
        found = Counter(spacegroup(Transmutation()([bulk("Cu")], problem, rng)) for _ in range(12))
        assert found[221] > 0
        assert len(found) > 1

    def test_the_volume_follows_the_expected_one(self):
        child = first_child(Transmutation(), [bulk("Cu")], Problem("Cu3Au", formula_units=1))
        ratio = child.get_volume() / 4 / bulk("Cu").get_volume()
        assert 1.05 < ratio < 1.3  # gold is larger

    def test_parents_with_another_number_of_atoms_have_no_children(self):
        assert Transmutation()([rutile()], Problem("TiO", formula_units=1), np.random.default_rng(0)) is None

    def test_moments_of_the_elements_of_the_parent_are_dropped(self):
        parent = bulk("Ni")
        parent.set_initial_magnetic_moments([1.0])
        child = first_child(Transmutation(), [parent], Problem("NiAl", formula_units=1))
        assert not child.has("initial_magmoms")


class TestAdditionRemoval:
    def test_an_atom_is_removed_and_the_others_stay(self):
        parent = bulk("TiO", "rocksalt", a=4.18, cubic=True)
        problem = Problem("Ti4O3", formula_units=1)
        child = first_child(AdditionRemoval(), [parent], problem)
        assert Counter(child.get_chemical_symbols()) == {"Ti": 4, "O": 3}
        distances = child.get_all_distances(mic=True) / child.get_volume() ** (1 / 3)
        assert distances[distances > 0].min() * 4.18 == pytest.approx(2.09, abs=0.01)

    def test_atoms_are_put_into_the_largest_holes(self):
        """The largest hole of a face-centred metal is octahedral: rock salt results."""
        child = first_child(AdditionRemoval(), [bulk("Ti", "fcc", a=4.1)], Problem("TiC", formula_units=1))
        assert spacegroup(child) == 225

    def test_weakly_bound_atoms_are_removed_first(self):
        """Of two kinds of oxygen, in the framework and far from it, the second goes more often."""
        framework = bulk("TiO", "rocksalt", a=4.18, cubic=True)
        layered = Atoms(
            [*framework.numbers.tolist(), 8],
            positions=[*framework.positions, (2.09, 2.09, 7.0)],
            cell=[4.18, 4.18, 9.0],
            pbc=True,
        )
        removed = []
        for seed in range(10):
            draft = ContentsAdjustment(layered, None, {"Ti": 4, "O": 4}, np.random.default_rng(seed))
            assert draft.remove(1)
            removed.append(draft.crystal.positions[:, 2].max() < 6)
        assert sum(removed) > 7


class TestSubstitution:
    def test_elements_are_exchanged_and_the_symmetry_stays(self):
        child = first_child(Substitution(), [rutile()], Problem("Ti2O", formula_units=2))
        assert spacegroup(child) == 136
        assert Counter(child.get_chemical_symbols()) == {"Ti": 4, "O": 2}

    def test_elements_of_the_same_numbers_are_exchanged_without_repeating_the_parent(self):
        sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)]
        perovskite = crystal(["Mg", "Ti", "O"], sites, cellpar=[4, 4, 4, 90, 90, 90], spacegroup=221)
        problem = Problem("MgTiO3", formula_units=1)
        reduced = {"Mg": 1, "Ti": 1, "O": 3}
        assert Substitution().most_children(reduced, problem) == 1
        child = first_child(Substitution(), [perovskite], problem)
        assert child.symbols[0] == "Ti"

    @pytest.mark.parametrize("counts", [{"Ti": 1, "O": 1}, {"Ti": 1, "O": 2}, {"Ti": 1, "O": 2, "Mg": 1}])
    def test_parents_of_other_proportions_or_the_same_formula_are_not_accepted(self, counts):
        assert not Substitution().accepts(counts, Problem("TiO2"))


class TestHeredity:
    def test_slabs_of_two_phases_are_layered_in_the_proportions_of_the_child(self):
        """Half of Ti2O3 are layers of TiO and half of TiO2: at most a few atoms have to be corrected."""
        problem = Problem("Ti2O3", formula_units=2)
        child = first_child(CompositionHeredity(), [TI_O["rock salt"], rutile()], problem)
        assert Counter(child.get_chemical_symbols()) == {"Ti": 4, "O": 6}

    @pytest.mark.parametrize(
        ("first", "second", "share"),
        [({"Ti": 1}, {"O": 1}, 0.4), ({"Ti": 1, "O": 1}, {"Ti": 1, "O": 2}, 0.4), ({"Ti": 2}, {"Ti": 3}, 0.5)],
    )
    def test_the_lever_rule_gives_the_shares(self, first, second, share):
        assert lever_share(first, second, {"Ti": 2, "O": 3}) == pytest.approx(share)

    def test_two_elements_combine_to_a_symmetric_compound(self):
        problem = Problem("CuAu", formula_units=1)
        child = first_child(CompositionCrossover(), [bulk("Cu"), bulk("Au")], problem)
        assert spacegroup(child) > 1
        assert Counter(child.get_chemical_symbols()) == {"Cu": 1, "Au": 1}


class TestContents:
    @given(seed=st.integers(0, 2**32 - 1))
    @settings(max_examples=20, deadline=None)
    def test_changed_orbits_keep_the_operations(self, seed):
        rng = np.random.default_rng(seed)
        cell = bulk("TiO", "rocksalt", a=4.18, cubic=True)
        group = operations(cell)
        kept = group.select(rng.integers(len(group), size=2).tolist())
        draft = ContentsAdjustment(cell, kept, {"Ti": 4, "O": 6}, rng)
        if not draft.add(PROBLEMS["Ti2O3"].distance_table):
            return
        found = draft.crystal
        for rotation, translation in zip(kept.rotations, kept.translations, strict=True):
            moved = found.get_scaled_positions() @ rotation.T + translation
            mismatch = moved[:, None] - found.get_scaled_positions()
            far = np.linalg.norm((mismatch - np.rint(mismatch)) @ cell.cell.array, axis=-1)
            image = far.argmin(axis=1)
            assert far.min(axis=1).max() < 0.1
            assert (found.numbers[image] == found.numbers).all()

    def test_what_has_no_room_is_not_added(self):
        dense = bulk("Cu", "fcc", a=3.6)
        draft = ContentsAdjustment(dense, None, {"Cu": 1, "Au": 1}, np.random.default_rng(0))
        assert not draft.add(np.full((119, 119), 2.5))
