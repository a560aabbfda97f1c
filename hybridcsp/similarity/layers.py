"""The layers of a crystal: which of its atoms hang together in sheets, and their environments within these."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from hybridcsp.similarity.fingerprint import Crystal, Floats

#: Smallest ratio of the contacts between layers to the longest bond that holds a layer together, both in sums of
#: covalent radii.
GAP = 1.2

#: Largest contact in sums of covalent radii; whatever is not connected by then is taken as separate.
REACH = 2.5
_FIRST_REACH = 1.3

#: Number of neighbours, of all elements together, whose distances describe the environment of an atom in its layer.
NEIGHBOURS = 24

# Distance in Å within which they are first looked for, and the one given for an element that the layer does not have.
_RADIUS = 6.0
_ABSENT = 100.0

_MAX_ATOMS_TO_PAIR = 200


@dataclass(frozen=True, eq=False, slots=True)
class Layers:
    """The layers of a crystal, without their arrangement.

    Attributes
    ----------
    numbers
        Atomic numbers of the crystal, ascending, shape ``(n_atoms,)``.
    environments
        Sorted distances in Å from each atom to its nearest neighbours of each element in the same layer, shape
        ``(n_atoms, n_neighbours)``.
    """

    numbers: NDArray[np.uint8]
    environments: Floats


@lru_cache(maxsize=16)  # it is needed to find a niche, and again to begin one
def find_layers(crystal: Crystal) -> Layers | None:
    """Return the layers of a crystal, or ``None`` if it does not consist of layers.

    Contacts are added in the order of their lengths, in sums of covalent radii, until all atoms are connected in three
    dimensions. A crystal consists of layers if before that all atoms belonged to components that are connected in two
    dimensions, and if the contact that connects them is at least :data:`GAP` times as long as any within.
    """
    for reach in (_FIRST_REACH, REACH):  # most crystals are connected within the first
        bonded = _Components(len(crystal.numbers))
        last = 0.0
        for i, j, shift, length in zip(*(values.tolist() for values in _contacts(crystal, reach)), strict=True):
            if last and length >= GAP * last and bonded.are_layers():
                return Layers(crystal.numbers, _environments(crystal, bonded))
            if bonded.connect(i, j, shift):
                last = length
                if bonded.largest_rank == 3:
                    return None
    return Layers(crystal.numbers, _environments(crystal, bonded)) if bonded.are_layers() else None


class _Components:
    """Connected components of a periodic graph, with the lattice vectors that lead from a component to itself."""

    def __init__(self, n_atoms: int) -> None:
        self.root = list(range(n_atoms))
        self.shift = [(0, 0, 0)] * n_atoms  # the cell in which the root's component has the atom
        self.members = [[i] for i in range(n_atoms)]
        self.cycles: list[list[tuple[int, int, int]]] = [[] for _ in range(n_atoms)]  # independent, by root
        self.largest_rank = 0

    def connect(self, i: int, j: int, shift: list[int]) -> bool:
        """Connect an atom with the image of another one, ``shift`` cells away; return whether that changed anything."""
        a, b = self.root[i], self.root[j]
        (x, y, z), (u, v, w), (p, q, r) = self.shift[i], self.shift[j], shift
        offset = (x + p - u, y + q - v, z + r - w)  # the cell of b's component that belongs to a's
        if a == b:
            return self._add_cycle(a, offset)
        if len(self.members[a]) < len(self.members[b]):
            a, b, offset = b, a, (-offset[0], -offset[1], -offset[2])
        for k in self.members[b]:
            self.root[k] = a
            s = self.shift[k]
            self.shift[k] = (s[0] + offset[0], s[1] + offset[1], s[2] + offset[2])
        self.members[a] += self.members[b]
        self.members[b] = []
        for cycle in self.cycles[b]:
            self._add_cycle(a, cycle)
        self.cycles[b] = []
        return True

    def _add_cycle(self, root: int, cycle: tuple[int, int, int]) -> bool:
        known = self.cycles[root]
        if len(known) == 3 or not any(cycle):
            return False
        if len(known) == 1 and not any(_cross(known[0], cycle)):
            return False
        if len(known) == 2 and not _dot(_cross(*known), cycle):
            return False
        known.append(cycle)
        self.largest_rank = max(self.largest_rank, len(known))
        return True

    def are_layers(self) -> bool:
        """Return whether every atom belongs to a component that is connected in two dimensions and no more."""
        return all(len(cycles) == 2 for members, cycles in zip(self.members, self.cycles, strict=True) if members)


def _cross(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _dot(a: tuple[int, int, int], b: tuple[int, int, int]) -> int:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _images(cell: Floats, radius: float) -> NDArray[np.int64]:
    """Return the lattice vectors needed for distances up to a radius between positions in one cell."""
    reach = np.floor(radius * np.linalg.norm(np.linalg.inv(cell), axis=0) + 1).astype(int)
    steps = np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij")
    return np.stack(steps, axis=-1).reshape(-1, 3)


def _contacts(crystal: Crystal, reach: float) -> tuple[NDArray[Any], ...]:
    """Return the contacts up to a length in sums of covalent radii, shortest first.

    They are four arrays: first atoms, second atoms, the cells of the second, and lengths.
    """
    radii = covalent_radii[crystal.numbers]
    images = _images(crystal.cell, reach * 2 * float(radii.max()))
    first, second = np.triu_indices(len(radii))
    vectors = (crystal.positions[second] - crystal.positions[first])[:, None] + images
    squares = np.square(vectors @ crystal.cell).sum(axis=2)
    sums = radii[first] + radii[second]
    squares = squares / np.square(sums)[:, None]
    squares[squares < 1e-12] = math.inf  # an atom itself
    pairs, cells = np.nonzero(squares <= reach**2)
    lengths = np.sqrt(squares[pairs, cells])
    order = np.argsort(lengths, kind="stable")
    pairs, cells = pairs[order], cells[order]
    return first[pairs], second[pairs], images[cells], lengths[order]


def _environments(crystal: Crystal, bonded: _Components) -> Floats:
    """Return sorted distances from each atom to its neighbours in the same layer, element after element, in Å."""
    numbers, shift, root = crystal.numbers, np.array(bonded.shift), np.array(bonded.root)
    elements, counts = np.unique(numbers, return_counts=True)
    wanted = [math.ceil(NEIGHBOURS * count / len(numbers)) for count in counts]
    rows: list[Floats] = []
    for i, own in enumerate(bonded.root):
        members = np.flatnonzero(root == own)
        normal = np.array(_cross(*bonded.cycles[own]))
        radius = _RADIUS
        while True:
            # An image of an atom is in the layer of atom i if the cells in which their component has the two differ
            # by a vector in the plane of the layer.
            images = _images(crystal.cell, radius)
            inside = (images[None] - (shift[members] - shift[i])[:, None]) @ normal == 0
            which, cells = np.nonzero(inside)
            atoms = members[which]
            vectors = (crystal.positions[atoms] - crystal.positions[i] + images[cells]) @ crystal.cell
            distances = np.sqrt(np.square(vectors).sum(axis=1))
            near = distances > 1e-6  # without the atom itself
            parts = [
                np.sort(distances[near & (numbers[atoms] == e)])[:n] for e, n in zip(elements, wanted, strict=True)
            ]
            # A layer need not have all elements.
            expected = [n if (numbers[members] == e).any() else 0 for e, n in zip(elements, wanted, strict=True)]
            if all(len(part) == n and (not n or part[-1] <= radius) for part, n in zip(parts, expected, strict=True)):
                break
            radius *= 1.5
        padded = [
            np.concatenate([part, np.full(n - len(part), _ABSENT)]) for part, n in zip(parts, wanted, strict=True)
        ]
        rows.append(np.concatenate(padded))
    return np.array(rows)


def layer_distance(a: Layers, b: Layers) -> float:
    """Return the mean difference in Å of the environments of atoms in their layers, under their best pairing.

    It is infinite for layers of different contents, and for cells with too many atoms to pair.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    common = math.lcm(len(a.numbers), len(b.numbers))
    if a.environments.shape[1] != b.environments.shape[1] or common > _MAX_ATOMS_TO_PAIR:
        return math.inf
    costs = cdist(a.environments, b.environments, "chebyshev")
    costs[a.numbers[:, None] != b.numbers] = math.inf
    costs = np.repeat(np.repeat(costs, common // len(a.numbers), axis=0), common // len(b.numbers), axis=1)
    try:
        return float(costs[linear_sum_assignment(costs)].mean())
    except ValueError:  # there is no pairing
        return math.inf
