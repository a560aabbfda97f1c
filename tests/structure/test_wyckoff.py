"""Wyckoff tables against PyXtal and spglib."""

import numpy as np
import pytest
import spglib
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.structure.wyckoff import (
    free_axes,
    is_sum,
    orbit_coordinates,
    point_group_order,
    polar_axes,
    space_group,
    wyckoff_position,
)

CELLS = {
    "triclinic": (4.1, 5.3, 6.7, 77, 83, 101),
    "monoclinic": (4.1, 5.3, 6.7, 90, 101, 90),
    "orthorhombic": (4.1, 5.3, 6.7, 90, 90, 90),
    "tetragonal": (4.1, 4.1, 6.7, 90, 90, 90),
    "hexagonal": (4.1, 4.1, 6.7, 90, 90, 120),
    "cubic": (5.3, 5.3, 5.3, 90, 90, 90),
}


def general_crystal(number: int, conventional: bool) -> Atoms:
    """Two elements on general positions: nothing but the group's own symmetry."""
    group = space_group(number, conventional=conventional)
    general = group.positions[0]
    orbits = [
        general.rotations @ point + general.translations for point in ([0.137, 0.271, 0.433], [0.371, 0.093, 0.219])
    ]
    cell = group.vectors @ Atoms(cell=CELLS[group.lattice_type]).cell.array
    return Atoms(f"C{len(general.translations)}O{len(general.translations)}", cell=cell, pbc=True,
                 scaled_positions=np.concatenate(orbits))  # fmt: skip


@pytest.mark.parametrize("conventional", [False, True])
def test_general_positions_have_the_symmetry_of_the_group(conventional):
    for number in range(1, 231):
        atoms = general_crystal(number, conventional)
        dataset = spglib.get_symmetry_dataset((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), 1e-4)
        assert dataset.number == number


def test_primitive_cells_hold_one_atom_per_operation():
    for number in range(1, 231):
        assert space_group(number).positions[0].multiplicity == point_group_order(number)


@settings(deadline=None, max_examples=200)
@given(total=st.integers(0, 400), parts=st.sets(st.integers(2, 12), max_size=3))
def test_is_sum_agrees_with_enumeration(total, parts):
    found = {0}
    for number in range(1, total + 1):
        if any(number - part in found for part in parts):
            found.add(number)
    assert is_sum(total, tuple(parts)) == (total in found)


def test_is_sum_is_fast_for_large_numbers():
    assert is_sum(10**12, (6, 10)) and not is_sum(10**12 + 1, (6, 10))


@settings(deadline=None, max_examples=40)
@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=3), number=st.integers(1, 230))
def test_holds_agrees_with_pyxtal(counts, number):
    from pyxtal.symmetry import Group

    group = Group(number)
    in_conventional_cell = [count * group.cellsize() for count in counts]
    compatible, _ = group.check_compatible(in_conventional_cell)
    assert space_group(number).holds(counts) == compatible
    assert space_group(number, conventional=True).holds(in_conventional_cell) == compatible


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=4), number=st.integers(1, 230), seed=st.integers(0, 2**32)
)
def test_drawn_sites_have_the_contents_and_occupy_fixed_positions_once(counts, number, seed):
    group = space_group(number)
    if not group.holds(counts):
        return
    sites = group.draw_sites(counts, np.random.default_rng(seed))
    placed = [0] * len(counts)
    for kind, position in sites:
        placed[kind] += position.multiplicity
    assert placed == counts
    fixed = [position.letter for _, position in sites if position.freedom == 0]
    assert len(fixed) == len(set(fixed))


def test_rock_salt_contents_fit_into_225_only_as_primitive_contents():
    assert space_group(225).holds([1, 1])
    assert not space_group(225, conventional=True).holds([1, 1])


def test_polar_axes_and_free_axes():
    assert polar_axes(1) == (0, 1, 2)
    assert polar_axes(7) == (0, 2)
    assert polar_axes(99) == (2,)
    assert polar_axes(225) == ()
    assert free_axes(225, "a") == ()
    assert free_axes(62, "c") == (0, 2)


def test_orbit_coordinates_do_not_depend_on_the_order_of_the_points():
    position = wyckoff_position(136, "f", conventional=True)
    points = position.rotations @ np.array([0.305, 0.0, 0.0]) + position.translations
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        assert orbit_coordinates(136, "f", points[order] + [1, 0, -2]) == (pytest.approx(0.305),)
    assert orbit_coordinates(136, "a", points) is None
