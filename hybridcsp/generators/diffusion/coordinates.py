"""Diffusion of fractional coordinates: wrapped normal noise of increasing width, and steps back along the score."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hybridcsp.generators.diffusion.wrapped_normal import mean_square_score, score


@dataclass(frozen=True)
class CoordinateNoise:
    """Represent wrapped normal noise of fractional coordinates, whose width grows exponentially with the level.

    The noise is added to each coordinate. Crystals have no origin, so that the score of their distribution has no mean
    over the atoms; the mean of the score of one crystal's noise cannot be predicted and is subtracted. The network
    predicts scores in units of their root mean square at the level, which makes errors of all levels comparable.

    Attributes
    ----------
    levels
        Number of levels; level 0 is without noise.
    smallest, largest
        Standard deviations of the first and the last level, in fractional coordinates.
    """

    levels: int
    smallest: float = 0.005
    largest: float = 0.5

    @cached_property
    def sigmas(self) -> Tensor:
        """Standard deviations by level, the first one 0, shape ``(levels + 1,)``."""
        exponents = torch.linspace(0, 1, self.levels, dtype=torch.float64)
        return torch.cat([torch.zeros(1).double(), self.smallest * (self.largest / self.smallest) ** exponents])

    @cached_property
    def units(self) -> Tensor:
        """Root mean squares of the score by level, the first one 1, shape ``(levels + 1,)``."""
        return torch.cat([torch.ones(1).double(), mean_square_score(self.sigmas[1:]).sqrt()])

    def noisy(self, positions: Tensor, present: Tensor, level: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Add noise to crystals.

        Parameters
        ----------
        positions
            Fractional coordinates, shape ``(batch, n, 3)``.
        present
            1 for atoms and 0 for padding, shape ``(batch, n)``.
        level
            Levels of the noise, from 1, shape ``(batch,)``.
        normal
            Standard normal random numbers, shape ``(batch, n, 3)``.

        Returns
        -------
        tuple
            Noisy coordinates in [0, 1), and the scores of the noise in units of the level without their mean over the
            atoms, 0 for padding, shape ``(batch, n, 3)`` each.
        """
        sigma = self.sigmas[level][:, None, None].expand_as(normal)
        displacement = sigma * normal
        scores = score(displacement, sigma) / self.units[level][:, None, None]
        mean = (scores * present[..., None]).sum(1, keepdim=True) / present.sum(1)[:, None, None]
        return (positions + displacement) % 1.0, (scores - mean) * present[..., None]


class CoordinatePredictor(ABC):
    """Abstract base class of a step of fractional coordinates from one level of noise to a lower one."""

    @abstractmethod
    def step(self, noise: CoordinateNoise, positions: Tensor, scores: Tensor, levels: tuple[int, int]) -> Tensor:
        """Return the coordinates after the step, apart from random numbers.

        Parameters
        ----------
        noise
            Noise of the coordinates.
        positions
            Fractional coordinates, shape ``(batch, n, 3)``.
        scores
            Scores at the present level, shape ``(batch, n, 3)``.
        levels
            Present and next level.
        """

    @abstractmethod
    def deviation(self, noise: CoordinateNoise, levels: tuple[int, int]) -> float:
        """Return the standard deviation of the random numbers that are added to the coordinates."""


@dataclass(frozen=True)
class Ancestral(CoordinatePredictor):
    """Step of the Markov chain that reverses the diffusion (Song et al., arXiv:2011.13456, appendix F)."""

    def step(self, noise: CoordinateNoise, positions: Tensor, scores: Tensor, levels: tuple[int, int]) -> Tensor:
        """Follow the score by the difference of the variances."""
        now, then = (float(noise.sigmas[level]) for level in levels)
        return positions + (now**2 - then**2) * scores

    def deviation(self, noise: CoordinateNoise, levels: tuple[int, int]) -> float:
        """Return the spread of the lower level given the present one and the crystal without noise."""
        now, then = (float(noise.sigmas[level]) for level in levels)
        return then * math.sqrt(now**2 - then**2) / now


@dataclass(frozen=True)
class ProbabilityFlow(CoordinatePredictor):
    """Step along the ordinary differential equation that has the same distributions (arXiv:2011.13456), as in DDIM.

    The step is exact where the score points to one crystal (Song et al., arXiv:2010.02502).
    """

    def step(self, noise: CoordinateNoise, positions: Tensor, scores: Tensor, levels: tuple[int, int]) -> Tensor:
        """Shrink the expected displacement in proportion to the standard deviations."""
        now, then = (float(noise.sigmas[level]) for level in levels)
        return positions + now * (now - then) * scores

    def deviation(self, noise: CoordinateNoise, levels: tuple[int, int]) -> float:
        """Return 0."""
        return 0.0
