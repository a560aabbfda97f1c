"""Crystals as matrices of real-space and reciprocal-space features."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from crystals import random_crystal, rutile
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.errors import InputError
from hybridcsp.similarity import same_structure
from hybridcsp.structure.representations.base import DecodingError
from hybridcsp.structure.representations.fourier import (
    ELEMENTS,
    FourierProperties,
    LeadingSites,
)

PROPERTIES = np.random.default_rng(0).random((ELEMENTS, 4))

crystals = st.builds(
    lambda symbols, seed: random_crystal(symbols, 14.0, np.random.default_rng(seed)),
    st.sampled_from(["Ti2O4", "NaCl", "Mg3Al2Si3O12"[:9], "C"]),
    st.integers(0, 2**32 - 1),
)


@settings(max_examples=25, deadline=None)
@given(crystals)
def test_decoding_restores_a_crystal(atoms):
    for representation in (FourierProperties(PROPERTIES), FourierProperties.published(PROPERTIES)):
        encoded = representation.encode(atoms)
        assert encoded.shape == representation.shape
        back = representation.decode(encoded)
        assert (back.numbers == atoms.numbers).all()
        np.testing.assert_allclose(back.cell.cellpar(), atoms.cell.cellpar(), atol=1e-6)
        assert same_structure(back, atoms)


def test_published_shape_with_92_properties():
    properties = np.zeros((ELEMENTS, 92))
    assert FourierProperties.published(properties).shape == (238, 62)


def test_structure_factors_are_those_of_the_definition():
    atoms = rutile()
    representation = FourierProperties(PROPERTIES)
    encoded = representation.encode(atoms)
    # The first vectors are (100), (010), (001), (00-1), ...: by the sum of absolute indices, then descending.
    factor = sum(PROPERTIES[atom.number - 1] * np.exp(2j * np.pi * atom.scaled_position[0]) for atom in atoms)
    np.testing.assert_allclose(encoded[-4:, 3], factor.real, atol=1e-9)
    np.testing.assert_allclose(encoded[-4:, 4], factor.imag, atol=1e-9)
    np.testing.assert_allclose(encoded[-5, 3:5], 1 / atoms.cell.lengths()[0])


def test_structure_factors_keep_their_moduli_under_a_shift():
    atoms = rutile()
    shifted = atoms.copy()
    shifted.translate([0.3, 0.7, 1.1])
    representation = FourierProperties(PROPERTIES)
    first, second = (
        np.hypot(encoded[-4:, 3::2], encoded[-4:, 4::2])
        for encoded in (representation.encode(atoms), representation.encode(shifted))
    )
    np.testing.assert_allclose(first, second, atol=1e-9)


def test_an_empty_row_between_sites_is_skipped_or_as_published_hydrogen():
    representation = FourierProperties(PROPERTIES)
    encoded = representation.encode(rutile())
    rows = slice(ELEMENTS + 2 + 20, ELEMENTS + 2 + 40)
    encoded[rows][1] = 0
    assert representation.decode(encoded).get_chemical_formula() == "O4Ti"
    as_published = FourierProperties(PROPERTIES, reading=LeadingSites())
    assert as_published.decode(encoded).get_chemical_formula() == "HO4Ti"


def test_matrices_without_a_crystal_are_refused_with_a_reason():
    representation = FourierProperties(PROPERTIES)
    encoded = representation.encode(rutile())
    empty = encoded.copy()
    empty[ELEMENTS + 2 + 20 : ELEMENTS + 2 + 40] = 0
    with pytest.raises(DecodingError, match="no site is occupied"):
        representation.decode(empty)
    flat = encoded.copy()
    flat[ELEMENTS + 1, :3] = [20, 20, 150]
    with pytest.raises(DecodingError, match="make no cell"):
        representation.decode(flat)


@pytest.mark.parametrize(
    ("atoms", "reason"),
    [
        (bulk("Cu", "sc", a=3.0) * (3, 3, 3), "27 atoms, more than 20"),
        (Atoms("NaClBrI", cell=[5, 5, 5], pbc=True), "4 elements, more than 3"),
        (Atoms(numbers=[104], cell=[3, 3, 3], pbc=True), "between 1 and 103"),
    ],
)
def test_crystals_beyond_the_limits_are_refused_in_a_sentence(atoms, reason):
    with pytest.raises(InputError, match=reason):
        FourierProperties(PROPERTIES).encode(atoms)


def test_the_table_of_properties_has_a_row_for_each_element():
    with pytest.raises(InputError, match="103 elements"):
        FourierProperties(np.zeros((92, 4)))
