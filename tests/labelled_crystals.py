"""Small crystals with a property that is a simple function of their composition and density."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk

from hybridcsp.predictors.labelled import Labelled

METALS = ("Li", "Na", "K", "Mg", "Ca", "Sr", "Mn", "Fe")
ANIONS = ("F", "Cl", "Br", "O", "S")
PROPERTY = "hardness_gpa"


def crystals(n=40, seed=0):
    """Return rock salts and zincblendes with random lattice constants, slightly distorted."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        metal, anion = METALS[i % len(METALS)], ANIONS[(i // len(METALS)) % len(ANIONS)]
        crystal = bulk(metal + anion, ("rocksalt", "zincblende")[i % 2], float(rng.uniform(4.5, 6.0)))
        crystal.rattle(0.05, seed=i)
        found.append(crystal)
    return found


def value_of(crystal: Atoms) -> float:
    """Return a positive number that depends on the volume and the elements."""
    return float(20 * np.exp(-crystal.get_volume() / 40) + 0.05 * crystal.numbers.sum())


def labelled(n=40, seed=0) -> Labelled:
    made = crystals(n, seed)
    values = np.array([value_of(crystal) for crystal in made])
    return Labelled(crystals=tuple(made), values=values, name=PROPERTY, unit="GPa")


def with_property(n=40, seed=0):
    """Return crystals with the property in their ``info``."""
    made = crystals(n, seed)
    for crystal in made:
        crystal.info[PROPERTY] = value_of(crystal)
    return made
