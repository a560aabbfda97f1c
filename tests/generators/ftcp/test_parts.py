"""Parts of FTCP: reading of crystals of requested contents, known crystals, starts, and steering."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk
from crystals import rutile

from hybridcsp.generators.ftcp.configurations import CONFIGURATIONS
from hybridcsp.generators.ftcp.decoding import Assignment, Filtering
from hybridcsp.generators.ftcp.known import KnownCrystals
from hybridcsp.generators.ftcp.starts import KnownStarts, SubstitutedStarts
from hybridcsp.generators.ftcp.steering import NearestValues, PredictedValues, Targets
from hybridcsp.similarity import same_structure
from hybridcsp.structure.representations.base import DecodingError
from hybridcsp.structure.representations.fourier import ELEMENTS, FourierProperties

REPRESENTATION = FourierProperties(np.zeros((ELEMENTS, 1)), sites=8)
TITANIA, TIN_OXIDE = {22: 2, 8: 4}, {50: 2, 8: 4}
CRYSTALS = [rutile(), bulk("NaCl", "rocksalt", a=5.64), bulk("MgO", "rocksalt", a=4.2), bulk("Cu")]


@pytest.fixture
def known():
    return KnownCrystals.of(CRYSTALS, np.array([[0.2], [0.9], [np.nan], [0.0]]))


def test_filtering_reads_only_crystals_of_the_contents():
    matrix = REPRESENTATION.encode(rutile())
    assert same_structure(Filtering().crystal(matrix, REPRESENTATION, TITANIA), rutile())
    for contents, reason in ((TIN_OXIDE, "other elements"), ({22: 1, 8: 2}, "other numbers of atoms")):
        with pytest.raises(DecodingError, match=reason):
            Filtering().crystal(matrix, REPRESENTATION, contents)


def test_assignment_reads_the_most_probable_crystal_of_the_contents():
    matrix = REPRESENTATION.encode(rutile())
    assert same_structure(Assignment().crystal(matrix, REPRESENTATION, TITANIA), rutile())
    found = Assignment().crystal(matrix, REPRESENTATION, TIN_OXIDE)
    expected = rutile()
    expected.numbers[expected.numbers == 22] = 50
    assert same_structure(found, expected)
    # A site between two elements goes to the one that lacks an atom.
    unclear = matrix.copy()
    occupancies = REPRESENTATION.rows()[2]
    unclear[occupancies][1, :2] = [0.4, 0.6]
    assert same_structure(Assignment().crystal(unclear, REPRESENTATION, TITANIA), rutile())
    with pytest.raises(DecodingError, match="other numbers of atoms"):
        Assignment().crystal(matrix, REPRESENTATION, {22: 2, 8: 5})


def test_known_crystals_are_found_by_similar_elements(known):
    positions, distances = known.nearest({19: 1, 17: 1}, 5)  # KCl
    assert positions.tolist() == [1, 2]
    assert 0 < distances[0] < distances[1]
    assert known.nearest(TITANIA, 5)[1].tolist() == [0.0]
    assert not len(known.nearest({22: 7}, 5)[0])


def test_known_crystals_are_stored_as_tensors(known):
    again = KnownCrystals.from_tensors(known.tensors())
    np.testing.assert_allclose(again.properties, known.properties)
    assert all(same_structure(again.atoms(i), atoms) for i, atoms in enumerate(CRYSTALS))
    assert len(known.joined(again)) == len(known)
    broken = known.tensors() | {"sizes": torch.tensor([6, 2, 2, 2], dtype=torch.int16)}
    with pytest.raises(ValueError, match="matching shapes"):
        KnownCrystals.from_tensors(broken)
    with pytest.raises(ValueError, match="positive cell parameters"):
        KnownCrystals.from_tensors(known.tensors() | {"cells": torch.zeros(4, 6)})


def test_starts_are_known_crystals_or_their_structures_with_the_requested_elements(known):
    crystals, positions = KnownStarts().choose(known, {11: 1, 17: 1})
    assert [atoms.get_chemical_formula() for atoms in crystals] == ["ClNa"]
    crystals, positions = SubstitutedStarts().choose(known, {19: 1, 17: 1})
    assert [atoms.get_chemical_formula() for atoms in crystals] == ["ClK", "ClK"]
    assert positions.tolist() == [1, 2]
    volumes = [atoms.get_volume() for atoms in crystals]
    assert volumes[0] > CRYSTALS[1].get_volume()  # potassium is larger than sodium
    assert volumes[1] > 2 * CRYSTALS[2].get_volume()


def test_order_of_axes_and_sites_is_independent_of_the_description():
    prepare = CONFIGURATIONS["corrected"].prepare
    one = rutile()
    other = one[[3, 5, 0, 4, 1, 2]]
    other.set_cell(other.cell.array[[1, 2, 0]])
    first, second = prepare(one), prepare(other)
    assert first.numbers.tolist() == second.numbers.tolist() == [22, 22, 8, 8, 8, 8]
    np.testing.assert_allclose(first.cell.cellpar(), second.cell.cellpar(), atol=1e-6)
    tin = one.copy()
    tin.numbers[tin.numbers == 22] = 50
    np.testing.assert_allclose(prepare(tin).get_scaled_positions(), first.get_scaled_positions(), atol=1e-9)


class Prediction(torch.nn.Module):
    """The first component of the latent vector as the property."""

    def predict(self, latent):
        return latent[:, :1]


def test_latent_vectors_of_known_crystals_with_the_nearest_values_come_first(known):
    latent = torch.arange(4.0)[:, None]
    targets = Targets(low=np.array([0.1]), high=np.array([0.3]))
    starts = NearestValues(most=3).starts(Prediction(), latent, known.properties, targets)
    assert starts.flatten().tolist() == [0, 3, 1]
    assert NearestValues().accepts(np.array([[5.0]]), targets).all()


def test_unknown_values_of_properties_without_a_target_do_not_matter():
    targets = Targets(low=np.array([0.5, -np.inf]), high=np.array([0.5, np.inf]))
    values = np.array([[0.1, 0.3], [0.5, np.nan], [np.nan, 0.5], [0.4, np.nan]])
    np.testing.assert_allclose(targets.distances(values), [0.4, 0.0, np.inf, 0.1])
    starts = NearestValues(most=2).starts(Prediction(), torch.arange(4.0)[:, None], values, targets)
    assert starts.flatten().tolist() == [1, 3]


@pytest.mark.parametrize(("low", "high"), [(0.4, 0.6), (-np.inf, 0.3), (0.8, np.inf)])
def test_latent_vectors_are_moved_until_predicted_values_are_wanted(low, high):
    latent = torch.linspace(-0.5, 1.5, 9)[:, None].repeat(1, 2)
    targets = Targets(low=np.array([low]), high=np.array([high]))
    starts = PredictedValues(steps=60).starts(Prediction(), latent, np.zeros((9, 1)), targets)
    predicted = starts[:, :1].numpy()
    assert PredictedValues().accepts(predicted, targets).all()
    assert sorted(starts[:, 1].tolist()) == pytest.approx(sorted(latent[:, 1].tolist()))  # it does not matter
    assert not PredictedValues().accepts(np.array([[0.35], [0.7], [np.nan]]), targets)[[0, 1, 2]].all()
