"""Models of the diffusion: a network of scores and of the noise of lattices, with the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hybridcsp.generators.diffusion.lattices import LatticeNoise
from hybridcsp.generators.joint.conditioning import Conditions, NoisyCrystals, conditioned, partly_hidden
from hybridcsp.generators.joint.initial_states import InitialState, with_space_groups
from hybridcsp.generators.joint.model import PRIOR, JointModel
from hybridcsp.generators.joint.network import Architecture, JointNetwork, SpacegroupPrior


class DiffusionModel(JointModel):
    """Network of scores and of lattices that is given contents alone, and properties if these are learned.

    The loss is the mean squared error of the scores, in units of the level, plus that of the lattice's target.

    Parameters
    ----------
    architecture
        Sizes of the network.
    lattices
        Noise of the lattice.
    """

    def __init__(self, architecture: Architecture, lattices: LatticeNoise) -> None:
        super().__init__()
        self.scores = JointNetwork(architecture)
        self._lattices = lattices

    @property
    def network(self) -> JointNetwork:
        """The network of the scores."""
        return self.scores

    def learn_properties(self, n_features: int) -> None:
        """Make the network read features of properties; new ones have no effect before they are trained."""
        self.scores.learn_properties(n_features)

    def told(self, starts: Sequence[InitialState], rng: np.random.Generator) -> list[InitialState]:
        """Return the states without space group, energy and pressure."""
        nothing = (0.0, 0.0)
        return [
            replace(start, requested_group=None, spacegroup=None, energy=nothing, pressure=nothing) for start in starts
        ]

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss terms of each crystal, shape ``(batch,)``."""
        return self._errors(batch, self._conditions(batch))

    def _conditions(self, batch: Mapping[str, Tensor]) -> Conditions:
        return Conditions(
            spacegroup=torch.zeros_like(batch["spacegroup"]),
            energy=torch.zeros_like(batch["energy"]),
            pressure=torch.zeros_like(batch["pressure"]),
            properties=batch.get("properties"),
        )

    def _errors(self, batch: Mapping[str, Tensor], conditions: Conditions) -> dict[str, Tensor]:
        crystals = NoisyCrystals(
            numbers=batch["numbers"],
            positions=batch["positions"],
            lattice=batch["lattice"],
            metric=batch["metric"],
            time=batch["time"],
        )
        scores, found = conditioned(self.scores, crystals, conditions)
        predicted = self._lattices.prediction(found, batch["state"])
        return {
            "positions": (scores - batch["scores"]).square().mean(2).sum(1) / (batch["numbers"] > 0).sum(1),
            "lattice": (predicted - batch["target"]).square().flatten(1).mean(1),
        }


class ConditionedDiffusion(DiffusionModel):
    """Network of scores and of lattices that is given a space group, energy and pressure, with a prior of the former.

    The parameters are those of :class:`DiffusionModel`.
    """

    def __init__(self, architecture: Architecture, lattices: LatticeNoise) -> None:
        super().__init__(architecture, lattices)
        self.prior = SpacegroupPrior()

    def learn_properties(self, n_features: int) -> None:
        """Make both networks read features of properties; new ones have no effect before they are trained."""
        super().learn_properties(n_features)
        self.prior.learn_properties(n_features)

    def told(self, starts: Sequence[InitialState], rng: np.random.Generator) -> list[InitialState]:
        """Draw space groups for states that have none."""
        found: list[InitialState] = with_space_groups(self.prior, starts, rng)
        return found

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss terms of each crystal, shape ``(batch,)``."""
        conditions = partly_hidden(batch)
        likely = self.prior(batch["numbers"], conditions.properties).gather(1, batch["spacegroup"][:, None])[:, 0]
        return {**self._errors(batch, conditions), "spacegroup": -PRIOR * likely}
