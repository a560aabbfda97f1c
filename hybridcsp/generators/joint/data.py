"""Training data of ``flow`` and ``diffusion``: crystals with their conditions, to which noise is added."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from hybridcsp.generators.base import HALF_PRESSURE, Example
from hybridcsp.generators.properties import LearnedProperties, PropertyTable
from hybridcsp.structure.elements import properties
from hybridcsp.structure.lattice import LatticePoint, canonical_cell, diagonal, encode_lattice_point, log_length

Array = NDArray[np.float64]

# A direction without symmetric relation to the axes, which defines the handedness of crystals.
_DIRECTION = np.array([1.0, 0.77, 0.59])


@dataclass(frozen=True, kw_only=True, eq=False)
class Scale:
    """Mean and spread of the log-lattice over the training data, shape ``(6,)`` each."""

    mean: Array
    spread: Array

    @classmethod
    def from_points(cls, points: Sequence[LatticePoint]) -> Scale:
        """Return the scale of crystals; the spread is at least 0.02, so that a single crystal can be learned."""
        lattices = np.array([point.lattice for point in points])
        return cls(mean=lattices.mean(0), spread=np.maximum(lattices.std(0), 0.02))

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and spread in single precision."""
        return torch.as_tensor(self.mean, dtype=torch.float32), torch.as_tensor(self.spread, dtype=torch.float32)


class JointData(ABC):
    """Training examples in Niggli-reduced axes; subclasses draw times and noise for each batch.

    Niggli-reduced axes are unique up to the symmetries of the lattice: a network that is not equivariant under rotation
    learns one description of each crystal instead of 24 or more. Of a crystal and its inverse, which have equal
    energies, one is learned (:func:`canonical_handedness`).

    Parameters
    ----------
    points
        Crystals.
    weights, groups, lengths
        Weight in the loss, space group and logarithm of the expected edge (Å) of each crystal, shape ``(n,)``.
    energies, pressures
        Conditions as :func:`energy_features` and :func:`pressure_features` return them, shape ``(n, 2)``.
    scale
        Scale of the log-lattices; by default that of the points.
    learned
        Features of the properties of the crystals, if any are learned.
    """

    def __init__(
        self,
        points: Sequence[LatticePoint],
        *,
        weights: Array,
        groups: NDArray[np.int_],
        energies: Array,
        pressures: Array,
        lengths: Array,
        scale: Scale | None = None,
        learned: PropertyTable | None = None,
    ) -> None:
        self.points = points
        self.scale = scale or Scale.from_points(points)
        self.weights = weights
        self.sizes = np.array([len(point.numbers) for point in points])
        self._groups = groups
        self._energies = energies
        self._pressures = pressures
        self._lengths = lengths
        self._learned = learned

    @classmethod
    def from_examples(
        cls,
        examples: Sequence[Example],
        scale: Scale | None = None,
        learned: LearnedProperties | None = None,
        **components: Any,
    ) -> Self:
        """Encode examples with a given scale or else their own, and with the properties that are learned.

        Further keyword arguments are those of the subclass.
        """
        from hybridcsp.structure.symmetry import SYMPREC_LOOSE, spacegroup

        points = [canonical_handedness(encode_lattice_point(canonical_cell(example.atoms))) for example in examples]
        return cls(
            points,
            weights=np.array([example.weight for example in examples]),
            groups=np.array([spacegroup(example.atoms, SYMPREC_LOOSE) for example in examples]),
            energies=np.array([energy_features(example.energy_quantile) for example in examples]),
            pressures=np.array([pressure_features(example.pressure_gpa) for example in examples]),
            lengths=np.array([log_length(point.numbers) for point in points]),
            scale=scale,
            learned=None if learned is None else learned.table(examples),
            **components,
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the data without properties as a few arrays, coordinates in single precision."""
        return {
            "weights": self.weights.astype(np.float32),
            "groups": self._groups.astype(np.int16),
            "energies": self._energies.astype(np.float32),
            "pressures": self._pressures.astype(np.float32),
            "lengths": self._lengths.astype(np.float32),
            "sizes": self.sizes.astype(np.int16),
            "numbers": np.concatenate([point.numbers for point in self.points]).astype(np.uint8),
            "positions": np.concatenate([point.positions for point in self.points]).astype(np.float32),
            "lattices": np.array([point.lattice for point in self.points], dtype=np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], scale: Scale | None = None, **components: Any) -> Self:
        """Build the data from the arrays that :meth:`arrays` returned, and the subclass's own arguments."""
        ends = arrays["sizes"].astype(np.int64).cumsum()[:-1]
        numbers = np.split(arrays["numbers"].astype(np.int64), ends)
        positions = np.split(arrays["positions"].astype(float), ends)
        points = [
            LatticePoint(numbers=z, positions=x, lattice=k)
            for z, x, k in zip(numbers, positions, arrays["lattices"].astype(float), strict=True)
        ]
        return cls(
            points,
            weights=arrays["weights"].astype(float),
            groups=arrays["groups"].astype(np.int64),
            energies=arrays["energies"].astype(float),
            pressures=arrays["pressures"].astype(float),
            lengths=arrays["lengths"].astype(float),
            scale=scale,
            **components,
        )

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        """Draw a time and noise for each crystal; return noisy crystals, what is learned of them, and conditions."""
        points = [self.points[i] for i in indices]
        most = max(len(point.numbers) for point in points)
        numbers = np.zeros((len(points), most), dtype=np.int64)
        positions = np.zeros((len(points), most, 3))
        for row, point in enumerate(points):
            numbers[row, : len(point.numbers)] = point.numbers
            positions[row, : len(point.numbers)] = point.positions
        lattices = (np.array([point.lattice for point in points]) - self.scale.mean) / self.scale.spread
        lengths = np.array([diagonal(self._lengths[i]) for i in indices])
        floats = {
            **self._noisy(numbers, positions, lattices, lengths, rng),
            "energy": self._energies[indices],
            "pressure": self._pressures[indices],
        }
        if self._learned is not None:
            floats["properties"] = self._learned.partly_hidden(indices, rng)
        whole = {"numbers": numbers, "spacegroup": self._groups[indices].astype(np.int64)}
        return {k: torch.as_tensor(v, dtype=torch.float32) for k, v in floats.items()} | {
            k: torch.as_tensor(v) for k, v in whole.items()
        }

    @abstractmethod
    def _noisy(
        self, numbers: NDArray[np.int64], positions: Array, lattices: Array, lengths: Array, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Draw times and noise, and return what the network reads of noisy crystals and what it learns.

        Parameters
        ----------
        numbers
            Atomic numbers, 0 where there is no atom, shape ``(batch, n)``.
        positions
            Fractional coordinates, shape ``(batch, n, 3)``.
        lattices
            Standardised log-lattices, shape ``(batch, 6)``.
        lengths
            Components of the logarithm of each crystal's expected size, shape ``(batch, 6)``.
        rng
            Random generator.
        """


def energy_features(quantile: float | None) -> tuple[float, float]:
    """Return an energy quantile and 1, or 0 and 0 for ``None``."""
    return (0.0, 0.0) if quantile is None else (quantile, 1.0)


def pressure_features(gpa: float | None) -> tuple[float, float]:
    """Return a pressure (GPa) on a scale from 0 to 1 and 1, or 0 and 0 for ``None``."""
    return (0.0, 0.0) if gpa is None else (max(gpa, 0.0) / (max(gpa, 0.0) + HALF_PRESSURE), 1.0)


def canonical_handedness(point: LatticePoint) -> LatticePoint:
    """Return a crystal or its inverse: the one whose polarity has a positive component along a fixed direction.

    The polarity, from electropositive to electronegative atoms, is computed from first harmonics of the fractional
    coordinates, which makes it invariant under translation and order of the atoms. Crystals with an inversion centre or
    of one element have none and are returned unchanged.
    """
    electronegativity = properties()[point.numbers, 0]
    angles = 2 * np.pi * (point.positions[None] - point.positions[:, None])  # from the first atom to the second
    direction = (electronegativity[None, :, None] - electronegativity[:, None, None]) * np.sin(angles)
    if direction.sum((0, 1)) @ _DIRECTION < -1e-6:
        return replace(point, positions=(-point.positions) % 1.0)
    return point
