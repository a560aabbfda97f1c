"""Soft mutation: modes of the spring model, for any element."""

import numpy as np
import pytest
from ase.build import bulk
from ase.data import chemical_symbols
from ase.geometry import get_distances
from crystals import random_crystal, rutile

from hybridcsp.core.problem import Problem
from hybridcsp.operators import CALCULATOR_SOFT_MUTATION
from hybridcsp.operators.soft_mutation import (
    CalculatorSoftMutation,
    SoftMutation,
    bonds,
    spring_hessian,
    spring_modes,
)

TIO2 = Problem("TiO2", formula_units=2)


def spring_energy(atoms, springs, positions):
    """Of the springs that were found at the parent, stretched to other positions."""
    first, second, vectors, lengths, hardness = springs
    moved = vectors + (positions - atoms.positions)[second] - (positions - atoms.positions)[first]
    return 0.25 * (hardness * (np.linalg.norm(moved, axis=1) - lengths) ** 2).sum()  # every spring is there twice


def finite_difference_hessian(atoms, step=1e-3):
    springs, size = bonds(atoms), 3 * len(atoms)
    result = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                moves = np.zeros(size)
                moves[i] += a * step
                moves[j] += b * step
                moved = atoms.positions + moves.reshape(-1, 3)
                result[i, j] += a * b * spring_energy(atoms, springs, moved) / (4 * step**2)
    return result


@pytest.mark.parametrize("atoms", [rutile(u=0.29), random_crystal("EuYbO3", 16, np.random.default_rng(3))])
def test_hessian_is_the_second_derivative_of_the_model_energy(atoms):
    expected = finite_difference_hessian(atoms)
    assert spring_hessian(atoms) == pytest.approx(expected, abs=2e-4 * np.abs(expected).max())
    values = np.linalg.eigvalsh(expected)
    modes = spring_modes(atoms)
    assert sum(space.shape[1] for space in modes) == 3 * len(atoms) - 3
    found = [float(np.trace(space.T @ expected @ space)) / space.shape[1] for space in modes]
    assert found == sorted(found)
    # every mode is an eigenvector of the energy's own Hessian, and together they are all but three
    for space, value in zip(modes, found, strict=True):
        assert np.abs(expected @ space - value * space).max() < 1e-3 * values[-1]
    each = np.sort(np.concatenate([[value] * space.shape[1] for space, value in zip(modes, found, strict=True)]))
    assert np.concatenate([np.zeros(3), each]) == pytest.approx(values, abs=1e-3 * values[-1])


def test_modes_exclude_uniform_translations():
    for space in spring_modes(rutile()):
        assert np.abs(space.reshape(6, 3, -1).sum(axis=0)).max() < 1e-9


def test_degenerate_directions_form_one_mode():
    """The three optical modes of rock salt."""
    assert [space.shape[1] for space in spring_modes(bulk("NaCl", "rocksalt", 5.6))] == [3]


def test_children_move_along_their_mode_and_successive_ones_along_successive_modes():
    parent, rng = rutile(), np.random.default_rng(0)
    modes = spring_modes(parent)
    for k in (0, 1, 2, len(modes) + 1):
        child = SoftMutation(amplitude=(0.1, 0.2)).following(k)([parent], TIO2, rng)
        apart = child.get_scaled_positions() - parent.get_scaled_positions()
        moves = ((apart - np.rint(apart)) @ parent.cell.array).ravel()
        space = modes[k % len(modes)]
        assert np.linalg.norm(space.T @ moves) == pytest.approx(np.linalg.norm(moves), rel=1e-6)
        length = (parent.get_volume() / 6) ** (1 / 3)
        assert 0.1 * length <= np.linalg.norm(moves.reshape(-1, 3), axis=1).max() <= 0.2 * length


def test_softest_mode_has_the_smallest_energy():
    """Same displacement, less energy than along random directions, in the model that it comes from."""
    parent, rng = rutile(), np.random.default_rng(0)
    springs = bonds(parent)
    soft = spring_modes(parent)[0][:, 0].reshape(-1, 3)

    def cost(direction):
        return spring_energy(parent, springs, parent.positions + 0.1 * direction / np.linalg.norm(direction))

    others = rng.normal(size=(20, 6, 3))
    assert cost(soft) < 0.5 * min(cost(other - other.mean(axis=0)) for other in others)


@pytest.mark.parametrize("symbol", chemical_symbols[1:97])
def test_all_elements_have_parameters(symbol):
    atoms = bulk("NaCl", "rocksalt", 5.6)
    atoms.symbols = [symbol, "Er"]
    matrix = spring_hessian(atoms)
    assert np.isfinite(matrix).all()
    assert np.abs(matrix).max() > 0


def test_one_atom_has_no_modes():
    assert SoftMutation()([bulk("Cu")], Problem("Cu", formula_units=(1, 2)), np.random.default_rng(0)) is None


def test_calculator_modes_are_left_to_the_job():
    assert CALCULATOR_SOFT_MUTATION.operator.level == "soft"
    child = CalculatorSoftMutation().following(3)([rutile()], TIO2, np.random.default_rng(0))
    assert get_distances(child.positions, rutile().positions, cell=child.cell, pbc=True)[1].min(axis=1).max() < 1e-9
