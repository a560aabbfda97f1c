"""Learned models that sample crystals, and the interface they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms


class Condition(StrEnum):
    """What a generator can be asked for beside the contents of the cell, which every generator keeps exactly."""

    SPACEGROUP = "spacegroup"
    ENERGY = "energy"  # a quantile of the energies among crystals of like contents: 0 is the lowest
    PRESSURE = "pressure"


#: Half of the effect of pressure on what models are told is reached here (GPa): they are told ``p / (p + 30 GPa)``.
HALF_PRESSURE = 30.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """One crystal wanted.

    Attributes
    ----------
    contents
        Atoms of each element in the primitive cell.
    spacegroup
        Its number, where one is wanted.
    energy_quantile
        Between 0 (the most stable) and 1, where one is wanted.
    pressure_gpa
        Where one is wanted.
    """

    contents: Mapping[str, int]
    spacegroup: int | None = None
    energy_quantile: float | None = None
    pressure_gpa: float | None = None


def equal_requests(requests: Sequence[Request]) -> list[list[int]]:
    """Return the positions of requests for the same, group by group, in the order in which each came first."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, request in enumerate(requests):
        key = (*sorted(request.contents.items()), request.spacegroup, request.energy_quantile, request.pressure_gpa)
        groups.setdefault(key, []).append(number)
    return list(groups.values())


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One crystal made.

    Attributes
    ----------
    atoms
        A periodic structure with exactly the contents that were asked for.
    request
        Position of its request in the sequence that was asked for.
    log_likelihood
        Natural logarithm of the model's density of it given the request, where the model knows it.
    """

    atoms: Atoms
    request: int
    log_likelihood: float | None = None


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A request that came to nothing, and why (a few words)."""

    request: int
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One crystal to learn from.

    Attributes
    ----------
    atoms
        Primitive cell.
    weight
        How much it counts in the loss.
    energy_quantile, pressure_gpa
        Where they are known.
    """

    atoms: Atoms
    weight: float = 1.0
    energy_quantile: float | None = None
    pressure_gpa: float | None = None


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What is told after each pass over the training data.

    Attributes
    ----------
    number
        From 1.
    losses
        Means by name; ``"train"`` and ``"held_out"`` are always there.
    seconds
        Of the whole training so far, those of earlier processes included.
    best
        Whether the held-out loss is the lowest so far.
    part
        Which part of the model is being trained, where it has several that are trained one after the other.
    at_start
        The held-out loss of the weights that the training began with; ``None`` where nothing is held out.
    """

    number: int
    losses: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    best: bool = False
    part: str = ""
    at_start: float | None = None


class Generator(Protocol):
    """A model that learns from crystals and samples crystals.

    Attributes
    ----------
    name
        As it is registered.
    conditions
        What a request may name beside the contents and is then honoured; the rest of a request is ignored, so that
        whoever asks must filter.
    card
        What it was trained on and how: plain JSON, kept beside the weights.

    Notes
    -----
    A search also looks for these, which need not be there: ``batch``, samples to ask for at a time; ``best_first``,
    whether answers to equal requests come in the order in which to try them; ``keeps_samples``, whether they are kept
    rather than made again; ``fine_tuning``, settings for :meth:`fit` when it learns from the search, beside ``epochs``,
    ``learning_rate`` and ``anchor``, which it must accept then; ``effort``, how long one pass of an example through its
    training takes, in quarters of a force call (1 if it does not say); ``from_scratch()``, a class method that makes an
    untrained one to learn from a search alone, which is best a small one.
    """

    name: str
    conditions: frozenset[Condition]
    card: Mapping[str, Any]

    def fit(
        self,
        examples: Sequence[Example],
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        **settings: Any,
    ) -> None:
        """Learn from examples, from the weights it has; with a checkpoint file, go on from where that was left."""

    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        """Return exactly one answer to each request, in their order."""

    def save(self, folder: Path) -> None:
        """Write weights (safetensors) and card (JSON) into a folder."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
