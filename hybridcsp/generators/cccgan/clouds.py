"""Training data of the composition-conditioned GAN: point clouds, as many of each composition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.generators.base import Example
from hybridcsp.structure.lattice import canonical_cell
from hybridcsp.structure.representations.point_cloud import PointCloud

Array = NDArray[np.float64]


class Description(ABC):
    """Abstract base class of a way to describe crystals by point clouds."""

    @abstractmethod
    def crystals(self, atoms: Atoms, cloud: PointCloud) -> list[Atoms]:
        """Return the cells of a crystal that are described, which have places in the point cloud."""

    @abstractmethod
    def copy(self, encoded: Array, cloud: PointCloud, rng: np.random.Generator) -> Array:
        """Return another description of the crystal in a point cloud."""


class ReducedCells(Description):
    """Niggli-reduced cells: one description of each crystal, for networks that know which descriptions are equal."""

    def crystals(self, atoms: Atoms, cloud: PointCloud) -> list[Atoms]:
        """Return the reduced cell."""
        return [canonical_cell(atoms)]

    def copy(self, encoded: Array, cloud: PointCloud, rng: np.random.Generator) -> Array:
        """Return the same description."""
        return encoded


class RandomDescriptions(Description):
    """Random origins, axes and slots, and doubled cells of small crystals, as published."""

    def crystals(self, atoms: Atoms, cloud: PointCloud) -> list[Atoms]:
        """Return the cell, and its three doublings if half of all slots suffice for its atoms."""
        doubled = [atoms.repeat(times) for times in ((2, 1, 1), (1, 2, 1), (1, 1, 2))]
        return [atoms, *(larger for larger in doubled if not cloud.limit(larger))]

    def copy(self, encoded: Array, cloud: PointCloud, rng: np.random.Generator) -> Array:
        """Return the crystal with exchanged axes, another origin, and its atoms in other slots of their elements."""
        # An odd exchange makes the mirror image of the crystal.
        moved = encoded[:, rng.permutation(3)]
        occupied = moved[2:].sum(axis=1) > 0
        fractions = ((15 * moved[2:] - 2.5) / 10 + rng.random(3)) % 1.0
        moved[2:] = np.where(occupied[:, None], (10 * fractions + 2.5) / 15, 0.0)
        for rows in cloud.rows().values():
            moved[rows] = moved[rows][rng.permutation(rows.stop - rows.start)]
        return moved


@dataclass(eq=False)
class CloudData:
    """Point clouds with their contents.

    Attributes
    ----------
    clouds
        Point clouds, shape ``(n, 2 + n_slots, 3)``.
    counts
        Number of atoms of each element, shape ``(n, n_elements)``.
    weights, sizes
        As in :class:`hybridcsp.training.batches.TrainingData`.
    """

    clouds: NDArray[np.float32]
    counts: NDArray[np.int64]
    weights: NDArray[np.float64]
    sizes: NDArray[np.int_]

    @classmethod
    def from_examples(
        cls, examples: Sequence[Example], cloud: PointCloud, description: Description, per_composition: int, seed: int
    ) -> CloudData:
        """Describe examples, each composition at least ``per_composition`` times.

        Parameters
        ----------
        examples
            Crystals that have places in the point cloud.
        cloud
            Representation.
        description
            How crystals are described.
        per_composition
            Smallest number of point clouds with the same contents.
        seed
            Random seed of the descriptions.
        """
        rng = np.random.default_rng([seed, 2])
        by_contents: dict[tuple[int, ...], list[tuple[Array, float]]] = {}
        for example in examples:
            for atoms in description.crystals(example.atoms, cloud):
                contents = atoms.symbols.formula.count()
                key = tuple(contents[element] for element in cloud.slots)
                by_contents.setdefault(key, []).append((cloud.encode(atoms), example.weight))
        clouds, counts, weights = [], [], []
        for key, members in by_contents.items():
            for number in range(max(per_composition, len(members))):
                encoded, weight = members[number % len(members)]
                clouds.append(description.copy(encoded, cloud, rng))
                counts.append(key)
                weights.append(weight)
        return cls(
            clouds=np.array(clouds, dtype=np.float32),
            counts=np.array(counts, dtype=np.int64),
            weights=np.array(weights, dtype=float),
            sizes=np.array(counts).sum(axis=1),
        )

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        """Return point clouds and contents."""
        return {"cloud": torch.as_tensor(self.clouds[indices]), "counts": torch.as_tensor(self.counts[indices])}
