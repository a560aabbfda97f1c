"""Adjustment of a crystal's contents by removal, transmutation and addition of orbits of symmetry operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import product

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray
from scipy.spatial import Voronoi

from hybridcsp.operators.common import Floats
from hybridcsp.operators.soft_mutation import coordination_numbers
from hybridcsp.operators.symmetry import Operations
from hybridcsp.structure.geometry import lattice_vectors

#: Standard deviations of the logarithms of random factors, so that the orbit of lowest coordination is not always
#: removed first, nor the largest hole always filled first.
REMOVAL_NOISE, HOLE_NOISE = 0.5, 0.1

#: Distance in Å at which images of a point are the same point.
SAME_POINT = 0.05

# Lattice vectors to the cell and its neighbours.
_NEIGHBOURS = np.array(list(product((-1, 0, 1), repeat=3)), dtype=float)


class ContentsAdjustment:
    """A crystal whose contents are adjusted orbit by orbit.

    Orbits are those of the group that some operations generate, so that the result keeps these operations. Each method
    changes as much as it can; :attr:`crystal` is the result once nothing is left to do.

    Parameters
    ----------
    crystal
        The crystal, in a reduced cell of the volume that the result should have. It is not changed.
    generators
        Operations of the crystal that are kept; none at all for single atoms as orbits.
    contents
        Number of atoms of each element in the result.
    rng
        Random number generator.
    """

    def __init__(
        self, crystal: Atoms, generators: Operations | None, contents: Mapping[str, int], rng: np.random.Generator
    ) -> None:
        self._rng = rng
        self._cell = crystal.cell.array.copy()
        self._numbers = crystal.numbers.copy()
        self._scaled = crystal.get_scaled_positions()
        self._generators = generators
        self._orbits = _orbits(len(crystal), generators)
        self._coordination = coordination_numbers(crystal)
        self._balance = Counter({atomic_numbers[symbol]: -count for symbol, count in contents.items()})
        self._balance.update(self._numbers.tolist())

    @property
    def excess(self) -> int:
        """Number of atoms by which the crystal has more than the result; negative if it has fewer."""
        return self._balance.total()

    @property
    def surplus(self) -> int:
        """Number of atoms of elements of which there are too many."""
        return sum(count for count in self._balance.values() if count > 0)

    @property
    def missing(self) -> int:
        """Number of atoms of elements of which there are too few."""
        return -sum(count for count in self._balance.values() if count < 0)

    def remove(self, most: int) -> bool:
        """Remove orbits of surplus elements, those of low coordination first; return whether ``most`` atoms went."""
        noise = np.exp(REMOVAL_NOISE * self._rng.normal(size=len(self._orbits)))
        strengths = noise * [self._coordination[orbit].mean() for orbit in self._orbits]
        removed: list[int] = []
        for index in np.argsort(strengths, kind="stable"):
            orbit = self._orbits[index]
            element = int(self._numbers[orbit[0]])
            if len(orbit) <= min(most, self._balance[element]):
                most -= len(orbit)
                self._balance[element] -= len(orbit)
                removed += orbit.tolist()
        self._keep(np.setdiff1d(np.arange(len(self._numbers)), removed))
        return most == 0

    def transmute(self) -> bool:
        """Change elements of orbits from surplus to missing ones; return whether no surplus is left."""
        for index in self._rng.permutation(len(self._orbits)):
            orbit = self._orbits[index]
            element = int(self._numbers[orbit[0]])
            if len(orbit) > self._balance[element]:
                continue
            others = [other for other, count in self._balance.items() if -count >= len(orbit)]
            if others:
                other = others[self._rng.integers(len(others))]
                self._numbers[orbit] = other
                self._balance[element] -= len(orbit)
                self._balance[other] += len(orbit)
        return self.surplus == 0

    def add(self, distances: Floats) -> bool:
        """Put missing atoms into the largest holes; return whether there was room for all.

        Holes are the vertices of the Voronoi cells of the atoms, each with its images under the operations that are
        kept. Their size is the smallest ratio of a distance to the required one.

        Parameters
        ----------
        distances
            Required distances in Å by atomic numbers, shape ``(119, 119)``.
        """
        while self.missing:
            elements = [element for element, count in self._balance.items() if count < 0]
            element = elements[self._rng.integers(len(elements))]
            points = self._hole(element, distances)
            if points is None:
                return False
            start = len(self._numbers)
            self._numbers = np.concatenate([self._numbers, np.full(len(points), element)])
            self._scaled = np.vstack([self._scaled, points])
            self._orbits.append(np.arange(start, start + len(points)))
            self._balance[element] += len(points)
        return True

    @property
    def crystal(self) -> Atoms:
        """The crystal as it is now, without initial moments and charges, which belong to the elements."""
        return Atoms(self._numbers, cell=self._cell, scaled_positions=self._scaled, pbc=True)

    def _keep(self, kept: NDArray[np.int_]) -> None:
        places = np.full(len(self._numbers), -1)
        places[kept] = np.arange(len(kept))
        self._orbits = [places[orbit] for orbit in self._orbits if places[orbit[0]] >= 0]
        self._numbers, self._scaled = self._numbers[kept], self._scaled[kept]
        self._coordination = self._coordination[kept]

    def _hole(self, element: int, distances: Floats) -> Floats | None:
        """Return an orbit of points with room for atoms of an element, shape ``(n, 3)``, or ``None``."""
        holes = _voronoi_vertices(self._scaled, self._cell)
        if not len(holes):
            return None
        required = np.maximum(distances[element, self._numbers], 1e-9)
        images = lattice_vectors(self._cell, 2 * float(distances.max()))
        sizes = _nearest(holes, self._scaled, self._cell, images, required)
        noise = np.exp(HOLE_NOISE * self._rng.normal(size=len(holes)))
        for index in np.argsort(-sizes * noise, kind="stable"):
            if sizes[index] < 1:
                continue
            orbit = _images_of(holes[index], self._generators, self._cell, -self._balance[element])
            if orbit is not None and _keeps_own_distance(orbit, self._cell, images, distances[element, element]):
                return orbit
        return None


def draw_generators(group: Operations, rng: np.random.Generator) -> Operations:
    """Return one to four random operations of a group: the more of them, the larger are their orbits."""
    return group.select(rng.integers(len(group), size=rng.integers(1, 5)).tolist())


def _orbits(n_atoms: int, generators: Operations | None) -> list[NDArray[np.int_]]:
    """Return the orbits of atoms under the group that some operations generate."""
    labels = np.arange(n_atoms)
    changed = generators is not None
    while changed:
        before = labels.copy()
        for images in generators.images if generators is not None else ():
            lower = np.minimum(labels, labels[images])
            labels = lower.copy()
            np.minimum.at(labels, images, lower)
        changed = not np.array_equal(before, labels)
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def _voronoi_vertices(scaled: Floats, cell: Floats) -> Floats:
    """Return the different vertices of the Voronoi cells of atoms as fractional positions, shape ``(n, 3)``."""
    points = ((scaled % 1.0)[None] + _NEIGHBOURS[:, None]).reshape(-1, 3) @ cell
    vertices = Voronoi(points).vertices @ np.linalg.inv(cell)
    vertices = vertices[((vertices > -1e-6) & (vertices < 1 - 1e-6)).all(axis=1)]
    _, first = np.unique(np.round(vertices, 3), axis=0, return_index=True)
    return np.asarray(vertices[np.sort(first)])


def _nearest(points: Floats, scaled: Floats, cell: Floats, images: Floats, required: Floats) -> Floats:
    """Return the smallest ratio of the distance of each point from an atom to the required one, shape ``(n,)``."""
    vectors = scaled - points[:, None]
    vectors = (vectors - np.rint(vectors)) @ cell
    squares = ((vectors[:, :, None] + images) ** 2).sum(axis=-1).min(axis=-1)
    return np.asarray((np.sqrt(squares) / required).min(axis=1))


def _images_of(point: Floats, generators: Operations | None, cell: Floats, most: int) -> Floats | None:
    """Return the orbit of a point, shape ``(n, 3)``; ``None`` if it has more points than ``most``."""
    orbit = [point]
    if generators is not None:
        for member in orbit:  # the list grows during the iteration
            for rotation, translation in zip(generators.rotations, generators.translations, strict=True):
                image = rotation @ member + translation
                vectors = np.array(orbit) - image
                vectors = (vectors - np.rint(vectors)) @ cell
                if (vectors**2).sum(axis=1).min() > SAME_POINT**2:
                    orbit.append(image)
                    if len(orbit) > most:
                        return None
    return np.array(orbit) % 1.0


def _keeps_own_distance(orbit: Floats, cell: Floats, images: Floats, required: float) -> bool:
    """Return whether the points of an orbit keep a distance from each other and from their own images."""
    vectors = orbit - orbit[0]
    vectors = (vectors - np.rint(vectors)) @ cell
    squares = ((vectors[:, None] + images) ** 2).sum(axis=-1)
    squares[0, 0] = np.inf  # itself
    return bool(squares.min() >= required**2)
