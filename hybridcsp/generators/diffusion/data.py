"""Training data of the diffusion: crystals with noise of random levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hybridcsp.generators.diffusion.coordinates import CoordinateNoise
from hybridcsp.generators.diffusion.lattices import LatticeContext, LatticeNoise
from hybridcsp.generators.joint.data import Array, JointData


class DiffusionData(JointData):
    """Training examples of the diffusion; levels and noise are drawn for each batch.

    Parameters
    ----------
    *arguments, **more
        As :class:`~hybridcsp.generators.joint.data.JointData` has them.
    coordinates, lattices
        Noise of the coordinates and of the lattice, with equally many levels.
    """

    def __init__(self, *arguments: Any, coordinates: CoordinateNoise, lattices: LatticeNoise, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._coordinates = coordinates
        self._lattices = lattices

    def _noisy(
        self, numbers: NDArray[np.int64], positions: Array, lattices: Array, lengths: Array, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Return noisy crystals, and the scores and the targets of the lattice there."""
        count, levels = len(numbers), self._lattices.levels
        # Levels are stratified: in every batch, all parts of the range have their share.
        parts = (rng.permutation(count) + rng.random(count)) / count
        level = torch.as_tensor(1 + np.minimum((parts * levels).astype(np.int64), levels - 1))
        noisy, scores = self._coordinates.noisy(
            torch.as_tensor(positions),
            torch.as_tensor(numbers > 0).double(),
            level,
            torch.as_tensor(rng.standard_normal(positions.shape)),
        )
        context = LatticeContext(
            mean=torch.as_tensor(self.scale.mean),
            spread=torch.as_tensor(self.scale.spread),
            lengths=torch.as_tensor(lengths),
        )
        clean = self._lattices.clean(torch.as_tensor(lattices), context)
        normal = torch.as_tensor(rng.standard_normal(clean.shape))
        state = self._lattices.noisy(clean, level, normal)
        lattice, metric = self._lattices.read(state, context)
        return {
            "positions": noisy,
            "scores": scores,
            "state": state,
            "lattice": lattice,
            "metric": metric,
            "target": self._lattices.target(clean, level, normal),
            "time": network_time(level, levels),
        }


def network_time(level: torch.Tensor, levels: int) -> torch.Tensor:
    """Return the time that the network is told at a level: 1 without noise and 0 at the last level."""
    return 1 - level / levels
