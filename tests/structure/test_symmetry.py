import numpy as np
import pytest
import spglib
from ase.build import bulk, make_supercell
from ase.spacegroup import Spacegroup
from crystals import rutile
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from scipy.spatial.transform import Rotation

from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.structure.symmetry import conventional, primitive, spacegroup, spacegroup_symbol


@given(st.integers(0, 10_000))
def test_space_groups_do_not_depend_on_orientation_or_cell(seed):
    rng = np.random.default_rng(seed)
    atoms = rutile()
    atoms.set_cell(atoms.cell.array @ Rotation.random(random_state=seed).as_matrix().T, scale_atoms=True)
    shear = np.eye(3, dtype=int)
    shear[0, 1], shear[2, 0] = rng.integers(-2, 3, 2)
    assert spacegroup(make_supercell(atoms, shear)) == 136


def test_primitive_and_conventional_cells_agree_with_spglib():
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    assert len(primitive(atoms)) == 2
    assert len(conventional(primitive(atoms))) == 8
    cell, _, _ = spglib.standardize_cell((atoms.cell, atoms.get_scaled_positions(), atoms.numbers), to_primitive=True)
    assert np.allclose(primitive(atoms).cell.array, cell)
    assert StructureMatcher().fit(to_pymatgen(atoms), to_pymatgen(primitive(atoms)))


def test_primitive_cell_distinguishes_atoms_by_magnetic_moment():
    atoms = bulk("Fe", cubic=True)
    atoms.set_initial_magnetic_moments([2.0, -2.0])
    assert len(primitive(atoms)) == 2
    assert sorted(primitive(atoms).get_initial_magnetic_moments()) == [-2.0, 2.0]
    atoms.set_initial_magnetic_moments([2.0, 2.0])
    assert primitive(atoms).get_initial_magnetic_moments().tolist() == [2.0]


def test_spacegroup_symbols_agree_with_the_international_tables():
    """All 230 are compared with those that ASE carries, from the International Tables."""
    written = [spacegroup_symbol(number) for number in range(1, 231)]
    assert [symbol.replace("_", "") for symbol in written] == [
        Spacegroup(number).symbol.replace(" ", "") for number in range(1, 231)
    ]
    assert [spacegroup_symbol(number) for number in (12, 14, 19, 227)] == ["C2/m", "P2_1/c", "P2_12_12_1", "Fd-3m"]
    with pytest.raises(ValueError, match="from 1 to 230"):
        spacegroup_symbol(231)
