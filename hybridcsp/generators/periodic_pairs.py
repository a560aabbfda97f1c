"""Features of pairs of atoms in periodic crystals, with gradients, and networks that exchange messages between atoms.

Unlike in the networks of ``flow``, the features have derivatives of second order, as critics with a penalty of the
gradient need them, and gradients with respect to coordinates and cells.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from ase.data import covalent_radii
from torch import Tensor, nn

# Centres and width of Gaussians of distances, in sums of covalent radii.
_CENTRES = tuple(0.2 * i for i in range(1, 17))
_WIDTH = 0.2
# Number of harmonics of differences of fractional coordinates.
_HARMONICS = 2
#: Number of features of a pair of atoms.
FEATURES = len(_CENTRES) + 6 * _HARMONICS

_IMAGES = tuple(product((-1.0, 0.0, 1.0), repeat=3))


def cell_vectors(lengths: Tensor, angles: Tensor) -> Tensor:
    """Return cells as rows of vectors, shape ``(batch, 3, 3)``.

    Parameters
    ----------
    lengths
        Lengths in Å, shape ``(batch, 3)``.
    angles
        Angles in degrees, shape ``(batch, 3)``; those that make no cell give a very flat one.
    """
    cosines = torch.cos(torch.deg2rad(angles))
    alpha, beta, gamma = cosines.unbind(1)
    sine = (1 - gamma.square()).clamp(min=1e-4).sqrt()
    across = (alpha - beta * gamma) / sine
    height = (1 - beta.square() - across.square()).clamp(min=1e-4).sqrt()
    zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
    rows = [[one, zero, zero], [gamma, sine, zero], [beta, across, height]]
    return torch.stack([torch.stack(row, 1) for row in rows], 1) * lengths[:, :, None]


def shortest_distances(fractions: Tensor, cells: Tensor) -> Tensor:
    """Return the distance of each atom to the nearest image of each other atom, and of itself.

    Exact for reduced cells; in others, images farther than one cell are not considered.

    Parameters
    ----------
    fractions
        Fractional coordinates, shape ``(batch, n, 3)``.
    cells
        Cells in Å, vectors as rows, shape ``(batch, 3, 3)``.

    Returns
    -------
    torch.Tensor
        Distances in Å, shape ``(batch, n, n)``.
    """
    difference = fractions[:, None] - fractions[:, :, None]
    difference = difference - torch.round(difference.detach())
    vectors = difference @ cells[:, None]
    images = torch.tensor(_IMAGES, device=cells.device) @ cells
    # The nearest image is chosen without gradients, which would take 27 times the memory.
    with torch.no_grad():
        squares = 2 * vectors @ images.transpose(1, 2)[:, None]
        squares += vectors.square().sum(-1, keepdim=True) + images.square().sum(-1)[:, None, None]
        itself = torch.eye(fractions.shape[1], dtype=torch.bool, device=cells.device)
        squares[:, itself, len(_IMAGES) // 2] = math.inf
        nearest = squares.argmin(-1)
    chosen = torch.gather(
        images[:, None].expand(-1, fractions.shape[1], -1, -1), 2, nearest[..., None].expand(-1, -1, -1, 3)
    )
    return ((vectors + chosen).square().sum(-1) + 1e-6).sqrt()


def pair_features(fractions: Tensor, cells: Tensor, radii: Tensor) -> Tensor:
    """Return features of pairs of atoms, shape ``(batch, n, n, FEATURES)``.

    They are Gaussians of the shortest distance relative to the sum of the radii, and sines and cosines of the
    differences of the fractional coordinates.

    Parameters
    ----------
    fractions, cells
        As for :func:`shortest_distances`.
    radii
        Radii of the atoms in Å, shape ``(batch, n)`` or ``(n,)``.
    """
    distances = shortest_distances(fractions, cells)
    relative = distances / (radii[..., :, None] + radii[..., None, :])
    near = torch.exp(-0.5 * ((relative[..., None] - torch.tensor(_CENTRES, device=cells.device)) / _WIDTH).square())
    difference = fractions[:, None] - fractions[:, :, None]
    angles = 2 * math.pi * difference[..., None] * torch.arange(1, _HARMONICS + 1, device=cells.device)
    return torch.cat([near, angles.sin().flatten(-2), angles.cos().flatten(-2)], dim=-1)


def radii_of(numbers: Tensor) -> Tensor:
    """Return the covalent radii (Å) of atomic numbers."""
    return torch.as_tensor(covalent_radii, dtype=torch.float32, device=numbers.device)[numbers]


class PairLayer(nn.Module):
    """One exchange of messages between all pairs of atoms, and an update of the atoms."""

    def __init__(self, width: int, message: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.receiver = nn.Linear(width, message)
        self.sender = nn.Linear(width, message, bias=False)
        self.pair = nn.Linear(FEATURES, message, bias=False)
        self.mixing = nn.Linear(message, message)
        self.update = nn.Sequential(nn.Linear(width + message, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, nodes: Tensor, pairs: Tensor, present: Tensor) -> Tensor:
        """Return the updated atoms, shape ``(batch, n, width)``.

        Parameters
        ----------
        nodes
            Atoms, shape ``(batch, n, width)``.
        pairs
            Features of pairs of atoms, shape ``(batch, n, n, FEATURES)``.
        present
            1 for atoms and 0 for padding, shape ``(batch, n)``.
        """
        normed = self.norm(nodes)
        messages = nn.functional.silu(
            self.receiver(normed)[:, :, None] + self.sender(normed)[:, None] + self.pair(pairs)
        )
        messages = nn.functional.silu(self.mixing(messages)) * present[:, None, :, None]
        # The square root of the number of atoms keeps the influence of single neighbours in large cells.
        received = messages.sum(2) / present.sum(1).clamp(min=1).sqrt()[:, None, None]
        found: Tensor = nodes + self.update(torch.cat([normed, received], dim=-1))
        return found
