"""Crystals in batches, and from which noise each of them is reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from hybridcsp.generators.base import HALF_PRESSURE, Example
from hybridcsp.generators.flow.assignment import minimal_assignment
from hybridcsp.structure.elements import properties
from hybridcsp.structure.lattice import LatticePoint, canonical_cell, diagonal, encode_lattice_point, log_length

Array = NDArray[np.float64]

# The direction, in no symmetric relation to any axes, that crystals point along.
_ALONG = np.array([1.0, 0.77, 0.59])

#: Translations of the crystal that are tried to bring it near the noise.
TRANSLATIONS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Scale:
    """Mean and spread of the log-lattice over the training data, shape ``(6,)`` each."""

    mean: Array
    spread: Array

    @classmethod
    def of(cls, points: Sequence[LatticePoint]) -> Scale:
        """Measure them; no spread is taken to be below 0.02, so that one crystal can be learned too."""
        lattices = np.array([point.lattice for point in points])
        return cls(mean=lattices.mean(0), spread=np.maximum(lattices.std(0), 0.02))


class FlowData:
    """Examples as the flow's loss takes them: in Niggli-reduced axes, with noise, times and paths drawn anew each time.

    Niggli's axes are unique but for the symmetries of the lattice itself, so that a network without any rotation has
    one description of each crystal to learn and not 24 or more; and of a crystal and its inverse, whose energies are
    the same, it learns one (:func:`canonical_handedness`).

    Parameters
    ----------
    points
        Crystals.
    weights, groups, lengths
        How much each counts in the loss, its space group, and the logarithm of its expected edge (Å), shape ``(n,)``.
    energies, pressures
        As :func:`energy_features` and :func:`pressure_features` give them, shape ``(n, 2)``.
    scale
        Of the log-lattices; by default measured on the points.
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
    ) -> None:
        self.points = points
        self.scale = scale or Scale.of(points)
        self.weights = weights
        self.sizes = np.array([len(point.numbers) for point in points])
        self._groups = groups
        self._energies = energies
        self._pressures = pressures
        self._lengths = lengths

    @classmethod
    def of(cls, examples: Sequence[Example], scale: Scale | None = None) -> Self:
        """Encode examples, with the scale of others or else their own."""
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
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all of it as few arrays, coordinates in single precision."""
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
        """Take it from what :meth:`arrays` returned."""
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
        """Draw a time and a start for each crystal, and return where its path is then and where it goes."""
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
        whole = {"numbers": numbers, "spacegroup": self._groups[indices].astype(np.int64)}
        return {k: torch.as_tensor(v, dtype=torch.float32) for k, v in floats.items()} | {
            k: torch.as_tensor(v) for k, v in whole.items()
        }


def energy_features(quantile: float | None) -> tuple[float, float]:
    """Energy quantile and 1, or 0 and 0 where none is told."""
    return (0.0, 0.0) if quantile is None else (quantile, 1.0)


def pressure_features(gpa: float | None) -> tuple[float, float]:
    """Pressure on a scale from 0 to 1, and 1, or 0 and 0 where none is told."""
    return (0.0, 0.0) if gpa is None else (max(gpa, 0.0) / (max(gpa, 0.0) + HALF_PRESSURE), 1.0)


def canonical_handedness(point: LatticePoint) -> LatticePoint:
    """Return a crystal or its inverse: the one that points from electropositive to electronegative atoms.

    Positions are the first harmonics of fractional coordinates, so that neither translation nor the order of the atoms
    matters. A crystal with an inversion centre, or of one element, points nowhere and stays as it is.
    """
    electronegativity = properties()[point.numbers, 0]
    angles = 2 * np.pi * (point.positions[None] - point.positions[:, None])  # from the first atom to the second
    direction = (electronegativity[None, :, None] - electronegativity[:, None, None]) * np.sin(angles)
    if direction.sum((0, 1)) @ _ALONG < -1e-6:
        return replace(point, positions=(-point.positions) % 1.0)
    return point


def straight_paths(
    starts: Array, ends: Array, numbers: NDArray[np.int64], rng: np.random.Generator, trials: int = TRANSLATIONS
) -> Array:
    """Velocities from noise to crystals along the shortest of several paths, free of their mean.

    A crystal is the same when it is translated and when atoms of one element change places. Of ``trials`` random
    translations the one is taken whose atoms, best assigned within each element, have the least to go (optimal
    transport within one orbit: Klein et al., arXiv:2306.15030); straight paths are learned sooner than crossing ones
    and take fewer steps to follow. The starts stay uniformly distributed, for what is chosen is only which description
    of a crystal they lead to.

    Parameters
    ----------
    starts, ends
        Fractional coordinates, shape ``(batch, n, 3)``.
    numbers
        Atomic numbers, 0 where there is no atom, shape ``(batch, n)``.
    rng
        Of the translations.
    trials
        How many.

    Returns
    -------
    numpy.ndarray
        Shape ``(batch, n, 3)``, 0 where there is no atom.
    """
    moved = ends[:, None] + rng.random((len(starts), trials, 1, 3))
    steps = moved[:, :, None] - starts[:, None, :, None]  # (batch, trials, start, end, 3)
    steps -= np.round(steps)
    costs = (steps**2).sum(-1)
    velocity = np.zeros_like(starts)
    for row, kinds in enumerate(numbers):
        velocity[row] = _cheapest(costs[row], steps[row], kinds)
    return velocity


def _cheapest(costs: Array, steps: Array, kinds: NDArray[np.int64]) -> Array:
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
