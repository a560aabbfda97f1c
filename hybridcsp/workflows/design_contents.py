"""Contents of the cells that an inverse design samples in a round."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from hybridcsp.structure.elements import similar_elements
from hybridcsp.workflows.design_lessons import nearest, value_of

#: Part of the samples, after the first round, whose contents follow from crystals within the targets, and probability
#: that one of their elements is then substituted.
EXPLOITED, SUBSTITUTED = 0.5, 0.75


def contents_of(atoms: Atoms) -> dict[str, int]:
    """Return the contents of the cell of a crystal."""
    return dict(Counter(atoms.get_chemical_symbols()))


def contents_of_round(
    n: int,
    known: Sequence[Mapping[str, int]],
    evaluated: Sequence[Atoms],
    targets: Mapping[str, tuple[float, float]],
    rng: np.random.Generator,
) -> list[dict[str, int]]:
    """Return the contents of the samples of a round.

    In the first round they are contents of the training data. Later, those of the crystals within the targets, or
    nearest to them, are used for half of the samples, mostly with an element substituted by a similar one of the
    training data: a generator decides on the structure alone, and properties depend on the elements above all.

    Parameters
    ----------
    n
        Number of samples.
    known
        Contents of the training data.
    evaluated
        Crystals of earlier rounds with their properties.
    targets
        Lowest and highest wanted value of each property.
    rng
        Random number generator.
    """
    contents = [dict(known[i]) for i in rng.integers(len(known), size=n)]
    usable = [atoms for atoms in evaluated if all(math.isfinite(value_of(atoms, name)) for name in targets)]
    if not usable:
        return contents
    good = [contents_of(atoms) for atoms in nearest(usable, targets)]
    allowed = {symbol for one in known for symbol in one}
    for place in range(round(EXPLOITED * n)):
        chosen = good[int(rng.integers(len(good)))]
        contents[place] = _substituted(chosen, allowed, rng) if rng.random() < SUBSTITUTED else dict(chosen)
    return contents


def _substituted(contents: Mapping[str, int], allowed: set[str], rng: np.random.Generator) -> dict[str, int]:
    """Substitute one element by a similar one; if none of these is allowed, return the contents as they are."""
    symbol = list(contents)[int(rng.integers(len(contents)))]
    others, chances = similar_elements(atomic_numbers[symbol])
    usable = np.array([chemical_symbols[z] in allowed and chemical_symbols[z] not in contents for z in others])
    if not usable.any():
        return dict(contents)
    other = int(rng.choice(others[usable], p=chances[usable] / chances[usable].sum()))
    return {chemical_symbols[other] if one == symbol else one: count for one, count in contents.items()}
