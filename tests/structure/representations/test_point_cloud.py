"""Crystals as point clouds."""

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
from hybridcsp.structure.representations.point_cloud import InventedAtoms, PointCloud

crystals = st.builds(
    lambda symbols, seed: random_crystal(symbols, 14.0, np.random.default_rng(seed)),
    st.sampled_from(["Ti2O4", "TiO", "Ti3O5"]),
    st.integers(0, 2**32 - 1),
)


@settings(max_examples=25, deadline=None)
@given(crystals)
def test_decoding_restores_a_crystal(atoms):
    cloud = PointCloud({"Ti": 3, "O": 5})
    encoded = cloud.encode(atoms)
    assert encoded.shape == cloud.shape == (10, 3)
    assert encoded.min() >= 0
    assert encoded.max() <= 1
    back = cloud.decode(encoded)
    assert back.get_chemical_formula() == atoms.get_chemical_formula()
    np.testing.assert_allclose(back.cell.cellpar(), atoms.cell.cellpar(), atol=1e-6)
    assert same_structure(back, atoms)


def test_coordinates_are_stored_apart_from_empty_slots():
    encoded = PointCloud({"O": 6, "Ti": 2}).encode(rutile())
    assert (encoded[6:8] == 0).all()  # two of the six slots of oxygen are empty
    assert encoded[2:6].min() >= 1 / 6
    np.testing.assert_allclose(encoded[0] * 30, rutile().cell.lengths())
    np.testing.assert_allclose(encoded[1] * 180, rutile().cell.angles())


def test_slots_are_those_that_the_data_need():
    cloud = PointCloud.of([rutile(), Atoms("Ti3O", cell=[5, 5, 5], pbc=True)])
    assert cloud.slots == {"O": 4, "Ti": 3}


def test_an_element_without_atoms_is_rejected_or_as_published_invented():
    encoded = PointCloud({"Ti": 2, "O": 4}).encode(rutile())
    encoded[4:] = 0
    with pytest.raises(DecodingError, match="no slot of O is occupied"):
        PointCloud({"Ti": 2, "O": 4}).decode(encoded)
    invented = PointCloud({"Ti": 2, "O": 4}, InventedAtoms()).decode(encoded)
    assert invented.get_chemical_formula() == "OTi2"
    np.testing.assert_allclose(invented[[atom.symbol == "O" for atom in invented]].positions, 0, atol=1e-12)


def test_occupied_slots_may_be_given_by_a_classifier():
    cloud = PointCloud({"Ti": 2, "O": 4})
    back = cloud.decode_slots(cloud.encode(rutile()), np.array([True, False, True, True, False, False]))
    assert back.get_chemical_formula() == "O2Ti"


@pytest.mark.parametrize(
    ("row", "values", "reason"),
    [
        (0, [0.1, -0.1, 0.1], "out of range"),
        (1, [0.5, 0.5, 1.0], "out of range"),
        (1, [0.1, 0.1, 0.9], "make no cell"),
    ],
)
def test_clouds_without_a_cell_are_refused_with_a_reason(row, values, reason):
    cloud = PointCloud({"Ti": 2, "O": 4})
    encoded = cloud.encode(rutile())
    encoded[row] = values
    with pytest.raises(DecodingError, match=reason):
        cloud.decode(encoded)


@pytest.mark.parametrize(
    ("atoms", "reason"),
    [
        (bulk("NaCl", "rocksalt", a=5.6), "no slots for Na"),
        (rutile() * (2, 1, 1), "4 atoms of Ti, and there are 2 slots"),
        (bulk("Ti", "sc", a=3.0), "no atom of O"),
        (Atoms("TiO", cell=[31, 5, 5], pbc=True), "longer than 30 Å"),
    ],
)
def test_crystals_beyond_the_limits_are_refused_in_a_sentence(atoms, reason):
    with pytest.raises(InputError, match=reason):
        PointCloud({"Ti": 2, "O": 4}).encode(atoms)


def test_slots_need_crystals():
    with pytest.raises(InputError, match="at least one crystal"):
        PointCloud.of([])
