import pytest

from hybridcsp import Problem
from hybridcsp.errors import InputError
from hybridcsp.utils.formulas import explain_formula, normalise_formula


@pytest.mark.parametrize("text", ["TiO₂", "Ti O2", " TiO2 ", "Ti\u2009O₂", "ＴｉＯ２"])
def test_spaces_and_subscripts_are_normalised(text):
    assert Problem(text).formula == "TiO2"


def test_spaces_between_symbols_that_could_merge_stay():
    assert normalise_formula("C o") == "C o"


@pytest.mark.parametrize(
    ("text", "suggested"),
    [
        ("tio2", ["TiO2"]),
        ("TIO2", ["TiO2"]),
        ("Tio2", ["TiO2"]),
        ("mgsio3", ["MgSiO3"]),
        ("NACL", ["NaCl"]),
        ("co", ["CO", "Co"]),
        ("ca(oh)2", ["Ca(OH)2"]),
        ("CuSO4·5H2O", ["CuSO4(H2O)5"]),
    ],
)
def test_formula_in_wrong_case_lists_all_readings(text, suggested):
    with pytest.raises(InputError) as caught:
        Problem(text, max_atoms=100)
    for formula in suggested:
        assert f"'{formula}'" in str(caught.value)
        assert Problem(formula, max_atoms=100).composition


@pytest.mark.parametrize("text", ["Ti-O", "Ti,O", "Ti - O", "Ti O", "Mg-Si-O"])
def test_chemical_system_is_not_a_formula(text):
    with pytest.raises(InputError, match="and not a chemical system"):
        Problem(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Fe0.5O", "whole numbers of atoms"),
        ("Ti4+", "without a charge"),
        ("Qz2", "'Qz' is not an element"),
        ("V-Qz", "'Qz' is not an element; a chemical system"),
        ("V2-O", "'V2' is not an element; a chemical system"),
        ("cu-AU", "did you mean 'Cu-Au'"),
        ("hello", "a chemical formula such as"),
        ("", "a chemical formula such as"),
        ("tio" * 1000, "a formula of at most 250 characters"),
    ],
)
def test_invalid_formula_is_explained(text, said):
    with pytest.raises(InputError, match=said):
        Problem(text)


def test_number_of_readings_is_bounded():
    assert len(explain_formula("cosn" * 15)) < 1000
