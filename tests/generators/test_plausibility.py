"""What every generator is held to."""

from ase.build import bulk
from crystals import rutile

from hybridcsp import Problem
from hybridcsp.generators.plausibility import is_plausible, is_too_close


def scaled(atoms, volume):
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array * volume ** (1 / 3), scale_atoms=True)
    return atoms


def test_crystals_as_they_are_pass_and_crushed_or_blown_up_ones_do_not():
    assert is_plausible(rutile())
    assert not is_plausible(scaled(rutile(), 0.1))
    assert is_too_close(scaled(rutile(), 0.1))
    assert not is_plausible(scaled(rutile(), 4.0))
    assert not is_too_close(scaled(rutile(), 4.0))


def test_what_is_dense_is_plausible_under_pressure():
    copper = bulk("Cu")
    free, pressed = Problem("Cu", formula_units=1), Problem("Cu", formula_units=1, pressure_gpa=300.0)
    between = (free.volume_bounds[0] + pressed.volume_bounds[0]) / 2
    dense = scaled(copper, between / copper.get_volume())
    assert not is_too_close(dense)
    assert is_plausible(dense, 300.0)
    assert not is_plausible(dense)
