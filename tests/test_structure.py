import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk, make_supercell
from crystals import rutile
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from scipy.spatial.transform import Rotation

from hybridcsp.structure import (
    conventional,
    from_pymatgen,
    is_finite_crystal,
    niggli_parameters,
    primitive,
    shortest_violation,
    spacegroup,
    to_pymatgen,
)


def distances(value: float) -> np.ndarray:
    return np.full((119, 119), value)


def test_the_worst_pair_is_found_among_images_too():
    lattice = Atoms("Cu", cell=[2, 5, 5], pbc=True)
    assert shortest_violation(lattice, distances(2.5)) == (0, 0, pytest.approx(2.0))
    assert shortest_violation(lattice, distances(1.9)) is None


def test_pairs_are_judged_by_what_their_elements_require():
    required = distances(0.0)
    required[22, 8] = required[8, 22] = 2.0
    first, second, distance = shortest_violation(rutile(), required)
    assert {rutile().symbols[first], rutile().symbols[second]} == {"Ti", "O"}
    all_distances = rutile().get_all_distances(mic=True)
    assert distance == pytest.approx(all_distances[:2, 2:].min(), abs=1e-6)


def test_atoms_on_top_of_each_other_are_too_close():
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
def test_what_is_no_crystal_is_recognised(atoms):
    assert not is_finite_crystal(atoms)


@given(st.integers(0, 10_000))
def test_space_groups_do_not_depend_on_orientation_or_cell(seed):
    rng = np.random.default_rng(seed)
    atoms = rutile()
    atoms.set_cell(atoms.cell.array @ Rotation.random(random_state=seed).as_matrix().T, scale_atoms=True)
    shear = np.eye(3, dtype=int)
    shear[0, 1], shear[2, 0] = rng.integers(-2, 3, 2)
    assert spacegroup(make_supercell(atoms, shear)) == 136


def test_primitive_and_conventional_cells_are_spglibs():
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    assert len(primitive(atoms)) == 2
    assert len(conventional(primitive(atoms))) == 8
    cell, _, _ = spglib.standardize_cell((atoms.cell, atoms.get_scaled_positions(), atoms.numbers), to_primitive=True)
    assert np.allclose(primitive(atoms).cell.array, cell)
    assert StructureMatcher().fit(to_pymatgen(atoms), to_pymatgen(primitive(atoms)))


def test_an_antiferromagnetic_cell_is_not_folded_onto_a_smaller_one():
    atoms = bulk("Fe", cubic=True)
    atoms.set_initial_magnetic_moments([2.0, -2.0])
    assert len(primitive(atoms)) == 2
    assert sorted(primitive(atoms).get_initial_magnetic_moments()) == [-2.0, 2.0]
    atoms.set_initial_magnetic_moments([2.0, 2.0])
    assert primitive(atoms).get_initial_magnetic_moments().tolist() == [2.0]


def test_reduced_cell_parameters_are_those_of_pymatgen():
    skewed = make_supercell(rutile(), [[1, 3, 0], [0, 1, 2], [0, 0, 1]])
    reduced = to_pymatgen(rutile()).lattice.get_niggli_reduced_lattice()
    assert np.allclose(sorted(niggli_parameters(skewed)[:3]), sorted(reduced.abc), atol=1e-4)


def test_conversion_to_pymatgen_and_back_changes_nothing():
    atoms = rutile()
    again = from_pymatgen(to_pymatgen(atoms))
    assert np.allclose(again.positions, atoms.positions)
    assert np.allclose(again.cell.array, atoms.cell.array)
    assert (again.numbers == atoms.numbers).all()
