"""The table of properties of the elements is that of pymatgen and ASE."""

import warnings

import numpy as np
import pytest
from ase.data import chemical_symbols
from ase.data import covalent_radii as radii_of_ase
from pymatgen.core import Element

from hybridcsp.structure.elements import PROPERTY_WEIGHTS, covalent_radii, element_order, properties


@pytest.mark.parametrize("number", [1, 8, 22, 26, 57, 92, 118])
def test_properties_agree_with_pymatgen(number):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        element = Element.from_Z(number)
        electronegativity, states = float(element.X), element.common_oxidation_states
        mendeleev = element.mendeleev_no or 60.0
    row = dict(zip(PROPERTY_WEIGHTS, properties()[number], strict=True))
    assert row["electronegativity"] == (electronegativity if np.isfinite(electronegativity) else 2.0)
    assert row["ionic_radius"] == (float(element.average_ionic_radius) or radii_of_ase[number])
    assert (row["group"], row["row"]) == (element.group, element.row)
    assert row["mendeleev"] == mendeleev
    assert row["oxidation_state"] == pytest.approx(sum(states) / len(states) if states else 0.0)


def test_covalent_radii_agree_with_ase():
    assert len(covalent_radii()) == len(chemical_symbols) == 119
    assert np.array_equal(covalent_radii(), radii_of_ase[:119])


def test_elements_are_ordered_by_number_then_electronegativity():
    assert element_order({8: 4, 22: 2, 12: 2}) == (12, 22, 8)
