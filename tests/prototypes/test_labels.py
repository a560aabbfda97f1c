"""Labels: one name for every description of a crystal, and the same for all crystals of one type."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.cell import Cell
from crystals import rutile
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.prototypes import Label, identify
from hybridcsp.prototypes.labels import canonical_label, reduced_counts
from hybridcsp.structure.normalizer import ENANTIOMORPHS
from hybridcsp.structure.symmetry import spacegroup
from hybridcsp.structure.wyckoff import space_group

CELLS = {
    "triclinic": (1, 1.2, 1.5, 81, 97, 104),
    "monoclinic": (1, 1.2, 1.5, 90, 104, 90),
    "orthorhombic": (1, 1.2, 1.5, 90, 90, 90),
    "tetragonal": (1, 1, 1.4, 90, 90, 90),
    "hexagonal": (1, 1, 1.4, 90, 90, 120),
    "cubic": (1, 1, 1, 90, 90, 90),
}


def crystal(number, sites, seed, vectors=None, shift=(0, 0, 0)):
    """A crystal with random coordinates on given positions, ``(atomic number, letter)``, in a conventional cell.

    Vectors and shift describe it anew: as what it was, but the new vectors take on the old metric.
    """
    rng = np.random.default_rng(seed)
    group = space_group(number, conventional=True)
    numbers, points = [], []
    for element, letter in sites:
        position = next(p for p in group.positions if p.letter == letter)
        x = rng.uniform(0.05, 0.95, 3)
        points += list(position.rotations @ x + position.translations)
        numbers += [element] * position.multiplicity
    points = np.array(points)
    if vectors is not None:
        points = points @ np.linalg.inv(np.array(vectors, dtype=float)) + shift
    lengths = np.array(CELLS[group.lattice_type][:3]) * 12.0
    cell = Cell.fromcellpar([*lengths, *CELLS[group.lattice_type][3:]])
    return Atoms(numbers, scaled_positions=points % 1.0, cell=cell, pbc=True)


@pytest.mark.parametrize(
    ("atoms", "name", "elements", "units", "freedom"),
    [
        (rutile(), "AB2_tP6_136_a_f", "TiO", 2, 2),
        (bulk("NaCl", "rocksalt", a=5.6), "AB_cF8_225_a_b", "NaCl", 1, 0),
        (bulk("CsCl", "cesiumchloride", a=4.1), "AB_cP2_221_a_b", "ClCs", 1, 0),
        (bulk("ZnS", "zincblende", a=5.4), "AB_cF8_216_a_c", "SZn", 1, 0),
        (bulk("CaF2", "fluorite", a=5.4), "AB2_cF12_225_a_c", "CaF", 1, 0),
        (bulk("Mg", "hcp", a=3.2, c=5.2), "A_hP2_194_c", "Mg", 2, 1),
        (bulk("ZnO", "wurtzite", a=3.25, c=5.2), "AB_hP4_186_b_b", "OZn", 2, 2),
    ],
)
def test_known_crystals_have_the_labels_of_aflow(atoms, name, elements, units, freedom):
    label, found = identify(atoms)
    assert str(label) == name
    assert str(Atoms(found).symbols) == elements
    assert (label.units, label.freedom) == (units, freedom)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_label_is_independent_of_the_description(seed):
    rng = np.random.default_rng(seed)
    atoms = bulk("GaN", "wurtzite", a=3.2, c=5.2) if seed % 2 else rutile()
    expected = identify(atoms)
    vectors = np.eye(3, dtype=int)
    vectors[0, 1], vectors[1, 2], vectors[2, 0] = rng.integers(-1, 2, 3)
    if round(np.linalg.det(vectors)) not in (1, 2):
        vectors = np.diag([2, 1, 1])
    other = make_supercell(atoms, vectors)
    other.rotate(float(rng.uniform(0, 360)), rng.normal(size=3), rotate_cell=True)
    other.translate(rng.normal(size=3))
    other = other[rng.permutation(len(other))]
    assert identify(other) == expected


SHEAR = [[1, 0, 0], [0, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize(
    ("number", "sites", "vectors", "shift"),
    [
        (12, [(11, "a"), (17, "c"), (8, "i")], SHEAR, (0, 0, 0)),
        (12, [(11, "e"), (17, "a"), (8, "i")], [[1, 0, 2], [0, 1, 0], [0, 0, 1]], (0, 0, 0)),
        (12, [(11, "a"), (17, "c"), (8, "i")], np.eye(3), (0, 0.5, 0)),
        (14, [(11, "a"), (17, "c"), (8, "e")], np.eye(3), (0.5, 0, 0)),
        (10, [(11, "a"), (17, "e"), (8, "m")], SHEAR, (0, 0, 0)),
        (2, [(11, "a"), (17, "b"), (19, "e"), (8, "i")], [[1, 1, 0], [0, 1, 1], [0, 0, 1]], (0.5, 0.5, 0)),
        (47, [(11, "a"), (17, "b"), (19, "q"), (8, "u")], [[0, 1, 0], [0, 0, 1], [1, 0, 0]], (0, 0.5, 0)),
        (16, [(11, "a"), (17, "b"), (8, "u")], [[0, 1, 0], [0, 0, 1], [1, 0, 0]], (0.5, 0, 0)),
        (129, [(11, "a"), (17, "c"), (8, "f")], np.eye(3), (0.5, 0.5, 0.5)),
        (166, [(11, "a"), (17, "c"), (8, "h")], np.eye(3), (0, 0, 0.5)),
        (221, [(11, "a"), (17, "c"), (8, "e")], np.eye(3), (0.5, 0.5, 0.5)),
    ],
)
def test_label_is_independent_of_axes_and_origin(number, sites, vectors, shift):
    """New axes and origins that leave the group as it is, but exchange its letters: spglib sees another description."""
    first = crystal(number, sites, seed=1)
    second = crystal(number, sites, seed=1, vectors=vectors, shift=shift)
    assert spacegroup(first) == spacegroup(second) == number
    assert identify(first) == identify(second)


def test_enantiomorphs_have_one_label():
    left = crystal(154, [(14, "a"), (8, "c")], seed=3)
    right = left.copy()
    right.set_scaled_positions(-left.get_scaled_positions())
    assert (spacegroup(left), spacegroup(right)) == (154, 152)
    assert identify(left) == identify(right)
    assert identify(left)[0].spacegroup == 152
    assert all(other < number for number, other in ENANTIOMORPHS.items())


def test_symmetries_are_the_permutations_that_keep_the_label():
    rock_salt = identify(bulk("NaCl", "rocksalt", a=5.6))[0]
    assert set(rock_salt.symmetries) == {(0, 1), (1, 0)}
    perovskite = Label((1, 1, 3), 221, ("a", "b", "c"))
    assert perovskite.symmetries == ((0, 1, 2),)
    assert rutile_label().symmetries == ((0, 1),)


def rutile_label():
    return identify(rutile())[0]


def test_canonical_label_is_idempotent():
    label, elements = identify(crystal(47, [(11, "d"), (17, "f"), (19, "r"), (8, "v")], seed=0))
    sites = dict(zip(elements, label.letters, strict=True))
    counts = dict(zip(elements, label.stoichiometry, strict=True))
    assert canonical_label(label.spacegroup, sites, counts) == (label, elements)


def test_reduced_counts_come_in_ascending_order():
    assert reduced_counts([8, 8, 8, 8, 22, 22]) == {22: 1, 8: 2}
    assert list(reduced_counts([8, 8, 8, 22, 38])) == [22, 38, 8]


def test_overlapping_atoms_have_no_label():
    assert identify(Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 0]], cell=[4, 4, 4], pbc=True)) is None
