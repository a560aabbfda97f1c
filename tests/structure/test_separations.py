"""Shortest distances by pair of elements, from the shipped table."""

import numpy as np
import pytest
from ase import units
from ase.data import atomic_numbers, covalent_radii

from hybridcsp.core.problem import Problem
from hybridcsp.structure.separations import pair_distances, usual_distances

TITANIUM, OXYGEN, CHLORINE, HYDROGEN = (atomic_numbers[s] for s in ("Ti", "O", "Cl", "H"))


def test_ions_of_one_charge_keep_apart_and_opposite_ones_do_not():
    distances = pair_distances([TITANIUM, OXYGEN, OXYGEN], 0.0)
    assert distances[OXYGEN, OXYGEN] == pytest.approx(2.2, abs=0.1)
    assert distances[TITANIUM, OXYGEN] == pytest.approx(1.7, abs=0.1)
    assert distances[TITANIUM, TITANIUM] == pytest.approx(2.75, abs=0.15)
    assert (distances == distances.T).all()


def test_other_elements_have_no_distance():
    distances = pair_distances([TITANIUM, OXYGEN, OXYGEN], 0.0)
    distances = distances.copy()
    distances[np.ix_([TITANIUM, OXYGEN], [TITANIUM, OXYGEN])] = 0
    assert not distances.any()


@pytest.mark.parametrize("symbols", [("Rn", "Og"), ("Pm", "Ac"), ("Fr", "At"), ("He", "U")])
def test_pairs_that_no_crystal_has_resemble_known_ones(symbols):
    numbers = [atomic_numbers[symbol] for symbol in symbols]
    found = pair_distances(numbers, 0.0)[np.ix_(numbers, numbers)]
    sums = covalent_radii[numbers][:, None] + covalent_radii[numbers]
    assert (found > 0.6 * sums).all()
    assert (found < 1.8 * sums).all()


def test_pressure_shortens_distances():
    free, pressed = (pair_distances([TITANIUM, OXYGEN, OXYGEN], gpa * units.GPa)[OXYGEN, OXYGEN] for gpa in (0, 100))
    assert 0.85 * free < pressed < 0.97 * free


def test_an_element_alone_may_form_molecules():
    assert (
        pair_distances([CHLORINE], 0.0)[CHLORINE, CHLORINE]
        < 2.0
        < 2.8
        < pair_distances([CHLORINE, TITANIUM], 0.0)[CHLORINE, CHLORINE]
    )
    assert pair_distances([HYDROGEN], 0.0)[HYDROGEN, HYDROGEN] < 0.7


def test_a_problems_own_distances_replace_those_of_the_table():
    own = usual_distances(Problem("TiO2", min_distances={"O-O": 1.4, "Ti-O": 2.0}))
    table = pair_distances([TITANIUM, OXYGEN, OXYGEN], 0.0)
    assert own[OXYGEN, OXYGEN] == 1.4
    assert own[TITANIUM, OXYGEN] == own[OXYGEN, TITANIUM] == 2.0
    assert own[TITANIUM, TITANIUM] == table[TITANIUM, TITANIUM]


def test_problems_that_allow_closer_atoms_or_denser_crystals_have_shorter_distances():
    usual = usual_distances(Problem("TiO2"))[OXYGEN, OXYGEN]
    assert usual_distances(Problem("TiO2", distance_fraction=0.5))[OXYGEN, OXYGEN] < usual
    assert usual_distances(Problem("TiO2", volume_per_atom=(5.0, 6.0)))[OXYGEN, OXYGEN] < 0.9 * usual
    assert usual_distances(Problem("TiO2", volume_per_atom=(5.0, 20.0)))[OXYGEN, OXYGEN] == usual
    assert usual_distances(Problem("TiO2", distance_fraction=1.2))[OXYGEN, TITANIUM] >= 1.2 * (
        covalent_radii[[TITANIUM, OXYGEN]].sum()
    )
