"""Construction of crystals from prototypes: substitution of elements, and random coordinates on Wyckoff positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

from hybridcsp.core.problem import Problem
from hybridcsp.prototypes.labels import Label, standardized_prototype
from hybridcsp.structure.placement import BONDS, SEPARATIONS, place, random_cell, separations
from hybridcsp.structure.separations import usual_distances
from hybridcsp.structure.symmetry import SYMPREC, spacegroup
from hybridcsp.structure.validity import cell_violation, shortest_violation
from hybridcsp.structure.wyckoff import space_group, wyckoff_position

# Factor by which scaled distances exceed the required ones, because of rounding.
_MARGIN = 1 + 1e-6


def substitute(
    structure: Atoms, elements: Mapping[int, int], problem: Problem, units: int, volume: float | None = None
) -> Atoms | None:
    """Substitute the elements of a structure and scale it to the volume expected for a problem, or to a given one.

    If atoms are closer than allowed, the crystal is expanded as far as the problem's volumes allow.

    Parameters
    ----------
    structure
        Primitive cell.
    elements
        New atomic numbers by old ones.
    problem
        Problem with volumes, distances, space groups and bounds of the cell.
    units
        Number of the problem's formula units in the result; the most compact supercell is built if the structure has
        fewer.
    volume
        Volume per atom in Å³; ``None`` for that expected for the problem.

    Returns
    -------
    Atoms or None
        ``None`` if no allowed volume satisfies all distances, or if other bounds of the problem are violated.
    """
    numbers = np.array([elements[number] for number in structure.numbers])
    atoms = Atoms(numbers, scaled_positions=structure.get_scaled_positions(), cell=structure.cell.array, pbc=True)
    return _fitted(atoms, problem, units, problem.expected_volume_per_atom if volume is None else volume)


def draw_crystal(
    label: Label, elements: Sequence[int], problem: Problem, units: int, rng: np.random.Generator
) -> Atoms | None:
    """Draw the cell and the free coordinates of a prototype.

    Cells, points and separations are drawn as in random search (:mod:`hybridcsp.structure.placement`) for the given
    space group and Wyckoff positions; a crystal that has become another prototype (at 0.01 Å) is drawn again.

    Parameters
    ----------
    label
        Prototype.
    elements
        Atomic number of the element in each slot.
    problem
        Problem with volumes, distances, space groups and bounds of the cell.
    units
        Number of the problem's formula units in the result; the most compact supercell is built if the prototype has
        fewer.
    rng
        Random generator.

    Returns
    -------
    Atoms or None
        ``None`` if none of a bounded number of attempts succeeded.
    """
    group = space_group(label.spacegroup)
    sites = [
        (element, wyckoff_position(label.spacegroup, letter))
        for element, letters in zip(elements, label.letters, strict=True)
        for letter in letters
    ]
    n_atoms = label.units * sum(label.stoichiometry)
    usual = usual_distances(problem, bonds=rng.random() < BONDS)
    for separation in SEPARATIONS[::2]:
        cell = random_cell(problem, group, n_atoms, rng)
        if cell is None:
            continue
        distances = separations(problem, usual, separation, abs(float(np.linalg.det(cell))) / n_atoms)
        placed = place(sites, cell, distances, rng)
        if placed is None:
            continue
        atoms = Atoms(placed[0], scaled_positions=placed[1], cell=cell, pbc=True)
        found = standardized_prototype(atoms, SYMPREC)
        if found is None or found[0] != label:
            continue
        finished = _finished(found[2], problem, units)
        if finished is not None:
            return finished
    return None


def _fitted(atoms: Atoms, problem: Problem, units: int, volume: float) -> Atoms | None:
    """Scale a crystal to a volume per atom (Å³), or to the smallest larger one that satisfies the distances."""
    low, high = problem.volume_bounds
    target = min(max(volume, low), high)
    atoms.set_cell(atoms.cell.array * (target * len(atoms) / atoms.get_volume()) ** (1 / 3), scale_atoms=True)
    close = shortest_violation(atoms, problem.distance_table)
    if close is not None:
        first, second, distance = close
        required = problem.distance_table[atoms.numbers[first], atoms.numbers[second]]
        if target * (required * _MARGIN / distance) ** 3 > high:
            return None
        atoms.set_cell(atoms.cell.array * required * _MARGIN / distance, scale_atoms=True)
    return _finished(atoms, problem, units)


def _finished(atoms: Atoms, problem: Problem, units: int) -> Atoms | None:
    """Return a supercell of the required size and handedness if it is within the problem's bounds."""
    times, rest = divmod(problem.atoms_per_unit * units, len(atoms))
    if rest or not times:
        return None
    wanted = atoms if times == 1 else supercell(atoms, times)
    if cell_violation(wanted, problem) is not None or shortest_violation(wanted, problem.distance_table) is not None:
        return None
    if not problem.spacegroups or spacegroup(wanted) in problem.spacegroups:
        return wanted
    other = wanted.copy()
    other.set_scaled_positions(-wanted.get_scaled_positions())
    return other if spacegroup(other) in problem.spacegroups else None


def supercell(atoms: Atoms, times: int) -> Atoms:
    """Return the most compact supercell of a number of cells: the one with the shortest reduced vectors."""
    import spglib

    cell = atoms.cell.array
    best = min(_hermite_forms(times), key=lambda form: _compactness(spglib.niggli_reduce(np.array(form) @ cell)))
    _, reduction = minkowski_reduce(np.array(best) @ cell)
    return make_supercell(atoms, reduction @ np.array(best))


def random_supercell(atoms: Atoms, times: int, rng: np.random.Generator) -> Atoms:
    """Return a supercell of a number of cells drawn at random among all superlattices, with reduced vectors."""
    forms = _hermite_forms(times)
    form = np.array(forms[int(rng.integers(len(forms)))])
    _, reduction = minkowski_reduce(form @ atoms.cell.array)
    return make_supercell(atoms, reduction @ form)


def _compactness(cell: NDArray[np.float64] | None) -> float:
    return float("inf") if cell is None else round(float((cell**2).sum()), 6)


@lru_cache(maxsize=64)
def _hermite_forms(determinant: int) -> list[list[list[int]]]:
    """Return all superlattices of a determinant as matrices in Hermite normal form."""
    divisors = [d for d in range(1, determinant + 1) if determinant % d == 0]
    return [
        [[a, b, c], [0, d, e], [0, 0, determinant // (a * d)]]
        for a in divisors
        for d in divisors
        if determinant % (a * d) == 0
        for b in range(d)
        for c in range(determinant // (a * d))
        for e in range(determinant // (a * d))
    ]
