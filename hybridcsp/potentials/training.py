"""Training data and loss of one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hybridcsp.potentials.architecture import batch_of


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the squared errors of energy per atom (eV²), forces (eV²/Å²) and stress (eV²/Å⁶) in the loss.

    With the usual ones, errors of 10 meV/atom, 100 meV/Å and 10 meV/Å³ (1.6 GPa) weigh the same.
    """

    energy: float = 100.0
    forces: float = 1.0
    stress: float = 100.0


class GraphTensors:
    """Graphs of crystals as training data; a crystal may occur several times.

    Parameters
    ----------
    graphs
        Graphs of :func:`~hybridcsp.potentials.architecture.graph_of`, with energy, forces and stress.
    """

    def __init__(self, graphs: Sequence[Any]) -> None:
        self._graphs = graphs
        self.weights: NDArray[np.float64] = np.ones(len(graphs))
        self.sizes: NDArray[np.int_] = np.array([graph.num_nodes for graph in graphs], dtype=int)

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        """Collate some crystals; nothing is drawn from ``rng``."""
        return batch_of([self._graphs[i] for i in indices], labels=True)


class PotentialLoss(torch.nn.Module):
    """Loss of a network: for each crystal, the terms of MACE's ``WeightedEnergyForcesStressLoss``.

    Forces are averaged over the atoms of a crystal, and crystals count equally; MACE's own loss averages over all atoms
    of a batch.

    Parameters
    ----------
    network
        Network.
    weights
        Weights of the terms.
    """

    def __init__(self, network: torch.nn.Module, weights: LossWeights) -> None:
        super().__init__()
        self.network = network
        self._weights = weights

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the terms by name, each of shape ``(batch,)``."""
        with torch.enable_grad():  # forces are derivatives of the energy, also where no loss is minimised
            found = self.network(dict(batch), training=self.training, compute_stress=True)
        weights, graph = self._weights, batch["batch"]
        n_atoms = batch["ptr"].diff()
        squares = (found["forces"] - batch["forces"]).square().mean(1)
        forces = torch.zeros(len(n_atoms), dtype=squares.dtype, device=squares.device).index_add(0, graph, squares)
        return {
            "energy": weights.energy * ((found["energy"] - batch["energy"]) / n_atoms).square(),
            "forces": weights.forces * forces / n_atoms,
            "stress": weights.stress * (found["stress"] - batch["stress"]).square().mean((1, 2)),
        }
