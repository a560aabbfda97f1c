"""Diffusion of lattices: denoising diffusion probabilistic models (arXiv:2006.11239) of two representations."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hybridcsp.generators.joint.network import cells
from hybridcsp.structure.lattice import COLUMNS, ROWS

# Offset of the cosine, and limits of the variance that a level adds (Nichol and Dhariwal, arXiv:2102.09672; the lower
# limit is DiffCSP's).
_OFFSET, _LEAST, _MOST = 0.008, 1e-4, 0.9999
# Least square length of a principal axis of a noisy cell, in Å², so that its logarithm is finite.
_FLATTEST = 1e-2


@dataclass(frozen=True, kw_only=True, eq=False)
class LatticeContext:
    """Represent what is known of lattices before they are drawn.

    Attributes
    ----------
    mean, spread
        Mean and spread of the log-lattice over the training data, shape ``(6,)`` each.
    lengths
        Components of the logarithm of each crystal's expected size, shape ``(batch, 6)``.
    """

    mean: Tensor
    spread: Tensor
    lengths: Tensor


@dataclass(frozen=True)
class LatticeNoise(ABC):
    """Abstract base class of a representation of the lattice and of the normal noise that is added to it.

    At each level, the state is the sum of the lattice without noise times the square root of ``kept`` and of normal
    noise times the square root of the rest. The variances that the levels add follow a cosine.

    Attributes
    ----------
    levels
        Number of levels; level 0 is without noise.
    """

    levels: int

    @cached_property
    def kept(self) -> Tensor:
        """Fraction of the variance that is left of the lattice by level, the first one 1, shape ``(levels + 1,)``."""
        steps = torch.arange(self.levels + 1, dtype=torch.float64) / self.levels
        cosine = torch.cos((steps + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2
        added = (1 - cosine[1:] / cosine[:-1]).clamp(_LEAST, _MOST)
        return torch.cat([torch.ones(1).double(), torch.cumprod(1 - added, 0)])

    def noisy(self, clean: Tensor, level: Tensor, normal: Tensor) -> Tensor:
        """Add noise.

        Parameters
        ----------
        clean
            Lattices without noise, as :meth:`clean` returns them.
        level
            Levels of the noise, from 1, shape ``(batch,)``.
        normal
            Standard normal random numbers, shape of the lattices.
        """
        kept = self.kept[level].reshape(-1, *[1] * (clean.ndim - 1))
        return kept.sqrt() * clean + (1 - kept).sqrt() * normal

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the state of one crystal."""

    @abstractmethod
    def clean(self, lattices: Tensor, context: LatticeContext) -> Tensor:
        """Return states without noise of standardised log-lattices, shape ``(batch, 6)``."""

    @abstractmethod
    def read(self, state: Tensor, context: LatticeContext) -> tuple[Tensor, Tensor]:
        """Return what the network reads: standardised log-lattices and metrics in Å, shape ``(batch, 6)`` each."""

    @abstractmethod
    def target(self, clean: Tensor, level: Tensor, normal: Tensor) -> Tensor:
        """Return what is learned, with the parameters of :meth:`noisy`."""

    @abstractmethod
    def prediction(self, found: Tensor, state: Tensor) -> Tensor:
        """Return the predicted target, given six numbers of the network for each crystal and the noisy states."""

    @abstractmethod
    def _clean_and_noise(self, predicted: Tensor, state: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Return the expected lattice without noise, and the expected noise, of states at a level."""

    def step(self, state: Tensor, found: Tensor, levels: tuple[int, int]) -> Tensor:
        """Return the mean of the states at a lower level, given the numbers of the network at the present level."""
        then = float(self.kept[levels[1]])
        clean, noise = self._clean_and_noise(self.prediction(found, state), state, levels[0])
        deviation = self.deviation(levels)
        return math.sqrt(then) * clean + math.sqrt(max(1 - then - deviation**2, 0.0)) * noise

    def deviation(self, levels: tuple[int, int]) -> float:
        """Return the spread of the lower level given the present one and the lattice without noise."""
        now, then = (float(self.kept[level]) for level in levels)
        return math.sqrt(max(1 - now / then, 0.0) * (1 - then) / (1 - now))


@dataclass(frozen=True)
class LogLattices(LatticeNoise):
    """Standardised components of ½ log(L Lᵀ), of which every state is a cell near those of crystals.

    The network predicts the velocity √ᾱ ε - √(1-ᾱ) k of Salimans and Ho (arXiv:2202.00512), from which lattice and
    noise follow with finite factors at all levels, so that steps over many levels are possible.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Six components."""
        return (6,)

    def clean(self, lattices: Tensor, context: LatticeContext) -> Tensor:
        """Return the lattices as they are."""
        return lattices

    def read(self, state: Tensor, context: LatticeContext) -> tuple[Tensor, Tensor]:
        """Return the states, and in Å."""
        return state, state * context.spread + context.mean + context.lengths

    def target(self, clean: Tensor, level: Tensor, normal: Tensor) -> Tensor:
        """Return the velocities."""
        kept = self.kept[level][:, None]
        return kept.sqrt() * normal - (1 - kept).sqrt() * clean

    def prediction(self, found: Tensor, state: Tensor) -> Tensor:
        """Return the numbers themselves."""
        return found

    def _clean_and_noise(self, predicted: Tensor, state: Tensor, level: int) -> tuple[Tensor, Tensor]:
        kept = float(self.kept[level])
        ours, theirs = math.sqrt(kept), math.sqrt(1 - kept)
        return ours * state - theirs * predicted, theirs * state + ours * predicted


@dataclass(frozen=True)
class LatticeMatrices(LatticeNoise):
    """Matrices L of cell vectors in Å, to which noise of 1 Å is added, as in DiffCSP.

    The network predicts the noise ε as S L with a symmetric matrix S, equivariant under rotation. A symmetric matrix is
    sufficient: a density that is invariant under rotation depends on L Lᵀ, and its gradient is 2 (∂ log p / ∂ L Lᵀ) L.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Three cell vectors as rows."""
        return (3, 3)

    def clean(self, lattices: Tensor, context: LatticeContext) -> Tensor:
        """Return symmetric cells, which are those of the crystals up to a rotation."""
        return cells(lattices * context.spread + context.mean + context.lengths)

    def read(self, state: Tensor, context: LatticeContext) -> tuple[Tensor, Tensor]:
        """Return the logarithms of the metrics, of which axes shorter than 0.1 Å are lengthened."""
        values, vectors = torch.linalg.eigh(state @ state.transpose(1, 2))
        logarithm = (vectors * (0.5 * torch.log(values.clamp(min=_FLATTEST)))[:, None]) @ vectors.transpose(1, 2)
        metric = logarithm[:, ROWS, COLUMNS]
        return (metric - context.lengths - context.mean) / context.spread, metric

    def target(self, clean: Tensor, level: Tensor, normal: Tensor) -> Tensor:
        """Return the noise."""
        return normal

    def prediction(self, found: Tensor, state: Tensor) -> Tensor:
        """Return the product of the symmetric matrices and the states, in the precision of the states."""
        matrix = torch.zeros_like(state)
        matrix[:, ROWS, COLUMNS] = matrix[:, COLUMNS, ROWS] = found.to(state.dtype)
        return (matrix[:, :, :, None] * state[:, None]).sum(2)

    def _clean_and_noise(self, predicted: Tensor, state: Tensor, level: int) -> tuple[Tensor, Tensor]:
        kept = float(self.kept[level])
        return (state - math.sqrt(1 - kept) * predicted) / math.sqrt(kept), predicted
