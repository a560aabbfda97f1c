"""Optimisers and courses of the learning rate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from hybridcsp.training.settings import TrainingSettings


class Optimisation(ABC):
    """Abstract base class of an optimiser together with the course of its learning rate."""

    @abstractmethod
    def optimiser(self, model: torch.nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
        """Return the optimiser of a model with a learning rate of 1, which the course multiplies."""

    @abstractmethod
    def rate(self, settings: TrainingSettings, step: int, steps: int, steps_per_epoch: int) -> float:
        """Return the learning rate of one step.

        Parameters
        ----------
        settings
            Settings of the training.
        step
            Number of the step, from 0.
        steps
            Number of steps of the whole training.
        steps_per_epoch
            Number of steps of an epoch.
        """


@dataclass(frozen=True)
class AdamWCosine(Optimisation):
    """AdamW (doi:10.48550/arXiv.1711.05101) with a linear warm-up and a cosine down to a hundredth of the rate."""

    def optimiser(self, model: torch.nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
        """Return AdamW, without weight decay of vectors (biases, norms)."""
        import torch

        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [parameter for parameter in parameters if parameter.ndim > 1]},
            {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=1.0, weight_decay=settings.weight_decay)

    def rate(self, settings: TrainingSettings, step: int, steps: int, steps_per_epoch: int) -> float:
        """Return the learning rate of the settings' course."""
        return settings.rate(step, steps)


@dataclass(frozen=True)
class ConstantAdam(Optimisation):
    """Adam with a constant learning rate.

    Attributes
    ----------
    betas
        Decay rates of the first and the second moment.
    """

    betas: tuple[float, float] = (0.9, 0.999)

    def optimiser(self, model: torch.nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
        """Return Adam."""
        import torch

        return torch.optim.Adam(model.parameters(), lr=1.0, betas=self.betas)

    def rate(self, settings: TrainingSettings, step: int, steps: int, steps_per_epoch: int) -> float:
        """Return the learning rate of the settings."""
        return settings.learning_rate


@dataclass(frozen=True)
class RMSpropSteps(Optimisation):
    """RMSprop with a learning rate that falls at given epochs.

    Attributes
    ----------
    factors
        Factor of the learning rate from an epoch (counted from 0) on.
    """

    factors: Mapping[int, float] = field(default_factory=dict)

    def optimiser(self, model: torch.nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
        """Return RMSprop with the decay rate and the constant of Keras, 0.9 and 1e-7."""
        import torch

        return torch.optim.RMSprop(model.parameters(), lr=1.0, alpha=0.9, eps=1e-7)

    def rate(self, settings: TrainingSettings, step: int, steps: int, steps_per_epoch: int) -> float:
        """Return the learning rate of the settings times the factor of the epoch."""
        epoch = step // steps_per_epoch
        begun = [start for start in self.factors if start <= epoch]
        return settings.learning_rate * (self.factors[max(begun)] if begun else 1.0)
