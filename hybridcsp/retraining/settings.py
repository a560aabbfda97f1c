"""Settings of retraining, and the weightings of minima."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.utils.paths import expanded

Floats = NDArray[np.float64]

#: Number of new minima after which a generator that began untrained is due to be trained, by default.
NEW_MINIMA = 20


@dataclass(frozen=True)
class Retraining:
    """Represent the settings of the retraining of a search's generators on its minima.

    Parameters
    ----------
    new_minima
        Number of new minima, of all sources, since the last training after which the next one is due; 0 turns
        the training of networks off. By default, generators that begin untrained are trained after every
        :data:`NEW_MINIMA`, and trained ones are not: no gain from that has been measured.
    share
        Largest fraction of the core time of the search that all trainings together may take. It is planned by force
        calls, which are the same in every run with the same seed; measured seconds are an additional limit (see
        ``docs/user/retraining.md``).
    weighting
        Weighting of minima: ``"boltzmann"`` by their enthalpies above the lowest, or ``"best"``, equal weights for the
        lowest ones and none for the others.
    temperature
        Temperature of the Boltzmann weights in eV/atom.
    best
        Fraction of the minima that ``"best"`` includes.
    replay
        Share of replayed crystals in the weight of the training set: crystals of ``replay_data``, or else samples of
        the initial version of the generator.
    replay_data
        File or folder of crystals.
    anchor
        Strength with which the weights are drawn back to the initial ones: the fraction of their distance that one step
        at a learning rate of 1 removes.
    learning_rate
        Learning rate.
    epochs
        Number of epochs, as far as ``share`` allows.
    trial
        Number of relaxations that a new version and the previous one get in turn before the one with less credit per
        force call is given up. 0 keeps a new version without a trial.
    posterior
        Whether the samples of each batch are put in order by the heights in which they are expected to end, which the
        search learns from all its relaxations (:mod:`hybridcsp.sources.height_posterior`).

    Raises
    ------
    InputError
        If a value is out of its range, or ``replay_data`` does not exist.
    """

    new_minima: int | None = None
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
    posterior: bool = True

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name in ("new_minima", "trial"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InputError(name, value, "a whole number from 0")
        if self.epochs < 1:
            raise InputError("epochs", self.epochs, "a whole number from 1")
        for name in ("share", "best"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(name, getattr(self, name), "a fraction above 0 and at most 1")
        if not 0 <= self.replay < 1:
            raise InputError("replay", self.replay, "a fraction from 0, below 1")
        for name in ("temperature", "learning_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(name, getattr(self, name), "a positive number")
        if not (math.isfinite(self.anchor) and self.anchor >= 0):
            raise InputError("anchor", self.anchor, "a number from 0")
        if self.replay_data is not None and not expanded(self.replay_data).exists():
            raise InputError("replay_data", self.replay_data, "a file or folder of crystals that exists")
        if self.weighting not in WEIGHTINGS:
            raise UnknownNameError("weighting", self.weighting, WEIGHTINGS)

    def every(self, *, from_scratch: bool) -> int:
        """Return the number of new minima after which a generator is due to be trained; 0 for never.

        Parameters
        ----------
        from_scratch
            Whether the generator began untrained.
        """
        if self.new_minima is not None:
            return self.new_minima
        return NEW_MINIMA if from_scratch else 0


def boltzmann(enthalpies: Floats, settings: Retraining) -> Floats:
    """Return the weights ``exp(-ΔH / T)`` of minima, shape ``(n,)``.

    Parameters
    ----------
    enthalpies
        Enthalpies in eV/atom, the lowest first, shape ``(n,)``.
    settings
        Settings of retraining, with the temperature T.
    """
    weights: Floats = np.exp(-(enthalpies - enthalpies[0]) / settings.temperature)
    return weights


def best(enthalpies: Floats, settings: Retraining) -> Floats:
    """Return the weight 1 for the lowest minima and 0 for the others; parameters as for :func:`boltzmann`."""
    kept = math.ceil(settings.best * len(enthalpies))
    return (np.arange(len(enthalpies)) < kept).astype(float)


#: Weightings by name.
WEIGHTINGS: dict[str, Callable[[Floats, Retraining], Floats]] = {"boltzmann": boltzmann, "best": best}
