"""Interface of the networks of the composition-conditioned GAN."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hybridcsp.training.adversarial import AdversarialModel


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the networks.

    Attributes
    ----------
    width
        Numbers of features are multiples of this.
    noise
        Number of random numbers from which a crystal is made.
    """

    width: int
    noise: int


class CloudModel(AdversarialModel):
    """Abstract base class of networks that compete about point clouds.

    Parameters
    ----------
    slots
        Number of slots of each element, by symbol.
    sizes
        Sizes.
    """

    #: Number of updates of the critic for each one of the generator.
    critic_steps = 5

    def __init__(self, slots: Mapping[str, int], sizes: Sizes) -> None:
        super().__init__()
        self.slots = dict(slots)
        self.sizes = sizes

    @property
    def n_slots(self) -> int:
        """Number of slots of all elements."""
        return sum(self.slots.values())

    @property
    @abstractmethod
    def n_noise(self) -> int:
        """Number of standard normal random numbers of a sample."""

    @abstractmethod
    def generate(self, noise: Tensor, counts: Tensor) -> Tensor:
        """Return point clouds, shape ``(batch, 2 + n_slots, 3)``.

        Parameters
        ----------
        noise
            Standard normal random numbers, shape ``(batch, n_noise)``.
        counts
            Wanted number of atoms of each element, shape ``(batch, n_elements)``.
        """

    @abstractmethod
    def occupied(self, clouds: Tensor, counts: Tensor) -> Tensor:
        """Return whether there is an atom in each slot of generated point clouds, shape ``(batch, n_slots)``."""

    def first_slots(self, counts: Tensor) -> Tensor:
        """Return whether each slot is one of the first of its element, as many as wanted, ``(batch, n_slots)``."""
        places = torch.cat([torch.arange(number, device=counts.device) for number in self.slots.values()])
        kinds = torch.repeat_interleave(
            torch.arange(len(self.slots), device=counts.device),
            torch.tensor(list(self.slots.values()), device=counts.device),
        )
        return places < counts[:, kinds]
