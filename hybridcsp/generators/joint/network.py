"""Networks of ``flow`` and ``diffusion``: messages between all pairs of atoms, and the distribution of space groups."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridcsp.generators.property_terms import PropertyTerms, widened, with_terms
from hybridcsp.structure.elements import covalent_radii, properties
from hybridcsp.structure.lattice import COLUMNS, ROWS

# Centres and width of the Gaussians of the shortest distance, in units of summed covalent radii.
_CENTRES = tuple(0.5 + 0.15 * i for i in range(12))
_WIDTH = 0.12
# Sums over images decay as exp(-s d²) with s in powers of two from the smallest one.
_SOFTEST, _SHARPENINGS = 0.5, 5
# Message of padding atoms before rectification.
_PADDING = -1e4


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of the network.

    Attributes
    ----------
    width
        Number of features of an atom.
    message
        Number of features of a message.
    pair
        Number of features of a pair of atoms.
    layers
        Number of message-passing layers.
    frequencies
        Number of harmonics of the fractional difference along each axis.
    """

    width: int = 160
    message: int = 96
    pair: int = 64
    layers: int = 4
    frequencies: int = 8


#: Sizes by name, as the constructors of generators take them: ``cpu`` is trained within an hour on two cores, ``gpu``
#: has nearly five times as many weights.
SIZES: Mapping[str, Mapping[str, Architecture]] = MappingProxyType(
    {
        "cpu": {"architecture": Architecture()},
        "gpu": {"architecture": Architecture(width=320, message=192, pair=96, layers=6, frequencies=10)},
    }
)


class JointNetwork(nn.Module):
    """Network that predicts vectors on the atoms and six numbers for the lattice of a noisy crystal under conditions.

    They are velocities in ``flow``, and scores and noise in ``diffusion``. The network is equivariant under permutation
    of the atoms and invariant under translation, because its inputs are periodic functions of differences of fractional
    coordinates and distances to the nearest images in the current cell. Fractional coordinates and the metric do not
    change under rotation.
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
        self.spacegroups = nn.Embedding(231, width)  # 0: unknown
        self.told = nn.Linear(16 + 6 + 6 + 2 + 2, width)
        with torch.no_grad():  # a condition without training data must have no effect at first
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
        self.properties: PropertyTerms | None = None

    def learn_properties(self, n_features: int) -> None:
        """Make the network read features of properties; new ones have no effect before they are trained."""
        self.properties = widened(self.properties, self.norm.weight.shape[0], n_features)

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
        properties: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Predict vectors and changes of the lattice.

        Parameters
        ----------
        numbers
            Atomic numbers, 0 where there is no atom, shape ``(batch, n)``.
        positions
            Fractional coordinates, shape ``(batch, n, 3)``.
        lattice
            Standardised log-lattice, shape ``(batch, 6)``.
        metric
            Log-lattice that is not standardised, in Å: components of ½ log(L Lᵀ), shape ``(batch, 6)``.
        time
            From 0 (noise) to 1 (crystal), shape ``(batch,)``.
        spacegroup
            Number of the space group, 0 if unknown, shape ``(batch,)``.
        energy
            Energy quantile and 1, or 0 and 0 if unknown, shape ``(batch, 2)``.
        pressure
            Pressure on a scale from 0 to 1 and 1, or 0 and 0 if unknown, shape ``(batch, 2)``.
        properties
            Features of properties, shape ``(batch, n_features)``; ``None`` if all are unknown.

        Returns
        -------
        tuple
            Vectors of the atoms in fractional coordinates, without their mean, shape ``(batch, n, 3)``, and components
            xx, yy, zz, yz, xz, xy for the lattice, shape ``(batch, 6)``.
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
        about = self.whole[0](torch.cat([contents, self.spacegroups(spacegroup), self.told(told)], dim=-1))
        whole = self.whole[1:](with_terms(self.properties, about, properties))
        nodes = nodes + whole[:, None]
        absent = (_PADDING * (1 - present))[..., None]
        with torch.autocast(
            positions.device.type, enabled=False
        ):  # distances need more than the three digits of bfloat16
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
        """Return geometric features of pairs of atoms, shape ``(batch, n, n, features)``, without gradients."""
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
        # Sums over all images, divided by their largest term, count the images at nearly the shortest distance.
        decay = torch.exp(_SOFTEST * (shortest - squares))
        sums = []
        for _ in range(_SHARPENINGS):
            sums.append(decay.sum(-1).log())
            decay = decay.square()
        return torch.cat([angles.sin().flatten(-2), angles.cos().flatten(-2), near, torch.stack(sums, -1)], dim=-1)


class _Pairs(nn.Module):
    """Features of pairs of atoms from their elements and geometry, shape ``(batch, n, n, pair)``."""

    def __init__(self, width: int, geometry: int, pair: int) -> None:
        super().__init__()
        self.receiver = nn.Linear(width, pair)
        self.sender = nn.Linear(width, pair, bias=False)
        self.geometry = nn.Linear(geometry, pair, bias=False)

    def forward(self, nodes: Tensor, geometry: Tensor) -> Tensor:
        return _rectified(self.receiver(nodes), self.sender(nodes), self.geometry, geometry)


class _Layer(nn.Module):
    """One layer of message passing and update of the atoms."""

    def __init__(self, width: int, message: int, pair: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.receiver = nn.Linear(width, message)
        self.sender = nn.Linear(width, message, bias=False)
        self.pair = nn.Linear(pair, message, bias=False)
        self.update = nn.Sequential(nn.Linear(2 * width + message, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, nodes: Tensor, pairs: Tensor, whole: Tensor, absent: Tensor, count: Tensor) -> Tensor:
        normed = self.norm(nodes)
        # Rectified messages of padding atoms vanish.
        messages = _rectified(self.receiver(normed), self.sender(normed) + absent, self.pair, pairs)
        received = messages.sum(2) / count[..., None]
        found: Tensor = nodes + self.update(torch.cat([normed, received, whole[:, None].expand_as(nodes)], dim=-1))
        return found


def _rectified(receiver: Tensor, sender: Tensor, linear: nn.Linear, pairs: Tensor) -> Tensor:
    """Return the rectified sum of terms of both atoms and of the pair, computed in few passes over memory."""
    either = receiver[:, :, None] + sender[:, None]
    both = torch.addmm(either.flatten(0, 2), pairs.flatten(0, 2), linear.weight.T)
    return functional.relu(both, inplace=True).view(either.shape)


class SpacegroupPrior(nn.Module):
    """Probabilities of the space groups for given contents, from sums over the atoms."""

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
        self.properties: PropertyTerms | None = None

    def learn_properties(self, n_features: int) -> None:
        """Make the network read features of properties; new ones have no effect before they are trained."""
        self.properties = widened(self.properties, self.logits.weight.shape[1], n_features)

    def forward(self, numbers: Tensor, properties: Tensor | None = None) -> Tensor:
        """Return the logarithms of the probabilities, shape ``(batch, 231)``; group 0 is impossible."""
        present = (numbers > 0).float()
        count = present.sum(1, keepdim=True)
        atoms = [self.elements[numbers], _multiplicity(numbers, present), self.embedding(numbers)]
        described = torch.einsum("bn,bnw->bw", present / count, self.describe(torch.cat(atoms, dim=-1)))
        about = self.read[0](torch.cat([described, _harmonics(torch.log(count[:, 0]), 3)], dim=-1))
        logits = self.logits(self.read[1:](with_terms(self.properties, about, properties)))
        nowhere = torch.arange(231, device=logits.device) == 0
        return functional.log_softmax(logits.masked_fill(nowhere, -1e4), dim=-1)


def cells(metric: Tensor) -> Tensor:
    """Return the cells (Å) of components of ½ log(L Lᵀ) by matrix exponentials, shape ``(batch, 3, 3)``."""
    matrix = torch.zeros(len(metric), 3, 3, dtype=metric.dtype, device=metric.device)
    matrix[:, ROWS, COLUMNS] = matrix[:, COLUMNS, ROWS] = metric
    return torch.linalg.matrix_exp(matrix)


def element_features() -> Tensor:
    """Return the standardised properties of the elements, shape ``(119, features)``."""
    table = properties()
    known = table[1:104]
    scaled = (table - known.mean(0)) / known.std(0)
    scaled[0] = 0
    return torch.as_tensor(np.clip(scaled, -4, 4), dtype=torch.float32)


def _multiplicity(numbers: Tensor, present: Tensor) -> Tensor:
    """Return the logarithm of the number of atoms of each atom's element, and its fraction, shape ``(batch, n, 2)``."""
    alike = (numbers[:, :, None] == numbers[:, None]).to(present.dtype) @ present[..., None]
    return torch.cat([torch.log(alike.clamp(min=1)), alike / present.sum(1)[:, None, None]], dim=-1)


def _harmonics(value: Tensor, number: int) -> Tensor:
    angles = value[:, None] * math.pi * torch.arange(1, number + 1, device=value.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
