"""Flow matching: the loss of the velocities, and their integration from noise to crystals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hybridcsp.errors import InputError
from hybridcsp.generators.flow.network import Architecture, SpacegroupPrior, VelocityNetwork

#: Weight of the squared error of an atom's velocity relative to that of a component of the lattice's.
POSITIONS = 10.0
#: Weight of the loss of the space-group prior. The prior shares no parameters with the velocities: a small weight only
#: keeps it from determining the best epoch.
PRIOR = 0.02
#: Probabilities with which the space group, and the energy quantile and pressure, are hidden in training.
SPACEGROUP_DROPOUT, CONDITION_DROPOUT = 0.25, 0.5

# Largest number of integration steps.
_MAX_STEPS = 10_000


class FlowModel(nn.Module):
    """Velocity network and space-group prior with their losses.

    Conditional flow matching (Lipman et al., arXiv:2210.02747) with straight paths on the torus of fractional
    coordinates and in the space of log-lattices: with x_t = x_0 + t u, u = wrap(x_1 - x_0) minus its mean, and
    k_t = k_0 + t (k_1 - k_0), the loss is ``w |û - u|² + |k̂ - (k_1 - k_0)|²``.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.velocities = VelocityNetwork(architecture)
        self.prior = SpacegroupPrior()

    def learn_properties(self, n_features: int) -> None:
        """Make both networks read features of properties; new ones have no effect before they are trained."""
        self.velocities.learn_properties(n_features)
        self.prior.learn_properties(n_features)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss terms of each crystal, shape ``(batch,)``."""
        numbers, groups = batch["numbers"], batch["spacegroup"]
        shown, energy = groups, batch["energy"]
        shown = shown * (torch.rand(groups.shape, device=groups.device) >= SPACEGROUP_DROPOUT)
        energy = energy * (torch.rand(groups.shape, device=groups.device) >= CONDITION_DROPOUT)[:, None]
        pressure = batch["pressure"] * (torch.rand(groups.shape, device=groups.device) >= CONDITION_DROPOUT)[:, None]
        properties = batch.get("properties")
        velocity, strain = self.velocities(
            numbers,
            batch["positions"],
            batch["lattice"],
            batch["metric"],
            batch["time"],
            shown,
            energy,
            pressure,
            properties,
        )
        squares = (velocity - batch["velocity"]).square().sum((1, 2)) / (numbers > 0).sum(1)
        likely = self.prior(numbers, properties).gather(1, groups[:, None])[:, 0]
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
        the space group is used.
    """

    steps: int = 25
    hurry: float = 10.0
    guidance: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= _MAX_STEPS:
            raise InputError("steps", self.steps, f"a whole number from 1 to {_MAX_STEPS}")


@torch.no_grad()
def integrate(
    network: VelocityNetwork,
    settings: Integration,
    *,
    numbers: Tensor,
    positions: Tensor,
    lattice: Tensor,
    scale: tuple[Tensor, Tensor],
    lengths: Tensor,
    spacegroup: Tensor,
    energy: Tensor,
    pressure: Tensor,
    properties: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Integrate the velocities from time 0 to 1.

    Parameters
    ----------
    network, settings
        Network of the velocities, and settings of the integration.
    numbers, positions, lattice, spacegroup, energy, pressure, properties
        Initial state and conditions as :meth:`VelocityNetwork.forward` takes them.
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
        time = torch.full((len(numbers),), step * length)
        metric = lattice * spread + mean + lengths
        velocity, strain = network(numbers, positions, lattice, metric, time, spacegroup, energy, pressure, properties)
        if settings.guidance > 0:
            free = network(
                numbers, positions, lattice, metric, time, torch.zeros_like(spacegroup), energy, pressure, properties
            )
            velocity = velocity + settings.guidance * (velocity - free[0])
            strain = strain + settings.guidance * (strain - free[1])
        stride = min(length * (1 + settings.hurry * step * length), 1 - step * length)
        positions = (positions + stride * velocity) % 1.0
        lattice = lattice + length * strain
    return positions, lattice
