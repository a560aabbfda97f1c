"""Shortest distances between atoms of two elements, from known crystals."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.resources import files

import numpy as np
from ase import Atoms, units
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from hybridcsp.core.problem import DISTANCE_FRACTION, Problem
from hybridcsp.core.volumes import expected_volume
from hybridcsp.structure.elements import covalent_radii
from hybridcsp.structure.geometry import nearest_distances

#: Distance of two bound atoms of one element, as a fraction of twice the covalent radius. It is used for an element
#: alone, whose atoms have only each other to bind to, as in H2: most distances in the table are those of atoms that are
#: bound to other elements.
BOND_FRACTION = 0.85

# Distances in crystals are measured up to this multiple of the largest usual one.
_REACH = 1.2


def pair_distances(numbers: Sequence[int] | NDArray[np.int_], pressure: float) -> NDArray[np.float64]:
    """Return the shortest usual distances between atoms of two elements.

    They are the 3 % quantiles of the nearest distance in known crystals that contain both elements (O-O 2.2 Å, Ti-O
    1.7 Å, Ti-Ti 2.7 Å); a pair that is rare there is judged by pairs of similar elements. Of crystals of other formulas
    18 % have a distance below the table's, 1.5 % one that is shorter by more than a tenth (peroxides, azides). Under
    pressure the distances shrink with the cube root of the expected volume.

    Parameters
    ----------
    numbers
        Atomic numbers of the atoms of a formula unit or of a cell.
    pressure
        Pressure in eV/Å³.

    Returns
    -------
    ndarray
        Distances in Å by atomic numbers, shape ``(119, 119)``; 0 for elements that do not occur. It must not be
        changed, because it is kept.
    """
    counts = Counter(np.asarray(numbers, dtype=int).tolist())
    return _pair_distances(tuple(sorted(counts.items())), float(pressure), False)


def usual_distances(problem: Problem, *, bonds: bool = False) -> NDArray[np.float64]:
    """Return the distances that random atoms of a problem should keep.

    Those of :func:`pair_distances` for the problem's volume per atom, smaller if its ``distance_fraction`` is below the
    default. Distances that the problem gives replace those of the table.

    Parameters
    ----------
    problem
        The problem.
    bonds
        Whether atoms of one element may be as close as if they were bound, as in peroxides, azides and pyrite.

    Returns
    -------
    ndarray
        Distances in Å by atomic numbers, shape ``(119, 119)``, at least those of the problem.
    """
    low, high = problem.volume_bounds
    volume = min(max(problem.expected_volume_per_atom, low), high)
    factor = min(1.0, volume / expected_volume(problem.composition)) ** (1 / 3)
    factor *= min(1.0, problem.distance_fraction / DISTANCE_FRACTION)
    contents = tuple(sorted((atomic_numbers[symbol], n) for symbol, n in problem.composition.items()))
    table: NDArray[np.float64] = factor * _pair_distances(contents, 0.0, bonds)
    for pair in problem.min_distances:
        first, second = (atomic_numbers[symbol] for symbol in pair.split("-"))
        table[first, second] = table[second, first] = 0.0
    np.maximum(table, problem.distance_table, out=table)
    return table


def shortest_distances(crystals: Sequence[Atoms]) -> NDArray[np.float64]:
    """Return the shortest distances in crystals in Å by atomic numbers, shape ``(119, 119)``.

    For pairs of elements that are never close to each other it is the usual distance; for elements that do not occur
    it is 0.
    """
    elements = np.unique(np.concatenate([crystal.numbers for crystal in crystals]))
    usual = pair_distances(elements, 0.0)
    reach = _REACH * float(usual.max())
    result = np.where(usual > 0, np.inf, 0.0)
    for crystal in crystals:
        found = nearest_distances(crystal, reach)
        np.minimum.at(result, np.ix_(crystal.numbers, crystal.numbers), found)
    return np.where(result < reach, result, usual)


@lru_cache(maxsize=256)
def _pair_distances(contents: tuple[tuple[int, int], ...], pressure: float, bonds: bool) -> NDArray[np.float64]:
    composition = {chemical_symbols[number]: n for number, n in contents}
    elements = [number for number, _ in contents]
    known = _table()
    result = np.zeros((119, 119))
    block = np.ix_(elements, elements)
    result[block] = known[block]
    if bonds or len(elements) == 1:
        bonded = BOND_FRACTION * 2 * covalent_radii()[elements]
        result[elements, elements] = np.minimum(result[elements, elements], bonded)
    if pressure > 0:
        ratio = expected_volume(composition, pressure / units.GPa) / expected_volume(composition)
        result *= min(1.0, ratio) ** (1 / 3)
    result.flags.writeable = False
    return result


@cache
def _table() -> NDArray[np.float64]:
    rows = json.loads(files("hybridcsp").joinpath("data/pair_distances.json").read_text(encoding="utf-8"))["distances"]
    result = np.zeros((119, 119))
    for number, row in enumerate(rows.values(), start=1):
        result[number, 1 : number + 1] = np.array(row.split(), dtype=float)
    return np.maximum(result, result.T)
