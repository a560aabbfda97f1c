"""The categories of elemental properties are those of CGCNN's paper, from the tables of pymatgen and ASE."""

import json
import warnings
from importlib.resources import files

import numpy as np
import pytest
from ase.data import covalent_radii
from pymatgen.core import Element

from hybridcsp.structure.elemental_features import N_FEATURES, elemental_features

SIZES = (18, 8, 10, 10, 12, 10, 10, 4, 10)


def categories(number):
    """Return the category of each property, -1 if it is not known."""
    parts = np.split(elemental_features()[number], np.cumsum(SIZES)[:-1])
    assert all(part.sum() in (0, 1) for part in parts)
    return [int(part.argmax()) if part.any() else -1 for part in parts]


def test_an_element_is_in_one_category_of_each_property():
    assert sum(SIZES) == N_FEATURES == elemental_features().shape[1]
    for number in range(1, 104):
        assert len(categories(number)) == 9


def test_categories_of_some_elements():
    # oxygen: group 16, period 2, 3.44, 66 pm, 6 electrons, ln 13.6 = 2.61, 1.46 eV, p, ln 17.36 = 2.85
    assert categories(8) == [15, 1, 8, 1, 5, 6, 6, 1, 4]
    # iron: group 8, period 4, 1.83, 132 pm, 8 electrons, ln 7.90 = 2.07, 0.15 eV, d, ln 7.09 = 1.96
    assert categories(26) == [7, 3, 3, 4, 7, 3, 4, 2, 1]
    assert categories(2)[2] == -1  # helium has no electronegativity
    assert not elemental_features()[0].any()


def test_different_elements_have_different_features():
    known = elemental_features()[1:104]
    assert len(np.unique(known, axis=0)) > 95


@pytest.mark.parametrize("number", [1, 8, 22, 26, 47, 57, 79, 92])
def test_values_agree_with_pymatgen_and_ase(number):
    stored = json.loads(files("hybridcsp").joinpath("data/elemental_properties.json").read_text(encoding="utf-8"))
    element = Element.from_Z(number)
    row = dict(zip(stored["columns"], stored["properties"][element.symbol], strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert (row["group"], row["period"]) == (element.group, element.row)
        assert row["electronegativity"] == float(element.X)
        assert row["ionisation_energy_ev"] == pytest.approx(float(element.ionization_energy), abs=1e-4)
        assert row["electron_affinity_ev"] == pytest.approx(float(element.electron_affinity), abs=1e-4)
        assert row["molar_volume_cm3"] == float(element.molar_volume)
    assert row["covalent_radius_pm"] == round(100 * covalent_radii[number])
