"""Training data of the materials autoencoder: codes of images, contents, and which crystals count as stable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.generators.base import Example
from hybridcsp.generators.images.codes import Codes

#: Stability of crystals of which it is unknown.
UNKNOWN = -1.0


class MaterialsData:
    """Training data of the materials autoencoder.

    Parameters
    ----------
    codes
        Codes of the images.
    contents
        Number of atoms of each element, shape ``(n, n_elements)``.
    stable
        1 for stable crystals, 0 for others, :data:`UNKNOWN` where it is unknown, shape ``(n,)``.
    weights
        Weights in the loss, shape ``(n,)``.
    """

    def __init__(
        self, codes: Codes, contents: NDArray[np.int_], stable: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> None:
        self.weights = weights
        self.sizes = np.ones(len(weights), dtype=int)
        self._tensors = {
            "cell": codes.cell,
            "sites": codes.sites,
            "contents": torch.as_tensor(contents, dtype=torch.float32),
            "stable": torch.as_tensor(stable, dtype=torch.float32),
        }

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        """Return the tensors of examples."""
        return {name: tensor[torch.from_numpy(indices)] for name, tensor in self._tensors.items()}


@dataclass(frozen=True, kw_only=True)
class Stability:
    """Represent what counts as stable.

    Attributes
    ----------
    quantity
        Name of the property, or ``energy_quantile``; empty if nothing is known.
    at_most
        Largest value of a stable crystal.
    """

    quantity: str = ""
    at_most: float = 0.0

    def labels(self, examples: Sequence[Example]) -> NDArray[np.float64]:
        """Return 1 for stable examples, 0 for others, and :data:`UNKNOWN` where it is unknown, shape ``(n,)``."""
        values = _values(examples, self.quantity)
        return np.where(np.isnan(values), UNKNOWN, values <= self.at_most)


class StabilityRule(ABC):
    """Abstract base class of rules for what counts as stable."""

    @abstractmethod
    def stability(self, examples: Sequence[Example]) -> Stability:
        """Return what counts as stable among the examples of a training set.

        Raises
        ------
        InputError
            If the examples lack what the rule needs.
        """


@dataclass(frozen=True)
class FormationEnergyLimit(StabilityRule):
    """Formation energies up to a limit, as published.

    Attributes
    ----------
    limit
        Largest formation energy (eV/atom) of a stable crystal.
    """

    limit: float = 0.5

    def stability(self, examples: Sequence[Example]) -> Stability:
        """Return the limit on the one property of the examples, which is taken to be the formation energy."""
        name = _property_of(examples)
        if not name:
            reason = (
                "the published configuration learns which crystals have formation energies of at most "
                f"{self.limit:g} eV/atom; name the property that holds them (--property formation_energy_per_atom)"
            )
            raise InputError("property", None, reason=reason)
        return Stability(quantity=name, at_most=self.limit)


@dataclass(frozen=True)
class LowerHalf(StabilityRule):
    """The lower half of the values of the property that is learned, or else of the energy quantiles.

    A fixed limit on the formation energy calls all oxides stable. Half of the crystals below the limit, and half above,
    is what a classifier learns most from. Without a property and energies, nothing is learned about stability.
    """

    def stability(self, examples: Sequence[Example]) -> Stability:
        """Return the median as the limit."""
        name = _property_of(examples) or "energy_quantile"
        values = _values(examples, name)
        known = values[~np.isnan(values)]
        return Stability(quantity=name, at_most=float(np.median(known))) if len(known) else Stability()


def _property_of(examples: Sequence[Example]) -> str:
    """Return the name of the one property of examples; empty if they have none."""
    names = sorted({name for example in examples for name in example.properties})
    if len(names) > 1:
        reason = "imatgen learns from one property which crystals are stable; name only one"
        raise InputError("property", ", ".join(names), reason=reason)
    return names[0] if names else ""


def _values(examples: Sequence[Example], name: str) -> NDArray[np.float64]:
    """Return values of a property or the energy quantiles, NaN where they are unknown, shape ``(n,)``."""
    found: list[Any] = [
        example.energy_quantile if name == "energy_quantile" else example.properties.get(name) for example in examples
    ]
    return np.array([np.nan if value is None else value for value in found], dtype=float)
