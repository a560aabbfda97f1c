"""Checks that the limits of a problem allow any crystal at all, by bounds that hold for every crystal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Protocol

from hybridcsp.errors import InputError

#: Smallest volume per sphere of equal spheres of diameter d, in units of d³: the densest packing (Hales,
#: doi:10.4007/annals.2005.162.1065).
DENSEST = 1 / math.sqrt(2)

#: Largest number of elements for which packings of every subset of them are checked; of more elements, only packings of
#: each alone and of all together.
MOST_ELEMENTS = 8

# Relative tolerance, so that limits that are met exactly count as met.
_MARGIN = 1e-9


class Limited(Protocol):
    """The limits of a :class:`~hybridcsp.core.problem.Problem` that are compared here."""

    @property
    def formula(self) -> str:
        """Formula of one formula unit."""

    @property
    def min_atoms(self) -> int:
        """Smallest number of atoms in the primitive cell."""

    @property
    def max_atoms(self) -> int:
        """Largest number of atoms in the primitive cell."""

    @property
    def composition(self) -> dict[str, int]:
        """Number of atoms of each element in one formula unit."""

    @property
    def atoms_per_unit(self) -> int:
        """Number of atoms in one formula unit."""

    @property
    def units(self) -> tuple[int, ...]:
        """Numbers of formula units, ascending."""

    @property
    def volume_bounds(self) -> tuple[float, float]:
        """Smallest and largest volume per atom in Å³."""

    @property
    def volume_per_atom(self) -> tuple[float, float] | None:
        """Bounds of the volume per atom in Å³ that the user gave; ``None`` for the default."""

    @property
    def cell(self) -> tuple[float, float, float, float, float, float] | None:
        """Fixed cell (Å and degrees); ``None`` for a free cell."""

    @property
    def length_bounds(self) -> tuple[float, float] | None:
        """Bounds of the lengths of the reduced cell in Å; ``None`` for no bounds."""

    @property
    def distance_fraction(self) -> float:
        """Default minimum distance as a fraction of summed covalent radii."""

    @property
    def min_distances(self) -> Mapping[str, float]:
        """Minimum distances in Å that the user gave, by pair of elements."""

    def min_distance(self, first: str, second: str) -> float:
        """Return the minimum distance in Å between atoms of two elements."""


def check_room(problem: Limited) -> None:
    """Check that distances, volumes and cell do not exclude each other.

    Raises
    ------
    InputError
        If atoms at their minimum distances need more than the largest allowed volume, if periodic images of an atom in
        the fixed cell are too close, or if no cell with the allowed lengths has an allowed volume.
    """
    _check_packing(problem)
    if problem.cell is not None:
        _check_images(problem, problem.cell)
    if problem.length_bounds is not None:
        _check_lengths(problem, problem.length_bounds)


def no_size(problem: Limited, units: tuple[int, int], most_atoms: int) -> InputError:
    """Return the error for limits of atoms that allow no number of formula units, with the limits that would.

    Parameters
    ----------
    problem
        Problem whose ``units`` are empty.
    units
        Smallest and largest requested number of formula units.
    most_atoms
        Largest allowed value of ``max_atoms``.
    """
    each = problem.atoms_per_unit
    low, high = units
    content = f"{problem.formula} has {_count(each, 'atom')}"
    fewest, most = (f"{_count(n, 'formula unit')} {'are' if n > 1 else 'is'} {_count(n * each, 'atom')}" for n in units)
    larger = -(-problem.min_atoms // each)
    if low * each > problem.max_atoms:
        remedy = f"{fewest}: add --max-atoms {low * each} (max_atoms={low * each})"
        if low * each > most_atoms:
            remedy = f"a primitive cell has at most {most_atoms} atoms"
        return InputError("max_atoms", problem.max_atoms, reason=f"{content}; {remedy}")
    if high * each < problem.min_atoms:
        lower = f"lower --min-atoms to {high * each} (min_atoms={high * each})"
        remedy = f"{lower}, or add --formula-units {larger} (formula_units={larger})"
        return InputError("min_atoms", problem.min_atoms, reason=f"{content}; {most}: {remedy}")
    limits = f"no multiple of which is from {problem.min_atoms} to {problem.max_atoms}"
    remedy = f"add --max-atoms {larger * each} (max_atoms={larger * each})"
    return InputError("max_atoms", problem.max_atoms, reason=f"{content}, {limits}: {remedy}")


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'s' * (number > 1)}"


def cell_volume(parameters: Sequence[float]) -> float:
    """Return the volume in Å³ of a cell given by three lengths (Å) and three angles (degrees)."""
    a, b, c = parameters[:3]
    x, y, z = (math.cos(math.radians(angle)) for angle in parameters[3:])
    return a * b * c * math.sqrt(max(0.0, 1 - x * x - y * y - z * z + 2 * x * y * z))


def _check_packing(problem: Limited) -> None:
    most = problem.volume_bounds[1]
    for elements in _choices(list(problem.composition)):
        pairs = [(a, b) for i, a in enumerate(elements) for b in elements[i:]]
        distance = min(problem.min_distance(a, b) for a, b in pairs)
        share = sum(problem.composition[element] for element in elements) / problem.atoms_per_unit
        needed = share * DENSEST * distance**3
        if needed <= most * (1 + _MARGIN):
            continue
        possible = (most / (share * DENSEST)) ** (1 / 3)
        which = f"{' and '.join(elements)} atoms"
        reason = (
            f"it leaves too little room: {which} at distances of at least {distance:.2f} Å need {needed:.1f} Å³ "
            f"per atom of the crystal even in the densest packing of spheres, and at most {most:.1f} are allowed"
        )
        raise InputError(*_blamed(problem, pairs), reason=f"{reason}; {_remedy(problem, possible, needed)}")


def _choices(elements: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the subsets of elements whose packing is checked, single elements first."""
    if len(elements) > MOST_ELEMENTS:
        yield from ((element,) for element in elements)
        yield tuple(elements)
        return
    for size in range(1, len(elements) + 1):
        yield from combinations(elements, size)


def _blamed(problem: Limited, pairs: Sequence[tuple[str, str]]) -> tuple[str, object]:
    """Return the name and value of the limit, set by the user if possible, that leaves too little room."""
    named = {name for a, b in pairs for name in (f"{a}-{b}", f"{b}-{a}")}
    asked = {pair: distance for pair, distance in problem.min_distances.items() if pair in named and distance > 0}
    if asked:
        return "min_distances", asked
    for name in ("volume_per_atom", "cell"):
        if getattr(problem, name) is not None:
            return name, getattr(problem, name)
    return "distance_fraction", problem.distance_fraction


def _remedy(problem: Limited, possible: float, needed: float) -> str:
    distance = f"distances of up to {possible:.2f} Å are possible"
    if problem.cell is not None:
        return f"{distance} in this cell"
    return f"{distance}, or a volume_per_atom whose upper bound is above {needed:.1f} Å³"


def _check_images(problem: Limited, cell: tuple[float, ...]) -> None:
    from ase.cell import Cell

    shortest = float(Cell.fromcellpar(cell).minkowski_reduce()[0].lengths().min())
    for element in problem.composition:
        distance = problem.min_distance(element, element)
        if distance > shortest * (1 + _MARGIN):
            pair = f"{element}-{element}"
            images = f"an atom and its own image are {shortest:.2f} Å apart"
            if pair in problem.min_distances:
                allowed = f"at most {shortest:.2f} Å, because in this cell {images}"
                raise InputError("min_distances", {pair: distance}, allowed)
            reason = f"it is too short for {pair} distances of at least {distance:.2f} Å: {images}"
            raise InputError("cell", cell, reason=reason)


def _check_lengths(problem: Limited, lengths: tuple[float, float]) -> None:
    low, high = problem.volume_bounds
    fewest, most = (units * problem.atoms_per_unit for units in (problem.units[0], problem.units[-1]))
    # The volume of a reduced cell lies between abc/√2 and abc.
    largest, smallest = lengths[1] ** 3, DENSEST * lengths[0] ** 3
    if low * fewest > largest * (1 + _MARGIN):
        reason = (
            f"no cell with these lengths has {low * fewest:.1f} Å³, which {fewest} atoms take at least: the longest is "
            f"{(low * fewest) ** (1 / 3):.2f} Å or more"
        )
        raise InputError("length_bounds", lengths, reason=reason)
    if smallest > high * most * (1 + _MARGIN):
        reason = (
            f"a reduced cell with these lengths has at least {smallest:.1f} Å³, and {most} atoms take at most "
            f"{high * most:.1f}: the shortest is {(high * most / DENSEST) ** (1 / 3):.2f} Å or less"
        )
        raise InputError("length_bounds", lengths, reason=reason)
    for element in problem.composition:
        distance = problem.min_distance(element, element)
        if distance > lengths[1] * (1 + _MARGIN):
            reason = (
                f"the longest must be {distance:.2f} Å or more, because {element} atoms keep that distance also from "
                "their own images one cell away"
            )
            raise InputError("length_bounds", lengths, reason=reason)
