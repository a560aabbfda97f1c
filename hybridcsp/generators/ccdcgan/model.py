"""Interface of the networks that compete about the codes of images, and of the network that constrains them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from hybridcsp.generators.ccdcgan.sizes import Sizes
from hybridcsp.generators.images.codes import Codes
from hybridcsp.training.adversarial import AdversarialModel


class Shape(NamedTuple):
    """Represent what the shapes of networks depend on.

    Attributes
    ----------
    n_elements
        Number of elements.
    n_properties
        Number of properties that are constrained.
    n_features
        Number of features of the values of all properties.
    """

    n_elements: int
    n_properties: int
    n_features: int


class PropertyNetwork(torch.nn.Module):
    """Abstract base class of networks that predict properties from the codes of crystals.

    The tensors of a batch are ``cell`` and ``sites`` (:class:`~hybridcsp.generators.images.codes.Codes`), ``contents``,
    the number of atoms of each element, shape ``(batch, n_elements)``; ``values`` of properties and whether they are
    ``known``, shape ``(batch, n_properties)``. Values are in the units of the networks.
    """

    @abstractmethod
    def predict(self, codes: Codes, contents: Tensor) -> Tensor:
        """Return values of properties, shape ``(batch, n_properties)``."""

    @abstractmethod
    def freeze(self) -> None:
        """Let the weights, and what else changes in a training, stay as they are."""

    def thaw(self) -> None:
        """Let the weights be trained."""
        self.requires_grad_(True)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the squared error of the known values."""
        wrong = self.predict(codes_of(batch), batch["contents"]) - batch["values"]
        return {"property": (wrong.square() * batch["known"]).sum(1)}


class CodeModel(AdversarialModel):
    """Abstract base class of networks that compete about the codes of images.

    The tensors of a batch are those of :class:`PropertyNetwork`; ``features`` of the values of properties that are
    wanted, shape ``(batch, n_features)``; which values are ``wanted``, shape ``(batch, n_properties)``, if there are
    properties; and ``noise``, shape ``(batch, n_noise)``.

    Attributes
    ----------
    constraint
        Network of properties, which does not compete; ``None`` without properties.
    strength
        Factor of the loss of the constraint.
    """

    constraint: PropertyNetwork | None
    strength: float = 1.0

    def __init__(self, shape: Shape, sizes: Sizes) -> None:
        super().__init__()
        self.shape = shape
        self.sizes = sizes

    @abstractmethod
    def adapt(self, codes: Codes) -> None:
        """Adapt the scales of codes to those of the training set, before a training."""

    @abstractmethod
    def generate(self, noise: Tensor, contents: Tensor, features: Tensor) -> Codes:
        """Return the codes of crystals.

        Parameters
        ----------
        noise
            Standard normal random numbers, shape ``(batch, n_noise)``.
        contents
            Wanted number of atoms of each element, shape ``(batch, n_elements)``.
        features
            Features of wanted values of properties, shape ``(batch, n_features)``.
        """


def codes_of(batch: Mapping[str, Tensor]) -> Codes:
    """Return the codes in a batch."""
    return Codes(batch["cell"], batch["sites"])
