"""Construction of crystals from a space group and occupied Wyckoff positions at random points, for a problem."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
from ase import Atoms
from ase.cell import Cell
from numpy.typing import NDArray

from hybridcsp.core.problem import Problem
from hybridcsp.structure.placement import BONDS, place, random_cell, separations
from hybridcsp.structure.separations import usual_distances
from hybridcsp.structure.symmetry import primitive
from hybridcsp.structure.validity import shortest_violation
from hybridcsp.structure.wyckoff import SpaceGroup, WyckoffPosition, space_group

#: Share of crystals that keep the search's own distances, once there are some, in place of the usual ones.
OWN = 0.5

#: Largest deviation of a fixed cell from the metric of a crystal system, in Å and degrees.
METRIC_TOLERANCE = (0.05, 0.1)

_NO_DISTANCES = np.zeros((119, 119))

# Angles, and which lengths are equal, in the conventional cells of PyXtal's settings.
_METRICS: dict[str, tuple[tuple[float | None, ...], tuple[tuple[int, int], ...]]] = {
    "triclinic": ((None, None, None), ()),
    "monoclinic": ((90, None, 90), ()),
    "orthorhombic": ((90, 90, 90), ()),
    "tetragonal": ((90, 90, 90), ((0, 1),)),
    "hexagonal": ((90, 90, 120), ((0, 1),)),
    "cubic": ((90, 90, 90), ((0, 1), (1, 2))),
}

#: Distances in Å by atomic numbers, and the fraction of them that atoms must keep.
Separation = tuple[NDArray[np.float64], float]


class CrystalBuilder:
    """Build crystals of one problem: a random cell of the group's lattice type, and random points that keep apart.

    Parameters
    ----------
    problem
        The problem. A fixed cell is filled with groups whose metric it has in any order of axes.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._settings = _settings(problem.cell) if problem.cell else None
        self._usual = usual_distances(problem), usual_distances(problem, bonds=True)

    def holds(self, number: int, units: int) -> bool:
        """Return whether positions of a space group hold the contents, and the group fits a fixed cell."""
        if self._settings is not None and self.group(number).lattice_type not in self._settings:
            return False
        return self.group(number).holds(list(self._problem.contents(units).values()))

    def group(self, number: int) -> SpaceGroup:
        """Return a space group with the positions of the primitive cell, or of the conventional one in a fixed cell."""
        return space_group(number, conventional=self._settings is not None)

    def draw_distances(self, own: NDArray[np.float64] | None, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return the distances in Å, by atomic numbers, that the atoms of a random crystal should keep.

        Parameters
        ----------
        own
            Distances in the best minima of the search, which half of the crystals keep; ``None`` if there are none.
        rng
            Random number generator.
        """
        usual = self._usual[int(rng.random() < BONDS)]
        return own if own is not None and rng.random() < OWN else usual

    def build(
        self,
        number: int,
        sites: Sequence[tuple[int, WyckoffPosition]],
        separation: Separation | None,
        rng: np.random.Generator,
    ) -> Atoms | None:
        """Return one crystal, or ``None`` if it cannot be built.

        Parameters
        ----------
        number
            Space group.
        sites
            Atomic number and position of each orbit.
        separation
            Distances in Å and the fraction of them that is kept; ``None`` to ignore distances.
        rng
            Random number generator.
        """
        n_atoms = sum(position.multiplicity for _, position in sites)
        group = self.group(number)
        if self._settings is not None:
            settings = self._settings[group.lattice_type]
            order = settings[rng.integers(len(settings))]
            cell = Cell.fromcellpar(self._problem.cell).array[order]
        else:
            order = [0, 1, 2]
            cell = random_cell(self._problem, group, n_atoms, rng)
            if cell is None:
                return None
        volume = abs(float(np.linalg.det(cell))) / n_atoms
        distances = _NO_DISTANCES if separation is None else separations(self._problem, *separation, volume)
        placed = place(sites, cell, distances, rng)
        if placed is None:
            return None
        back = np.argsort(order)
        atoms = Atoms(numbers=placed[0], cell=cell[back], scaled_positions=placed[1][:, back], pbc=True)
        if self._settings is None:
            atoms = primitive(atoms)
            if len(atoms) != n_atoms:
                return None
        return None if shortest_violation(atoms, distances) else atoms


def _settings(parameters: Sequence[float]) -> dict[str, list[list[int]]]:
    """Return for each lattice type whose metric a cell has the orders of its axes with that metric."""
    length_tolerance, angle_tolerance = METRIC_TOLERANCE
    found: dict[str, list[list[int]]] = {}
    for order in map(list, permutations(range(3))):
        lengths = [parameters[i] for i in order]
        angles = [parameters[3 + i] for i in order]
        for lattice_type, (wanted, equal) in _METRICS.items():
            if all(w is None or abs(a - w) <= angle_tolerance for a, w in zip(angles, wanted, strict=True)) and all(
                abs(lengths[i] - lengths[j]) <= length_tolerance for i, j in equal
            ):
                found.setdefault(lattice_type, []).append(order)
    return found
