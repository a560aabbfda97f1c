"""Parts that the networks of all predictors share: their interface, the mean over atoms, and their training data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.predictors.graphs import CrystalGraph, Neighbourhood, concatenated
from hybridcsp.predictors.scales import Scale
from hybridcsp.structure.elemental_features import elemental_features


class PropertyNetwork(torch.nn.Module):
    """Base class of networks that map crystals to one number each.

    Parameters
    ----------
    neighbourhood
        Rule for the neighbours of an atom.
    loss
        Function of predicted and true numbers, shape ``(n,)`` each, that returns the loss of each crystal.
    """

    def __init__(self, neighbourhood: Neighbourhood, loss: torch.nn.Module) -> None:
        super().__init__()
        self.neighbourhood = neighbourhood
        self.loss = loss
        self.register_buffer("features", torch.tensor(elemental_features()), persistent=False)

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the loss of each crystal of a batch with targets."""
        return {"error": self.loss(self.predict(batch), batch["target"])}

    def predict(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return one number for each crystal, shape ``(n,)``, in single precision on every device."""
        with torch.autocast(batch["vectors"].device.type, enabled=False):
            return self.readout(self.embed(batch))

    def embed(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the mean features of the atoms of each crystal, shape ``(n, n_features)``."""
        with torch.autocast(batch["vectors"].device.type, enabled=False):
            vectors = batch["vectors"]
            lengths = torch.linalg.vector_norm(vectors, dim=1)
            weights = self.neighbourhood.weights(lengths, batch["centre"], batch["last"])
            atoms = self.atoms(batch, vectors, lengths, weights)
            return mean_by(atoms, batch["crystal"], len(batch["sizes"]))

    @abstractmethod
    def atoms(
        self,
        batch: Mapping[str, torch.Tensor],
        vectors: torch.Tensor,
        lengths: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """Return the features of the atoms after the exchange of messages, shape ``(n_atoms, n_features)``."""

    @abstractmethod
    def readout(self, crystals: torch.Tensor) -> torch.Tensor:
        """Return the number for the mean features of the atoms of each crystal."""

    def elements(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the elemental features of atoms, shape ``(n_atoms, 92)``."""
        features: torch.Tensor = self.features  # a buffer
        return features.index_select(0, numbers)


def sum_by(values: torch.Tensor, groups: torch.Tensor, count: int) -> torch.Tensor:
    """Return the sums of rows that belong to the same group, shape ``(count, n_features)``."""
    return values.new_zeros((count, values.shape[1])).index_add(0, groups, values)


def mean_by(values: torch.Tensor, groups: torch.Tensor, count: int) -> torch.Tensor:
    """Return the means of rows that belong to the same group, shape ``(count, n_features)``."""
    numbers = torch.bincount(groups, minlength=count).clamp(min=1).to(values.dtype)
    return sum_by(values, groups, count) / numbers[:, None]


class GraphData:
    """Graphs of crystals with the numbers that are learned, as :class:`hybridcsp.training.trainer.Trainer` takes them.

    Parameters
    ----------
    graphs
        Graphs of the crystals.
    targets
        Numbers to learn, shape ``(n,)``.
    weights
        Weights of the crystals in the loss, shape ``(n,)``; all 1 by default.
    """

    def __init__(
        self,
        graphs: Sequence[CrystalGraph],
        targets: NDArray[np.float64],
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        self.graphs = graphs
        self.weights = np.ones(len(graphs)) if weights is None else weights
        self.sizes = np.array([len(graph.numbers) for graph in graphs])
        self._targets = targets

    @classmethod
    def of(
        cls, crystals: Sequence[Atoms], values: NDArray[np.float64], scale: Scale, neighbourhood: Neighbourhood
    ) -> GraphData:
        """Return the data of crystals with known values."""
        return cls([neighbourhood.graph(crystal) for crystal in crystals], scale.encode(values, crystals))

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        """Return the graphs of some crystals with their targets; nothing is drawn."""
        target = torch.as_tensor(self._targets[indices], dtype=torch.float32)
        return {**batch_of([self.graphs[i] for i in indices]), "target": target}


def batch_of(graphs: list[CrystalGraph]) -> dict[str, torch.Tensor]:
    """Return the tensors of several graphs; ``"sizes"`` are their numbers of atoms."""
    return {**concatenated(graphs), "sizes": torch.tensor([len(graph.numbers) for graph in graphs])}
