"""Scales on which networks learn a property: logarithm, shift, spread, and what the composition alone explains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from hybridcsp.errors import InputError

Array = NDArray[np.float64]

# Weight of the squared coefficients of elements in the fit to the composition, in units of the variance.
_RIDGE = 0.1


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Represent the map between values of a property and the numbers that a network learns.

    Attributes
    ----------
    logarithmic
        Whether the natural logarithm of the value is learned.
    mean, spread
        Number that is subtracted, and number by which the rest is divided.
    elements
        Contribution of each element, which is multiplied by its fraction of the atoms and subtracted, too.
    """

    logarithmic: bool = False
    mean: float = 0.0
    spread: float = 1.0
    elements: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = [self.mean, self.spread, *self.elements.values()]
        if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers) or self.spread <= 0:
            raise ValueError(
                "mean, spread and contributions of elements must be finite numbers, and the spread positive"
            )
        if not all(symbol in atomic_numbers for symbol in self.elements):
            raise ValueError("contributions must be those of chemical elements")

    @classmethod
    def from_card(cls, stored: Mapping[str, Any]) -> Self:
        """Build the scale from the entries of a card."""
        return cls(**stored)

    def encode(self, values: Array, crystals: Sequence[Atoms]) -> Array:
        """Return what is learned for values of a property, shape ``(n,)``."""
        return (self.forward(values) - self._expected(crystals)) / self.spread

    def decode(self, learned: Array, crystals: Sequence[Atoms]) -> Array:
        """Return the property, or its logarithm if that is learned, shape ``(..., n)``."""
        return learned * self.spread + self._expected(crystals)

    def forward(self, values: Array) -> Array:
        """Return values, or their logarithms if these are learned."""
        return np.log(values) if self.logarithmic else np.asarray(values, dtype=float)

    def back(self, values: Array) -> Array:
        """Return the property for values, or for their logarithms if these are learned."""
        return np.exp(values) if self.logarithmic else values

    def _expected(self, crystals: Sequence[Atoms]) -> Array:
        if not self.elements:
            return np.full(len(crystals), self.mean)
        coefficients = np.zeros(119)
        for symbol, value in self.elements.items():
            coefficients[atomic_numbers[symbol]] = value
        return self.mean + fractions(crystals) @ coefficients


def standard_scale(values: Array, crystals: Sequence[Atoms], *, logarithmic: bool) -> Scale:
    """Return the scale of mean 0 and standard deviation 1."""
    forward = Scale(logarithmic=logarithmic).forward(values)
    return Scale(logarithmic=logarithmic, mean=float(forward.mean()), spread=_spread(forward, forward))


def composition_scale(values: Array, crystals: Sequence[Atoms], *, logarithmic: bool) -> Scale:
    """Return the scale from which the best linear function of the fractions of elements is subtracted.

    The network then learns only what this function, fitted with a small ridge, does not explain.
    """
    forward = Scale(logarithmic=logarithmic).forward(values)
    mean = float(forward.mean())
    table = fractions(crystals)
    present = np.flatnonzero(table.any(axis=0))
    known = table[:, present]
    normal = known.T @ known + _RIDGE * np.eye(len(present))
    coefficients = np.linalg.solve(normal, known.T @ (forward - mean))
    return Scale(
        logarithmic=logarithmic,
        mean=mean,
        spread=_spread(forward - mean - known @ coefficients, forward),
        elements={chemical_symbols[z]: float(c) for z, c in zip(present, coefficients, strict=True)},
    )


def fractions(crystals: Sequence[Atoms]) -> Array:
    """Return the fraction of the atoms of a crystal that are of each element, shape ``(n, 119)``."""
    rows = [np.bincount(crystal.numbers, minlength=119) / len(crystal) for crystal in crystals]
    return np.array(rows).reshape(len(crystals), 119)


def _spread(learned: Array, forward: Array) -> float:
    """Return the standard deviation of what is learned; it is at least a thousandth of that of the property."""
    spread = float(max(learned.std(), 1e-3 * forward.std()))
    if not spread > 0:
        raise InputError("property", float(forward[0]), reason="all values that are learned from are equal")
    return spread
