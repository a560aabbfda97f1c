"""How generators learn from a search."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hybridcsp.errors import InputError, UnknownNameError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Retraining:
    """When and how the generators of a search learn from its minima.

    Parameters
    ----------
    new_minima
        Minima that the search, whichever source, must have opened since the last training; 0: generators stay as they
        are.
    share
        The most that retraining, of all generators together, may take of the core time of the search. It is planned
        by force calls, which are the same in every run of a seed; measured seconds are a limit on top (see
        ``docs/user/retraining.md``).
    weighting
        How much each minimum counts: ``"boltzmann"``, by its enthalpy above the best, or ``"best"``, the lowest ones
        alike and the others not at all.
    temperature
        Of the Boltzmann weights, in eV/atom.
    best
        Which share of the minima is meant by ``"best"``.
    replay
        Share of the training that goes to what the generator knew before: crystals from ``replay_data``, or else
        samples of the generator as it was at the beginning.
    replay_data
        A file or folder of crystals.
    anchor
        How strongly the weights are drawn back to those at the beginning: the fraction of their distance that one step
        at a learning rate of 1 would take away.
    learning_rate, epochs
        Of each training; the epochs are the most, as far as ``share`` goes.
    trial
        Relaxations that a new version, and the one before it, get in turns before the one that earned less is given
        up. 0: a new version is kept untested.

    Raises
    ------
    InputError
        For values that make no sense.
    """

    new_minima: int = 20
    share: float = 0.1
    weighting: str = "boltzmann"
    temperature: float = 0.1
    best: float = 0.25
    replay: float = 0.5
    replay_data: str | None = None
    anchor: float = 10.0
    learning_rate: float = 2e-4
    epochs: int = 30
    trial: int = 10

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name in ("new_minima", "trial"):
            if getattr(self, name) < 0:
                raise InputError(name, getattr(self, name), "a whole number from 0")
        if self.epochs < 1:
            raise InputError("epochs", self.epochs, "a whole number from 1")
        for name, low, high in (("share", 0, 1), ("best", 0, 1)):
            if not low < getattr(self, name) <= high:
                raise InputError(name, getattr(self, name), "a fraction above 0, at most 1")
        if not 0 <= self.replay < 1:
            raise InputError("replay", self.replay, "a fraction from 0, below 1")
        for name in ("temperature", "learning_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(name, getattr(self, name), "a positive number")
        if not (math.isfinite(self.anchor) and self.anchor >= 0):
            raise InputError("anchor", self.anchor, "a number from 0")
        if self.replay_data is not None and not Path(self.replay_data).expanduser().exists():
            raise InputError("replay_data", self.replay_data, "a file or folder of crystals that exists")
        if self.weighting not in WEIGHTINGS:
            raise UnknownNameError("weighting", self.weighting, WEIGHTINGS)


def boltzmann(enthalpies: Floats, settings: Retraining) -> Floats:
    """Weights ``exp(-ΔH / T)`` of minima by their enthalpies per atom (eV), the lowest first, shape ``(n,)``."""
    weights: Floats = np.exp(-(enthalpies - enthalpies[0]) / settings.temperature)
    return weights


def best(enthalpies: Floats, settings: Retraining) -> Floats:
    """Weight 1 for the lowest share of the minima and 0 for the others; arguments as for :func:`boltzmann`."""
    kept = math.ceil(settings.best * len(enthalpies))
    return (np.arange(len(enthalpies)) < kept).astype(float)


#: Weightings by name.
WEIGHTINGS: dict[str, Callable[[Floats, Retraining], Floats]] = {"boltzmann": boltzmann, "best": best}
