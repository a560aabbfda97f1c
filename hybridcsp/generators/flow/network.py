"""The velocity of every atom and of the lattice: messages between all pairs of atoms, in fractional coordinates."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridcsp.structure.elements import covalent_radii, properties
from hybridcsp.structure.lattice import COLUMNS, ROWS

# Distances are taken in units of summed covalent radii; centres and width of the Gaussians over the shortest one.
_CENTRES = tuple(0.5 + 0.15 * i for i in range(12))
_WIDTH = 0.12
# Sums over images fall off with exp(-s d²), with s from the softest to the sharpest in powers of two.
_SOFTEST, _SHARPENINGS = 0.5, 5
# What an atom that is not there sends.
_NEVER = -1e4


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of the network.

    Attributes
    ----------
    width
        Features of an atom.
    message
        Features of what one atom tells another in a round.
    pair
        Features of a pair of atoms, made once.
    layers
        Rounds of messages.
    frequencies
        Sines and cosines of up to so many times 2π the fractional difference along each axis.
    """

    width: int = 160
    message: int = 96
    pair: int = 64
    layers: int = 4
    frequencies: int = 8


class VelocityNetwork(nn.Module):
    """Velocities on the torus and in the space of log-lattices.

    Equivariant under the order of the atoms and invariant under translation, because atoms know of each other only
    through periodic functions of differences of fractional coordinates, and through distances to their nearest images
    in the cell as it is at that time. Rotations do not occur: neither fractional coordinates nor the metric know them.
    """

    elements: Tensor
    radii: Tensor
    shifts: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.frequencies = architecture.frequencies
        width = architecture.width
        self.register_buffer("elements", element_features(), persistent=False)
        self.register_buffer("radii", torch.as_tensor(covalent_radii(), dtype=torch.float32), persistent=False)
        shifts = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)))
        self.register_buffer("shifts", shifts, persistent=False)
        self.embedding = nn.Embedding(119, width)
        self.describe = nn.Linear(self.elements.shape[1] + 2, width)
        self.spacegroups = nn.Embedding(231, width)  # 0: not told
        self.told = nn.Linear(16 + 6 + 6 + 2 + 2, width)
        with torch.no_grad():  # what has never been told must not matter when it first is
            self.told.weight[:, -2:] = 0.0
        self.whole = nn.Sequential(nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, width))
        geometry = 6 * architecture.frequencies + len(_CENTRES) + _SHARPENINGS
        self.pairs = _Pairs(width, geometry, architecture.pair)
        self.layers = nn.ModuleList(
            _Layer(width, architecture.message, architecture.pair) for _ in range(architecture.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.velocity = nn.Linear(width, 3)
        self.strain = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 6))

    def forward(
        self,
        numbers: Tensor,
        positions: Tensor,
        lattice: Tensor,
        metric: Tensor,
        time: Tensor,
        spacegroup: Tensor,
        energy: Tensor,
        pressure: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Predict velocities.

        Parameters
        ----------
        numbers
            Atomic numbers, 0 where there is no atom, shape ``(batch, n)``.
        positions
            Fractional coordinates, shape ``(batch, n, 3)``.
        lattice
            Standardised log-lattice, shape ``(batch, 6)``.
        metric
            The same as it is, in Å: components of ½ log(L Lᵀ), shape ``(batch, 6)``.
        time
            From 0 (noise) to 1 (crystal), shape ``(batch,)``.
        spacegroup
            Its number, 0 where it is not told, shape ``(batch,)``.
        energy
            Energy quantile and 1, or 0 and 0 where it is not told, shape ``(batch, 2)``.
        pressure
            The same of pressure, from 0 to 1.

        Returns
        -------
        tuple
            Velocities of the atoms, free of their mean, shape ``(batch, n, 3)``, and of the standardised log-lattice,
            shape ``(batch, 6)``.
        """
        present = (numbers > 0).to(positions.dtype)
        count = present.sum(1, keepdim=True)
        share = present / count
        nodes = self.embedding(numbers) + self.describe(
            torch.cat([self.elements[numbers], _multiplicity(numbers, present)], dim=-1)
        )
        contents = torch.einsum("bn,bnw->bw", share, nodes)
        size = torch.cat([_harmonics(torch.log(count[:, 0]), 3)], dim=-1)
        told = torch.cat([_harmonics(0.5 * time, 8), size, lattice, energy, pressure], dim=-1)
        whole = self.whole(torch.cat([contents, self.spacegroups(spacegroup), self.told(told)], dim=-1))
        nodes = nodes + whole[:, None]
        absent = (_NEVER * (1 - present))[..., None]
        with torch.autocast(positions.device.type, enabled=False):  # distances need more than bfloat16's three digits
            geometry = self._geometry(numbers, positions, metric)
        pairs = self.pairs(nodes, geometry)
        for layer in self.layers:
            nodes = layer(nodes, pairs, whole, absent, count)
        nodes = self.norm(nodes)
        velocity = self.velocity(nodes) * present[..., None]
        velocity = velocity - torch.einsum("bn,bnx->bx", share, velocity)[:, None]
        mean = torch.einsum("bn,bnw->bw", share, nodes)
        return velocity * present[..., None], self.strain(torch.cat([mean, whole], dim=-1))

    @torch.no_grad()
    def _geometry(self, numbers: Tensor, positions: Tensor, metric: Tensor) -> Tensor:
        """Features of where two atoms are, shape ``(batch, n, n, features)``; no gradient ever goes through them."""
        difference = positions[:, None] - positions[:, :, None]
        difference = difference - torch.round(difference)
        angles = 2 * math.pi * difference[..., None] * torch.arange(1, self.frequencies + 1, device=positions.device)
        cell = cells(metric)
        vectors, images = difference @ cell[:, None], self.shifts @ cell  # (batch, n, n, 3), (batch, 27, 3)
        squares = 2 * vectors @ images.transpose(1, 2)[:, None]
        squares += vectors.square().sum(-1, keepdim=True) + images.square().sum(-1)[:, None, None]
        radii = self.radii[numbers]
        squares /= (radii[:, None] + radii[:, :, None]).square()[..., None]
        itself = torch.eye(numbers.shape[1], dtype=torch.bool, device=numbers.device)[..., None]
        squares.masked_fill_(itself & (self.shifts == 0).all(-1), 1e3)
        shortest = squares.amin(-1, keepdim=True).clamp(min=0)
        near = torch.exp(-0.5 * ((shortest.sqrt() - torch.tensor(_CENTRES, device=cell.device)) / _WIDTH) ** 2)
        # Sums over all images, divided by their largest term, tell how many are equally near.
        decay = torch.exp(_SOFTEST * (shortest - squares))
        sums = []
        for _ in range(_SHARPENINGS):
            sums.append(decay.sum(-1).log())
            decay = decay.square()
        return torch.cat([angles.sin().flatten(-2), angles.cos().flatten(-2), near, torch.stack(sums, -1)], dim=-1)


class _Pairs(nn.Module):
    """What two atoms are to each other: their elements and where they are, shape ``(batch, n, n, pair)``."""

    def __init__(self, width: int, geometry: int, pair: int) -> None:
        super().__init__()
        self.receiver = nn.Linear(width, pair)
        self.sender = nn.Linear(width, pair, bias=False)
        self.geometry = nn.Linear(geometry, pair, bias=False)

    def forward(self, nodes: Tensor, geometry: Tensor) -> Tensor:
        return _rectified(self.receiver(nodes), self.sender(nodes), self.geometry, geometry)


class _Layer(nn.Module):
    """One round of messages, and what each atom makes of them."""

    def __init__(self, width: int, message: int, pair: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.receiver = nn.Linear(width, message)
        self.sender = nn.Linear(width, message, bias=False)
        self.pair = nn.Linear(pair, message, bias=False)
        self.update = nn.Sequential(nn.Linear(2 * width + message, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, nodes: Tensor, pairs: Tensor, whole: Tensor, absent: Tensor, count: Tensor) -> Tensor:
        normed = self.norm(nodes)
        # Rectified messages of atoms that are not there vanish.
        messages = _rectified(self.receiver(normed), self.sender(normed) + absent, self.pair, pairs)
        heard = messages.sum(2) / count[..., None]
        found: Tensor = nodes + self.update(torch.cat([normed, heard, whole[:, None].expand_as(nodes)], dim=-1))
        return found


def _rectified(receiver: Tensor, sender: Tensor, linear: nn.Linear, pairs: Tensor) -> Tensor:
    """Rectify the sum of what depends on either atom and what depends on the pair, in few passes over memory."""
    either = receiver[:, :, None] + sender[:, None]
    both = torch.addmm(either.flatten(0, 2), pairs.flatten(0, 2), linear.weight.T)
    return functional.relu(both, inplace=True).view(either.shape)


class SpacegroupPrior(nn.Module):
    """How probable each space group is for these contents, from sums over the atoms."""

    elements: Tensor

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.register_buffer("elements", element_features(), persistent=False)
        self.embedding = nn.Embedding(119, width)
        self.describe = nn.Sequential(
            nn.Linear(self.elements.shape[1] + 2 + width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.read = nn.Sequential(
            nn.Linear(width + 6, width), nn.SiLU(), nn.Dropout(0.3), nn.Linear(width, width), nn.SiLU(), nn.Dropout(0.3)
        )
        self.logits = nn.Linear(width, 231)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the logarithms of the probabilities, shape ``(batch, 231)``; group 0 does not occur."""
        present = (numbers > 0).float()
        count = present.sum(1, keepdim=True)
        atoms = [self.elements[numbers], _multiplicity(numbers, present), self.embedding(numbers)]
        described = torch.einsum("bn,bnw->bw", present / count, self.describe(torch.cat(atoms, dim=-1)))
        logits = self.logits(self.read(torch.cat([described, _harmonics(torch.log(count[:, 0]), 3)], dim=-1)))
        nowhere = torch.arange(231, device=logits.device) == 0
        return functional.log_softmax(logits.masked_fill(nowhere, -1e4), dim=-1)


def cells(metric: Tensor) -> Tensor:
    """Cells (Å) of components of ½ log(L Lᵀ), shape ``(batch, 3, 3)``: exponentials of symmetric matrices."""
    matrix = torch.zeros(len(metric), 3, 3, dtype=metric.dtype, device=metric.device)
    matrix[:, ROWS, COLUMNS] = matrix[:, COLUMNS, ROWS] = metric
    return torch.linalg.matrix_exp(matrix)


def element_features() -> Tensor:
    """Properties of the elements, each with mean 0 and spread 1, shape ``(119, features)``."""
    table = properties()
    known = table[1:104]
    scaled = (table - known.mean(0)) / known.std(0)
    scaled[0] = 0
    return torch.as_tensor(np.clip(scaled, -4, 4), dtype=torch.float32)


def _multiplicity(numbers: Tensor, present: Tensor) -> Tensor:
    """Logarithm of how many atoms of its element there are, and their share, shape ``(batch, n, 2)``."""
    alike = (numbers[:, :, None] == numbers[:, None]).to(present.dtype) @ present[..., None]
    return torch.cat([torch.log(alike.clamp(min=1)), alike / present.sum(1)[:, None, None]], dim=-1)


def _harmonics(value: Tensor, number: int) -> Tensor:
    angles = value[:, None] * math.pi * torch.arange(1, number + 1, device=value.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
