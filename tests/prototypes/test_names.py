import numpy as np
import pytest
from ase.build import bulk
from ase.spacegroup import crystal
from crystals import rutile

from hybridcsp.prototypes.names import NAMES, _named, prototype_name


def cubic(a):
    return [a, a, a, 90, 90, 90]


KNOWN = {
    "rutile": rutile(),
    "anatase": crystal(["Sn", "S"], [(0, 0, 0), (0, 0, 0.205)], spacegroup=141, cellpar=[4, 4, 9.7, 90, 90, 90]),
    "rock salt": bulk("MgO", "rocksalt", a=4.2),
    "CsCl": bulk("CsCl", "cesiumchloride", a=4.1),
    "wurtzite": bulk("ZnO", "wurtzite", a=3.25, c=5.2),
    "fluorite": bulk("CaF2", "fluorite", a=5.46),
    "fcc": bulk("Cu", cubic=True).repeat((2, 1, 1)),
    "diamond": bulk("Si"),
    "perovskite": crystal(
        ["Sr", "Ti", "O"], [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)], spacegroup=221, cellpar=cubic(3.9)
    ),
    "α-PbO2": crystal(
        ["Ti", "O"], [(0, 0.18, 0.25), (0.27, 0.39, 0.41)], spacegroup=60, cellpar=[4.6, 5.5, 4.9, 90, 90, 90]
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_common_names_are_independent_of_the_elements(name):
    assert prototype_name(KNOWN[name]) == name


def test_similar_structures_of_other_types_have_no_name():
    near = rutile()
    near.rattle(0.05, seed=1)
    assert prototype_name(near) == ""
    # Group, Wyckoff sequence and stoichiometry of rutile, but with chains of oxygen pairs.
    other = crystal(["Ti", "O"], [(0, 0, 0), (0.12, 0.12, 0)], spacegroup=136, cellpar=[4.6, 4.6, 6.5, 90, 90, 90])
    assert prototype_name(other) == ""
    assert prototype_name(bulk("Cu", "orthorhombic", a=2, b=3, c=4)) == ""


def test_every_name_belongs_to_a_structure_of_the_library():
    stoichiometries = [(1,), (1, 1), (1, 2), (1, 3), (2, 3), (1, 1, 1)]
    found = {name for stoichiometry in stoichiometries for name, _ in _named(stoichiometry)}
    assert {"fcc", "NiAs", "cuprite", "α-quartz", "ReO3", "corundum", "half-Heusler", "anatase"} <= found
    assert len(found & set(NAMES.values())) > 70
    assert np.all([name.strip() == name for name in NAMES.values()])
