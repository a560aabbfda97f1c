"""Common steps of operators: completion and checks of a child, and repeated attempts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.core.problem import Problem
from hybridcsp.structure.geometry import niggli_cell
from hybridcsp.structure.separations import shortest_distances
from hybridcsp.structure.symmetry import spacegroup
from hybridcsp.structure.validity import cell_violation, is_finite_crystal, shortest_violation

Floats = NDArray[np.float64]

#: Number of attempts of an operator for the same parents.
ATTEMPTS = 24

#: Fraction of the parents' shortest distances that the first attempt must keep; the last must keep the problem's only.
SEPARATION = 0.8

#: Cells with an angle outside these bounds (degrees) are Niggli-reduced.
ANGLES = (55.0, 125.0)

#: Largest length of a vector of a reduced cell, in cube roots of the volume.
LONGEST = 5.0

#: Per-atom arrays that a child inherits from its parents.
CARRIED = ("initial_magmoms", "initial_charges")


def bounded_attempts(
    make: Callable[[], Atoms | None], parents: Sequence[Atoms], problem: Problem, attempts: int = ATTEMPTS
) -> Atoms | None:
    """Call a function until it returns a child that obeys the problem; return ``None`` if all attempts fail.

    The required distances are those of the parents, which are relaxed, for the first attempt, and decrease to those of
    the problem: a structure with short distances needs many steps to relax, or explodes.

    Parameters
    ----------
    make
        Function that returns a draft of a child, or ``None``.
    parents
        The parents of the child.
    problem
        The problem that the child has to obey.
    attempts
        Largest number of calls.
    """
    wanted = SEPARATION * shortest_distances(parents)
    for attempt in range(attempts):
        child = make()
        if child is not None:
            distances = np.maximum(problem.distance_table, wanted * (1 - attempt / max(attempts - 1, 1)))
            finished = finish(child, problem, distances, parents)
            if finished is not None:
                return finished
    return None


def finish(
    child: Atoms, problem: Problem, distances: Floats | None = None, parents: Sequence[Atoms] = ()
) -> Atoms | None:
    """Complete the draft of a child, or return ``None`` if it cannot obey the problem.

    Parameters
    ----------
    child
        Draft of any composition, cell and volume.
    problem
        The problem whose contents, cell, bounds and space groups the child has to obey.
    distances
        Required distances in Å by atomic numbers, shape ``(119, 119)``; by default those of the problem.
    parents
        The parents of the child. The volume of the child is scaled into the bounds of the problem; if these are only
        estimated, they first include the volumes of the parents, which are those of minima.

    Returns
    -------
    Atoms or None
        The child with atoms wrapped into the cell; of the parents' arrays it has only initial moments and charges.
    """
    if not is_finite_crystal(child) or problem.units_of(child.numbers) not in problem.units:
        return None
    result = Atoms(
        numbers=child.numbers, cell=child.cell, scaled_positions=child.get_scaled_positions() % 1.0, pbc=True
    )
    carry(child, result, np.arange(len(child)))
    if problem.cell is None:
        low, high = _volume_range(parents, problem)
        volume = result.get_volume() / len(result)
        allowed = float(np.clip(volume, 1.001 * low, 0.999 * high))
        if allowed != volume:
            result.set_cell(result.cell.array * (allowed / volume) ** (1 / 3), scale_atoms=True)
        unskew(result)
        if result.cell.lengths().max() > LONGEST * result.get_volume() ** (1 / 3):
            return None
    if shortest_violation(result, problem.distance_table if distances is None else distances) is not None:
        return None
    if cell_violation(result, problem) is not None:
        return None
    if problem.spacegroups and spacegroup(result) not in problem.spacegroups:
        return None
    return result


def _volume_range(parents: Sequence[Atoms], problem: Problem) -> tuple[float, float]:
    """Return the smallest and largest volume per atom (Å³) that a child may have."""
    low, high = problem.volume_bounds
    if not problem.estimates_volume:
        return low, high
    volumes = [parent.get_volume() / len(parent) for parent in parents]
    return min([low, *volumes]), max([high, *volumes])


def unskew(atoms: Atoms) -> None:
    """Replace a cell with extreme angles by its Niggli-reduced cell; the crystal stays the same."""
    angles = atoms.cell.angles()
    if angles.min() < ANGLES[0] or angles.max() > ANGLES[1]:
        atoms.set_cell(reduced(atoms).cell, scale_atoms=False)
        atoms.wrap()


def reduced(atoms: Atoms) -> Atoms:
    """Return the crystal in its Niggli-reduced cell, without a rotation; unchanged if spglib fails."""
    result = atoms.copy()
    result.set_cell(niggli_cell(atoms.cell.array), scale_atoms=False)
    return result


def carry(source: Atoms, target: Atoms, indices: NDArray[np.int_] | Sequence[int]) -> None:
    """Copy initial moments and charges to ``target``, whose atoms have the given indices in ``source``."""
    for name in CARRIED:
        if source.has(name):
            target.set_array(name, source.get_array(name)[np.asarray(indices, dtype=int)])


def length_unit(atoms: Atoms) -> float:
    """Return the cube root of the volume per atom in Å, the unit of displacements."""
    return float((atoms.get_volume() / len(atoms)) ** (1 / 3))
