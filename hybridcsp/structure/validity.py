"""Checks of whether a structure is a crystal at all, and of whether it is one that a problem allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.cell import Cell
from numpy.typing import NDArray

from hybridcsp.core.problem import Problem
from hybridcsp.core.records import RejectionReason
from hybridcsp.structure.geometry import nearest_distances, niggli_parameters
from hybridcsp.structure.symmetry import spacegroup

# Volumes that are brought to a bound may miss it by rounding.
_MARGIN = 1 + 1e-6


@dataclass(frozen=True)
class Violation:
    """A requirement of the problem that a structure does not meet."""

    reason: RejectionReason
    detail: str


def is_finite_crystal(atoms: Atoms) -> bool:
    """Whether there are atoms, finite positions, and a finite cell that spans a volume."""
    return bool(
        len(atoms) > 0
        and np.isfinite(atoms.positions).all()
        and np.isfinite(atoms.cell.array).all()
        and atoms.cell.rank == 3
        and abs(np.linalg.det(atoms.cell.array)) > 1e-3
    )


def shortest_violation(atoms: Atoms, distances: NDArray[np.float64]) -> tuple[int, int, float] | None:
    """Find the pair of atoms that is closest in proportion to what is required.

    Parameters
    ----------
    atoms
        Periodic structure; an atom and its own image are a pair too.
    distances
        Required distances in Å by atomic numbers, shape ``(119, 119)``.

    Returns
    -------
    tuple or None
        Indices and distance (Å) of the worst pair that is closer than required, ``None`` if there is none.
    """
    required = distances[np.ix_(atoms.numbers, atoms.numbers)]
    found = nearest_distances(atoms, float(required.max()))
    ratio = found / np.maximum(required, 1e-9)
    worst = int(ratio.argmin())
    if not ratio.flat[worst] < 1:
        return None
    first, second = divmod(worst, len(atoms))
    return first, second, float(found[first, second])


def violation(
    atoms: Atoms, problem: Problem, volume_bounds: tuple[float, float] | None = None, *, given: bool = False
) -> Violation | None:
    """Return the first requirement of a problem that a structure violates; the cheapest checks run first.

    Parameters
    ----------
    atoms
    The structure.
    problem
    Its contents, cell, volumes, distances and space groups.
    volume_bounds
    Smallest and largest volume in Å³/atom; by default those of the problem.
    given
    Whether a person brought the structure: then every volume is allowed, and every distance except those that
    occur in broken files only.

    Returns
    -------
    Violation or None
    ``None`` if the problem allows the structure.
    """
    if not is_finite_crystal(atoms):
        return Violation(RejectionReason.INVALID, "no atoms, numbers that are not finite, or a cell without volume")
    if problem.units_of(atoms.numbers) not in problem.units:
        wanted = f"{problem.units_in_words} times {problem.formula}"
        return Violation(RejectionReason.COMPOSITION, f"{atoms.symbols} is not {wanted}")
    low, high = volume_bounds or problem.volume_bounds
    volume = atoms.get_volume() / len(atoms)
    if not given and not low / _MARGIN <= volume <= high * _MARGIN:
        return Violation(RejectionReason.VOLUME, f"{volume:.2f} Å³/atom, allowed {low:.2f} to {high:.2f}")
    wrong_cell = _wrong_cell(atoms, problem)
    if wrong_cell:
        return Violation(RejectionReason.CELL, wrong_cell)
    distances = problem.broken_distances if given else problem.distance_table
    close = shortest_violation(atoms, distances)
    if close is not None:
        first, second, distance = close
        pair = atoms.symbols[first], atoms.symbols[second]
        needed = distances[atoms.numbers[first], atoms.numbers[second]]
        return Violation(RejectionReason.DISTANCE, f"{pair[0]}-{pair[1]} {distance:.2f} Å, at least {needed:.2f}")
    if problem.spacegroups:
        group = spacegroup(atoms)
        if group not in problem.spacegroups:
            return Violation(RejectionReason.SPACEGROUP, f"space group {group}")
    return None


def _wrong_cell(atoms: Atoms, problem: Problem) -> str:
    if problem.cell is not None:
        fixed = Cell.fromcellpar(problem.cell)
        metric, wanted = atoms.cell.array @ atoms.cell.array.T, fixed.array @ fixed.array.T
        return "" if np.allclose(metric, wanted, rtol=1e-4, atol=1e-3) else "not the fixed cell"
    if problem.length_bounds is None and problem.angle_bounds is None:
        return ""
    parameters = niggli_parameters(atoms)
    for name, values, bounds in (
        ("length", parameters[:3], problem.length_bounds),
        ("angle", parameters[3:], problem.angle_bounds),
    ):
        if bounds is not None and not (bounds[0] <= values.min() and values.max() <= bounds[1]):
            listed = ", ".join(f"{value:.2f}" for value in values)
            return f"{name}s {listed} of the reduced cell, allowed {bounds[0]:g} to {bounds[1]:g}"
    return ""
