"""The network of CGCNN: gated convolutions over the neighbours of each atom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.nn.functional import softplus

from hybridcsp.predictors.graphs import Neighbourhood
from hybridcsp.predictors.network import PropertyNetwork, sum_by
from hybridcsp.structure.elemental_features import N_FEATURES


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of the network; those of the authors are the default.

    Attributes
    ----------
    width
        Number of features of an atom.
    layers
        Number of convolutions.
    hidden
        Number of features between the mean over atoms and the result.
    gaussians
        Number of Gaussians in which distances are expanded, from 0 Å to the largest distance.
    """

    width: int = 64
    layers: int = 3
    hidden: int = 128
    gaussians: int = 41


class Convolution(torch.nn.Module):
    """One gated convolution: each atom adds what its neighbours send, weighted by a gate (equation 5 of the paper).

    Parameters
    ----------
    sizes
        Sizes of the network.
    norm
        Function that returns the normalisation of a number of features.
    """

    def __init__(self, sizes: Architecture, norm: Callable[[int], torch.nn.Module]) -> None:
        super().__init__()
        # One matrix on the joined features of two atoms and their distance is the sum of three on the parts; those on
        # the atoms are then needed once per atom only.
        self.own = torch.nn.Linear(sizes.width, 2 * sizes.width)
        self.other = torch.nn.Linear(sizes.width, 2 * sizes.width, bias=False)
        self.distance = torch.nn.Linear(sizes.gaussians, 2 * sizes.width, bias=False)
        self.message_norm = norm(2 * sizes.width)
        self.sum_norm = norm(sizes.width)

    def forward(
        self,
        atoms: torch.Tensor,
        expanded: torch.Tensor,
        weights: torch.Tensor,
        centre: torch.Tensor,
        neighbour: torch.Tensor,
    ) -> torch.Tensor:
        """Return the new features of the atoms."""
        joined = self.own(atoms).index_select(0, centre) + self.other(atoms).index_select(0, neighbour)
        gate, core = self.message_norm(joined + self.distance(expanded)).chunk(2, dim=1)
        messages = torch.sigmoid(gate) * softplus(core) * weights[:, None]
        return softplus(atoms + self.sum_norm(sum_by(messages, centre, len(atoms))))


class ConvolutionNetwork(PropertyNetwork):
    """Network of CGCNN.

    Parameters
    ----------
    sizes
        Sizes of the network.
    neighbourhood
        Rule for the neighbours of an atom.
    norm
        Function that returns the normalisation of a number of features.
    loss
        Loss of a prediction.
    """

    def __init__(
        self,
        sizes: Architecture,
        neighbourhood: Neighbourhood,
        norm: Callable[[int], torch.nn.Module],
        loss: torch.nn.Module,
    ) -> None:
        super().__init__(neighbourhood, loss)
        centres = torch.linspace(0.0, neighbourhood.cutoff, sizes.gaussians)
        self.register_buffer("centres", centres, persistent=False)
        self._step = neighbourhood.cutoff / max(1, sizes.gaussians - 1)
        self.embedding = torch.nn.Linear(N_FEATURES, sizes.width)
        self.convolutions = torch.nn.ModuleList(Convolution(sizes, norm) for _ in range(sizes.layers))
        self.hidden = torch.nn.Linear(sizes.width, sizes.hidden)
        self.result = torch.nn.Linear(sizes.hidden, 1)

    def atoms(
        self,
        batch: Mapping[str, torch.Tensor],
        vectors: torch.Tensor,
        lengths: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """Return the features of the atoms after all convolutions."""
        expanded = torch.exp(-(((lengths[:, None] - self.centres) / self._step) ** 2))
        atoms = self.embedding(self.elements(batch["numbers"]))
        for convolution in self.convolutions:
            atoms = convolution(atoms, expanded, weights, batch["centre"], batch["neighbour"])
        return atoms

    def readout(self, crystals: torch.Tensor) -> torch.Tensor:
        """Return the result of two layers on the mean features."""
        return self.result(softplus(self.hidden(softplus(crystals))))[:, 0]
