"""Interface of generators: what every learned model that samples crystals implements, and the records it exchanges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from hybridcsp.errors import GeneratorError
from hybridcsp.training.configurations import Configured
from hybridcsp.training.epoch import Epoch

if TYPE_CHECKING:
    from ase import Atoms

    from hybridcsp.structure.representations.base import DecodingError

__all__ = [
    "HALF_PRESSURE",
    "Condition",
    "Epoch",
    "Example",
    "Generator",
    "Reject",
    "Request",
    "Sample",
    "equal_requests",
]


class Condition(StrEnum):
    """Property that a generator can be conditioned on, in addition to the contents of the cell, which are exact."""

    SPACEGROUP = "spacegroup"
    ENERGY = "energy"  # a quantile of the energies among crystals of like contents: 0 is the lowest
    PRESSURE = "pressure"


#: Pressure in GPa at which the saturating feature ``p / (p + 30 GPa)``, the models' input, reaches one half.
HALF_PRESSURE = 30.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """Represent the request for one crystal.

    Attributes
    ----------
    contents
        Number of atoms of each element in the primitive cell.
    spacegroup
        Number of the space group (1 to 230), or ``None`` for any.
    energy_quantile
        Quantile of the energy between 0 (the most stable) and 1, or ``None`` for any.
    pressure_gpa
        Pressure in GPa, or ``None`` for any.
    targets
        Lowest and highest wanted value of properties, by name; the ends may be infinite. A generator honours those that
        are among its :attr:`Generator.targets`.
    guidance
        Weight of the guidance by the targets, from 0 (none): a generator that :attr:`~Generator.guides` extrapolates
        its predictions for the targets away from those without them, for values within the targets and less diversity.
    """

    contents: Mapping[str, int]
    spacegroup: int | None = None
    energy_quantile: float | None = None
    pressure_gpa: float | None = None
    targets: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    guidance: float = 0.0


def equal_requests(requests: Sequence[Request]) -> list[list[int]]:
    """Return the positions of equal requests, one list per group, in the order in which the groups first occur."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, request in enumerate(requests):
        conditions = request.spacegroup, request.energy_quantile, request.pressure_gpa, request.guidance
        key = (*sorted(request.contents.items()), *conditions, *sorted(request.targets.items()))
        groups.setdefault(key, []).append(number)
    return list(groups.values())


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Represent one sampled crystal.

    Attributes
    ----------
    atoms
        Periodic structure with exactly the requested contents.
    request
        Position of its request in the sequence of requests.
    log_likelihood
        Natural logarithm of the model's density of this crystal given the request, or ``None`` if unknown.
    properties
        Predicted values of properties by name.
    """

    atoms: Atoms
    request: int
    log_likelihood: float | None = None
    properties: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Reject:
    """Represent a request that the model could not answer with a crystal.

    Attributes
    ----------
    request
        Position of the request in the sequence of requests.
    reason
        Short reason; equal reasons are counted together.
    """

    request: int
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """Represent one crystal of a training set.

    Attributes
    ----------
    atoms
        Primitive cell.
    weight
        Weight in the loss.
    energy_quantile
        Quantile of the energy among crystals of like contents, or ``None`` if unknown.
    pressure_gpa
        Pressure in GPa, or ``None`` if unknown.
    properties
        Known values of properties by name, without NaN.
    """

    atoms: Atoms
    weight: float = 1.0
    energy_quantile: float | None = None
    pressure_gpa: float | None = None
    properties: Mapping[str, float] = field(default_factory=dict)


class Generator(Configured, ABC):
    """Abstract base class of models that learn from crystals and sample crystals.

    Subclasses set ``name`` and implement :meth:`fit`, :meth:`sample`, :meth:`save` and :meth:`load`. Every other
    attribute has a default and may be overridden by a class attribute, a property or in ``__init__``.

    Attributes
    ----------
    name
        Registered name.
    conditions
        Fields of a request, in addition to the contents, that :meth:`sample` respects; a search sets no others.
    targets
        Names of the properties whose targets in a request :meth:`sample` honours.
    guides
        Whether samples are guided by targets as strongly as requests ask for.
    configurations
        Names of the configurations, and functions that make the generator in each; empty if there is only one.
    named_sizes
        Names of the sizes of the networks, and the arguments that make an untrained generator of each; empty if there
        is only one size.
    card
        Description of the training, JSON-serialisable; written next to the weights.
    batch_size
        Number of samples that a search requests in one call.
    best_first
        Whether the answers to equal requests are sorted, the most promising first.
    caches_samples
        Whether a search stores the samples in its run directory instead of sampling again when it is resumed. Set it
        if sampling is slow or does not depend on the random number generator alone.
    effort
        Duration of one pass of one example through the training, as a multiple of a quarter of a force call.
    fine_tuning
        Settings of :meth:`fit` for retraining during a search, in addition to ``epochs``, ``learning_rate`` and
        ``anchor``, which it must accept if :attr:`learns`.
    learns
        Whether a search can retrain it.
    reconstructs
        Whether it has an encoder, so that :meth:`reconstruct` is available.
    learns_properties
        Whether :meth:`fit` learns the properties of the examples; it then writes their names to ``card["properties"]``.
    """

    name: str
    conditions: frozenset[Condition] = frozenset()
    targets: frozenset[str] = frozenset()
    guides: bool = False
    card: Mapping[str, Any] = MappingProxyType({})
    batch_size: int = 48
    best_first: bool = False
    caches_samples: bool = False
    effort: float = 1.0
    fine_tuning: Mapping[str, Any] = MappingProxyType({})
    learns: bool = True
    reconstructs: bool = False
    learns_properties: bool = False

    @classmethod
    def from_scratch(cls) -> Self:
        """Return an untrained generator, preferably a small one, that learns from the minima of a search alone.

        Called once, when a search with the source ``generative:NAME:scratch`` starts, and again in the process of its
        first training.

        Raises
        ------
        GeneratorError
            If the class does not override this method.
        """
        raise GeneratorError(
            f"{cls.__name__} cannot start untrained, because it does not define from_scratch(); "
            "use trained weights, or define a class method from_scratch() that returns an untrained generator"
        )

    @abstractmethod
    def fit(
        self,
        examples: Sequence[Example],
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        **settings: Any,
    ) -> None:
        """Train on examples, starting from the current weights.

        Parameters
        ----------
        examples
            Training set.
        seed
            Random seed.
        checkpoint
            File in which the state of the training is kept; the training continues from it if the file exists.
        on_epoch
            Function that is called after each epoch.
        **settings
            Settings of the training.
        """

    @abstractmethod
    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        """Return exactly one answer to each request, in the order of the requests; draw from ``rng`` alone."""

    def reconstruct(self, crystals: Sequence[Atoms]) -> list[Atoms | DecodingError]:
        """Return what the model makes of crystals: each is encoded and decoded again, in the order of the crystals.

        A generator that overrides this method sets :attr:`reconstructs`. Nothing is drawn: latent variables have their
        most likely values.

        Parameters
        ----------
        crystals
            Crystals in any cells.

        Returns
        -------
        list
            The decoded crystal, or the error with the reason if the crystal cannot be decoded; a
            :class:`~hybridcsp.structure.representations.base.BeyondLimitsError` if it is beyond the limits of the
            model, so that it cannot be encoded.

        Raises
        ------
        GeneratorError
            If the class does not override this method.
        """
        raise GeneratorError(
            f"{type(self).__name__} cannot reconstruct crystals, because it does not define reconstruct(); "
            "generators with an encoder, such as autoencoders, do"
        )

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the weights and the card into a folder, which is made if it does not exist."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Read a generator from a folder that :meth:`save` has written."""
