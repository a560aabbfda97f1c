"""Losses of two networks that compete: a critic that tells crystals from samples, and a generator of samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import softplus

#: Critic: scores of shape ``(batch,)`` of inputs of shape ``(batch, ...)``.
Critic = Callable[[torch.Tensor], torch.Tensor]


class AdversarialLoss(ABC):
    """Abstract base class of a pair of losses; the critic learns high scores for crystals and low ones for samples.

    Attributes
    ----------
    won
        Value of the critic's loss at which it recognises all samples, so that the generator learns no more; ``None`` if
        the loss has no lowest value.
    """

    won: float | None = None

    @abstractmethod
    def of_critic(self, critic: Critic, real: torch.Tensor, fake: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the loss terms of the critic by name, each of shape ``(batch,)``.

        Parameters
        ----------
        critic
            Critic.
        real, fake
            Crystals and samples, of equal shapes; the samples without gradients.
        """

    @abstractmethod
    def of_generator(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the loss of the generator, shape ``(batch,)``, from the scores of its samples."""


@dataclass(frozen=True)
class Wasserstein(AdversarialLoss):
    """Wasserstein distance with a penalty of the critic's gradient (WGAN-GP, arXiv:1704.00028).

    Attributes
    ----------
    penalty
        Factor of the squared deviation of the norm of the gradient from 1, at points between crystals and samples.
    """

    penalty: float = 10.0

    def of_critic(self, critic: Critic, real: torch.Tensor, fake: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the estimated distance with a minus sign, and the penalty."""
        share = torch.rand((len(real), *[1] * (real.ndim - 1)), device=real.device)
        between = (share * real + (1 - share) * fake).detach().requires_grad_()
        gradient = torch.autograd.grad(critic(between).sum(), between, create_graph=True)[0]
        # The square root has no derivative at 0, which is the gradient of an untrained critic without biases.
        norm = (gradient.flatten(1).square().sum(1) + 1e-12).sqrt()
        return {"distance": critic(fake) - critic(real), "penalty": self.penalty * (norm - 1).square()}

    def of_generator(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores with a minus sign."""
        return -scores


@dataclass(frozen=True)
class CrossEntropy(AdversarialLoss):
    """Cross-entropy of crystals and samples, and the generator's loss that does not saturate (arXiv:1406.2661).

    The loss of deep convolutional generative adversarial networks (DCGAN, arXiv:1511.06434). Scores are logits.

    Attributes
    ----------
    penalty
        Factor of the squared gradient at the crystals, which makes the competition converge (arXiv:1801.04406); 0 for
        the loss without it.
    """

    penalty: float = 0.0
    won: float | None = 0.0

    def of_critic(self, critic: Critic, real: torch.Tensor, fake: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the cross-entropies of crystals and of samples, and the penalty."""
        points = real.detach().requires_grad_(self.penalty > 0)
        scores = critic(points)
        terms = {"crystals": softplus(-scores), "samples": softplus(critic(fake))}
        if self.penalty > 0:
            gradient = torch.autograd.grad(scores.sum(), points, create_graph=True)[0]
            terms["penalty"] = self.penalty * gradient.flatten(1).square().sum(1)
        return terms

    def of_generator(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of samples that are taken for crystals."""
        return softplus(-scores)


@dataclass(frozen=True)
class SoftplusDifference(AdversarialLoss):
    """Difference of the softplus of scores, as published with CrystalGAN; it has no lowest value and no penalty.

    The scores have the opposite sign there: high for samples.
    """

    def of_critic(self, critic: Critic, real: torch.Tensor, fake: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the difference of crystals and samples."""
        return {"difference": softplus(critic(real)) - softplus(critic(fake))}

    def of_generator(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the softplus of the scores."""
        return softplus(scores)
