"""Training data of the flow: crystals, and the noise and paths from which they are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from hybridcsp.generators.base import HALF_PRESSURE, Example
from hybridcsp.generators.flow.assignment import minimal_assignment
from hybridcsp.generators.properties import LearnedProperties, PropertyTable
from hybridcsp.structure.elements import properties
from hybridcsp.structure.lattice import LatticePoint, canonical_cell, diagonal, encode_lattice_point, log_length

Array = NDArray[np.float64]

# A direction without symmetric relation to the axes, which defines the handedness of crystals.
_DIRECTION = np.array([1.0, 0.77, 0.59])

#: Number of random translations among which the one closest to the noise is chosen.
TRANSLATIONS = 4


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


class FlowData:
    """Training examples of the flow in Niggli-reduced axes; noise, times and paths are drawn for each batch.

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
        cls, examples: Sequence[Example], scale: Scale | None = None, learned: LearnedProperties | None = None
    ) -> Self:
        """Encode examples with a given scale or else their own, and with the properties that are learned."""
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
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], scale: Scale | None = None) -> Self:
        """Build the data from the arrays that :meth:`arrays` returned."""
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
        )

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        """Draw noise and a time for each crystal; return the points on the paths and the velocities there."""
        points = [self.points[i] for i in indices]
        most = max(len(point.numbers) for point in points)
        numbers = np.zeros((len(points), most), dtype=np.int64)
        ends = np.zeros((len(points), most, 3))
        for row, point in enumerate(points):
            numbers[row, : len(point.numbers)] = point.numbers
            ends[row, : len(point.numbers)] = point.positions
        starts = rng.random(ends.shape)
        velocity = straight_paths(starts, ends, numbers, rng)
        time = (rng.permutation(len(points)) + rng.random(len(points))) / len(points)
        lattices = (np.array([point.lattice for point in points]) - self.scale.mean) / self.scale.spread
        noise = rng.standard_normal(lattices.shape)
        now = noise + time[:, None] * (lattices - noise)
        lengths = np.array([diagonal(self._lengths[i]) for i in indices])
        floats = {
            "positions": (starts + time[:, None, None] * velocity) % 1.0,
            "velocity": velocity,
            "lattice": now,
            "metric": now * self.scale.spread + self.scale.mean + lengths,
            "strain": lattices - noise,
            "time": time,
            "energy": self._energies[indices],
            "pressure": self._pressures[indices],
        }
        if self._learned is not None:
            floats["properties"] = self._learned.partly_hidden(indices, rng)
        whole = {"numbers": numbers, "spacegroup": self._groups[indices].astype(np.int64)}
        return {k: torch.as_tensor(v, dtype=torch.float32) for k, v in floats.items()} | {
            k: torch.as_tensor(v) for k, v in whole.items()
        }


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


def straight_paths(
    starts: Array, ends: Array, numbers: NDArray[np.int64], rng: np.random.Generator, trials: int = TRANSLATIONS
) -> Array:
    """Return velocities, without their mean, from noise to crystals along the shortest of several paths.

    Crystals are invariant under translation and under exchange of atoms of one element. Among a number of random
    translations, the one with the smallest squared displacement under the best assignment within each element is chosen
    (optimal transport within one orbit: Klein et al., arXiv:2306.15030); paths that cross less are learned faster and
    integrated in fewer steps. The noise stays uniformly distributed because only the description of the crystal is
    chosen.

    Parameters
    ----------
    starts, ends
        Fractional coordinates, shape ``(batch, n, 3)``.
    numbers
        Atomic numbers, 0 where there is no atom, shape ``(batch, n)``.
    rng
        Random generator of the translations.
    trials
        Number of translations.

    Returns
    -------
    numpy.ndarray
        Velocities in fractional coordinates, shape ``(batch, n, 3)``, 0 where there is no atom.
    """
    moved = ends[:, None] + rng.random((len(starts), trials, 1, 3))
    steps = moved[:, :, None] - starts[:, None, :, None]  # (batch, trials, start, end, 3)
    steps -= np.round(steps)
    costs = (steps**2).sum(-1)
    velocity = np.zeros_like(starts)
    for row, kinds in enumerate(numbers):
        velocity[row] = _shortest_paths(costs[row], steps[row], kinds)
    return velocity


def _shortest_paths(costs: Array, steps: Array, kinds: NDArray[np.int64]) -> Array:
    present = np.flatnonzero(kinds)
    blocks = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds[present])]
    best, chosen, trial = np.inf, present, 0
    for number, cost in enumerate(costs):
        order, total = np.arange(len(kinds)), 0.0
        for block in blocks:
            if len(block) > 1:
                block_cost = cost[np.ix_(block, block)]
                columns = minimal_assignment(block_cost)
                order[block] = block[columns]
                total += block_cost[np.arange(len(block)), columns].sum()
            else:
                total += cost[block[0], block[0]]
        if total < best:
            best, chosen, trial = total, order[present], number
    velocity = np.zeros((len(kinds), 3))
    found = steps[trial, present, chosen]
    velocity[present] = found - found.mean(0)
    return velocity
