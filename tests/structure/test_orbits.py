import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.spacegroup import crystal
from crystals import rutile

from hybridcsp.structure.orbits import find_orbits, find_tabulated_orbits
from hybridcsp.structure.symmetry import spacegroup
from hybridcsp.structure.wyckoff import orbit_coordinates

QUARTZ = crystal(
    ["Si", "O"],
    [(0.47, 0, 1 / 3), (0.414, 0.266, 0.214)],
    spacegroup=152,
    cellpar=[4.91, 4.91, 5.40, 90, 90, 120],
)


@pytest.mark.parametrize("find", [find_orbits, find_tabulated_orbits])
def test_orbits_of_rutile(find):
    found = find(make_supercell(rutile(), [[1, 1, 0], [0, 1, 0], [0, 0, 2]]), 0.01)
    assert found.spacegroup == 136
    assert [(orbit.element, orbit.letter, len(orbit.points)) for orbit in found.orbits] == [(22, "a", 2), (8, "f", 4)]
    assert orbit_coordinates(136, "f", found.orbits[1].points) == (pytest.approx(0.305, abs=1e-3),)


def test_every_atom_of_the_conventional_cell_is_in_one_orbit():
    found = find_orbits(bulk("CaF2", "fluorite", a=5.4), 0.01)
    points = np.concatenate([orbit.points for orbit in found.orbits])
    numbers = np.concatenate([np.full(len(orbit.points), orbit.element) for orbit in found.orbits])
    assert len(points) == len(found.numbers) == 12
    assert sorted(map(tuple, points)) == sorted(map(tuple, found.positions))
    assert sorted(numbers) == sorted(found.numbers)


def test_primitive_cell_has_the_same_symmetry_and_volume_per_atom():
    atoms = bulk("CaF2", "fluorite", a=5.4, cubic=True)
    found = find_orbits(atoms, 0.01).primitive_cell()
    assert len(found) == 3
    assert spacegroup(found) == 225
    assert found.get_volume() / 3 == pytest.approx(atoms.get_volume() / 12)


def test_tabulated_orbits_of_enantiomorphs_are_in_the_group_of_lower_number():
    mirrored = QUARTZ.copy()
    mirrored.set_scaled_positions(-QUARTZ.get_scaled_positions())
    assert {find_orbits(atoms, 0.01).spacegroup for atoms in (QUARTZ, mirrored)} == {152, 154}
    assert {find_tabulated_orbits(atoms, 0.01).spacegroup for atoms in (QUARTZ, mirrored)} == {152}


def test_overlapping_atoms_have_no_orbits():
    atoms = Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 0]], cell=[4, 4, 4], pbc=True)
    assert find_orbits(atoms, 0.01) is None
    assert find_tabulated_orbits(atoms, 0.01) is None
