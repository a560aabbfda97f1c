"""The loss that teaches velocities, and the integration that follows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hybridcsp.errors import InputError
from hybridcsp.generators.flow.network import Architecture, SpacegroupPrior, VelocityNetwork

#: Weight of the squared error of an atom's velocity against that of a component of the lattice's.
POSITIONS = 10.0
#: Weight of the prior over space groups: its parameters are its own, so this only keeps it from deciding which epoch
#: was the best.
PRIOR = 0.02
#: How often the space group, and the energy quantile and pressure, are not told in training.
SPACEGROUP_DROPOUT, CONDITION_DROPOUT = 0.25, 0.5

#: More steps bring nothing.
_MOST_STEPS = 10_000


class FlowModel(nn.Module):
    """Velocities and the prior over space groups, with the loss of both.

    Conditional flow matching (Lipman et al., arXiv:2210.02747) with straight paths on the torus of fractional
    coordinates and in the space of log-lattices: with x_t = x_0 + t u, u = wrap(x_1 - x_0) less its mean, and
    k_t = k_0 + t (k_1 - k_0), the loss is ``w |û - u|² + |k̂ - (k_1 - k_0)|²``.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.velocities = VelocityNetwork(architecture)
        self.prior = SpacegroupPrior()

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss terms of each crystal, shape ``(batch,)``."""
        numbers, groups = batch["numbers"], batch["spacegroup"]
        told, energy = groups, batch["energy"]
        told = told * (torch.rand(groups.shape, device=groups.device) >= SPACEGROUP_DROPOUT)
        energy = energy * (torch.rand(groups.shape, device=groups.device) >= CONDITION_DROPOUT)[:, None]
        pressure = batch["pressure"] * (torch.rand(groups.shape, device=groups.device) >= CONDITION_DROPOUT)[:, None]
        velocity, strain = self.velocities(
            numbers, batch["positions"], batch["lattice"], batch["metric"], batch["time"], told, energy, pressure
        )
        squares = (velocity - batch["velocity"]).square().sum((1, 2)) / (numbers > 0).sum(1)
        likely = self.prior(numbers).gather(1, groups[:, None])[:, 0]
        return {
            "positions": POSITIONS * squares,
            "lattice": (strain - batch["strain"]).square().mean(1),
            "spacegroup": -PRIOR * likely,
        }


@dataclass(frozen=True, kw_only=True)
class Integration:
    """How velocities are followed from noise to crystals.

    Attributes
    ----------
    steps
        Of equal length (Euler's method).
    hurry
        Velocities of the atoms are multiplied by 1 + hurry · t, so that they have settled before the end
        (FlowMM's anti-annealing); but no step leads beyond where the velocity points at time 1, about which a good
        network would otherwise make the atoms swing.
    guidance
        How far beyond the velocity with the space group, seen from the one without, to go (classifier-free guidance,
        arXiv:2207.12598); 0 follows the velocity with it.
    """

    steps: int = 25
    hurry: float = 10.0
    guidance: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= _MOST_STEPS:
            raise InputError("steps", self.steps, f"a whole number from 1 to {_MOST_STEPS}")


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
) -> tuple[Tensor, Tensor]:
    """Follow the velocities from time 0 to 1.

    Parameters
    ----------
    network, settings
        What gives velocities, and how to follow them.
    numbers, positions, lattice, spacegroup, energy, pressure
        Where to begin, as :meth:`VelocityNetwork.forward` takes it.
    scale
        Mean and spread of the log-lattice, shape ``(6,)`` each.
    lengths
        Logarithm of the expected size of each crystal, as components, shape ``(batch, 6)``.

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
        velocity, strain = network(numbers, positions, lattice, metric, time, spacegroup, energy, pressure)
        if settings.guidance > 0:
            free = network(numbers, positions, lattice, metric, time, torch.zeros_like(spacegroup), energy, pressure)
            velocity = velocity + settings.guidance * (velocity - free[0])
            strain = strain + settings.guidance * (strain - free[1])
        stride = min(length * (1 + settings.hurry * step * length), 1 - step * length)
        positions = (positions + stride * velocity) % 1.0
        lattice = lattice + length * strain
    return positions, lattice
