"""Families of similar structures."""

from collections import Counter

import numpy as np
from ase import Atoms
from ase.build import bulk, make_supercell
from pymatgen.analysis.structure_matcher import StructureMatcher

from hybridcsp.similarity.families import Families, is_similar
from hybridcsp.structure.conversion import to_pymatgen


def crystals():
    """Crystals of which some are the same ones distorted, in another cell, at another volume, or of another formula."""
    salt, metal = bulk("NaCl", "rocksalt", a=5.6), bulk("Cu", "fcc", a=3.6)
    strained = salt.copy()
    strained.set_cell(salt.cell @ np.diag([1.04, 0.97, 1.0]), scale_atoms=True)
    large = make_supercell(salt, [[1, 1, 0], [0, 1, 1], [1, 0, 2]])
    dense = bulk("NaCl", "rocksalt", a=5.0)
    other = bulk("NaCl", "cesiumchloride", a=3.4)
    return [salt, strained, large, dense, other, metal, bulk("Cu", "bcc", a=2.9)]


def test_the_matcher_of_pymatgen_decides():
    matcher = StructureMatcher()
    found = [[is_similar(a, b) for b in crystals()] for a in crystals()]
    assert found == [[matcher.fit(to_pymatgen(a), to_pymatgen(b)) for b in crystals()] for a in crystals()]
    assert found[0] == [True, True, True, True, False, False, False]


def test_every_structure_is_read_once():
    read: Counter[int] = Counter()

    def structure_of(key: int) -> Atoms:
        read[key] += 1
        return crystals()[key]

    families = Families(structure_of)
    for _ in range(2):
        assert [families.are_similar(key, 0) for key in range(7)] == [True] * 4 + [False] * 3
    assert set(read.values()) == {1}
