import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from crystals import rutile

from hybridcsp.similarity import compute_descriptors
from hybridcsp.similarity.layers import find_layers, layer_distance
from hybridcsp.similarity.niches import SAME_LAYERS, NicheIndex


def octahedral_sheet(spacing, shift=(0.0, 0.0), a=3.0, thickness=1.0):
    """One sheet of edge-sharing octahedra of the stoichiometry TiO2, as in CdI2, every ``spacing`` Å."""
    third = a / np.sqrt(3)
    positions = [(0, 0, 0), (0, third, thickness), (a / 2, third / 2, -thickness)]
    cell = [[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [shift[0] * third, shift[1] * third, spacing]]
    return Atoms("TiO2", positions=positions, cell=cell, pbc=True)


def square_sheet(spacing, a=3.8):
    """Another sheet of the same stoichiometry: corner-sharing squares of Ti with O above and below."""
    positions = [(0, 0, 0), (0.5, 0, 0), (0, 0.5, 0)]
    return Atoms("TiO2", scaled_positions=positions, cell=[a, a, spacing], pbc=True)


def layers_of(atoms):
    return find_layers(compute_descriptors(atoms).crystal)


@pytest.mark.parametrize(
    "atoms",
    [bulk("Cu"), bulk("Zn"), bulk("C", "diamond", a=3.57), rutile(), bulk("NaCl", "rocksalt", a=5.64)],
    ids=["Cu", "Zn", "diamond", "rutile", "NaCl"],
)
def test_crystals_that_are_bonded_in_three_dimensions_have_no_layers(atoms):
    assert layers_of(atoms) is None


def test_separate_molecules_are_no_layers():
    molecules = Atoms("N2", positions=[(0, 0, 0), (0, 0, 1.1)], cell=[6, 6, 6], pbc=True)
    assert layers_of(molecules) is None


def test_layers_are_the_same_at_any_spacing_and_in_any_description_of_the_cell():
    first = layers_of(octahedral_sheet(5.0))
    assert first is not None
    stacked = octahedral_sheet(5.6, shift=(0.4, 0.3)).repeat((1, 1, 2))
    stacked.positions[3:] += (0.3, 0.2, 0.0)  # the second sheet of the cell slides
    turned = octahedral_sheet(7.0).repeat((2, 1, 1))
    turned.rotate(50, (1, 2, 3), rotate_cell=True)
    turned.positions += (0.3, -0.8, 4.0)
    turned.wrap()
    for other in (octahedral_sheet(9.0), stacked, turned[::-1]):
        assert layer_distance(first, layers_of(other)) == pytest.approx(0.0, abs=1e-6)
    assert layer_distance(first, layers_of(square_sheet(6.0))) > 2 * SAME_LAYERS
    assert layer_distance(first, layers_of(octahedral_sheet(5.0, a=3.4))) > 2 * SAME_LAYERS


def test_stackings_of_one_layer_are_one_niche_and_other_layers_another():
    niches = NicheIndex()
    niches.add(3, octahedral_sheet(4.9), -9.0)
    niches.add(4, square_sheet(6.0), -9.0)
    assert niches.find(octahedral_sheet(6.5, shift=(0.5, 0.1)), -8.99) == 3
    assert niches.find(square_sheet(7.5), -9.01) == 4
    assert niches.find(octahedral_sheet(6.5), -8.9) is None  # too far apart in energy
    niches.remove(3)
    assert niches.find(octahedral_sheet(4.9), -9.0) is None


def test_near_copies_are_one_niche_and_polymorphs_are_not():
    niches = NicheIndex()
    niches.add(1, rutile(), -9.0)
    distorted = rutile().repeat((1, 1, 2))
    distorted.rattle(0.06, seed=1)
    assert niches.find(distorted, -8.99) == 1
    distorted.rattle(0.4, seed=2)
    assert niches.find(distorted, -8.99) is None
    niches.add(2, bulk("Cu"), -3.5)
    assert niches.find(bulk("Cu", "hcp", a=2.55, c=4.16), -3.5) is None


def test_atoms_between_layers_make_one_bonded_crystal():
    filled = octahedral_sheet(5.6) + Atoms("K", positions=[(0, 0, 2.8)])
    assert layers_of(octahedral_sheet(5.6)) is not None
    assert layers_of(filled) is None
