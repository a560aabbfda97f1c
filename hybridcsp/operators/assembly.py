"""Assembly of crystals in a space group, from orbits of other crystals and from random ones."""

from __future__ import annotations

from collections import Counter

import numpy as np
from ase import Atoms
from ase.symbols import symbols2numbers
from numpy.typing import NDArray

from hybridcsp.operators.common import CARRIED, Floats
from hybridcsp.operators.subgroups import View
from hybridcsp.structure.geometry import lattice_vectors
from hybridcsp.structure.placement import place
from hybridcsp.structure.wyckoff import space_group

#: Number of distributions of the missing atoms over Wyckoff positions that are tried.
DISTRIBUTIONS = 4


class Assembly:
    """A crystal that is assembled orbit by orbit in the primitive cell of a space group.

    Parameters
    ----------
    number
        International number of the space group.
    metric
        Metric of the conventional cell except for its size, shape ``(3, 3)``.
    volume
        Volume of the primitive cell in Å³.
    distances
        Smallest distances in Å by atomic numbers, shape ``(119, 119)``.
    contents
        Number of atoms of each element in the primitive cell.
    """

    def __init__(self, number: int, metric: Floats, volume: float, distances: Floats, contents: dict[str, int]) -> None:
        self._group = space_group(number)
        cell = self._group.vectors @ np.linalg.cholesky(metric)
        self._cell = cell * np.cbrt(volume / abs(np.linalg.det(cell)))
        self._distances = distances
        self._missing = Counter({int(symbols2numbers(symbol)[0]): count for symbol, count in contents.items()})
        self._images = lattice_vectors(self._cell, float(distances.max()))
        self._numbers = np.empty(0, dtype=int)
        self._positions = np.empty((0, 3))
        self._origins: list[tuple[View, int]] = []

    def add(self, view: View, orbit: NDArray[np.int_], element: int | None = None) -> bool:
        """Add an orbit of a view in the same group; return whether there was room for it.

        Parameters
        ----------
        view
            The crystal that the orbit belongs to.
        orbit
            Indices of its atoms.
        element
            Atomic number of the atoms that are added; by default that of the orbit.
        """
        element = int(view.atoms.numbers[orbit[0]]) if element is None else element
        if self._missing[element] < len(orbit):
            return False
        points = view.positions[orbit] @ np.linalg.inv(self._group.vectors)
        if not self._is_free(element, points):
            return False
        self._missing[element] -= len(orbit)
        self._numbers = np.concatenate([self._numbers, np.full(len(orbit), element)])
        self._positions = np.vstack([self._positions, points % 1.0])
        self._origins += [(view, int(atom)) for atom in orbit]
        return True

    def complete(self, models: View, rng: np.random.Generator) -> Atoms | None:
        """Put the missing atoms on random orbits and return the crystal; ``None`` if there is no room for them.

        Parameters
        ----------
        models
            Crystal with all elements, from which the added atoms take their initial moments and charges.
        rng
            Random number generator.
        """
        missing = {element: count for element, count in self._missing.items() if count}
        numbers, positions = self._numbers, self._positions
        if missing:
            placed = self._place(missing, rng)
            if placed is None:
                return None
            numbers, positions = placed
        crystal = Atoms(numbers, cell=self._cell, scaled_positions=positions, pbc=True)
        self._carry(crystal, models)
        return crystal

    @property
    def missing(self) -> int:
        """Number of atoms that are missing."""
        return self._missing.total()

    @property
    def missing_elements(self) -> list[int]:
        """Atomic numbers of the elements of which atoms are missing."""
        return [element for element, count in self._missing.items() if count]

    def _place(
        self, missing: dict[int, int], rng: np.random.Generator
    ) -> tuple[NDArray[np.int_], NDArray[np.float64]] | None:
        elements, counts = list(missing), list(missing.values())
        if not self._group.holds(counts):
            return None
        for _ in range(DISTRIBUTIONS):
            sites = [(elements[kind], position) for kind, position in self._group.draw_sites(counts, rng)]
            occupied = (self._numbers, self._positions) if len(self._numbers) else None
            placed = place(sites, self._cell, self._distances, rng, occupied)
            if placed is not None:
                return placed
        return None

    def _is_free(self, element: int, points: Floats) -> bool:
        """Return whether the atoms of an orbit keep the distances; by symmetry the first one tells for all."""
        vectors = np.concatenate([points, self._positions]) - points[0]
        vectors = (vectors - np.rint(vectors)) @ self._cell
        squares = ((vectors[:, None] + self._images) ** 2).sum(axis=-1)
        squares[0, 0] = np.inf  # itself
        kinds = np.concatenate([np.full(len(points), element), self._numbers])
        return bool((squares.min(axis=1) >= self._distances[element, kinds] ** 2).all())

    def _carry(self, crystal: Atoms, models: View) -> None:
        """Copy initial moments and charges; added atoms, which come first, take those of the first of their element."""
        carried = [name for name in CARRIED if all(view.atoms.has(name) for view in (models, *dict(self._origins)))]
        if not carried:
            return
        added = len(crystal) - len(self._origins)
        first = [int(np.flatnonzero(models.atoms.numbers == number)[0]) for number in crystal.numbers[:added]]
        origins = [(models, index) for index in first] + self._origins
        for name in carried:
            crystal.set_array(name, np.array([view.atoms.get_array(name)[index] for view, index in origins]))
