"""Matching crystals atom by atom: against brute force, and that descriptions of a crystal make no difference."""

from itertools import permutations, product

import numpy as np
import pytest
from ase import Atoms
from crystals import random_crystal, rutile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hybridcsp.errors import InputError
from hybridcsp.similarity import same_structure
from hybridcsp.structure.mapping import deformed, match

SEEDS = st.integers(0, 2**32 - 1)


def disguised(atoms, rng, inverted=False):
    """The same crystal: atoms in another order, another origin, other lattice vectors, turned, atoms in other cells."""
    basis = np.eye(3)
    for _ in range(5):
        i, j = rng.choice(3, 2, replace=False)
        step = np.eye(3)
        step[i, j] = rng.integers(-2, 3)
        basis = step @ basis
    order = rng.permutation(len(atoms))
    scaled = (atoms.get_scaled_positions()[order] + rng.random(3)) @ np.linalg.inv(basis)
    scaled += rng.integers(-2, 3, scaled.shape)
    turn = Rotation.random(rng=rng).as_matrix()
    return Atoms(
        numbers=atoms.numbers[order],
        cell=basis @ atoms.cell.array @ turn,
        scaled_positions=-scaled if inverted else scaled,
        pbc=True,
    )


def by_brute_force(own, other, steps=4):
    """Smallest root-mean-square distance in one cell: every assignment, and origins improved from a grid of shifts."""
    cell = own.cell.array
    images = np.array(list(product((-1, 0, 1), repeat=3)))
    orders = [p for p in map(list, permutations(range(len(own)))) if (other.numbers[p] == own.numbers).all()]
    best = np.inf
    for order, shift in product(orders, np.array(list(product(range(steps), repeat=3))) / steps):
        differences = other.get_scaled_positions()[order] - own.get_scaled_positions() + shift
        for _ in range(10):
            differences -= np.rint(differences)
            every = (differences[:, None] + images) @ cell
            nearest = (every**2).sum(axis=-1).argmin(axis=1)
            differences += images[nearest]
            differences -= differences.mean(axis=0)
        best = min(best, (((differences @ cell) ** 2).sum(axis=1)).mean())
    return best**0.5


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, formula=st.sampled_from(["Cu", "NaCl", "Cu4", "TiO2", "MgSiO3", "Ti2O4"]), inverted=st.booleans())
def test_match_recognises_all_descriptions_of_a_crystal(seed, formula, inverted):
    rng = np.random.default_rng(seed)
    atoms = random_crystal(formula, 12, rng)
    found = match(atoms, disguised(atoms, rng, inverted))
    assert found.distance == pytest.approx(0, abs=1e-6)
    assert np.abs(found.displacements).max() < 1e-6
    assert np.abs(found.strain).max() < 1e-6


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, formula=st.sampled_from(["NaCl", "TiO2", "Cu4", "Ti2O4"]))
def test_match_is_independent_of_the_descriptions(seed, formula):
    rng = np.random.default_rng(seed)
    first, second = random_crystal(formula, 12, rng), random_crystal(formula, 14, rng)
    found = match(first, second).distance
    assert match(first, disguised(second, rng)).distance == pytest.approx(found, rel=0.03)
    assert match(disguised(first, rng), second).distance == pytest.approx(found, rel=0.03)
    assert match(second, first).distance == pytest.approx(found, rel=0.08)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, formula=st.sampled_from(["NaCl", "TiO2", "Cu4", "Ti2O4"]), inverted=st.booleans())
def test_deformed_by_a_match_is_the_target(seed, formula, inverted):
    rng = np.random.default_rng(seed)
    first, second = random_crystal(formula, 12, rng), random_crystal(formula, 14, rng)
    second = disguised(second, rng, inverted)
    found = match(first, second)
    there = deformed(first, found.displacements, found.strain)
    assert match(there, second).distance == pytest.approx(0, abs=1e-6)
    assert same_structure(there, second)
    assert sorted(found.order) == list(range(len(first)))
    assert (second.numbers[found.order] == first.numbers).all()
    assert found.displacements.mean(axis=0) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("formula", ["NaCl", "TiO2", "Cu3", "Ti2O2"])
def test_match_is_not_worse_than_brute_force(formula):
    rng = np.random.default_rng(7)
    for _ in range(4):
        first = random_crystal(formula, 12, rng)
        second = first.copy()
        second.set_scaled_positions(rng.random((len(first), 3)))
        # Other bases of the lattice may lead to something still shorter, never to something longer.
        assert match(first, second).distance <= by_brute_force(first, second) * (1 + 1e-6)


def test_match_finds_small_displacements():
    rng = np.random.default_rng(1)
    atoms = rutile()
    steps = rng.normal(0, 0.05, (6, 3))
    moved = atoms.copy()
    moved.positions += steps
    found = match(atoms, moved)
    expected = steps - steps.mean(axis=0)
    assert found.distance == pytest.approx((expected**2).sum(axis=1).mean() ** 0.5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_match_finds_the_strain_of_a_cell(axis):
    # Of no symmetry, so that there is one way only.
    atoms = random_crystal("Ti2O4", 12, np.random.default_rng(5))
    strain = np.diag(np.eye(3)[axis]) * 0.08 + 0.01
    strained = deformed(atoms, np.zeros((6, 3)), strain)
    found = match(atoms, strained)
    assert found.strain == pytest.approx(strain, abs=1e-9)
    assert found.displacements == pytest.approx(0, abs=1e-9)
    length = atoms.get_volume() ** (1 / 3)
    assert found.distance == pytest.approx(np.linalg.norm(strain) * length / 12**0.5)


def test_largest_strain_excludes_other_cells():
    rng = np.random.default_rng(3)
    first = random_crystal("Ti2O4", 12, rng)
    second = first.copy()
    second.set_scaled_positions(rng.random((6, 3)))
    assert np.abs(match(first, second, largest_strain=1e-3).strain).max() < 1e-9


def test_different_contents_are_refused():
    first = rutile()
    second = rutile()
    second.numbers = second.numbers[::-1]
    with_order = match(first, second)
    assert (second.numbers[with_order.order] == first.numbers).all()
    with pytest.raises(InputError, match="target"):
        match(first, Atoms("TiO2", cell=[4, 4, 4], pbc=True))


def test_deformed_does_not_change_its_argument():
    atoms = rutile()
    before = atoms.copy()
    moved = deformed(atoms, np.full((6, 3), 0.1), np.eye(3) * 0.1)
    assert atoms == before
    assert moved.get_volume() == pytest.approx(atoms.get_volume() * np.exp(0.3))
