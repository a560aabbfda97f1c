import numpy as np
import pytest
from ase import Atoms
from ase.build import make_supercell
from ase.neighborlist import neighbor_list
from crystals import rutile
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.structure.geometry import nearest_distances, neighbours, niggli_parameters
from hybridcsp.structure.validity import shortest_violation


def distances(value: float) -> np.ndarray:
    return np.full((119, 119), value)


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
def test_neighbours_agree_with_ase(atoms, cutoff):
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


def test_distances_computed_in_batches_equal_those_computed_at_once(monkeypatch):
    atoms = rutile().repeat(2)
    together = nearest_distances(atoms, 4.0), neighbours(atoms, 4.0)
    monkeypatch.setattr("hybridcsp.structure.geometry._MAX_VECTORS", 1000)
    assert np.array_equal(nearest_distances(atoms, 4.0), together[0])
    assert sorted(neighbours(atoms, 4.0)[3]) == sorted(together[1][3])


def test_niggli_parameters_agree_with_pymatgen():
    skewed = make_supercell(rutile(), [[1, 3, 0], [0, 1, 2], [0, 0, 1]])
    reduced = to_pymatgen(rutile()).lattice.get_niggli_reduced_lattice()
    assert np.allclose(sorted(niggli_parameters(skewed)[:3]), sorted(reduced.abc), atol=1e-4)
