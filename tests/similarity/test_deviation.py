"""Displacements and strains between a crystal and its reconstruction."""

import numpy as np
import pytest
from ase.build import bulk
from scipy.spatial.transform import Rotation

from hybridcsp.similarity.deviation import MatchLimits, deviation

LIMITS = MatchLimits(stol=0.3, ltol=0.2, angle_tol=5.0)


def crystal():
    atoms = bulk("NaCl", "rocksalt", 5.6).repeat((2, 1, 1))
    atoms.symbols[0] = "K"
    return atoms


def described_otherwise(atoms):
    """Return the crystal rotated, moved, in another order and with other cell vectors."""
    other = atoms.copy()
    turn = Rotation.random(random_state=1).as_matrix()
    other.set_cell(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]) @ atoms.cell.array)
    other.set_cell(other.cell.array @ turn.T)
    other.set_positions(atoms.positions @ turn.T + [0.3, 0.1, 2.0])
    return other[np.random.default_rng(0).permutation(len(other))]


def test_descriptions_of_one_crystal_do_not_deviate():
    found = deviation(crystal(), described_otherwise(crystal()), LIMITS)
    assert max(found.rms, found.largest, found.strain) < 1e-6


def test_strain_of_the_cell_is_found():
    strained = described_otherwise(crystal())
    strained.set_cell(strained.cell.array @ np.diag([1.03, 1, 0.99]), scale_atoms=True)
    found = deviation(crystal(), strained, LIMITS)
    assert found.strain == pytest.approx(0.03, abs=2e-3)
    assert found.rms < 1e-6


def test_displacement_of_an_atom_is_found():
    moved = described_otherwise(crystal())
    moved.positions[2] += [0.3, 0, 0]
    found = deviation(crystal(), moved, LIMITS)
    assert found.largest == pytest.approx(0.3 * 3 / 4, rel=0.05)  # the rest follows by a quarter, as their mean is kept
    assert 0.1 < found.rms < found.largest
    assert found.strain < 1e-6


def test_other_crystals_have_no_deviation():
    other = crystal()
    other.symbols[1] = "Br"
    assert deviation(crystal(), other, LIMITS) is None
    assert deviation(crystal(), crystal().repeat((1, 1, 2)), LIMITS) is None
    assert deviation(bulk("NaCl", "rocksalt", 5.6), bulk("NaCl", "cesiumchloride", 3.5), LIMITS) is None
