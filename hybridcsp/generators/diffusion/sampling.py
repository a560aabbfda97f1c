"""Sampling of the diffusion: predictor and corrector steps from noise to crystals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from hybridcsp.errors import InputError
from hybridcsp.generators.diffusion.coordinates import CoordinateNoise, CoordinatePredictor
from hybridcsp.generators.diffusion.data import network_time
from hybridcsp.generators.diffusion.lattices import LatticeContext, LatticeNoise
from hybridcsp.generators.joint.conditioning import Conditions, NoisyCrystals, guided
from hybridcsp.generators.joint.network import JointNetwork


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of the steps from noise to crystals.

    Attributes
    ----------
    steps
        Number of steps; at most that of the levels of the noise.
    correction
        Size of the Langevin step that is made before each step to a lower level, at the first level, as squared
        fractional coordinate; it grows with the variance of the noise (Song et al., arXiv:2011.13456). With 0, there
        is none, and the network is evaluated half as often.
    guidance
        Weight of classifier-free guidance (arXiv:2207.12598) by the space group; with 0, the score conditioned on the
        space group is used. That by properties is part of a request.
    """

    steps: int
    correction: float
    guidance: float = 0.0

    def check(self, levels: int) -> None:
        """Check the settings for a number of levels.

        Raises
        ------
        InputError
            If a setting is out of its range.
        """
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or not 1 <= self.steps <= levels:
            raise InputError("steps", self.steps, f"a whole number from 1 to {levels}, the levels of the noise")
        for name in ("correction", "guidance"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise InputError(name, value, "a number from 0")

    def pairs(self, levels: int) -> Iterator[tuple[int, int]]:
        """Yield the present and the next level of each step, evenly spaced from the last level to 0."""
        stops = np.rint(np.linspace(levels, 0, self.steps + 1)).astype(int).tolist()
        return pairwise(stops)


@dataclass(frozen=True, kw_only=True)
class Reversal:
    """Represent the components of the way back from noise.

    Attributes
    ----------
    coordinates, lattices
        Noise of coordinates and lattices.
    predictor
        Step of the coordinates from one level to a lower one.
    settings
        Settings of the steps.
    """

    coordinates: CoordinateNoise
    lattices: LatticeNoise
    predictor: CoordinatePredictor
    settings: Sampling

    @torch.no_grad()
    def denoise(
        self,
        network: JointNetwork,
        conditions: Conditions,
        context: LatticeContext,
        *,
        numbers: Tensor,
        positions: Tensor,
        lattice: Tensor,
        rng: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Return crystals.

        Parameters
        ----------
        network, conditions, context
            Network of the scores, its conditions, and what is known of the lattices.
        numbers
            Atomic numbers, 0 where there is no atom, shape ``(batch, n)``.
        positions
            Uniformly distributed fractional coordinates, shape ``(batch, n, 3)``.
        lattice
            Standard normal numbers, as many for each crystal as the representation of the lattice has.
        rng
            Random generator of the noise of the steps.

        Returns
        -------
        tuple
            Fractional coordinates, shape ``(batch, n, 3)``, and standardised log-lattices, shape ``(batch, 6)``.
        """
        state = lattice

        def evaluated(level: int) -> tuple[Tensor, Tensor]:
            read, metric = self.lattices.read(state, context)
            time = network_time(torch.full((len(numbers),), float(level)), self.lattices.levels)
            crystals = NoisyCrystals(numbers=numbers, positions=positions, lattice=read, metric=metric, time=time)
            scores, found = guided(network, crystals, conditions, self.settings.guidance)
            return scores * float(self.coordinates.units[level]), found

        def noise(deviation: float, like: Tensor) -> Tensor | float:
            if deviation == 0:
                return 0.0
            return deviation * torch.as_tensor(rng.standard_normal(like.shape), dtype=like.dtype)

        for now, then in self.settings.pairs(self.lattices.levels):
            scores, found = evaluated(now)
            if self.settings.correction > 0:
                size = self.settings.correction * float(self.coordinates.sigmas[now] / self.coordinates.smallest) ** 2
                # The last step ends at the crystal, without noise.
                kick = noise(math.sqrt(2 * size) if then else 0.0, positions)
                positions = (positions + size * scores + kick) % 1.0
                scores, found = evaluated(now)
            kick = noise(self.predictor.deviation(self.coordinates, (now, then)), positions)
            positions = (self.predictor.step(self.coordinates, positions, scores, (now, then)) + kick) % 1.0
            kick = noise(self.lattices.deviation((now, then)), state)
            state = self.lattices.step(state, found, (now, then)) + kick
        return positions, self.lattices.read(state, context)[0]
