"""Base class of the models of coordinates and lattice: a network and a distribution of space groups."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from hybridcsp.generators.joint.initial_states import InitialState
from hybridcsp.generators.joint.network import JointNetwork

#: Weight of the loss of the space-group prior. The prior shares no parameters with the network: a small weight only
#: keeps it from determining the best epoch.
PRIOR = 0.02


class JointModel(nn.Module, ABC):
    """Abstract base class of a network of noisy crystals with its losses."""

    @property
    @abstractmethod
    def network(self) -> JointNetwork:
        """The network that is evaluated in sampling."""

    @abstractmethod
    def learn_properties(self, n_features: int) -> None:
        """Make the networks read features of properties; new ones have no effect before they are trained."""

    @abstractmethod
    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss terms of each crystal, shape ``(batch,)``."""

    @abstractmethod
    def told(self, starts: Sequence[InitialState], rng: np.random.Generator) -> list[InitialState]:
        """Return initial states with the conditions that the network is given."""
