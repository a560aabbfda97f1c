"""Operators that keep a common subgroup of two parents, or the symmetry of one."""

import numpy as np
import pytest
from ase import Atoms
from crystals import anatase, quartz, random_crystal, rutile
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.core.problem import Problem
from hybridcsp.operators.orbit_mutation import OrbitPermutation, OrbitReplacement, SpaceGroupMiner
from hybridcsp.operators.subgroups import subgroups_of
from hybridcsp.operators.symmetric_heredity import OrbitCrossover, SymmetricHeredity
from hybridcsp.structure.symmetry import spacegroup
from hybridcsp.structure.wyckoff import point_group_order

TIO2 = Problem("TiO2", formula_units=2)

BROOKITE_LIKE = Atoms(
    "Ti2O4",
    cell=[4.5, 5.5, 3.0],
    scaled_positions=[
        (0, 0.1, 0.25), (0, 0.9, 0.75), (0.25, 0.3, 0.25), (0.75, 0.3, 0.25), (0.25, 0.7, 0.75), (0.75, 0.7, 0.75),
    ],
    pbc=True,
)  # fmt: skip

PARENTS = {"rutile": rutile(), "anatase": anatase(), "layers": BROOKITE_LIKE}

CROSSOVERS = (SymmetricHeredity(), OrbitCrossover())


def marked(atoms, mark):
    """A copy whose atoms carry a charge to be known by."""
    result = atoms.copy()
    result.set_initial_charges(np.full(len(atoms), mark, dtype=float))
    return result


def contents(atoms):
    return sorted(atoms.numbers)


@pytest.mark.parametrize("operator", CROSSOVERS, ids=lambda operator: operator.name)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    pair=st.permutations(sorted(PARENTS)).map(lambda names: names[:2]),
)
def test_children_keep_an_operation_of_both_parents_and_the_contents(operator, seed, pair):
    parents = [PARENTS[name] for name in pair]
    child = operator(parents, TIO2, np.random.default_rng(seed))
    if child is None:
        return
    assert contents(child) == contents(parents[0])
    common = set.intersection(*(set(subgroups_of(parent, TIO2).by_number) for parent in parents))
    kept = subgroups_of(child, TIO2).by_number
    assert spacegroup(child) > 1
    assert common & set(kept)


@pytest.mark.parametrize("operator", CROSSOVERS, ids=lambda operator: operator.name)
def test_children_contain_orbits_of_both_parents(operator):
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(20):
        child = operator([marked(rutile(), 1), marked(anatase(), 2)], TIO2, rng)
        if child is not None:
            charges = child.get_initial_charges()
            assert set(charges) == {1, 2}
            shares.append((charges == 1).mean())
    assert len(shares) > 10
    assert len(set(shares)) > 2


@pytest.mark.parametrize("operator", CROSSOVERS, ids=lambda operator: operator.name)
def test_parents_without_symmetry_in_common_have_no_children(operator):
    lopsided = random_crystal("Ti2O4", 12, np.random.default_rng(0))
    assert operator([rutile(), lopsided], TIO2, np.random.default_rng(0)) is None


def test_regions_are_connected_slabs():
    """Of two parents that are layered along one axis, whole layers are exchanged."""
    heights = [1 / 16, 5 / 16, 11 / 16, 15 / 16]
    squares = [(0, 0, z) for z in heights]
    first = Atoms("Ti2O4", cell=[3, 3, 24], scaled_positions=[(0, 0, 0.2), (0, 0, 0.8), *squares], pbc=True)
    problem = Problem("TiO2", formula_units=2, volume_per_atom=(10, 60), distance_fraction=0.2)
    view = subgroups_of(first, problem).whole
    wave = np.array([0, 0, 1])
    values = [np.cos(2 * np.pi * view.positions[orbit] @ wave) for orbit in view.orbits]
    assert all(np.ptp(own) < 1e-6 for own in values)  # mirror images lie at the same depth in a slab


class TestOneParent:
    @pytest.mark.parametrize("parent", [rutile(), anatase(), BROOKITE_LIKE], ids=["rutile", "anatase", "layers"])
    @pytest.mark.parametrize("operator", [OrbitReplacement(), OrbitPermutation()], ids=lambda one: one.name)
    def test_a_subgroup_of_the_parent_is_kept(self, operator, parent):
        rng = np.random.default_rng(1)
        made = 0
        for _ in range(8):
            child = operator([parent], TIO2, rng)
            if child is not None:
                made += 1
                assert contents(child) == contents(parent)
                kept = set(subgroups_of(child, TIO2).by_number)
                assert kept & set(subgroups_of(parent, TIO2).by_number)
        assert made or operator.name == "orbit-permutation"

    def test_part_of_the_structure_stays(self):
        """Atoms that stay keep their distances."""
        rng = np.random.default_rng(0)
        problem = Problem("SiO2", formula_units=3)
        found = set()
        for _ in range(10):
            child = OrbitReplacement()([quartz()], problem, rng)
            if child is not None:
                assert child.get_volume() == pytest.approx(quartz().get_volume(), rel=1e-3)
                silicon = child[child.numbers == 14].get_all_distances(mic=True)[0, 1:].min()
                found.add(bool(abs(silicon - 3.06) < 0.02))
        assert True in found

    def test_elements_of_two_orbits_are_exchanged(self):
        parent = Atoms(
            "CuAuZn2", cell=[3, 3, 6], scaled_positions=[(0, 0, 0), (0, 0, 0.5), (0.5, 0.5, 0.2), (0.5, 0.5, 0.8)],
            pbc=True,
        )  # fmt: skip
        problem = Problem("CuAuZn2", formula_units=1)
        child = OrbitPermutation()([parent], problem, np.random.default_rng(0))
        assert child is not None
        assert child.positions[0] == pytest.approx(parent.positions[1])
        assert child.positions[1] == pytest.approx(parent.positions[0])

    def test_the_miner_draws_crystals_of_the_parents_space_group(self):
        rng = np.random.default_rng(0)
        numbers = [spacegroup(child) for _ in range(8) if (child := SpaceGroupMiner()([rutile()], TIO2, rng))]
        assert 136 in numbers
        assert min(map(point_group_order, numbers)) >= point_group_order(136)
        assert len(numbers) >= 4

    def test_parents_without_symmetry_have_no_children(self):
        lopsided = random_crystal("Ti2O4", 12, np.random.default_rng(0))
        for operator in (OrbitReplacement(), OrbitPermutation(), SpaceGroupMiner()):
            assert operator([lopsided], TIO2, np.random.default_rng(0)) is None
