"""Distances that random structures keep by what a search has found."""

from types import SimpleNamespace

import numpy as np
import pytest
from ase.data import atomic_numbers
from crystals import rutile

from hybridcsp.archive.distances import FIRST, FRACTION, search_distances
from hybridcsp.core.problem import Problem

PROBLEM = Problem("TiO2", formula_units=2)
TITANIUM, OXYGEN = atomic_numbers["Ti"], atomic_numbers["O"]


def archive_of(*found, more=FIRST):
    """Minima as triples of height, niche and structure, and high ones without any meaning."""
    preferred = [
        SimpleNamespace(height=height, niche=niche, end=SimpleNamespace(atoms=atoms))
        for height, niche, atoms in [*found, *((9.0, 100 + k, rutile(a=4.0)) for k in range(more))]
    ]
    return SimpleNamespace(preferred_minima=lambda n: preferred[:n])


def shortest(atoms, first, second):
    found = atoms.get_all_distances(mic=True)
    np.fill_diagonal(found, np.inf)
    return found[np.ix_(atoms.numbers == first, atoms.numbers == second)].min()


def test_there_are_none_before_a_search_has_found_some_minima():
    assert search_distances(archive_of((0.0, 1, rutile()), more=2), PROBLEM) is None


def test_they_are_a_little_shorter_than_in_the_best_minimum():
    found = search_distances(archive_of((0.0, 1, rutile())), PROBLEM)
    for pair in ((TITANIUM, OXYGEN), (OXYGEN, OXYGEN)):
        assert found[pair] == pytest.approx(FRACTION * shortest(rutile(), *pair))
        assert found[pair] == found[pair[::-1]]
    assert not found[TITANIUM, 1:8].any()


def test_one_minimum_of_a_niche_and_no_high_ones_count():
    squeezed = rutile(a=4.4)
    best = search_distances(archive_of((0.0, 1, rutile())), PROBLEM)
    assert (search_distances(archive_of((0.0, 1, rutile()), (0.01, 1, squeezed)), PROBLEM) == best).all()
    assert (search_distances(archive_of((0.0, 1, rutile()), (0.5, 2, squeezed)), PROBLEM) == best).all()
    both = search_distances(archive_of((0.0, 1, rutile()), (0.01, 2, squeezed)), PROBLEM)
    assert both[TITANIUM, OXYGEN] == pytest.approx(FRACTION * shortest(squeezed, TITANIUM, OXYGEN))


def test_distances_of_the_problem_hold():
    own = Problem("TiO2", formula_units=2, min_distances={"O-O": 2.9})
    assert search_distances(archive_of((0.0, 1, rutile())), own)[OXYGEN, OXYGEN] == 2.9
