"""Training data of the flow: the noise and the paths from it to crystals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridcsp.generators.flow.assignment import minimal_assignment
from hybridcsp.generators.joint.data import Array, JointData

#: Number of random translations among which the one closest to the noise is chosen.
TRANSLATIONS = 4


class FlowData(JointData):
    """Training examples of the flow; noise, times and paths are drawn for each batch."""

    def _noisy(
        self, numbers: NDArray[np.int64], positions: Array, lattices: Array, lengths: Array, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Return the points on the paths and the velocities there."""
        starts = rng.random(positions.shape)
        velocity = straight_paths(starts, positions, numbers, rng)
        time = (rng.permutation(len(numbers)) + rng.random(len(numbers))) / len(numbers)
        noise = rng.standard_normal(lattices.shape)
        now = noise + time[:, None] * (lattices - noise)
        return {
            "positions": (starts + time[:, None, None] * velocity) % 1.0,
            "velocity": velocity,
            "lattice": now,
            "metric": now * self.scale.spread + self.scale.mean + lengths,
            "strain": lattices - noise,
            "time": time,
        }


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
