"""Quantities are checked against the shapes of ASE's own list."""

import numpy as np
import pytest
from ase.outputs import all_outputs

from hybridcsp.relaxation.properties import SHAPES, PropertyError, real_array, real_number


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_agree_with_ase(name):
    expected = tuple("n" if part == "natoms" else part for part in all_outputs[name].shapespec)
    assert SHAPES[name][0] == expected


@pytest.mark.parametrize("value", [-1.5, np.float32(-1.5), np.array(-1.5), [-1.5], np.array([[-1.5]])])
def test_an_array_of_one_number_is_a_number(value):
    found = real_number("energy", value, 2)
    assert type(found) is float
    assert found == -1.5


def test_a_number_beyond_double_precision_is_not_finite():
    with pytest.raises(PropertyError, match="energy is not finite"):
        real_number("energy", np.longdouble("1e400"), 2)


def test_forces_of_three_atoms_are_not_a_stress():
    forces = np.arange(9.0).reshape(3, 3)
    np.testing.assert_array_equal(real_array("forces", forces, 3), forces)


def test_a_stress_matrix_becomes_its_voigt_form():
    matrix = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])
    np.testing.assert_array_equal(real_array("stress", matrix, 1), [1, 2, 3, 4, 5, 6])


def test_result_is_a_copy():
    forces = np.zeros((2, 3))
    real_array("forces", forces, 2)[:] = 1
    assert not forces.any()


@pytest.mark.parametrize("energy", [-1e12, 3e7])
def test_impossible_energy_is_refused(energy):
    with pytest.raises(PropertyError, match="eV per atom, expected less than 1e"):
        real_number("energy", energy, 2)
    assert real_number("energy", -1.5e6, 2) == -1.5e6  # all electrons of two uranium atoms
