"""Flow matching: the loss of the velocities, and their integration from noise to crystals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hybridcsp.errors import InputError
from hybridcsp.generators.joint.conditioning import Conditions, NoisyCrystals, conditioned, guided, partly_hidden
from hybridcsp.generators.joint.initial_states import InitialState, with_space_groups
from hybridcsp.generators.joint.model import PRIOR, JointModel
from hybridcsp.generators.joint.network import Architecture, JointNetwork, SpacegroupPrior

#: Weight of the squared error of an atom's velocity relative to that of a component of the lattice's.
POSITIONS = 10.0

# Largest number of integration steps.
_MAX_STEPS = 10_000


class FlowModel(JointModel):
    """Velocity network and space-group prior with their losses.

    Conditional flow matching (Lipman et al., arXiv:2210.02747) with straight paths on the torus of fractional
    coordinates and in the space of log-lattices: with x_t = x_0 + t u, u = wrap(x_1 - x_0) minus its mean, and
    k_t = k_0 + t (k_1 - k_0), the loss is ``w |û - u|² + |k̂ - (k_1 - k_0)|²``.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.velocities = JointNetwork(architecture)
        self.prior = SpacegroupPrior()

    @property
    def network(self) -> JointNetwork:
        """The network of the velocities."""
        return self.velocities

    def learn_properties(self, n_features: int) -> None:
        """Make both networks read features of properties; new ones have no effect before they are trained."""
        self.velocities.learn_properties(n_features)
        self.prior.learn_properties(n_features)

    def told(self, starts: Sequence[InitialState], rng: np.random.Generator) -> list[InitialState]:
        """Draw space groups for states that have none."""
        found: list[InitialState] = with_space_groups(self.prior, starts, rng)
        return found

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss terms of each crystal, shape ``(batch,)``."""
        numbers, groups = batch["numbers"], batch["spacegroup"]
        conditions = partly_hidden(batch)
        crystals = NoisyCrystals(
            numbers=numbers,
            positions=batch["positions"],
            lattice=batch["lattice"],
            metric=batch["metric"],
            time=batch["time"],
        )
        velocity, strain = conditioned(self.velocities, crystals, conditions)
        squares = (velocity - batch["velocity"]).square().sum((1, 2)) / (numbers > 0).sum(1)
        likely = self.prior(numbers, conditions.properties).gather(1, groups[:, None])[:, 0]
        return {
            "positions": POSITIONS * squares,
            "lattice": (strain - batch["strain"]).square().mean(1),
            "spacegroup": -PRIOR * likely,
        }


@dataclass(frozen=True, kw_only=True)
class Integration:
    """Settings of the integration from noise to crystals.

    Attributes
    ----------
    steps
        Number of steps of equal length (Euler's method).
    hurry
        Factor of anti-annealing: velocities of the atoms are multiplied by 1 + hurry · t, so that they converge before
        the end (FlowMM). No step leads beyond the point to which the velocity leads at time 1, around which the atoms
        would oscillate otherwise.
    guidance
        Weight of classifier-free guidance (arXiv:2207.12598) by the space group; with 0, the velocity conditioned on
        the space group is used. That by properties is part of a request.
    """

    steps: int = 25
    hurry: float = 10.0
    guidance: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= _MAX_STEPS:
            raise InputError("steps", self.steps, f"a whole number from 1 to {_MAX_STEPS}")


@torch.no_grad()
def integrate(
    network: JointNetwork,
    settings: Integration,
    conditions: Conditions,
    *,
    numbers: Tensor,
    positions: Tensor,
    lattice: Tensor,
    scale: tuple[Tensor, Tensor],
    lengths: Tensor,
) -> tuple[Tensor, Tensor]:
    """Integrate the velocities from time 0 to 1.

    Parameters
    ----------
    network, settings, conditions
        Network of the velocities, settings of the integration, and conditions of the network.
    numbers, positions, lattice
        Initial state as :meth:`JointNetwork.forward` takes it.
    scale
        Mean and spread of the log-lattice, shape ``(6,)`` each.
    lengths
        Components of the logarithm of each crystal's expected size, shape ``(batch, 6)``.

    Returns
    -------
    tuple
        Fractional coordinates, shape ``(batch, n, 3)``, and standardised log-lattices, shape ``(batch, 6)``.
    """
    mean, spread = scale
    length = 1.0 / settings.steps
    for step in range(settings.steps):
        crystals = NoisyCrystals(
            numbers=numbers,
            positions=positions,
            lattice=lattice,
            metric=lattice * spread + mean + lengths,
            time=torch.full((len(numbers),), step * length),
        )
        velocity, strain = guided(network, crystals, conditions, settings.guidance)
        stride = min(length * (1 + settings.hurry * step * length), 1 - step * length)
        positions = (positions + stride * velocity) % 1.0
        lattice = lattice + length * strain
    return positions, lattice
