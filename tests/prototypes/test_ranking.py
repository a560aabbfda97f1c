"""The table of counts, and how chemistry and popularity rank what it holds."""

from importlib.resources import files

import numpy as np
import pytest
from ase.data import atomic_numbers
from ase.formula import Formula

from hybridcsp.prototypes import CountTable, Label, shipped_table, training_formulas
from hybridcsp.prototypes.labels import canonical_label
from hybridcsp.prototypes.ranking import placements, probability_by_label
from hybridcsp.prototypes.table import encode_counts, reduced_hill_formula
from hybridcsp.structure.elements import PROPERTY_WEIGHTS, properties, squared_distances

ROCK_SALT, CHLORIDE = Label((1, 1), 225, ("a", "b")), Label((1, 1), 221, ("a", "b"))
WURTZITE, NICKELINE = Label((1, 1), 186, ("b", "b")), Label((1, 1), 194, ("a", "c"))
PEROVSKITE = Label((1, 1, 3), 221, ("a", "b", "c"))


def z(*symbols):
    return tuple(atomic_numbers[symbol] for symbol in symbols)


def table(*crystals):
    return CountTable({"card": {}, "prototypes": encode_counts(crystals)})


SMALL = table(
    *[(ROCK_SALT, z(*pair)) for pair in (("Na", "Cl"), ("K", "Cl"), ("Na", "Br"), ("K", "Br"), ("Mg", "O"))],
    *[(CHLORIDE, z(*pair)) for pair in (("Ni", "Al"), ("Fe", "Al"), ("Fe", "Al"))],
    (NICKELINE, z("Ni", "As")),
)


def test_table_returns_the_encoded_counts():
    known = SMALL.matching((1, 1))
    assert len(SMALL) == 3
    counts = {
        (known.labels[which], tuple(elements)): count
        for which, elements, count in zip(known.which, known.elements.tolist(), known.counts, strict=True)
    }
    assert counts[CHLORIDE, z("Fe", "Al")] == 2
    assert counts[ROCK_SALT, z("Mg", "O")] == 1
    assert sum(counts.values()) == 9
    assert SMALL.matching((1, 2)).labels == ()


def test_formulas_are_those_of_the_crystals_counted():
    assert SMALL.formulas == {"ClNa", "ClK", "BrNa", "BrK", "MgO", "AlNi", "AlFe", "AsNi"}
    for formula in ("Ti4O8", "C2H4O2", "HCl", "CaCO3", "NH4Br", "Al2O3", "Fe"):
        counts = Formula(formula).count()
        assert reduced_hill_formula(counts) == Formula(formula).reduce()[0].format("hill")
    counted = table((Label((1, 2), 136, ("a", "f")), z("Ti", "O")), (Label((1, 2), 136, ("a", "f")), z("Ti", "O")))
    assert counted.formulas == {"O2Ti"}


def test_similar_elements_determine_the_ranking():
    known = SMALL.matching((1, 1))
    assert placements(z("Rb", "Cl"), known)[0].label == ROCK_SALT
    assert placements(z("Co", "Al"), known)[0].label == CHLORIDE
    assert placements(z("Co", "As"), known)[0].label == NICKELINE


def test_probabilities_add_up_and_fall():
    for pair in (("Rb", "Cl"), ("U", "Xe"), ("Co", "As")):
        ranked = placements(z(*pair), SMALL.matching((1, 1)))
        probabilities = [placement.probability for placement in ranked]
        assert sum(probabilities) == pytest.approx(1)
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probability for _, probability in probability_by_label(ranked)) == pytest.approx(1)


def test_popularity_determines_the_ranking_without_similar_elements():
    names = [label for label, _ in probability_by_label(placements(z("He", "Fr"), SMALL.matching((1, 1))))]
    assert names == [ROCK_SALT, CHLORIDE, NICKELINE]


def test_all_inequivalent_placements_are_ranked():
    known = table((PEROVSKITE, z("Ti", "Sr", "O")), (PEROVSKITE, z("Zr", "Ba", "O"))).matching((1, 1, 3))
    ranked = placements(z("Ca", "Ti", "O"), known)
    assert [placement.elements for placement in ranked] == [z("Ti", "Ca", "O"), z("Ca", "Ti", "O")]
    assert ranked[0].probability > 5 * ranked[1].probability
    # on the two positions of rock salt it makes none
    assert len(placements(z("Na", "Cl"), table((ROCK_SALT, z("K", "F"))).matching((1, 1)))) == 1


def test_the_order_of_equal_elements_does_not_matter():
    known = shipped_table().matching((1, 1, 3))
    for one, other in zip(placements(z("Sr", "Ti", "O"), known), placements(z("Ti", "Sr", "O"), known), strict=True):
        assert one.probability == pytest.approx(other.probability)
        if one.probability > 1e-4:
            assert (one.label, one.elements) == (other.label, other.elements)


def test_known_structure_of_the_same_elements_ranks_first():
    known = shipped_table().matching((1, 1)).joined([(WURTZITE, z("Na", "Cl"))] * 3)
    before = dict(probability_by_label(placements(z("Na", "Cl"), shipped_table().matching((1, 1)))))
    after = dict(probability_by_label(placements(z("Na", "Cl"), known)))
    assert after[WURTZITE] > before[WURTZITE]
    new = Label((1, 1), 1, ("a", "a"))
    assert new not in before
    assert new in dict(probability_by_label(placements(z("Na", "Cl"), known.joined([(new, z("K", "Cl"))]))))


def test_similar_elements_are_similar():
    squares = squared_distances()
    assert squares == pytest.approx(squares.T)
    assert (np.diag(squares) == 0).all()
    assert (squares >= 0).all()
    assert properties().shape == (119, len(PROPERTY_WEIGHTS))
    for element, near, far in (("Na", "K", "Cl"), ("La", "Nd", "Ti"), ("S", "Se", "Na"), ("Fe", "Co", "Ba")):
        assert squares[z(element, near)] < squares[z(element, far)]


def test_card_of_the_shipped_table_agrees_with_its_counts():
    shipped = shipped_table()
    assert len(shipped) == shipped.card["prototypes"]
    text = files("hybridcsp").joinpath("data/prototype_counts.json").read_text(encoding="utf-8")
    assert len(text) < 5e6
    stoichiometries = [tuple(map(int, key.split())) for key in shipped._raw]
    assert sum(shipped.matching(s).counts.sum() for s in stoichiometries) == shipped.card["crystals"]
    assert len(training_formulas()) > 10_000
    assert "ClNa" in training_formulas()


def test_labels_of_the_shipped_table_are_canonical():
    rng = np.random.default_rng(0)
    for stoichiometry in ((1, 1), (1, 2), (1, 1, 3), (1, 1, 1), (2, 3)):
        labels = shipped_table().matching(stoichiometry).labels
        for index in rng.choice(len(labels), min(15, len(labels)), replace=False):
            label = labels[index]
            elements = range(1, len(stoichiometry) + 1)
            found, _ = canonical_label(
                label.spacegroup,
                dict(zip(elements, label.letters, strict=True)),
                dict(zip(elements, stoichiometry, strict=True)),
            )
            assert found == label
