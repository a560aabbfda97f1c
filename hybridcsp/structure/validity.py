"""Checks of structures: as crystals, as plausible crystals of their contents, and against a problem's requirements."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from ase import Atoms
from ase.cell import Cell
from numpy.typing import NDArray

from hybridcsp.core.outcomes import RejectionReason
from hybridcsp.core.problem import Problem, plain_problem
from hybridcsp.structure.geometry import FlatCellError, nearest_distances, neighbours, niggli_cell, niggli_parameters
from hybridcsp.structure.symmetry import spacegroup

#: Cells of a smaller volume (Å³) are treated as damaged.
MIN_VOLUME = 0.1

#: Atoms that are closer (Å) are treated as overlapping: at hundreds of GPa, H2 still measures 0.7 Å.
MIN_DISTANCE = 0.5

#: Lattice vectors and coordinates (Å) and volumes per atom (Å³) above these limits are treated as damaged; they would
#: only take memory and time.
MAX_LENGTH = 10_000.0
MAX_VOLUME_PER_ATOM = 10_000.0

_HEAVIEST_ELEMENT = 118

# A reduced cell whose lattice planes are this many times closer than MIN_DISTANCE was not reduced successfully.
_MAX_PLANE_DENSITY = 20.0

# All pairs are compared at once up to this number of atoms.
_ALL_PAIRS_LIMIT = 200

# Volumes that are scaled to a bound may miss it by rounding.
_ROUNDING = 1 + 1e-6


@dataclass(frozen=True)
class Violation:
    """A requirement of the problem that a structure does not meet."""

    reason: RejectionReason
    detail: str


def has_finite_geometry(atoms: Atoms) -> bool:
    """Return whether the positions, the cell and its volume are finite."""
    cell = atoms.cell.array
    if not (np.isfinite(atoms.positions).all() and np.isfinite(cell).all()):
        return False
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.linalg.det(cell)))


def is_finite_crystal(atoms: Atoms) -> bool:
    """Return whether there are atoms, finite positions, and a finite cell that spans a volume."""
    return bool(
        len(atoms) > 0
        and has_finite_geometry(atoms)
        and atoms.cell.rank == 3
        and abs(np.linalg.det(atoms.cell.array)) > 1e-3
    )


def is_crystal_of(atoms: Atoms, problem: Problem) -> bool:
    """Return whether a structure is a crystal of whole formula units of a problem, however many."""
    return is_finite_crystal(atoms) and problem.units_of(atoms.numbers) is not None


def find_defect(atoms: Atoms) -> str | None:
    """Return the reason for which a structure cannot be a real crystal, or ``None`` if it can.

    A crystal is periodic in three directions and has at least one atom, finite coordinates, and a cell with a volume,
    neither of absurd size. Every atom is of an element, and no two atoms overlap.
    """
    if not len(atoms):
        return "it has no atoms"
    cell = atoms.cell.array
    if not (np.isfinite(cell).all() and np.isfinite(atoms.positions).all()):
        return "its cell or its coordinates contain numbers that are not finite"
    if not atoms.pbc.all() or (cell == 0).all(axis=1).any():
        return "it has no cell that is periodic in three directions"
    longest = float(np.abs(cell).max())
    if longest > MAX_LENGTH or float(np.abs(atoms.positions).max()) > 1000 * MAX_LENGTH:
        return f"its cell is too long ({longest:.3g} Å), or its coordinates lie far outside of the cell"
    volume = abs(float(np.linalg.det(cell)))
    if volume > MAX_VOLUME_PER_ATOM * len(atoms):
        per_atom = volume / len(atoms)
        return f"its volume is {per_atom:.3g} Å³ per atom; at most {MAX_VOLUME_PER_ATOM:g} Å³ is allowed"
    if not volume >= MIN_VOLUME:
        return f"its cell has a volume of {volume:.3g} Å³; at least {MIN_VOLUME:g} is needed"
    if ((atoms.numbers < 1) | (atoms.numbers > _HEAVIEST_ELEMENT)).any():
        return "an atomic number does not belong to any element"
    return _overlap(atoms)


def shortest_violation(atoms: Atoms, distances: NDArray[np.float64]) -> tuple[int, int, float] | None:
    """Find the pair of atoms whose distance is the smallest in proportion to the required one.

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
    try:
        found = nearest_distances(atoms, float(required.max()))
    except FlatCellError:
        atom = int(required.diagonal().argmax())
        return atom, atom, float(np.linalg.norm(niggli_cell(atoms.cell.array), axis=1).min())
    ratio = found / np.maximum(required, 1e-9)
    worst = int(ratio.argmin())
    if not ratio.flat[worst] < 1:
        return None
    first, second = divmod(worst, len(atoms))
    return first, second, float(found[first, second])


def is_too_close(atoms: Atoms) -> bool:
    """Return whether atoms are closer than a problem of these contents allows by default."""
    return shortest_violation(atoms, _default_problem(atoms).distance_table) is not None


def is_plausible(atoms: Atoms, pressure_gpa: float | None = None) -> bool:
    """Return whether a problem of these contents allows the distances and the volume by default.

    Parameters
    ----------
    atoms
        A crystal.
    pressure_gpa
        Pressure of the problem in GPa; 0 where it is negative or ``None``.
    """
    problem = _default_problem(atoms, max(pressure_gpa or 0.0, 0.0))
    low, high = problem.volume_bounds
    if not low <= float(atoms.get_volume()) / len(atoms) <= high:
        return False
    return shortest_violation(atoms, problem.distance_table) is None


def violation(
    atoms: Atoms, problem: Problem, volume_bounds: tuple[float, float] | None = None, *, given: bool = False
) -> Violation | None:
    """Return the first requirement of a problem that a structure violates; the cheapest checks run first.

    Parameters
    ----------
    atoms
        The structure.
    problem
        Requirements: contents, cell, volumes, distances and space groups.
    volume_bounds
        Smallest and largest volume in Å³/atom; by default those of the problem.
    given
        Whether the user supplied the structure: then every volume is allowed, and every distance except those that
        occur in broken files only.

    Returns
    -------
    Violation or None
        ``None`` if the problem allows the structure.
    """
    if not is_finite_crystal(atoms):
        return Violation(RejectionReason.INVALID, "no atoms, an infinite or NaN number, or a cell without volume")
    if problem.units_of(atoms.numbers) not in problem.units:
        wanted = f"{problem.units_in_words} times {problem.formula}"
        return Violation(RejectionReason.COMPOSITION, f"{atoms.symbols} is not {wanted}")
    low, high = volume_bounds or problem.volume_bounds
    volume = atoms.get_volume() / len(atoms)
    if not given and not low / _ROUNDING <= volume <= high * _ROUNDING:
        return Violation(RejectionReason.VOLUME, f"{volume:.2f} Å³/atom, allowed {low:.2f} to {high:.2f}")
    wrong_cell = cell_violation(atoms, problem)
    if wrong_cell is not None:
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


def cell_violation(atoms: Atoms, problem: Problem) -> str | None:
    """Return how a cell differs from a problem's fixed cell or breaks its bounds, or ``None`` if it does not.

    Bounds of lengths and angles are those of the Niggli-reduced cell.
    """
    if problem.cell is not None:
        fixed = Cell.fromcellpar(problem.cell)
        metric, wanted = atoms.cell.array @ atoms.cell.array.T, fixed.array @ fixed.array.T
        return None if np.allclose(metric, wanted, rtol=1e-4, atol=1e-3) else "not the fixed cell"
    if problem.length_bounds is None and problem.angle_bounds is None:
        return None
    parameters = niggli_parameters(atoms)
    for name, values, bounds in (
        ("length", parameters[:3], problem.length_bounds),
        ("angle", parameters[3:], problem.angle_bounds),
    ):
        if bounds is not None and not (bounds[0] <= values.min() and values.max() <= bounds[1]):
            listed = ", ".join(f"{value:.2f}" for value in values)
            return f"{name}s {listed} of the reduced cell, allowed {bounds[0]:g} to {bounds[1]:g}"
    return None


def _default_problem(atoms: Atoms, pressure_gpa: float = 0.0) -> Problem:
    return _cached_problem(tuple(Counter(atoms.get_chemical_symbols()).items()), pressure_gpa)


@lru_cache(maxsize=1024)
def _cached_problem(contents: tuple[tuple[str, int], ...], pressure_gpa: float) -> Problem:
    return replace(plain_problem(dict(contents)), pressure_gpa=pressure_gpa)


def _overlap(atoms: Atoms) -> str | None:
    """Return a description of the closest pair of atoms if it is closer than :data:`MIN_DISTANCE`."""
    cell = atoms.cell.array
    inverse = np.linalg.inv(cell)
    closest: tuple[int, int, float] | None
    if np.linalg.norm(inverse, axis=0).max() * MIN_DISTANCE > 0.5:
        # Lattice planes are less than 1 Å apart: rounding fractions may miss a nearest image that is this close.
        cell = niggli_cell(cell)
        inverse = np.linalg.inv(cell)
    density = float(np.linalg.norm(inverse, axis=0).max()) * MIN_DISTANCE
    shortest = float(np.linalg.norm(cell, axis=1).min())
    if shortest < MIN_DISTANCE:
        closest = 0, 0, shortest
    elif density > _MAX_PLANE_DENSITY:
        return "its cell is so flat that lattice planes nearly coincide"
    elif density > 0.5:
        closest = _closest(*neighbours(atoms, MIN_DISTANCE))
    else:
        first, second = _candidate_pairs(atoms.positions @ inverse, inverse)
        vectors = atoms.positions[second] - atoms.positions[first]
        vectors -= np.rint(vectors @ inverse) @ cell
        closest = _closest(first, second, vectors, np.sqrt(np.einsum("nx,nx->n", vectors, vectors)))
    if closest is None:
        return None
    i, j, distance = closest
    pair = [f"{atoms.symbols[index]} (atom {index + 1})" for index in (i, j)]
    if i == j:
        return f"atoms on top of each other: {pair[0]} and its own image, {distance:.3f} Å apart"
    needed = f"(at least {MIN_DISTANCE} Å are needed)"
    return f"atoms on top of each other: {pair[0]} and {pair[1]}, {distance:.3f} Å apart {needed}"


def _candidate_pairs(
    scaled: NDArray[np.float64], inverse: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return pairs of atoms, among which are all that are closer than :data:`MIN_DISTANCE`."""
    if len(scaled) <= _ALL_PAIRS_LIMIT:
        first, second = np.triu_indices(len(scaled), 1)
        return first, second
    from scipy.spatial import KDTree

    wrapped = scaled % 1.0 % 1.0  # the second for -1e-17, which the first makes 1
    reach = MIN_DISTANCE * float(np.linalg.norm(inverse, axis=0).max())
    pairs = KDTree(wrapped, boxsize=1.0).query_pairs(reach, p=np.inf, output_type="ndarray")
    return pairs[:, 0], pairs[:, 1]


def _closest(
    first: NDArray[np.int_], second: NDArray[np.int_], vectors: NDArray[np.float64], lengths: NDArray[np.float64]
) -> tuple[int, int, float] | None:
    """Return the pair with the smallest length if that is below :data:`MIN_DISTANCE`."""
    if not len(lengths) or lengths.min() >= MIN_DISTANCE:
        return None
    at = int(lengths.argmin())
    return int(first[at]), int(second[at]), float(lengths[at])
