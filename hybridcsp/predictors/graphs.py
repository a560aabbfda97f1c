"""Graphs of crystals: atoms, and the neighbours whose messages they receive."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.structure.geometry import neighbours

# Factor between the radius in which neighbours are sought first and that of a sphere that holds enough of them.
_FIRST_RADIUS = 1.35

# Smallest distance of two atoms in Å.
_SHORTEST = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class CrystalGraph:
    """Represent one crystal.

    Attributes
    ----------
    numbers
        Atomic numbers, shape ``(n_atoms,)``.
    centre, neighbour
        Atoms that receive and send messages, shape ``(n_edges,)``, sorted by the first.
    vectors
        Vectors in Å from the centre to the neighbour, shape ``(n_edges, 3)``.
    last
        Edge of each atom to its farthest counted neighbour, shape ``(n_atoms,)``; -1 if the atom has fewer neighbours
        within the largest distance than are counted.
    """

    numbers: NDArray[np.int64]
    centre: NDArray[np.int64]
    neighbour: NDArray[np.int64]
    vectors: NDArray[np.float32]
    last: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Neighbourhood(ABC):
    """Rule for which neighbours of an atom send messages to it, and with what weight.

    Parameters
    ----------
    count
        Number of nearest neighbours that are counted.
    cutoff
        Largest distance in Å.
    """

    count: int = 12
    cutoff: float = 8.0

    def graph(self, atoms: Atoms) -> CrystalGraph:
        """Return the graph of a crystal.

        Raises
        ------
        InputError
            If the structure is not a crystal: empty, without volume, with coordinates that are not finite, or with two
            atoms in one place.
        """
        check_crystal(atoms)
        centre, other, vectors, lengths = self._found(atoms)
        if len(lengths) and lengths.min() < _SHORTEST:
            raise InputError("structure", atoms.get_chemical_formula(), reason="two of its atoms are in one place")
        order = np.lexsort((lengths, centre))
        centre, other, vectors, lengths = centre[order], other[order], vectors[order], lengths[order]
        starts = np.searchsorted(centre, np.arange(len(atoms) + 1))
        last = starts[:-1] + self.count - 1
        last[last >= starts[1:]] = -1
        kept = self._kept(centre, np.arange(len(centre)) - starts[centre], lengths, last)
        moved = np.cumsum(kept) - 1
        return CrystalGraph(
            numbers=atoms.numbers.astype(np.int64),
            centre=centre[kept].astype(np.int64),
            neighbour=other[kept].astype(np.int64),
            vectors=vectors[kept].astype(np.float32),
            last=np.where(last >= 0, np.append(moved, -1)[last], -1).astype(np.int64),
        )

    @property
    @abstractmethod
    def reach(self) -> float:
        """Largest distance of a neighbour that sends messages, in units of the distance of the last counted one."""

    @abstractmethod
    def weights(self, lengths: torch.Tensor, centre: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Return the weights of messages, shape ``(n_edges,)``.

        Parameters
        ----------
        lengths
            Distances in Å, shape ``(n_edges,)``.
        centre, last
            As in :class:`CrystalGraph`, for a batch of crystals.
        """

    @abstractmethod
    def _kept(
        self, centre: NDArray[np.int_], rank: NDArray[np.int_], lengths: NDArray[np.float64], last: NDArray[np.int_]
    ) -> NDArray[np.bool_]:
        """Return which of the sorted edges are kept, shape ``(n_edges,)``."""

    def _found(
        self, atoms: Atoms
    ) -> tuple[NDArray[np.int_], NDArray[np.int_], NDArray[np.float64], NDArray[np.float64]]:
        """Return pairs of atoms within the largest distance, or within a smaller one that holds all kept neighbours."""
        sphere = (3 / (4 * np.pi) * (self.count + 1) * atoms.get_volume() / len(atoms)) ** (1 / 3)
        radius = _FIRST_RADIUS * self.reach * sphere
        while radius < self.cutoff:
            found = neighbours(atoms, radius)
            counts = np.bincount(found[0], minlength=len(atoms))
            if counts.min() >= self.count:
                farthest = max(
                    np.partition(found[3][found[0] == i], self.count - 1)[self.count - 1] for i in range(len(atoms))
                )
                if farthest * self.reach <= radius:
                    return found
            radius *= 1.3
        return neighbours(atoms, self.cutoff)


@dataclass(frozen=True, kw_only=True)
class NearestNeighbours(Neighbourhood):
    """The nearest neighbours, each with the weight 1.

    Of equally distant atoms, any may be the last one, so that the same crystal in another cell, or with its atoms in
    another order, may have another graph; and the graph jumps when two neighbours exchange their ranks.
    """

    @property
    def reach(self) -> float:
        """Largest distance in units of that of the last counted neighbour."""
        return 1.0

    def weights(self, lengths: torch.Tensor, centre: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Return 1 for each edge."""
        return torch.ones_like(lengths)

    def _kept(
        self, centre: NDArray[np.int_], rank: NDArray[np.int_], lengths: NDArray[np.float64], last: NDArray[np.int_]
    ) -> NDArray[np.bool_]:
        return rank < self.count


@dataclass(frozen=True, kw_only=True)
class SmoothNeighbours(Neighbourhood):
    """The nearest neighbours, and those a little farther away with weights that fall smoothly to 0.

    Up to the distance R of the last counted neighbour the weight is 1, and from there it falls to 0 at (1 + width) R.
    R is continuous in the positions, and so is everything that depends on the graph; equally distant atoms are treated
    equally.

    Parameters
    ----------
    width
        Width of the fall in units of R.
    """

    width: float = 0.1

    @property
    def reach(self) -> float:
        """Largest distance in units of that of the last counted neighbour."""
        return 1 + self.width

    def weights(self, lengths: torch.Tensor, centre: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Return 1 up to the last counted neighbour, and a polynomial with two continuous derivatives beyond."""
        largest = torch.full((len(last),), self.cutoff / self.reach, dtype=lengths.dtype, device=lengths.device)
        counted = torch.cat([lengths, largest[:1]]).index_select(0, torch.where(last >= 0, last, len(lengths)))
        radius = torch.minimum(counted, largest)
        x = ((lengths / radius.index_select(0, centre) - 1) / self.width).clamp(0, 1)
        return 1 - x**3 * (10 - 15 * x + 6 * x**2)

    def _kept(
        self, centre: NDArray[np.int_], rank: NDArray[np.int_], lengths: NDArray[np.float64], last: NDArray[np.int_]
    ) -> NDArray[np.bool_]:
        radius = np.minimum(np.append(lengths, np.inf)[last], self.cutoff / self.reach)  # -1 is the last, infinity
        return np.asarray(lengths < radius[centre] * self.reach)


def check_crystal(atoms: Atoms) -> None:
    """Check that a structure is a crystal.

    Raises
    ------
    InputError
        If it has no atoms, coordinates that are not finite, no volume, or atoms of no element.
    """
    shown = atoms.get_chemical_formula() or "an empty structure"
    if not len(atoms) or not np.isfinite(atoms.positions).all() or not np.isfinite(atoms.cell.array).all():
        raise InputError("structure", shown, reason="it has no atoms, or coordinates that are not finite numbers")
    if abs(np.linalg.det(atoms.cell.array)) < 1e-3 * len(atoms):
        raise InputError(
            "structure", shown, reason="properties are those of crystals, and it has no cell with a volume"
        )
    if atoms.numbers.min() < 1 or atoms.numbers.max() > 118:
        raise InputError("structure", shown, reason="it has atoms that are of no element")


def concatenated(graphs: list[CrystalGraph]) -> dict[str, torch.Tensor]:
    """Return several graphs as one, with the number of the crystal of each atom as ``"crystal"``."""
    atoms = np.cumsum([0, *(len(graph.numbers) for graph in graphs)])
    edges = np.cumsum([0, *(len(graph.centre) for graph in graphs)])
    parts = list(zip(graphs, atoms, edges, strict=False))
    arrays = {
        "numbers": np.concatenate([graph.numbers for graph in graphs]),
        "crystal": np.repeat(np.arange(len(graphs)), [len(graph.numbers) for graph in graphs]),
        "centre": np.concatenate([graph.centre + start for graph, start, _ in parts]),
        "neighbour": np.concatenate([graph.neighbour + start for graph, start, _ in parts]),
        "vectors": np.concatenate([graph.vectors for graph in graphs]),
        "last": np.concatenate([np.where(graph.last >= 0, graph.last + start, -1) for graph, _, start in parts]),
    }
    return {name: torch.as_tensor(array) for name, array in arrays.items()}
