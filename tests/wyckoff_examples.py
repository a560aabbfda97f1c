"""Crystals and helpers for the tests of the Wyckoff generator."""

from collections import Counter

from ase.build import bulk
from ase.spacegroup import crystal

from hybridcsp.generators.wyckoff.transformer import Size
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.structure.symmetry import primitive

TINY = Size(width=32, blocks=1, heads=2, dropout=0.0)


def rutile(metal="Ti", a=4.594, u=0.305):
    return crystal([metal, "O"], [(0, 0, 0), (u, u, 0)], spacegroup=136, cellpar=[a, a, 0.644 * a, 90, 90, 90])


def polar(ti=0.515):
    return crystal(
        ["Ba", "Ti", "O", "O"],
        [(0, 0, 0), (0.5, 0.5, ti), (0.5, 0.5, 0.976), (0.5, 0, 0.486)],
        spacegroup=99,
        cellpar=[3.994, 3.994, 4.038, 90, 90, 90],
    )


CRYSTALS = [
    rutile(),
    rutile("Sn", 4.74, 0.307),
    rutile("Ge", 4.4, 0.306),
    rutile("Pb", 4.95, 0.307),
    bulk("NaCl", "rocksalt", 5.64),
    bulk("MgO", "rocksalt", 4.21),
    bulk("KBr", "rocksalt", 6.6),
    bulk("CsCl", "cesiumchloride", 4.12),
    bulk("ZnO", "wurtzite", a=3.25, c=5.2, u=0.382),
    polar(),
    crystal(
        ["Si", "O"],
        [(0.4697, 0, 0), (0.4133, 0.2672, 0.1188)],
        spacegroup=152,
        cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
    ),
]


def contents(atoms):

    return dict(Counter(primitive(atoms).get_chemical_symbols()))


def matches(a, b):
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(ltol=0.05, stol=0.05, angle_tol=2).fit(to_pymatgen(a), to_pymatgen(b))
