"""The order of everything that can be tried for a problem, and AFLOW's library in it."""

from itertools import islice

import numpy as np
import pytest
from ase.build import bulk

from hybridcsp.core.problem import Problem
from hybridcsp.prototypes import CountTable, Label, Options, aflow
from hybridcsp.prototypes.library import as_template
from hybridcsp.prototypes.options import DRAWS
from hybridcsp.prototypes.table import encode_counts

NOTHING = CountTable({"card": {}, "prototypes": {}})
RUTILE, FLUORITE = Label((1, 2), 136, ("a", "f")), Label((1, 2), 225, ("a", "c"))
COUNTS = CountTable({"card": {}, "prototypes": encode_counts([(RUTILE, (50, 8))] * 5 + [(FLUORITE, (20, 9))])})


class Given:
    """A library of the structures it was given."""

    def __init__(self, *structures):
        self.templates = [as_template(str(i), "template", atoms) for i, atoms in enumerate(structures)]

    def __len__(self):
        return len(self.templates)

    def matching(self, stoichiometry):
        return [template for template in self.templates if template.label.stoichiometry == stoichiometry]


def listed(problem, table, *libraries, most=1000):
    found = Options(problem, table, libraries)
    return [found[rank] for rank in islice(found.possible(0), most)]


def test_probabilities_decrease_and_all_draws_are_listed():
    options = listed(Problem("TiO2", formula_units=(1, 2)), COUNTS)
    chances = [option.chance for option in options]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) < 1
    assert [option.draw for option in options if option.label == RUTILE] == list(range(DRAWS))
    # nothing is free in fluorite but its volume
    assert [option.draw for option in options if option.label == FLUORITE] == [0]


def test_coordinates_come_before_draws():
    problem = Problem("TiO2", formula_units=(1, 2))
    options = listed(problem, COUNTS, aflow())
    first = next(option for option in options if option.label == RUTILE)
    assert "Rutile" in first.template.name
    assert any(option.label == RUTILE and option.template is None for option in options)


def test_each_arrangement_of_elements_is_tried_once():
    problem = Problem("NaCl", formula_units=(1, 2))
    # exchanging the elements of rock salt or wurtzite gives the same crystal, of nickeline another
    assert len(listed(problem, NOTHING, Given(bulk("MgO", "rocksalt", a=4.2)))) == 1
    wurtzite = listed(problem, NOTHING, Given(bulk("ZnO", "wurtzite", a=3.25, c=5.2)))
    assert [option.template is not None for option in wurtzite].count(True) == 1
    nickeline = bulk("NaCl", "rocksalt", a=5.6)
    nickeline = bulk("NiAs", "wurtzite", a=3.6, c=5.0)
    nickeline.set_scaled_positions([(0, 0, 0), (1 / 3, 2 / 3, 1 / 4), (0, 0, 1 / 2), (2 / 3, 1 / 3, 3 / 4)])
    options = [option for option in listed(problem, NOTHING, Given(nickeline)) if option.template is not None]
    assert {option.elements for option in options} == {(11, 17), (17, 11)}


def test_templates_of_similar_elements_come_first():
    structures = [bulk(name, "wurtzite", a=3.3, c=5.4) for name in ("BN", "CdSe", "ZnO")]
    options = listed(Problem("CdS", formula_units=2), NOTHING, Given(*structures))
    assert [option.template.name for option in options if option.template is not None] == ["1", "2", "0"]


def test_supercells_are_built_only_for_larger_cells():
    rock_salt = Given(bulk("MgO", "rocksalt", a=4.2))
    (exact,) = listed(Problem("NaCl", formula_units=(1, 4)), NOTHING, rock_salt)
    (larger,) = listed(Problem("NaCl", formula_units=(2, 4)), NOTHING, rock_salt)
    assert (exact.units, larger.units) == (1, 2)
    assert larger.chance < exact.chance
    assert listed(Problem("Na2Cl2", formula_units=1), NOTHING, rock_salt)[0].units == 1
    rutile_in_three = Problem("TiO2", formula_units=3)
    assert {option.label for option in listed(rutile_in_three, COUNTS)} == {FLUORITE}


def test_only_allowed_space_groups_are_listed():
    options = listed(Problem("TiO2", formula_units=(1, 2), spacegroups=(225,)), COUNTS, aflow())
    assert {option.label.spacegroup for option in options} == {225}
    assert options


@pytest.mark.parametrize(
    "problem", [Problem("Li7Na13", max_atoms=40), Problem("NaCl", formula_units=1, cell=(4, 4, 4, 60, 60, 60))]
)
def test_unknown_stoichiometries_have_no_options(problem):
    assert listed(problem, COUNTS, aflow()) == []


def test_options_that_cannot_be_built_are_left_out():
    problem = Problem("TiO2", formula_units=(1, 2), min_distances={"Ti-O": 2.6})
    for option in listed(problem, COUNTS, aflow(), most=10):
        assert option.build(problem, np.random.default_rng(0)) is not None


def test_aflow_library_is_complete_and_can_exclude_formulas():
    library = aflow()
    assert len(library) == 288
    assert sum(len(library.matching(s)) for s in [(1,), (1, 1), (1, 1, 3)]) > 100
    labels = {str(template.label) for template in library.matching((1, 2))}
    assert {"AB2_tP6_136_a_f", "AB2_tI12_141_a_e", "AB2_cF12_225_a_c"} <= labels
    assert "O2Ti" in library.formulas
    blind = library.without(["O2Ti"])
    assert "O2Ti" not in blind.formulas
    names = {template.name for template in blind.matching((1, 2))}
    assert not any("Rutile" in name or "Anatase" in name for name in names)
    assert any("Fluorite" in name for name in names)


def test_labels_agree_with_aflow_in_space_group_and_pearson_symbol():
    """AFLOW's names are its own; a few of its files are more symmetric than their names say."""
    agree = total = 0
    for stoichiometry in ((1,), (1, 1), (1, 2), (1, 1, 3)):
        for template in aflow().matching(stoichiometry):
            _, pearson, number = template.name.split(" ")[0].split("_")[:3]
            ours = str(template.label).split("_")
            total += 1
            agree += pearson == ours[1] and int(number) == int(ours[2])
    assert agree > 0.85 * total
