"""Bounds that spare comparing atoms never exceed the distances that the comparison gives."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene
from crystals import random_crystal

from hybridcsp.similarity import compute_descriptors
from hybridcsp.similarity.fingerprint import environment_distance, least_environment_distances
from hybridcsp.similarity.layer_index import LayerIndex
from hybridcsp.similarity.layers import find_layers, layer_distance

WINDOW, LIMIT = 0.05, 0.15


@pytest.mark.parametrize("formulas", [("Cu4",), ("CuAu", "Cu2Au2", "Cu3Au3"), ("SrTiO3",)])
def test_environments_differ_by_no_less_than_the_bound(formulas):
    rng = np.random.default_rng(3)
    parents = [random_crystal(formula, 14, rng) for formula in formulas for _ in range(4)]
    crystals = [compute_descriptors(atoms) for atoms in parents]
    for atoms, amount in zip(parents, np.linspace(0.02, 0.3, len(parents)), strict=True):
        distorted = atoms.copy()
        distorted.rattle(amount, rng=rng)
        crystals.append(compute_descriptors(distorted))
    fingerprints = np.array([one.fingerprint for one in crystals], dtype=np.float32)
    closest = 1.0
    for one in crystals:
        bounds = least_environment_distances(one.fingerprint, fingerprints, one.crystal.composition)
        means = np.array([environment_distance(one, other.crystal)[0] for other in crystals])
        assert (bounds <= means).all()
        closest = min(closest, float((means - bounds)[means > 0.01].min(initial=1.0)))
    assert closest < 0.1  # they are not far below either


def sheet(rng):
    """A layered crystal: graphene that is strained, buckled and stacked in some way."""
    atoms = graphene(a=2.46 + rng.normal(0, 0.1), vacuum=rng.uniform(3, 5))
    if rng.random() < 0.3:
        atoms.numbers[0] = 5
    atoms.pbc = True
    atoms.rattle(0.05, rng=rng)
    return Atoms(atoms)


def test_the_index_of_layers_finds_what_comparing_all_finds():
    rng = np.random.default_rng(4)
    index, known, found = LayerIndex(WINDOW, LIMIT), {}, 0
    for key in range(150):
        layers, energy = find_layers(compute_descriptors(sheet(rng)).crystal), float(rng.normal(-9, 0.05))
        assert layers is not None
        near = [
            (distance, other)
            for other, (own, its_energy) in known.items()
            if abs(its_energy - energy) <= WINDOW and (distance := layer_distance(layers, own)) <= LIMIT
        ]
        expected = min(near)[1] if near else None
        assert index.find(layers, energy) == expected
        found += expected is not None
        index.add(key, layers, energy)
        known[key] = layers, energy
        if key % 4 == 3:
            gone = int(rng.choice(list(known)))
            index.remove(gone)
            del known[gone]
    index.remove(-1)
    assert 30 < found < 150
