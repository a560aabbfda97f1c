"""Conditions of the network of coordinates and lattice: hidden at random in training, and guidance in sampling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hybridcsp.generators.joint.network import JointNetwork

#: Probabilities with which the space group, and the energy quantile and pressure, are hidden in training.
SPACEGROUP_DROPOUT, CONDITION_DROPOUT = 0.25, 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class NoisyCrystals:
    """Represent what the network reads of noisy crystals.

    Attributes
    ----------
    numbers, positions, lattice, metric, time
        As :meth:`hybridcsp.generators.joint.network.JointNetwork.forward` takes them.
    """

    numbers: Tensor
    positions: Tensor
    lattice: Tensor
    metric: Tensor
    time: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditions:
    """Represent what the network is conditioned on, and how strongly samples are guided by it.

    Attributes
    ----------
    spacegroup, energy, pressure, properties
        As :meth:`hybridcsp.generators.joint.network.JointNetwork.forward` takes them.
    guidance
        Weight of the guidance by the properties, shape ``(batch,)``; ``None`` for no guidance.
    """

    spacegroup: Tensor
    energy: Tensor
    pressure: Tensor
    properties: Tensor | None = None
    guidance: Tensor | None = None


def partly_hidden(batch: Mapping[str, Tensor]) -> Conditions:
    """Return the conditions of a batch for training, each hidden in a part of the crystals.

    The properties of a batch are partly hidden already, when it is collated.
    """
    groups = batch["spacegroup"]
    shown = groups * (torch.rand(groups.shape, device=groups.device) >= SPACEGROUP_DROPOUT)
    energy = batch["energy"] * (torch.rand(groups.shape, device=groups.device) >= CONDITION_DROPOUT)[:, None]
    pressure = batch["pressure"] * (torch.rand(groups.shape, device=groups.device) >= CONDITION_DROPOUT)[:, None]
    return Conditions(spacegroup=shown, energy=energy, pressure=pressure, properties=batch.get("properties"))


def conditioned(network: JointNetwork, crystals: NoisyCrystals, conditions: Conditions) -> tuple[Tensor, Tensor]:
    """Return what the network predicts for noisy crystals under conditions, without guidance."""
    found: tuple[Tensor, Tensor] = network(
        crystals.numbers,
        crystals.positions,
        crystals.lattice,
        crystals.metric,
        crystals.time,
        conditions.spacegroup,
        conditions.energy,
        conditions.pressure,
        conditions.properties,
    )
    return found


def guided(
    network: JointNetwork, crystals: NoisyCrystals, conditions: Conditions, by_spacegroup: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return what the network predicts under conditions, extrapolated away from what it predicts without them.

    Classifier-free guidance (Ho and Salimans, arXiv:2207.12598): with the prediction v of the network and its
    prediction v₀ without a condition, v + w (v - v₀) is returned. The weight w has a value for the space group and one
    for the properties, and their terms are added. With w = 0, v itself is returned, and v₀ is not computed.

    Parameters
    ----------
    network, crystals, conditions
        Network, noisy crystals, and conditions with the weights of the properties.
    by_spacegroup
        Weight of the guidance by the space group.

    Returns
    -------
    tuple
        Vectors of the atoms, shape ``(batch, n, 3)``, and numbers for the lattice, shape ``(batch, 6)``.
    """
    vectors, lattice = told = conditioned(network, crystals, conditions)
    if by_spacegroup > 0:
        hidden = replace(conditions, spacegroup=torch.zeros_like(conditions.spacegroup))
        free = conditioned(network, crystals, hidden)
        vectors = vectors + by_spacegroup * (told[0] - free[0])
        lattice = lattice + by_spacegroup * (told[1] - free[1])
    weight, properties = conditions.guidance, conditions.properties
    if weight is not None and properties is not None and bool((weight > 0).any()):
        free = conditioned(network, crystals, replace(conditions, properties=torch.zeros_like(properties)))
        vectors = vectors + weight[:, None, None] * (told[0] - free[0])
        lattice = lattice + weight[:, None] * (told[1] - free[1])
    return vectors, lattice
