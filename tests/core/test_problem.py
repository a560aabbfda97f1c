import json

import numpy as np
import pytest
from ase.build import bulk
from ase.data import chemical_symbols

from hybridcsp.core.problem import Problem
from hybridcsp.errors import InputError


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
        ({"formula": "Ti0"}, "it contains no atom of Ti"),
        ({"formula": "Tx2"}, "'Tx' is not an element"),
        ({"formula": ""}, "a chemical formula such as"),
        ({"formula": "TiO2!"}, "a chemical formula such as"),
        ({"formula": "TiO2", "formula_units": (4, 1)}, "two of them, the smaller first"),
        ({"formula": "TiO2", "formula_units": 0}, "a whole number from 1"),
        ({"formula": "TiO2", "formula_units": True}, "a whole number from 1"),
        ({"formula": "TiO2", "formula_units": (1, 2.5)}, "two of them, the smaller first"),
        ({"formula": "TiO2", "formula_units": (1, 2, 3)}, "two of them, the smaller first"),
        ({"formula": "TiO2", "formula_units": "1-4"}, "two of them, the smaller first"),
        ({"formula": 22}, "a chemical formula as text"),
        ({"formula": "(" * 5000 + "C" + ")" * 5000}, "at most 250 characters"),
        ({"formula": "(" * 100 + "C" + ")" * 100}, "at most 20 brackets"),
        ({"formula": "TiO2", "max_atoms": 2}, "TiO2 has 3 atoms"),
        ({"formula": "TiO2", "formula_units": 7}, r"7 formula units are 21 atoms: add --max-atoms 21 \(max_atoms=21\)"),
        ({"formula": "TiO2", "min_atoms": 18, "formula_units": 5}, r"--min-atoms to 15 .*--formula-units 6"),
        ({"formula": "TiO2", "min_atoms": 7, "max_atoms": 8}, "no multiple of which is from 7 to 8: add --max-atoms 9"),
        ({"formula": "C1000000000"}, "at most 1000000 atoms"),
        ({"formula": "Ti99999999O2", "max_atoms": 10**9}, "at most 1000000, the largest size"),
        ({"formula": "C", "formula_units": (1, 10**9), "max_atoms": 10**6}, "at most 10000 numbers of formula units"),
        ({"formula": "TiO2", "max_atoms": "20"}, "a whole number"),
        ({"formula": "TiO2", "max_atoms": float("inf")}, "a whole number"),
        ({"formula": "TiO2", "min_atoms": True}, "a whole number"),
        ({"formula": "TiO2", "pressure_gpa": "50"}, "a finite number of GPa"),
        ({"formula": "TiO2", "pressure_gpa": None}, "a finite number of GPa"),
        ({"formula": "TiO2", "pressure_gpa": -3}, "under tension"),
        ({"formula": "TiO2", "pressure_gpa": 1e6}, "at most 10000"),
        ({"formula": "TiO2", "volume_per_atom": 12}, "two positive numbers"),
        ({"formula": "TiO2", "volume_per_atom": (float("nan"), 20)}, "two positive numbers"),
        ({"formula": "TiO2", "angle_bounds": (20, 50)}, "60 to 120"),
        ({"formula": "TiO2", "spacegroups": "136"}, "1 to 230"),
        ({"formula": "TiO2", "spacegroups": 136}, "1 to 230"),
        ({"formula": "TiO2", "spacegroups": (True,)}, "1 to 230"),
        ({"formula": "TiO2", "min_distances": [1.5]}, "a mapping of names to numbers"),
        ({"formula": "TiO2", "min_distances": {"Ti-O": "1.7"}}, "a distance in Å"),
        ({"formula": "TiO2", "min_distances": {"Ti-O": 1.7, "O-Ti": 1.8}}, "one distance for"),
        ({"formula": "TiO2", "distance_fraction": 0}, "above 0"),
        ({"formula": "TiO2", "initial_charges": {"O": float("inf")}}, "a finite number"),
        ({"formula": "TiO2", "formula_units": 1, "cell": (4, 4, 4, 90, 90, 190)}, "below 180"),
        ({"formula": "TiO2", "pressure_gpa": float("nan")}, "finite"),
        ({"formula": "TiO2", "volume_per_atom": (20, 10)}, "the smaller first"),
        ({"formula": "TiO2", "length_bounds": (-1, 10)}, "two positive numbers"),
        ({"formula": "TiO2", "angle_bounds": (60, 200)}, "below 180"),
        ({"formula": "TiO2", "cell": (4, 4, 4, 90, 90)}, "six positive numbers"),
        ({"formula": "TiO2", "cell": (4, 4, 4, 10, 90, 170)}, "has no volume"),
        ({"formula": "TiO2", "cell": (4, 4, 4, 90, 90, 90)}, "a single number of formula units"),
        ({"formula": "TiO2", "spacegroups": (0,)}, "1 to 230"),
        ({"formula": "TiO2", "min_distances": {"Ti-Q": 1}}, "A and B among Ti, O"),
        ({"formula": "TiO2", "min_distances": {"Ti-O": -1}}, "from 0"),
        ({"formula": "TiO2", "initial_magmoms": {"Fe": 2}}, "an element of TiO2"),
        ({"formula": "TiO2", "distance_fraction": 3}, "at most 1.2"),
    ],
)
def test_invalid_parameters_are_refused_with_the_values_that_are_allowed(options, said):
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


def test_pressure_in_the_units_of_energies():
    assert Problem("MgO", pressure_gpa=100).pressure == pytest.approx(0.624, abs=1e-3)  # eV/Å³


def test_a_long_range_of_formula_units_costs_nothing():
    assert Problem("CuAl", formula_units=(1, 10**9)).units == tuple(range(1, 11))
    assert Problem("CuAl", formula_units=(1, 10**9)).units_in_words == "1 to 10"


def test_numbers_of_numpy_are_numbers():
    problem = Problem("TiO2", formula_units=np.array([1, 2]), max_atoms=np.int64(6), pressure_gpa=np.float64(5))
    assert Problem(**json.loads(json.dumps(problem.describe()))) == problem


class TestRoom:
    """Limits that exclude each other are refused before anything is computed; those that are met exactly are not."""

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"formula": "Al", "min_distances": {"Al-Al": 7.0}}, "min_distances.*densest packing.*are possible"),
            (
                {"formula": "Al", "distance_fraction": 1.2, "volume_per_atom": (5, 10)},
                "volume_per_atom.*too little room",
            ),
            ({"formula": "NaCl", "min_distances": {"Cl-Cl": 6.0, "Na-Cl": 1.0}}, "Cl atoms at distances"),
            (
                {"formula": "NaCl", "min_distances": {"Cl-Cl": 5, "Na-Cl": 5, "Na-Na": 5}},
                "Na and Cl atoms at distances",
            ),
            (
                {"formula": "Al", "formula_units": 1, "cell": (1.2, 1.2, 1.2, 90, 90, 90)},
                "cell.*leaves too little room",
            ),
            ({"formula": "Al", "formula_units": 1, "cell": (1.2, 5, 5, 90, 90, 90)}, "its own image are 1.20 Å apart"),
            # A long cell may have a short lattice vector that is none of its three.
            ({"formula": "Al", "formula_units": 1, "cell": (9, 9, 9, 90, 90, 5)}, "its own image are 0.79 Å apart"),
            ({"formula": "Al", "length_bounds": (0.5, 1.0)}, "length_bounds.*no cell with these lengths"),
            ({"formula": "Al", "length_bounds": (30, 40)}, "length_bounds.*the shortest is"),
        ],
    )
    def test_contradictory_limits_are_refused_with_possible_ones(self, options, said):
        with pytest.raises(InputError, match=said):
            Problem(**options)

    def test_the_densest_packing_fills_its_volume_exactly(self):
        copper = bulk("Cu")  # cubic close packing
        volume = copper.get_volume()
        distance = 3.61 / np.sqrt(2)
        assert Problem("Cu", volume_per_atom=(1, volume), min_distances={"Cu-Cu": distance})
        with pytest.raises(InputError, match="densest packing"):
            Problem("Cu", volume_per_atom=(1, 0.999 * volume), min_distances={"Cu-Cu": distance})

    @pytest.mark.parametrize("pressure", [0, 1, 30, 300, 3000])
    def test_defaults_leave_room_for_every_element_at_every_pressure(self, pressure):
        for symbol in chemical_symbols[1:97]:
            assert Problem(symbol, pressure_gpa=pressure).volume_bounds[0] > 0


def test_default_distances_shrink_under_pressure_and_those_asked_for_do_not():
    ambient, pressed = (Problem("Na", pressure_gpa=pressure) for pressure in (0, 200))
    # Na-hP4 at 200 GPa has bonds of 1.99 Å (Ma et al., doi:10.1038/nature07786).
    assert ambient.min_distance("Na", "Na") == pytest.approx(1.99, abs=0.01)
    assert pressed.min_distance("Na", "Na") == pytest.approx(1.7, abs=0.1)
    assert Problem("N", pressure_gpa=200).min_distance("N", "N") == Problem("N").min_distance("N", "N")
    assert Problem("Na", pressure_gpa=200, min_distances={"Na-Na": 1.9}).min_distance("Na", "Na") == 1.9


def test_limits_in_words():
    problem = Problem("TiO2", min_distances={"Ti-O": 1.7}, volume_per_atom=(8, 12), spacegroups=(136,))
    assert problem.limits_in_words() == "Ti-O at least 1.7 Å, 8.0 to 12.0 Å³ per atom, space group 136"


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
    dressed = problem.with_initial_moments(bulk("FeO", "rocksalt", a=4.3))
    assert dressed.get_initial_magnetic_moments().tolist() == [4.0, 0.0]
    assert dressed.get_initial_charges().tolist() == [0.0, -2.0]

    own = bulk("FeO", "rocksalt", a=4.3)
    own.set_initial_magnetic_moments([-3.0, 0.5])
    assert problem.with_initial_moments(own).get_initial_magnetic_moments().tolist() == [-3.0, 0.5]


def test_its_description_is_plain_json_and_makes_it_again():
    problem = Problem("TiO2", formula_units=(2, 3), min_distances={"Ti-O": 1.7}, spacegroups=(136, 141))
    assert Problem(**json.loads(json.dumps(problem.describe()))) == problem
