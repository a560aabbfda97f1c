"""Chemical systems: their compositions, the problem of each, and mistakes in them."""

import math

import pytest
from ase import Atoms
from ase.formula import Formula
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp import System
from hybridcsp.errors import InputError


@pytest.mark.parametrize("text", ["V-O", "V,O", "V O", " V - O "])
def test_a_system_is_written_as_its_elements_are(text):
    assert System(text).elements == ("V", "O")


def test_the_grid_has_every_reduced_composition_up_to_a_number_of_atoms_in_the_order_of_the_fractions():
    assert System("V-O", composition_grid=3).compositions == ("V", "V2O", "VO", "VO2", "O")
    ternary = System("Mg-Mn-O", composition_grid=3).compositions
    assert set(ternary) == {
        *("Mg", "Mn", "O", "MgMn", "MgO", "MnO", "MgMnO"),
        *("Mg2Mn", "MgMn2", "Mg2O", "MgO2", "Mn2O", "MnO2"),
    }


@settings(deadline=None)
@given(st.integers(2, 4), st.integers(2, 7))
def test_compositions_of_a_grid_are_reduced_different_and_hold_the_elements(elements, atoms):
    symbols = ("Mg", "Mn", "Al", "O")[:elements]
    found = System(symbols, composition_grid=atoms).compositions
    counts = [Formula(formula).count() for formula in found]
    assert len(set(found)) == len(found)
    assert set(symbols) <= set(found)
    assert all(math.gcd(*count.values()) == 1 and sum(count.values()) <= atoms for count in counts)


def test_listed_compositions_are_reduced_written_in_the_order_of_the_elements_and_joined_by_the_elements():
    assert System("V-O", compositions=("O4V2", "V2O5", "VO2")).compositions == ("V", "VO2", "V2O5", "O")


def test_charge_neutral_compositions_are_those_for_which_pymatgen_knows_oxidation_states():
    found = System("Mg-O", composition_grid=4, charge_neutral=True).compositions
    assert found == ("Mg", "MgO", "O")


def test_each_composition_is_a_problem_with_the_limits_of_the_system():
    system = System(
        "V-O",
        min_atoms=3,
        max_atoms=12,
        pressure_gpa=5,
        min_distances={"V-O": 1.5, "O-O": 2.0},
        initial_magmoms={"V": 2.0},
    )
    problem = system.problem("VO2")
    assert problem.composition == {"V": 1, "O": 2}
    assert problem.units == (1, 2, 3, 4)
    assert problem.pressure_gpa == 5
    assert dict(problem.min_distances) == {"V-O": 1.5, "O-O": 2.0}
    oxygen = system.problem("O")
    assert oxygen.units == tuple(range(3, 13))
    assert dict(oxygen.min_distances) == {"O-O": 2.0}
    assert not oxygen.initial_magmoms


def test_a_system_is_described_completely():
    system = System("V-O", composition_grid=5, max_atoms=8, min_distances={"V-O": 1.5})
    again = System(**system.describe())
    assert again.compositions == system.compositions
    assert again.describe() == system.describe()


def test_structures_belong_to_the_composition_with_their_reduced_formula():
    system = System("V-O", compositions=("VO2",))
    assert system.formula_of(Atoms("V2O4").numbers) == "VO2"
    assert system.formula_of(Atoms("O3").numbers) == "O"
    assert system.formula_of(Atoms("V4O10").numbers) == "V2O5"  # also if it is not searched
    assert system.formula_of(Atoms("VN").numbers) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"elements": "V"}, "chemical system of two elements or more"),
        ({"elements": ("V",)}, "hybridcsp search V"),
        ({"elements": ("V", "Q")}, "symbol of an element"),
        ({"elements": "V-O-V"}, "V is named twice"),
        ({"compositions": ("V2N",)}, "N is not an element of the system V-O"),
        ({"compositions": ("v2o5",)}, "did you mean"),
        ({"compositions": ("V2O5",), "max_atoms": 6}, "no whole number of its formula units of 7 atoms has 1 to 6"),
        ({"compositions": ("VO2",), "composition_grid": 4}, "cannot be combined with compositions"),
        ({"composition_grid": 13}, r"from 1 to max_atoms \(12\)"),
        ({"composition_grid": 1}, "no composition is left besides the elements"),
        ({"max_atoms": 1}, "max_atoms = 1 cannot be used: no composition is left besides the elements"),
        (
            {"min_atoms": 9, "max_atoms": 8},
            "min_atoms = 9 cannot be used: it is above the largest number",
        ),
        ({"min_atoms": 13}, "min_atoms = 13 cannot be used: it is above the largest number, max_atoms = 12"),
        ({"elements": "Cu-Ag", "charge_neutral": True}, "charge_neutral = True cannot be used: no composition is left"),
        ({"compositions": ("V", "O")}, "list compositions of several elements"),
        ({"pressure_gpa": -1}, "a pressure from 0 GPa"),
        ({"min_distances": {"V-N": 1.5}}, "among V, O"),
        ({"initial_magmoms": {"Fe": 5}}, "Fe is not an element of the system V-O"),
    ],
)
def test_mistakes_are_told_in_words(settings, message):
    with pytest.raises(InputError, match=message):
        System(**{"elements": "V-O", **settings})
