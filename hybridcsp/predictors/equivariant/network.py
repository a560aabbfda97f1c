"""The equivariant network: messages of scalars, vectors and tensors, as in NequIP (doi:10.1038/s41467-022-29939-5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import silu

from hybridcsp.predictors.equivariant.library import e3nn_modules, without_scripts
from hybridcsp.predictors.graphs import Neighbourhood
from hybridcsp.predictors.network import PropertyNetwork, sum_by
from hybridcsp.structure.elemental_features import N_FEATURES


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of the network.

    Attributes
    ----------
    channels
        Number of features of an atom of each degree.
    degree
        Largest degree of the features and of the spherical harmonics: 1 for scalars and vectors.
    layers
        Number of exchanges of messages.
    radial
        Number of functions in which distances are expanded.
    hidden
        Width of the radial network and of the readout.
    """

    channels: int = 32
    degree: int = 1
    layers: int = 3
    radial: int = 12
    hidden: int = 64


class Interaction(torch.nn.Module):
    """One exchange of messages: tensor products of neighbours' features with spherical harmonics, and a gate.

    Parameters
    ----------
    sizes
        Sizes of the network.
    features, harmonics
        Irreducible representations of the features of atoms that come in, and of the spherical harmonics.
    neighbours
        Usual number of neighbours, by whose square root sums are divided.
    """

    def __init__(self, sizes: Architecture, features: Any, harmonics: Any, neighbours: float) -> None:
        super().__init__()
        o3, nn = e3nn_modules()
        scalars = o3.Irreps(f"{sizes.channels}x0e")
        tensors = o3.Irreps([(sizes.channels, (degree, (-1) ** degree)) for degree in range(1, sizes.degree + 1)])
        gates = o3.Irreps(f"{tensors.num_irreps}x0e")
        self.gate = nn.Gate(scalars, [silu], gates, [torch.sigmoid], tensors)
        self.irreps = self.gate.irreps_out
        wanted = {irrep for _, irrep in self.gate.irreps_in}
        products: list[tuple[int, Any]] = []
        instructions: list[tuple[int, int, int, str, bool]] = []
        for i, (count, first) in enumerate(features):
            for j, (_, second) in enumerate(harmonics):
                for irrep in first * second:
                    if irrep in wanted:
                        instructions.append((i, j, len(products), "uvu", True))
                        products.append((count, irrep))
        order, places, _ = o3.Irreps(products).sort()
        instructions = [(i, j, places[k], mode, trained) for i, j, k, mode, trained in instructions]
        self.before = o3.Linear(features, features)
        self.product = o3.TensorProduct(
            features, harmonics, order, instructions, shared_weights=False, internal_weights=False
        )
        self.after = o3.Linear(order.simplify(), self.gate.irreps_in)
        self.own = o3.Linear(features, self.gate.irreps_in)
        self.radial = torch.nn.Sequential(
            torch.nn.Linear(sizes.radial, sizes.hidden),
            torch.nn.SiLU(),
            torch.nn.Linear(sizes.hidden, self.product.weight_numel),
        )
        self.adds = features == self.irreps
        self._norm = math.sqrt(neighbours)

    def forward(
        self,
        atoms: torch.Tensor,
        harmonics: torch.Tensor,
        expanded: torch.Tensor,
        weights: torch.Tensor,
        centre: torch.Tensor,
        neighbour: torch.Tensor,
    ) -> torch.Tensor:
        """Return the new features of the atoms."""
        sent = self.before(atoms).index_select(0, neighbour)
        messages = self.product(sent, harmonics, self.radial(expanded) * weights[:, None])
        received = self.after(sum_by(messages, centre, len(atoms)) / self._norm)
        updated = self.gate(received + self.own(atoms))
        return (atoms + updated) if self.adds else updated


class EquivariantNetwork(PropertyNetwork):
    """Network whose scalar result follows from features that rotate with the crystal.

    Parameters
    ----------
    sizes
        Sizes of the network.
    neighbourhood
        Rule for the neighbours of an atom.
    loss
        Loss of a prediction.
    """

    def __init__(self, sizes: Architecture, neighbourhood: Neighbourhood, loss: torch.nn.Module) -> None:
        super().__init__(neighbourhood, loss)
        self._sizes = sizes
        with without_scripts():
            self._build(sizes, 1.3 * neighbourhood.count)

    def _build(self, sizes: Architecture, neighbours: float) -> None:
        o3, _ = e3nn_modules()
        self._harmonics = o3.SphericalHarmonics(
            o3.Irreps.spherical_harmonics(sizes.degree), normalize=True, normalization="component"
        )
        centres = torch.linspace(0.0, 1.0, sizes.radial)
        self.register_buffer("centres", centres, persistent=False)
        self._channels = sizes.channels
        self.embedding = torch.nn.Linear(N_FEATURES, sizes.channels)
        features = o3.Irreps(f"{sizes.channels}x0e")
        layers = []
        for _ in range(sizes.layers):
            layer = Interaction(sizes, features, self._harmonics.irreps_out, neighbours)
            layers.append(layer)
            features = layer.irreps
        self.interactions = torch.nn.ModuleList(layers)
        self.scalars = torch.nn.Linear(sizes.channels, sizes.hidden)
        self.hidden = torch.nn.Linear(sizes.hidden, sizes.hidden)
        self.result = torch.nn.Linear(sizes.hidden, 1)

    def __deepcopy__(self, memo: dict[int, Any]) -> EquivariantNetwork:
        # Modules of e3nn are compiled when they are copied; those of a new network with the same weights are not.
        with torch.random.fork_rng(devices=[]):
            copied = EquivariantNetwork(self._sizes, self.neighbourhood, self.loss)
        copied.load_state_dict(self.state_dict())
        copied.to(self.result.weight.device).train(self.training)
        return copied

    def atoms(
        self,
        batch: Mapping[str, torch.Tensor],
        vectors: torch.Tensor,
        lengths: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """Return scalar features of the atoms after all exchanges of messages."""
        # Most neighbours are at 2 to 5 Å: in d / (d + 3 Å) the functions are dense there.
        position = (lengths / (lengths + 3.0))[:, None]
        expanded = torch.exp(-(((position - self.centres) * (len(self.centres) - 1)) ** 2))
        harmonics = self._harmonics(vectors)
        atoms = self.embedding(self.elements(batch["numbers"]))
        for interaction in self.interactions:
            atoms = interaction(atoms, harmonics, expanded, weights, batch["centre"], batch["neighbour"])
        return silu(self.scalars(atoms[:, : self._channels]))

    def readout(self, crystals: torch.Tensor) -> torch.Tensor:
        """Return the result of two layers on the mean features."""
        return self.result(silu(self.hidden(crystals)))[:, 0]
