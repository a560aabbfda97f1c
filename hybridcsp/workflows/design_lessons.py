"""Training sets of an inverse design: crystals of earlier rounds, and training data that are learned again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms

from hybridcsp.generators.base import Example
from hybridcsp.structure.symmetry import SYMPREC_LOOSE, primitive
from hybridcsp.training.held_out import formula_of, is_held_out

#: Smallest part of the evaluated crystals from which a generator learns that is not conditioned on the property: if
#: fewer are within the targets, those nearest to them are taken as well.
SMALLEST_PART = 0.1

#: Smallest and largest number of crystals of the training data that are learned again in each round.
MIN_REPLAYED, MAX_REPLAYED = 16, 512


def value_of(atoms: Atoms, name: str) -> float:
    """Return a property in the ``info`` of a crystal; NaN if it is not known."""
    return float(atoms.info.get(name, math.nan))


def bare(atoms: Atoms) -> Atoms:
    """Return a crystal without anything but its atoms and cell."""
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=True)


def lessons(
    crystals: Sequence[Atoms], targets: Mapping[str, tuple[float, float]], *, conditioned: bool
) -> list[Example]:
    """Return what a generator learns from the evaluated crystals of earlier rounds.

    Parameters
    ----------
    crystals
        Crystals with their properties, and ``within``, in their ``info``.
    targets
        Lowest and highest wanted value of each property.
    conditioned
        Whether the generator is conditioned on the properties: it then learns from all crystals with their properties,
        or else from those within the targets, and if these are few from those nearest to the targets as well.
    """
    known = [atoms for atoms in crystals if all(math.isfinite(value_of(atoms, name)) for name in targets)]
    return [
        Example(
            atoms=primitive(bare(atoms), SYMPREC_LOOSE),
            properties={name: value_of(atoms, name) for name in targets} if conditioned else {},
        )
        for atoms in (known if conditioned else nearest(known, targets))
    ]


def replayed_with(
    learned: Sequence[Example], data: Sequence[Example], rng: np.random.Generator, *, conditioned: bool
) -> list[Example]:
    """Return crystals of the training data that a generator learns again, as many as it learns new ones.

    Parameters
    ----------
    learned
        What it learns from the crystals of earlier rounds.
    data
        Training data.
    rng
        Random number generator.
    conditioned
        Whether the generator is conditioned on the properties.
    """
    if not learned:
        return []
    # Generators hold some formulas out to decide when to stop; what is learned again is on the same side.
    sides = {is_held_out(formula_of(example.atoms)) for example in learned}
    usable = [one for one in data if len(sides) > 1 or is_held_out(formula_of(one.atoms)) in sides]
    n = int(np.clip(len(learned), MIN_REPLAYED, MAX_REPLAYED))
    chosen = [usable[i] for i in rng.permutation(len(usable))[:n]]
    return chosen if conditioned else [Example(atoms=one.atoms, energy_quantile=one.energy_quantile) for one in chosen]


def nearest(crystals: Sequence[Atoms], targets: Mapping[str, tuple[float, float]]) -> list[Atoms]:
    """Return the crystals within the targets, or if these are fewer than :data:`SMALLEST_PART`, those nearest to them.

    Parameters
    ----------
    crystals
        Crystals whose properties are all known.
    targets
        Lowest and highest wanted value of each property.
    """
    within = [atoms for atoms in crystals if atoms.info["within"]]
    least = math.ceil(SMALLEST_PART * len(crystals))
    if len(within) >= least:
        return within
    gaps = np.zeros(len(crystals))
    for name, (low, high) in targets.items():
        values = np.array([value_of(atoms, name) for atoms in crystals])
        gaps += np.maximum(0, np.maximum(low - values, values - high)) / max(float(values.std()), 1e-12)
    return [crystals[i] for i in np.argsort(gaps, kind="stable")[:least]]
