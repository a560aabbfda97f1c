import re
import tracemalloc

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from crystals import rutile

from hybridcsp import Problem
from hybridcsp.structure.validity import (
    cell_violation,
    find_defect,
    has_finite_geometry,
    is_crystal_of,
    is_finite_crystal,
    is_plausible,
    is_too_close,
    shortest_violation,
)


def scaled(atoms, volume):
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array * volume ** (1 / 3), scale_atoms=True)
    return atoms


def test_plausible_crystals_have_default_volumes_and_distances():
    assert is_plausible(rutile())
    assert not is_plausible(scaled(rutile(), 0.1))
    assert is_too_close(scaled(rutile(), 0.1))
    assert not is_plausible(scaled(rutile(), 4.0))
    assert not is_too_close(scaled(rutile(), 4.0))


def test_dense_crystals_are_plausible_under_pressure():
    copper = bulk("Cu")
    free, pressed = Problem("Cu", formula_units=1), Problem("Cu", formula_units=1, pressure_gpa=300.0)
    between = (free.volume_bounds[0] + pressed.volume_bounds[0]) / 2
    dense = scaled(copper, between / copper.get_volume())
    assert not is_too_close(dense)
    assert is_plausible(dense, 300.0)
    assert not is_plausible(dense)


@pytest.mark.parametrize(
    ("atoms", "reason"),
    [
        (Atoms(cell=[3, 3, 3], pbc=True), "no atoms"),
        (Atoms("Cu", cell=[3, 3, np.inf], pbc=True), "not finite"),
        (Atoms("Cu", cell=[3, 3, 3], pbc=[True, True, False]), "periodic in three directions"),
        (Atoms("Cu", cell=[3, 3, 20_000], pbc=True), "20000|2e"),
        (Atoms("Cu", cell=[90, 90, 90], pbc=True), "per atom"),
        (Atoms("Cu", cell=[0.4, 0.4, 0.4], pbc=True), "a volume of 0.064"),
        (Atoms("X", cell=[3, 3, 3], pbc=True), "does not belong to any element"),
        (Atoms("Cu", cell=[0.4, 3, 3], pbc=True), "its own image, 0.400"),
        (Atoms("CuO", positions=[[0, 0, 0], [2.7, 0, 0]], cell=[3, 3, 3], pbc=True), r"Cu \(atom 1\) and O \(atom 2\)"),
    ],
)
def test_find_defect_names_the_reason(atoms, reason):
    assert re.search(reason, find_defect(atoms))
    assert find_defect(rutile()) is None


def test_find_defect_agrees_with_all_pairs_in_large_cells():
    atoms = rutile().repeat(4)
    assert find_defect(atoms) is None
    atoms.positions[300] = atoms.positions[17] + [0.1, 0.0, 0.0]
    assert "(atom 18)" in find_defect(atoms)
    assert "(atom 301)" in find_defect(atoms)


def test_infinite_volumes_are_not_finite_geometries():
    assert has_finite_geometry(rutile())
    huge = Atoms("Cu", cell=np.full(3, 1e150), pbc=True)
    assert not has_finite_geometry(huge)
    assert not is_finite_crystal(huge)


def test_crystals_of_a_problem_have_whole_formula_units():
    problem = Problem("TiO2", formula_units=4)
    assert is_crystal_of(rutile(), problem)
    assert not is_crystal_of(bulk("Cu"), problem)
    assert not is_crystal_of(Atoms("TiO2", cell=[3, 3, 0], pbc=True), problem)


def test_cell_violation_describes_fixed_cells_and_bounds():
    cell = tuple(rutile().cell.cellpar())
    fixed = Problem("TiO2", formula_units=2, cell=cell)
    assert cell_violation(rutile(), fixed) is None
    assert cell_violation(scaled(rutile(), 1.1), fixed) == "not the fixed cell"
    bounded = Problem("TiO2", formula_units=2, length_bounds=(2.5, 5.0))
    assert cell_violation(rutile(), bounded) is None
    assert "allowed 2.5 to 5" in cell_violation(scaled(rutile(), 2.0), bounded)


def distances(value: float) -> np.ndarray:
    return np.full((119, 119), value)


def test_shortest_violation_includes_periodic_images():
    lattice = Atoms("Cu", cell=[2, 5, 5], pbc=True)
    assert shortest_violation(lattice, distances(2.5)) == (0, 0, pytest.approx(2.0))
    assert shortest_violation(lattice, distances(1.9)) is None


def test_shortest_violation_uses_the_distances_required_of_each_pair_of_elements():
    required = distances(0.0)
    required[22, 8] = required[8, 22] = 2.0
    first, second, distance = shortest_violation(rutile(), required)
    assert {rutile().symbols[first], rutile().symbols[second]} == {"Ti", "O"}
    all_distances = rutile().get_all_distances(mic=True)
    assert distance == pytest.approx(all_distances[:2, 2:].min(), abs=1e-6)


def test_shortest_violation_finds_overlapping_atoms():
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 0]], cell=[3, 3, 3], pbc=True)
    assert shortest_violation(atoms, distances(1.0))[2] == 0.0


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms(cell=[3, 3, 3], pbc=True),
        Atoms("Cu", cell=[3, 3, 0], pbc=True),
        Atoms("Cu", positions=[[np.nan, 0, 0]], cell=[3, 3, 3], pbc=True),
        Atoms("Cu", cell=[[3, 0, 0], [3, 0, 0], [0, 0, 3]], pbc=True),
    ],
)
def test_structures_without_atoms_volume_or_finite_numbers_are_no_finite_crystals(atoms):
    assert not is_finite_crystal(atoms)


@pytest.mark.parametrize(
    "cell",
    [
        [100.0, 100.0, 0.001],
        [[10, 0, 0], [0, 10, 0], [4, 3, 1e-4]],
        [[0.02, 0, 0], [0, 0.02, 0], [0, 0, 60000]],
    ],
)
def test_atoms_of_a_flat_cell_are_too_close_to_their_images_and_take_no_memory(cell):
    atoms = Atoms("NaCl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=cell, pbc=True)
    tracemalloc.start()
    try:
        assert is_too_close(atoms)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
