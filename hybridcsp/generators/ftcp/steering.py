"""Steering of samples towards wanted values of properties.

As published, samples are drawn around the known crystals whose values are wanted or nearest to it
(:class:`NearestValues`). By default latent vectors are moved until the values that the network predicts for them are
wanted, and only crystals are accepted for which it predicts wanted values again (:class:`PredictedValues`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybridcsp.generators.ftcp.data import Scale
from hybridcsp.generators.ftcp.network import FourierAutoencoder

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """Represent the wanted scaled values of all properties of a network.

    Attributes
    ----------
    low, high
        Smallest and largest wanted value, infinite if there is none, shape ``(n_properties,)``.
    """

    low: Array
    high: Array

    @classmethod
    def of(cls, wanted: Mapping[str, tuple[float, float]], scale: Scale) -> Self:
        """Return the targets of a request; those of properties that the network has not learned are left out."""
        ends = [(name, *wanted.get(name, (-np.inf, np.inf))) for name in scale.properties]
        low = np.array([float(scale.encode_property(name, least)) for name, least, _ in ends])
        high = np.array([float(scale.encode_property(name, most)) for name, _, most in ends])
        return cls(low=low, high=high)

    @property
    def any(self) -> bool:
        """Whether a value is wanted at all."""
        return bool(np.isfinite(self.low).any() or np.isfinite(self.high).any())

    @property
    def reachable(self) -> bool:
        """Whether the network, which predicts values within those of the training set, can predict wanted ones."""
        return bool((self.low < 1).all() and (self.high > 0).all())

    def distances(self, values: Array) -> Array:
        """Return how far values, shape ``(n, n_properties)``, are outside; infinite where a wanted one is unknown."""
        wanted = np.isfinite(self.low) | np.isfinite(self.high)
        low, high, values = self.low[wanted], self.high[wanted], values[:, wanted]
        outside = np.maximum(np.maximum(low - values, values - high), 0.0)
        return np.asarray(np.linalg.norm(np.where(np.isnan(outside), np.inf, outside), axis=1))


class Steering(ABC):
    """Abstract base class of a way to make samples whose properties have wanted values."""

    @abstractmethod
    def starts(self, model: FourierAutoencoder, latent: Tensor, values: Array, targets: Targets) -> Tensor:
        """Return the latent vectors around which samples are drawn, the most promising first.

        Parameters
        ----------
        model
            Trained network.
        latent
            Latent vectors of the crystals with similar contents, shape ``(n, latent)``.
        values
            Known scaled values of the properties of these crystals, NaN where unknown, shape ``(n, n_properties)``.
        targets
            Wanted values.
        """

    @abstractmethod
    def accepts(self, predicted: Array, targets: Targets) -> NDArray[np.bool_]:
        """Return which crystals are accepted as samples, given their predicted scaled values."""


@dataclass(frozen=True)
class NearestValues(Steering):
    """Choice of the known crystals with wanted values, or else of those nearest to them, as published.

    Attributes
    ----------
    most
        Largest number of crystals around which samples are drawn.
    """

    most: int = 10

    def starts(self, model: FourierAutoencoder, latent: Tensor, values: Array, targets: Targets) -> Tensor:
        """Return some of the latent vectors as they are."""
        order = np.argsort(targets.distances(values), kind="stable")[: self.most]
        return latent[torch.as_tensor(order)]

    def accepts(self, predicted: Array, targets: Targets) -> NDArray[np.bool_]:
        """Accept every crystal."""
        return np.ones(len(predicted), dtype=bool)


@dataclass(frozen=True)
class PredictedValues(Steering):
    """Gradient descent of the latent vectors to wanted predicted values, and selection by the prediction.

    Attributes
    ----------
    steps
        Number of steps of the descent, which uses Adam.
    rate
        Length of a step in each latent dimension.
    margin
        Part of a bounded interval at each of its ends that the descent avoids.
    """

    steps: int = 40
    rate: float = 0.05
    margin: float = 0.25

    def starts(self, model: FourierAutoencoder, latent: Tensor, values: Array, targets: Targets) -> Tensor:
        """Return latent vectors whose predicted values are wanted, or as near as the descent came."""
        width = targets.high - targets.low
        inset = np.where(np.isfinite(width), self.margin * width, 0.0)
        low, high = (torch.as_tensor(ends, dtype=latent.dtype) for ends in (targets.low + inset, targets.high - inset))
        moved = latent.clone().requires_grad_()
        optimiser = torch.optim.Adam([moved], lr=self.rate)
        with torch.enable_grad():
            for _ in range(self.steps):
                predicted = model.predict(moved)
                outside = (low - predicted).clamp(min=0) + (predicted - high).clamp(min=0)
                (gradient,) = torch.autograd.grad(outside.square().sum(), moved)
                moved.grad = gradient
                optimiser.step()
        moved = moved.detach()
        distances = targets.distances(model.predict(moved).detach().numpy().astype(float))
        return moved[torch.as_tensor(np.argsort(distances, kind="stable"))]

    def accepts(self, predicted: Array, targets: Targets) -> NDArray[np.bool_]:
        """Accept crystals whose predicted values are wanted."""
        return np.asarray(targets.distances(predicted) == 0)
