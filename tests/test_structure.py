import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.neighborlist import neighbor_list
from ase.spacegroup import Spacegroup
from crystals import rutile
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from scipy.spatial.transform import Rotation

from hybridcsp.structure.conversion import from_pymatgen, to_pymatgen
from hybridcsp.structure.geometry import nearest_distances, neighbours, niggli_parameters
from hybridcsp.structure.symmetry import conventional, primitive, spacegroup, spacegroup_symbol
from hybridcsp.structure.validity import is_finite_crystal, shortest_violation


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


@st.composite
def crystals(draw):
    """Up to six atoms in and around cells of any shape, from flat and thin to sheared many times over."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_atoms = draw(st.integers(1, 6))
    shear = np.eye(3) + np.triu([[draw(st.integers(-4, 4)) for _ in range(3)] for _ in range(3)], 1)
    lengths = [draw(st.floats(0.4, 2.5)) for _ in range(3)]
    cell = shear @ np.diag(lengths) @ (np.eye(3) + rng.uniform(-0.2, 0.2, (3, 3)))
    cell *= (n_atoms * draw(st.floats(4, 30)) / abs(np.linalg.det(cell))) ** (1 / 3)
    scaled = rng.uniform(-2, 3, (n_atoms, 3))
    return Atoms(rng.choice([6, 8, 22], n_atoms), cell=cell, scaled_positions=scaled, pbc=True)


@settings(max_examples=40, deadline=None)  # ASE takes a second for some
@given(crystals(), st.floats(1.0, 4.5))
def test_neighbours_are_those_that_ase_finds(atoms, cutoff):
    def in_order(first, second, vectors, lengths):
        rows = np.column_stack([first, second, vectors, lengths])
        return rows[np.lexsort(np.round(rows, 5).T)]

    ours = in_order(*neighbours(atoms, cutoff))
    assert np.allclose(ours, in_order(*neighbor_list("ijDd", atoms, cutoff)), atol=1e-9)

    nearest = np.full((len(atoms), len(atoms)), np.inf)
    np.minimum.at(nearest, tuple(ours[:, :2].T.astype(int)), ours[:, 5])
    found = nearest_distances(atoms, cutoff)
    assert np.allclose(np.where(found < cutoff, found, np.inf), nearest)
    assert shortest_violation(atoms, distances(cutoff)) == (
        None if np.isinf(nearest).all() else (*divmod(int(found.argmin()), len(atoms)), pytest.approx(nearest.min()))
    )


def test_many_atoms_are_looked_at_in_parts(monkeypatch):
    atoms = rutile().repeat(2)
    together = nearest_distances(atoms, 4.0), neighbours(atoms, 4.0)
    monkeypatch.setattr("hybridcsp.structure.geometry._MOST_VECTORS", 1000)
    assert np.array_equal(nearest_distances(atoms, 4.0), together[0])
    assert sorted(neighbours(atoms, 4.0)[3]) == sorted(together[1][3])


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


def test_space_groups_have_the_short_symbols_of_their_standard_settings():
    """All 230 are compared with those that ASE carries, from the International Tables."""
    written = [spacegroup_symbol(number) for number in range(1, 231)]
    assert [symbol.replace("_", "") for symbol in written] == [
        Spacegroup(number).symbol.replace(" ", "") for number in range(1, 231)
    ]
    assert [spacegroup_symbol(number) for number in (12, 14, 19, 227)] == ["C2/m", "P2_1/c", "P2_12_12_1", "Fd-3m"]
    with pytest.raises(ValueError, match="from 1 to 230"):
        spacegroup_symbol(231)
