from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.spacegroup import crystal
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.generators.wyckoff.representation import (
    Site,
    WyckoffCrystal,
    decode_wyckoff,
    encode_wyckoff,
)
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.structure.normalizer import ENANTIOMORPHS, canonical_letters
from hybridcsp.structure.symmetry import SYMPREC, primitive, spacegroup
from hybridcsp.structure.wyckoff import free_axes, space_group

KNOWN = {
    "diamond": (bulk("C", "diamond", 3.567), 227),
    "rocksalt": (bulk("NaCl", "rocksalt", 5.64), 225),
    "zinc blende": (bulk("ZnS", "zincblende", 5.41), 216),
    "wurtzite": (bulk("ZnO", "wurtzite", a=3.25, c=5.2, u=0.382), 186),
    "rutile": (
        crystal("TiO", [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.594, 4.594, 2.959, 90, 90, 90]),
        136,
    ),
    "anatase": (
        crystal(
            "TiO",
            [(0, 0.25, 0.375), (0, 0.25, 0.1667)],
            spacegroup=141,
            setting=2,
            cellpar=[3.785, 3.785, 9.514, 90, 90, 90],
        ),
        141,
    ),
    "perovskite": (
        crystal("SrTiO", [(0.5, 0.5, 0.5), (0, 0, 0), (0.5, 0, 0)], spacegroup=221, cellpar=[3.905] * 3 + [90] * 3),
        221,
    ),
    "tetragonal barium titanate": (
        crystal(
            ["Ba", "Ti", "O", "O"],
            [(0, 0, 0), (0.5, 0.5, 0.515), (0.5, 0.5, 0.976), (0.5, 0, 0.486)],
            spacegroup=99,
            cellpar=[3.994, 3.994, 4.038, 90, 90, 90],
        ),
        99,
    ),
    "spinel": (
        crystal(
            ["Mg", "Al", "O"],
            [(0.125, 0.125, 0.125), (0.5, 0.5, 0.5), (0.2624, 0.2624, 0.2624)],
            spacegroup=227,
            setting=2,
            cellpar=[8.083] * 3 + [90] * 3,
        ),
        227,
    ),
    "corundum": (
        crystal(
            ["Al", "O"], [(0, 0, 0.3522), (0.3063, 0, 0.25)], spacegroup=167, cellpar=[4.759, 4.759, 12.99, 90, 90, 120]
        ),
        167,
    ),
    "quartz": (
        crystal(
            ["Si", "O"],
            [(0.4697, 0, 0), (0.4133, 0.2672, 0.1188)],
            spacegroup=152,
            cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
        ),
        152,
    ),
    "gadolinium ferrite": (
        crystal(
            ["Gd", "Fe", "O", "O"],
            [(0.0626, 0.25, 0.9846), (0, 0, 0.5), (0.467, 0.25, 0.1), (0.696, 0.05, 0.302)],
            spacegroup=62,
            cellpar=[5.611, 7.669, 5.349, 90, 90, 90],
        ),
        62,
    ),
    "baddeleyite": (
        crystal(
            ["Zr", "O", "O"],
            [(0.2754, 0.0395, 0.2083), (0.07, 0.3317, 0.3447), (0.4496, 0.7569, 0.4792)],
            spacegroup=14,
            cellpar=[5.15, 5.212, 5.317, 90, 99.23, 90],
        ),
        14,
    ),
    "copper oxide": (
        crystal(
            ["Cu", "O"],
            [(0.25, 0.25, 0), (0, 0.4184, 0.25)],
            spacegroup=15,
            cellpar=[4.684, 3.423, 5.129, 90, 99.54, 90],
        ),
        15,
    ),
    "copper sulphate": (
        crystal(
            ["Cu", "S", "O", "O"],
            [(0, 0, 0), (0.013, 0.286, 0.625), (0.907, 0.151, 0.673), (0.244, 0.317, 0.796)],
            spacegroup=2,
            cellpar=[6.12, 10.7, 5.97, 82.3, 107.3, 102.6],
        ),
        2,
    ),
}


def matches(a, b):
    from pymatgen.analysis.structure_matcher import StructureMatcher

    # The matcher's own reduction to primitive cells takes atoms 0.25 Å apart for one, which some crystals here have.
    tight = StructureMatcher(ltol=0.01, stol=0.01, angle_tol=0.2, scale=False, primitive_cell=False)
    return tight.fit(*(to_pymatgen(one).get_primitive_structure(tolerance=0.01) for one in (a, b)))


def alike(a, b, tolerance=1e-3):
    """Whether two representations are the same but for rounding."""
    assert a is not None
    assert b is not None
    apart = [
        np.subtract(x.coordinates, y.coordinates) - np.rint(np.subtract(x.coordinates, y.coordinates))
        for x, y in zip(a.sites, b.sites, strict=True)
    ]
    return (
        a.spacegroup == b.spacegroup
        and [(s.element, s.letter) for s in a.sites] == [(s.element, s.letter) for s in b.sites]
        and np.allclose(a.cell, b.cell, atol=1e-3)
        and all(np.abs(d).max(initial=0.0) < tolerance for d in apart)
    )


def disguised(atoms, rng):
    """The same crystal in another cell: other vectors, place, orientation, order of atoms and number of cells."""
    matrix = np.eye(3, dtype=int)
    for _ in range(3):
        i, j = rng.permutation(3)[:2]
        matrix[i] += int(rng.integers(-1, 2)) * matrix[j]
    matrix = np.diag(rng.permutation([1, 1, int(rng.integers(1, 3))])) @ matrix
    other = make_supercell(atoms, matrix)
    other.rotate(rng.uniform(0, 360), rng.normal(size=3), rotate_cell=True)
    other.translate(rng.normal(size=3))
    other.wrap()
    return other[rng.permutation(len(other))]


@pytest.mark.parametrize("name", KNOWN)
def test_decoding_restores_known_crystals(name):
    atoms, number = KNOWN[name]
    found = encode_wyckoff(atoms, SYMPREC)
    back = decode_wyckoff(found)
    assert found.spacegroup == number
    assert matches(atoms, back)
    assert spacegroup(back, 1e-4) == number
    assert len(back) == len(primitive(atoms))
    assert alike(encode_wyckoff(back, 1e-4), found)


@pytest.mark.parametrize("name", KNOWN)
def test_all_descriptions_of_a_crystal_give_the_same_representation(name):
    atoms = primitive(KNOWN[name][0])
    found = encode_wyckoff(atoms, SYMPREC)
    for seed in range(3):
        assert alike(encode_wyckoff(disguised(atoms, np.random.default_rng(seed)), SYMPREC), found)


def test_enantiomorphs_have_one_representation():
    right = KNOWN["quartz"][0]
    left = right.copy()
    left.set_scaled_positions(-right.get_scaled_positions())
    assert spacegroup(left) == 154
    assert alike(encode_wyckoff(left, SYMPREC), encode_wyckoff(right, SYMPREC))


def test_sites_exchanged_by_the_normalizer_have_the_same_letters():
    at_corner = crystal("CsCl", [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=221, cellpar=[4.12] * 3 + [90] * 3)
    at_centre = crystal("CsCl", [(0.5, 0.5, 0.5), (0, 0, 0)], spacegroup=221, cellpar=[4.12] * 3 + [90] * 3)
    assert encode_wyckoff(at_corner) == encode_wyckoff(at_centre)
    assert canonical_letters(221, ("b", "a")) == canonical_letters(221, ("a", "b")) == ("a", "b")


def test_elements_are_ordered_by_number_and_electronegativity():
    found = encode_wyckoff(KNOWN["perovskite"][0])
    assert [site.element for site in found.sites] == [38, 22, 8]


def test_encoding_symmetrises_within_the_tolerance():
    atoms = primitive(KNOWN["rutile"][0])
    atoms.rattle(0.01, seed=1)
    assert encode_wyckoff(atoms, 1e-4).spacegroup == 1
    assert encode_wyckoff(atoms, 0.1).spacegroup == 136


def test_overlapping_atoms_have_no_representation():
    one_on_another = Atoms("H2", positions=[(0, 0, 0), (0, 0, 1e-7)], cell=[3, 3, 3], pbc=True)
    assert encode_wyckoff(one_on_another) is None


def random_crystal(number, rng):
    """A crystal with some sites of a group at random, far enough apart."""
    group = space_group(number)
    for _ in range(200):
        sites = []
        fixed = set()
        for element in (3, 22, 8)[: rng.integers(1, 4)]:
            for _ in range(rng.integers(1, 3)):
                position = group.positions[rng.integers(len(group.positions))]
                if position.freedom == 0 and position.letter in fixed:
                    continue
                fixed.add(position.letter)
                axes = free_axes(number, position.letter)
                sites.append(Site(element, position.letter, tuple(rng.random(len(axes)))))
        lengths = rng.uniform(5, 9, 3)
        angles = rng.uniform(75, 105, 3)
        kind = group.lattice_type
        if kind in ("tetragonal", "hexagonal", "cubic"):
            lengths[1] = lengths[0]
        if kind == "cubic":
            lengths[2] = lengths[0]
        if kind == "monoclinic":
            angles[[0, 2]] = 90
        elif kind != "triclinic":
            angles[:] = 90
        if kind == "hexagonal":
            angles[2] = 120
        made = WyckoffCrystal(number, tuple(sites), (*lengths, *angles))
        atoms = decode_wyckoff(made)
        if len(atoms) <= 40:
            distances = atoms.get_all_distances(mic=True) + 9 * np.eye(len(atoms))
            if distances.min() > 0.6:
                return atoms
    return None


@settings(max_examples=40, deadline=None)
@given(number=st.integers(1, 230), seed=st.integers(0, 2**32 - 1))
def test_decoding_restores_random_crystals_of_all_groups(number, seed):
    rng = np.random.default_rng(seed)
    atoms = random_crystal(number, rng)
    if atoms is None:
        return
    found = encode_wyckoff(atoms, 1e-3)
    assert found is not None
    back = decode_wyckoff(found)
    assert Counter(back.numbers.tolist()) == Counter(primitive(atoms, 1e-3).numbers.tolist())
    assert (
        spacegroup(back, 1e-3)
        == found.spacegroup
        == ENANTIOMORPHS.get(spacegroup(atoms, 1e-3), spacegroup(atoms, 1e-3))
    )
    assert matches(atoms, back)
    again = encode_wyckoff(disguised(back, rng), 1e-3)
    assert again.spacegroup == found.spacegroup
    assert [(s.element, s.letter) for s in again.sites] == [(s.element, s.letter) for s in found.sites]
