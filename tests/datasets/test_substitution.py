"""Tests of element substitution."""

import numpy as np
import pytest
from ase import Atoms
from ase.data import atomic_numbers
from ase.spacegroup import crystal
from crystals import anatase, rutile

from hybridcsp.core.volumes import expected_volume
from hybridcsp.datasets import SubstitutionLimits, Target, aflow_templates, substitute_into, substitute_similar
from hybridcsp.datasets.substitution import Substitution, similarity
from hybridcsp.errors import InputError
from hybridcsp.generators.datasets import formula_of, is_held_out
from hybridcsp.prototypes.library import TEMPLATE, as_template
from hybridcsp.similarity import STARTS, same_structure
from hybridcsp.structure.symmetry import spacegroup


def rock_salt(symbols, a):
    return crystal(symbols, [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=225, cellpar=[a, a, a, 90, 90, 90])


@pytest.fixture(scope="module")
def templates():
    structures = {
        "rutile": rutile(),
        "anatase": anatase(),
        "halite": rock_salt("NaCl", 5.64),
        "CsCl": Atoms("CsCl", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=[4.12] * 3, pbc=True),
    }
    return [as_template(name, TEMPLATE, atoms) for name, atoms in structures.items()]


def test_system_gets_every_inequivalent_assignment_once(templates):
    made = substitute_into("V-O", templates)
    found = {(atoms.info["template"], atoms.info["formula"]) for atoms in made.crystals}
    # The two elements of rock salt and of caesium chloride exchange by symmetry, those of the dioxides do not.
    assert found == {
        *((name, formula) for name in ("rutile", "anatase") for formula in ("O2V", "OV2")),
        *((name, "OV") for name in ("halite", "CsCl")),
    }
    assert len(made.crystals) == made.tried == 6
    assert [spacegroup(a) for a in made.crystals if a.info["template"] == "rutile"] == [136, 136]


def test_most_similar_elements_come_first_and_count_cuts(templates):
    made = substitute_into("V-O", templates)
    order = [atoms.info["similarity"] for atoms in made.crystals]
    assert order == sorted(order, reverse=True)
    assert made.crystals[0].info["formula"] == "O2V"
    first = substitute_into("V-O", templates, count=2)
    assert [a.info["formula"] for a in first.crystals] == [a.info["formula"] for a in made.crystals[:2]]


def test_formula_as_target_keeps_its_ratio(templates):
    made = substitute_into("SnO2", templates)
    assert {atoms.info["formula"] for atoms in made.crystals} == {"O2Sn"}
    assert len(made.crystals) == 2


def test_subsystems_are_made_on_request(templates):
    ternary = substitute_into("Mg-Mn-O", templates)
    assert not ternary.crystals
    made = substitute_into("Mg-Mn-O", templates, subsystems=True)
    assert {"MgO2", "MnO2", "Mg2Mn"} <= {formula_of(atoms) for atoms in made.crystals}


def test_template_of_the_same_elements_is_not_its_own_substitution(templates):
    made = substitute_into("Ti-O", templates)
    assert made.left_out["the template itself"] == 2
    assert "O2Ti" not in {atoms.info["formula"] for atoms in made.crystals}


def test_volume_lies_between_expectation_and_scaled_template(templates):
    halite = templates[2]
    new = tuple({"Na": atomic_numbers["Mg"], "Cl": atomic_numbers["O"]}[symbol] for symbol in symbols_of(halite))
    atoms = Substitution(halite, new).build()
    expected = expected_volume({"Mg": 1, "O": 1})
    scaled = halite.atoms.get_volume() / 2 * expected / expected_volume({"Na": 1, "Cl": 1})
    assert atoms.get_volume() / len(atoms) == pytest.approx(np.sqrt(expected * scaled))


def symbols_of(template):
    numbers = {number: symbol for symbol, number in atomic_numbers.items()}
    return [numbers[z] for z in template.elements]


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_atoms": 4}, "fewer than 1 or more than 4 atoms"),
        ({"max_edge": 4.0}, "an edge of the reduced cell above 4 Å"),
        ({"min_similarity": 0.9}, "similarity below 0.9"),
        ({"per_formula": 1}, "enough crystals of this formula"),
        ({"per_template": 1}, "enough crystals of this template"),
    ],
)
def test_limits_leave_out_crystals_with_their_reasons(templates, limits, reason):
    made = substitute_into("V-O", templates, limits=SubstitutionLimits(**limits))
    assert made.left_out[reason] > 0
    assert len(made.crystals) + made.left_out.total() == made.tried == 6


def test_duplicates_and_excluded_crystals_are_folded(templates):
    again = as_template("rutile in another cell", TEMPLATE, rutile(a=4.7, c=3.02))
    made = substitute_into("SnO2", [templates[0], again])
    assert made.left_out == {"duplicate": 1}
    made = substitute_into("SnO2", templates, exclude=made.crystals)
    assert made.left_out == {"equal to an excluded crystal": 1}
    assert [atoms.info["template"] for atoms in made.crystals] == ["anatase"]


def test_similar_elements_repeat_with_the_seed_and_respect_held_out_formulas(templates):
    limits = SubstitutionLimits(held_in=True, new_formulas=True)
    first, second = (substitute_similar(templates, 8, np.random.default_rng(5), limits=limits) for _ in range(2))
    assert [a.info for a in first.crystals] == [a.info for a in second.crystals]
    assert len(first.crystals) == 8
    known = {formula_of(template.atoms) for template in templates}
    for atoms in first.crystals:
        assert not is_held_out(formula_of(atoms))
        assert formula_of(atoms) not in known
    assert not any(same_structure(a, b, STARTS) for n, a in enumerate(first.crystals) for b in first.crystals[:n])


def test_templates_of_held_out_formulas_are_not_used(templates):
    held_out = rock_salt("KF", 5.3)
    assert is_held_out(formula_of(held_out))
    assert not any(is_held_out(formula_of(template.atoms)) for template in templates)
    library = [*templates, as_template("held out", TEMPLATE, held_out)]
    for held_in in (False, True):
        limits = SubstitutionLimits(held_in=held_in)
        drawn = substitute_similar(library, 10, np.random.default_rng(1), limits=limits)
        into = substitute_into("Na-Br", library[-1:], limits=limits)
        for made in (drawn, into):
            used = {atoms.info["template"] for atoms in made.crystals}
            assert ("held out" in used) is not held_in
            assert (made.left_out["template of a formula held out from training"] > 0) is held_in


def test_similar_elements_end_where_nothing_new_is_left(templates):
    made = substitute_similar([templates[2]], 50, np.random.default_rng(0))
    # Only sodium and chlorine are in the library: they can only exchange, which makes the same crystal.
    assert not made.crystals


def test_similarity_of_elements():
    titanium, vanadium, oxygen = (atomic_numbers[symbol] for symbol in ("Ti", "V", "O"))
    assert similarity([titanium, oxygen], [titanium, oxygen]) == 1
    assert similarity([titanium], [vanadium]) > similarity([titanium], [oxygen])


def test_aflow_prototypes_fill_a_system():
    some = [template for template in aflow_templates() if len(template.atoms) <= 4]
    made = substitute_into("Bi-Se", some)
    assert len(made.crystals) > 15
    assert all(set(atoms.get_chemical_symbols()) == {"Bi", "Se"} for atoms in made.crystals)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v-o", r"did you mean 'V-O'"),
        ("V-V", "an element is named twice"),
        ("Xx2", "TARGET|target"),
        ("Li-Na-K-Rb-Cs-Mg-Ca", "at most 6 elements"),
        (" ", "chemical system such as V-O"),
    ],
)
def test_target_that_is_none(text, message):
    with pytest.raises(InputError, match=message):
        Target.of(text)


@pytest.mark.parametrize(
    "limits", [{"max_atoms": 0}, {"max_edge": -1.0}, {"min_similarity": 2.0}, {"per_formula": 0}, {"min_atoms": 1.5}]
)
def test_limits_that_are_none(limits):
    with pytest.raises(InputError, match=next(iter(limits))):
        SubstitutionLimits(**limits)
