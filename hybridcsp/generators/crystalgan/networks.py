"""Networks of CrystalGAN: transfers of crystals to another domain, and critics.

As published, layers act on single rows of cell vectors and Cartesian coordinates (:class:`RowTransfer`,
:class:`RowCritic`): no atom sees another, and equal inputs give equal crystals. The corrected networks exchange
messages between all pairs of atoms of a periodic crystal and have noise as an input (:class:`PairTransfer`,
:class:`PairCritic`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hybridcsp.generators.periodic_pairs import PairLayer, pair_features


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the networks.

    Attributes
    ----------
    width
        Number of features.
    layers
        Number of layers of the transfers between binary systems and of their critics.
    joined_layers
        Number of layers for joined crystals.
    """

    width: int
    layers: int
    joined_layers: int


class RowTransfer(nn.Module):
    """Layers that act on each row by itself."""

    def __init__(self, sizes: Sizes, layers: int) -> None:
        super().__init__()
        self.layers = _rows(3, sizes.width, layers, 3)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the crystals in the other domain."""
        return torch.cat([self.layers(rows[..., :3]), rows[..., 3:]], dim=-1)


class RowCritic(nn.Module):
    """Scores of single rows, and their mean."""

    def __init__(self, sizes: Sizes, layers: int) -> None:
        super().__init__()
        self.layers = _rows(3, sizes.width, layers, 1)

    def forward(self, rows: Tensor) -> Tensor:
        """Return scores of crystals."""
        scores: Tensor = self.layers(rows[..., :3]).mean((1, 2))
        return scores


class _Crystal(nn.Module):
    """Atoms of crystals after messages between all pairs; the elements of both domains but the shared are alike."""

    radii: Tensor
    shared: Tensor

    def __init__(self, sizes: Sizes, layers: int, shared: Tensor, radii: Tensor) -> None:
        super().__init__()
        self.register_buffer("shared", shared, persistent=False)
        self.register_buffer("radii", radii, persistent=False)
        width = sizes.width
        self.kinds = nn.Embedding(2, width)
        self.layers = nn.ModuleList(PairLayer(width, width) for _ in range(layers))
        self.whole = nn.Linear(8, width)

    def forward(self, rows: Tensor, extra: Tensor | None = None) -> tuple[Tensor, Tensor]:
        cell, present = rows[:, :3, :3], rows[:, 3:, 3]
        volume = torch.linalg.det(cell).abs().clamp(min=1e-3) ** (1 / 3)
        metric = (cell @ cell.transpose(1, 2)) / volume[:, None, None] ** 2
        shape = metric[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        shared = (present * self.shared).sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp(min=1)
        per_atom = (volume / present.sum(1).clamp(min=1) ** (1 / 3))[:, None]
        whole = self.whole(torch.cat([shape, shared, per_atom], dim=1))
        nodes = self.kinds(self.shared.long()) + whole[:, None]
        if extra is not None:
            nodes = nodes + extra
        pairs = pair_features(rows[:, 3:, :3], cell, self.radii)
        for layer in self.layers:
            nodes = layer(nodes, pairs, present)
        return nodes, present


class PairTransfer(nn.Module):
    """Displacements of atoms and a strain of the cell, from pairs of atoms and noise."""

    def __init__(self, sizes: Sizes, layers: int, shared: Tensor, radii: Tensor) -> None:
        super().__init__()
        self.crystal = _Crystal(sizes, layers, shared, radii)
        self.noise = nn.Linear(3, sizes.width, bias=False)
        self.move = nn.Linear(sizes.width, 3)
        self.strain = nn.Sequential(nn.Linear(sizes.width, sizes.width), nn.SiLU(), nn.Linear(sizes.width, 6))
        for last in (self.move, self.strain[2]):
            nn.init.normal_(last.weight, std=0.02)
            nn.init.zeros_(last.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Return other crystals with the same slots; noise is drawn from torch's random numbers."""
        cell = rows[:, :3, :3]
        noise = torch.randn(rows[:, 3:, :3].shape, device=rows.device)
        nodes, present = self.crystal(rows, self.noise(noise))
        fractions = rows[:, 3:, :3] + self.move(nodes) * present[..., None]
        mean = (nodes * present[..., None]).sum(1) / present.sum(1, keepdim=True).clamp(min=1)
        strain = 0.5 * torch.tanh(self.strain(mean))
        matrix = torch.zeros(len(rows), 3, 3, device=rows.device)
        matrix[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] = strain
        matrix = (matrix + matrix.transpose(1, 2)) / 2
        strained = cell @ torch.linalg.matrix_exp(matrix)
        found = torch.cat([strained, (fractions - torch.floor(fractions.detach())) * present[..., None]], dim=1)
        return torch.cat([found, rows[..., 3:]], dim=-1)


class PairCritic(nn.Module):
    """Scores of crystals from pairs of atoms."""

    def __init__(self, sizes: Sizes, layers: int, shared: Tensor, radii: Tensor) -> None:
        super().__init__()
        self.crystal = _Crystal(sizes, layers, shared, radii)
        self.read = nn.Sequential(nn.Linear(sizes.width, sizes.width), nn.SiLU(), nn.Linear(sizes.width, 1))

    def forward(self, rows: Tensor) -> Tensor:
        """Return scores of crystals."""
        nodes, present = self.crystal(rows)
        mean = (nodes * present[..., None]).sum(1) / present.sum(1, keepdim=True).clamp(min=1)
        scores: Tensor = self.read(mean)[:, 0]
        return scores


def _rows(inputs: int, width: int, layers: int, outputs: int) -> nn.Sequential:
    modules: list[nn.Module] = []
    for number in range(layers):
        modules += [nn.Linear(width if number else inputs, width), nn.ReLU()]
    network = nn.Sequential(*modules, nn.Linear(width, outputs))
    for module in network:
        if isinstance(module, nn.Linear):  # torch's own initial weights are too small for ten layers
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return network
