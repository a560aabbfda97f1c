"""Crystals as fractional coordinates and log-lattice."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from crystals import random_crystal, rutile
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.linalg import logm, sqrtm
from scipy.stats import special_ortho_group

from hybridcsp.errors import InputError
from hybridcsp.similarity import STARTS, same_structure
from hybridcsp.structure.lattice import canonical_cell, cell_of, decode_lattice_point, encode_lattice_point, log_metric

crystals = st.builds(
    lambda symbols, seed: random_crystal(symbols, 15.0, np.random.default_rng(seed)),
    st.sampled_from(["Ti2O4", "NaCl", "Mg3Al2Si3O12", "C"]),
    st.integers(0, 2**32 - 1),
)


def distances(atoms: Atoms) -> np.ndarray:
    return np.sort(atoms.get_all_distances(mic=True), axis=None)


@given(crystals)
def test_decoding_restores_the_crystal_up_to_a_rotation(atoms):
    back = decode_lattice_point(encode_lattice_point(atoms))
    assert (back.numbers == atoms.numbers).all()
    np.testing.assert_allclose(back.cell.array @ back.cell.array.T, atoms.cell.array @ atoms.cell.array.T, rtol=1e-9)
    hand = np.sign(np.linalg.det(atoms.cell.array))
    apart = back.get_scaled_positions() - hand * atoms.get_scaled_positions()
    np.testing.assert_allclose(apart - np.round(apart), 0, atol=1e-9)
    np.testing.assert_allclose(distances(back), distances(atoms), atol=1e-6)


@given(crystals, st.integers(0, 2**32 - 1))
def test_encoding_is_invariant_under_rotation(atoms, seed):
    rotated = atoms.copy()
    rotation = special_ortho_group.rvs(3, random_state=seed)
    rotated.set_cell(atoms.cell.array @ rotation.T)
    rotated.positions = atoms.positions @ rotation.T
    first, second = encode_lattice_point(atoms), encode_lattice_point(rotated)
    np.testing.assert_allclose(second.lattice, first.lattice, atol=1e-9)
    apart = second.positions - first.positions
    np.testing.assert_allclose(apart - np.round(apart), 0, atol=1e-9)


@given(crystals, st.integers(0, 2**32 - 1))
def test_translation_and_permutation_change_only_positions(atoms, seed):
    rng = np.random.default_rng(seed)
    order, shift = rng.permutation(len(atoms)), rng.random(3)
    other = atoms[order]
    other.set_scaled_positions(other.get_scaled_positions() + shift)
    first, second = encode_lattice_point(atoms), encode_lattice_point(other)
    np.testing.assert_allclose(second.lattice, first.lattice, atol=1e-12)
    hand = np.sign(np.linalg.det(atoms.cell.array))
    apart = second.positions - first.positions[order] - hand * shift
    np.testing.assert_allclose(apart - np.round(apart), 0, atol=1e-9)


@given(crystals, st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_canonical_cell_is_independent_of_the_choice_of_the_cell(atoms, seed):
    rng = np.random.default_rng(seed)
    change = np.eye(3, dtype=int)
    for _ in range(3):  # shears and exchanges of axes have determinants of ±1
        i, j = rng.choice(3, 2, replace=False)
        change[i] += int(rng.integers(-1, 2)) * change[j]
        change = change[rng.permutation(3)]
    other = Atoms(atoms.numbers, positions=atoms.positions, cell=change @ atoms.cell.array, pbc=True)
    first, second = canonical_cell(atoms), canonical_cell(other)
    # Niggli's conditions are inequalities: at their edges rounding decides, and random cells are not there.
    lengths = np.sort(first.cell.lengths())
    assume(np.diff(lengths).min() > 1e-3 and np.abs(first.cell.angles() - 90).min() > 1e-3)
    np.testing.assert_allclose(encode_lattice_point(second).lattice, encode_lattice_point(first).lattice, atol=1e-6)
    assert np.linalg.det(second.cell.array) > 0
    np.testing.assert_allclose(distances(second), distances(first), atol=1e-6)


def test_canonical_cell_preserves_the_crystal():
    atoms = rutile()
    atoms.set_cell(np.array([[1, 0, 0], [2, 1, 0], [0, -1, -1]]) @ atoms.cell.array)
    assert same_structure(canonical_cell(atoms), rutile(), STARTS)
    assert canonical_cell(atoms).cell.lengths() == pytest.approx([2.96, 4.6, 4.6])


def test_log_metric_agrees_with_scipy():
    cell = bulk("NaCl", "rocksalt", a=5.64).cell.array
    metric = cell @ cell.T
    k = log_metric(cell)
    matrix = np.array([[k[0], k[5], k[4]], [k[5], k[1], k[3]], [k[4], k[3], k[2]]])
    np.testing.assert_allclose(matrix, 0.5 * logm(metric), atol=1e-12)
    np.testing.assert_allclose(cell_of(k), sqrtm(metric), atol=1e-12)


def test_expected_volume_is_subtracted_from_the_trace():
    small, large = bulk("NaCl", "rocksalt", a=5.64), bulk("NaCl", "rocksalt", a=5.64) * (2, 2, 2)
    trace = [encode_lattice_point(atoms).lattice[:3].sum() for atoms in (small, large)]
    assert trace[0] == pytest.approx(trace[1])
    assert abs(trace[0]) < 0.5  # the logarithm of the volume over the expected one


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6))
@example([-2.0, 2.0, 3.0, 3.0, 3.0, 3.0])  # a flat cell: lengths of 0.01 Å and of 500 Å
def test_any_six_components_make_a_cell(components):
    cell = cell_of(np.array(components))
    assert np.linalg.det(cell) > 0
    np.testing.assert_allclose(log_metric(cell), components, atol=1e-7)


@pytest.mark.parametrize("atoms", [Atoms(), Atoms("Cu", cell=[1, 1, 0], pbc=True)])
def test_invalid_crystals_are_refused(atoms):
    with pytest.raises(InputError, match="a cell that spans a volume"):
        encode_lattice_point(atoms)
