import json

import numpy as np
import pytest
from ase.build import bulk

from hybridcsp.errors import InputError
from hybridcsp.problem import Problem


def test_formula_units_within_the_atom_limits_are_searched():
    assert Problem("TiO2", formula_units=(1, 4), max_atoms=12).units == (1, 2, 3, 4)
    assert Problem("TiO2", formula_units=(1, 9), min_atoms=6, max_atoms=12).units == (2, 3, 4)


def test_one_number_of_formula_units_is_exactly_that_primitive_cell():
    problem = Problem("Ti4O8", formula_units=1)
    assert problem.units == (1,)
    assert problem.contents(1) == {"Ti": 4, "O": 8}


def test_formulas_with_brackets_are_understood():
    assert Problem("Ca(OH)2").composition == {"Ca": 1, "O": 2, "H": 2}


def test_contents_are_recognised_by_atomic_numbers():
    problem = Problem("TiO2")
    assert problem.units_of([22, 8, 8, 8, 8, 22]) == 2
    assert problem.units_of([22, 8]) is None
    assert problem.units_of([22, 8, 8, 1]) is None
    assert problem.units_of([]) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"formula": "Ti0"}, "Ti occurs 0 times"),
        ({"formula": "Tx2"}, "'Tx' is not an element"),
        ({"formula": ""}, "a chemical formula such as"),
        ({"formula": "TiO2!"}, "a chemical formula such as"),
        ({"formula": "TiO2", "formula_units": (4, 1)}, "two in order"),
        ({"formula": "TiO2", "formula_units": 0}, "a whole number from 1"),
        ({"formula": "TiO2", "max_atoms": 2}, "TiO2 has 3 atoms"),
        ({"formula": "TiO2", "pressure_gpa": float("nan")}, "finite"),
        ({"formula": "TiO2", "volume_per_atom": (20, 10)}, "the smaller first"),
        ({"formula": "TiO2", "length_bounds": (-1, 10)}, "two positive numbers"),
        ({"formula": "TiO2", "angle_bounds": (60, 200)}, "below 180"),
        ({"formula": "TiO2", "cell": (4, 4, 4, 90, 90)}, "six positive numbers"),
        ({"formula": "TiO2", "cell": (4, 4, 4, 10, 90, 170)}, "span a volume"),
        ({"formula": "TiO2", "cell": (4, 4, 4, 90, 90, 90)}, "one number of formula units"),
        ({"formula": "TiO2", "spacegroups": (0,)}, "1 to 230"),
        ({"formula": "TiO2", "min_distances": {"Ti-Q": 1}}, "A and B among Ti, O"),
        ({"formula": "TiO2", "min_distances": {"Ti-O": -1}}, "from 0"),
        ({"formula": "TiO2", "initial_magmoms": {"Fe": 2}}, "an element of TiO2"),
        ({"formula": "TiO2", "distance_fraction": 3}, "at most 1.2"),
        ({"formula": "TiO2", "dimension": 2}, "only 3"),
        ({"formula": "TiO2", "dimension": 5}, "0, 1, 2 or 3"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(options, said):
    with pytest.raises(InputError, match=said):
        Problem(**options)


@pytest.mark.parametrize(
    ("formula", "crystal"),
    [
        ("Cu", bulk("Cu")),
        ("NaCl", bulk("NaCl", "rocksalt", a=5.64)),
        ("MgO", bulk("MgO", "rocksalt", a=4.21)),
        ("GaAs", bulk("GaAs", "zincblende", a=5.65)),
        ("CsCl", bulk("CsCl", "cesiumchloride", a=4.12)),
    ],
)
def test_volumes_of_real_crystals_are_expected_within_a_quarter_and_never_out_of_bounds(formula, crystal):
    problem = Problem(formula)
    volume = crystal.get_volume() / len(crystal)
    assert problem.expected_volume_per_atom == pytest.approx(volume, rel=0.25)
    low, high = problem.volume_bounds
    assert low < volume < high


def test_pressure_makes_the_expected_volume_smaller():
    ambient, compressed = Problem("MgO"), Problem("MgO", pressure_gpa=100)
    # MgO's measured compression at 100 GPa is V/V0 = 0.72 (Speziale et al., doi:10.1029/2000JB900318).
    assert compressed.expected_volume_per_atom / ambient.expected_volume_per_atom == pytest.approx(0.72, abs=0.08)
    assert compressed.pressure == pytest.approx(0.624, abs=1e-3)  # eV/Å³


def test_elements_without_a_fitted_volume_still_have_an_estimate():
    assert 5 < Problem("Rn").expected_volume_per_atom < 100


def test_a_fixed_cell_fixes_the_volume():
    problem = Problem("TiO2", formula_units=2, cell=(4.6, 4.6, 2.96, 90, 90, 90))
    assert problem.expected_volume_per_atom == pytest.approx(4.6 * 4.6 * 2.96 / 6)


def test_minimum_distances_are_a_fraction_of_the_radii_unless_given():
    problem = Problem("TiO2", min_distances={"O-Ti": 1.7})
    assert problem.min_distance("Ti", "O") == problem.min_distance("O", "Ti") == 1.7
    assert problem.min_distance("O", "O") == pytest.approx(0.6 * 2 * 0.66)
    assert problem.distance_table[22, 8] == problem.distance_table[8, 22] == 1.7
    assert np.count_nonzero(problem.distance_table) == 4


def test_initial_moments_and_charges_are_put_on_atoms_that_bring_none():
    problem = Problem("FeO", initial_magmoms={"Fe": 4.0}, initial_charges={"O": -2.0})
    dressed = problem.dress(bulk("FeO", "rocksalt", a=4.3))
    assert dressed.get_initial_magnetic_moments().tolist() == [4.0, 0.0]
    assert dressed.get_initial_charges().tolist() == [0.0, -2.0]

    own = bulk("FeO", "rocksalt", a=4.3)
    own.set_initial_magnetic_moments([-3.0, 0.5])
    assert problem.dress(own).get_initial_magnetic_moments().tolist() == [-3.0, 0.5]


def test_its_description_is_plain_json_and_makes_it_again():
    problem = Problem("TiO2", formula_units=(2, 3), min_distances={"Ti-O": 1.7}, spacegroups=(136, 141))
    assert Problem(**json.loads(json.dumps(problem.describe()))) == problem
