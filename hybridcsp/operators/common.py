"""What every operator needs: to make its child a proper crystal, and to try again where that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from numpy.typing import NDArray

from hybridcsp.core.problem import Problem
from hybridcsp.structure.geometry import nearest_distances, niggli_cell
from hybridcsp.structure.symmetry import spacegroup
from hybridcsp.structure.validity import cell_violation, is_finite_crystal, shortest_violation

Floats = NDArray[np.float64]

#: How often an operator tries before it gives up on its parents.
ATTEMPTS = 24

#: The first attempts must keep this fraction of the parents' own shortest distances, the last only the problem's.
SEPARATION = 0.8

#: Cells with an angle outside these bounds (degrees) are replaced by their Niggli-reduced ones.
ANGLES = (55.0, 125.0)

#: Longest vector of a reduced cell in cube roots of its volume.
LONGEST = 5.0

#: Per-atom arrays that follow atoms from parent to child.
CARRIED = ("initial_magmoms", "initial_charges")


def bounded_attempts(
    make: Callable[[], Atoms | None], parents: Sequence[Atoms], problem: Problem, attempts: int = ATTEMPTS
) -> Atoms | None:
    """Call ``make`` until a child comes out that obeys the problem; ``None`` if none does.

    Distances are asked for as in the parents first, which are relaxed, and loosened down to the problem's: a start
    with short contacts costs many steps, or explodes.
    """
    wanted = SEPARATION * shortest_distances(parents)
    for attempt in range(attempts):
        child = make()
        if child is not None:
            distances = np.maximum(problem.distance_table, wanted * (1 - attempt / (attempts - 1)))
            finished = finish(child, problem, distances, parents)
            if finished is not None:
                return finished
    return None


def finish(
    child: Atoms, problem: Problem, distances: Floats | None = None, parents: Sequence[Atoms] = ()
) -> Atoms | None:
    """Make a child ready to be proposed, or say that it cannot be.

    Parameters
    ----------
    child
        Of any composition, cell and volume.
    problem
        Its contents, cell, bounds and space groups are obeyed.
    distances
        Required distances in Å by atomic numbers, shape ``(119, 119)``; by default the problem's.
    parents
        What it comes from. The volume is brought into the problem's bounds; where these are only estimated, they are
        widened to the parents' volumes first, which are those of minima.

    Returns
    -------
    Atoms or None
        With atoms inside the cell, and nothing of the parents but initial moments and charges.
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
    """Replace the cell by its Niggli-reduced one where its angles are extreme; the crystal stays what it is."""
    angles = atoms.cell.angles()
    if angles.min() < ANGLES[0] or angles.max() > ANGLES[1]:
        atoms.set_cell(reduced(atoms).cell, scale_atoms=False)
        atoms.wrap()


def reduced(atoms: Atoms) -> Atoms:
    """Return the same crystal, not rotated, in its Niggli-reduced cell; as it is where spglib fails."""
    result = atoms.copy()
    result.set_cell(niggli_cell(atoms.cell.array), scale_atoms=False)
    return result


def carry(source: Atoms, target: Atoms, indices: NDArray[np.int_] | Sequence[int]) -> None:
    """Give each atom of ``target`` the initial moment and charge of the atom of ``source`` that it comes from."""
    for name in CARRIED:
        if source.has(name):
            target.set_array(name, source.get_array(name)[np.asarray(indices, dtype=int)])


def shortest_distances(parents: Sequence[Atoms]) -> Floats:
    """Shortest distances found in the parents in Å by atomic numbers, shape ``(119, 119)``.

    Where no two such atoms are near each other, the sum of covalent radii; 0 for elements that do not occur.
    """
    table = np.zeros((119, 119))
    numbers = np.unique(np.concatenate([parent.numbers for parent in parents]))
    block = np.ix_(numbers, numbers)
    reach = 1.3 * (covalent_radii[numbers][:, None] + covalent_radii[numbers])
    table[block] = np.inf
    for parent in parents:
        found = nearest_distances(parent, float(reach.max()))
        found[found >= reach.max()] = np.inf
        np.minimum.at(table, np.ix_(parent.numbers, parent.numbers), found)
    table[block] = np.where(np.isfinite(table[block]), table[block], reach / 1.3)
    return table


def length_unit(atoms: Atoms) -> float:
    """Cube root of the volume per atom in Å: what displacements are measured in."""
    return float((atoms.get_volume() / len(atoms)) ** (1 / 3))
