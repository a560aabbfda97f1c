"""Networks of the composition-conditioned GAN that see pairs of atoms across the boundaries of the cell.

Their scores are invariant under translation, exchange of atoms of one element, and choice of periodic images. The
numbers of atoms are set instead of learned: the first slots of each element are occupied. The critic knows the
contents, too, so that crystals and samples with the same contents are compared. Therefore no Q head is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor, nn

from hybridcsp.generators.cccgan.model import CloudModel, Sizes
from hybridcsp.generators.periodic_pairs import PairLayer, cell_vectors, pair_features, radii_of
from hybridcsp.structure.lattice import log_length
from hybridcsp.structure.representations.point_cloud import ANGLE, LENGTH
from hybridcsp.training.adversarial import Turn
from hybridcsp.training.adversarial_losses import Wasserstein

# Largest deviation of generated angles from 90 degrees, and of logarithms of lengths from those of a cube.
_ANGLES, _LENGTHS = 35.0, 1.2
# Factor between point clouds and what the critic's gradient refers to: cells vary less than coordinates.
_CELL_SCALE = 10.0
# Number of layers.
_LAYERS = 2


class PairNetworks(CloudModel):
    """Generator and critic that exchange messages between all atoms of a cell."""

    def __init__(self, slots: Mapping[str, int], sizes: Sizes) -> None:
        super().__init__(slots, sizes)
        self.generator = _Generator(self.slots, sizes)
        self.critic = _Critic(self.slots, sizes.width)
        self.loss = Wasserstein()

    @property
    def n_noise(self) -> int:
        """Number of standard normal random numbers of a sample: of the crystal, and of the places of its atoms."""
        return self.sizes.noise + 3 * self.n_slots

    def generate(self, noise: Tensor, counts: Tensor) -> Tensor:
        """Return point clouds with atoms in the first slots of each element."""
        found: Tensor = self.generator(noise, counts, self.first_slots(counts))
        return found

    def occupied(self, clouds: Tensor, counts: Tensor) -> Tensor:
        """Return the first slots of each element."""
        return self.first_slots(counts)

    def turns(self) -> Sequence[Turn]:
        """Return the updates of the critic and of the generator."""
        return [
            Turn(name="critic", parameters=list(self.critic.parameters()), losses=self._critic_losses),
            Turn(
                name="generator",
                parameters=list(self.generator.parameters()),
                losses=self._generator_losses,
                every=self.critic_steps,
            ),
        ]

    def _critic_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        counts = batch["counts"]
        with torch.no_grad():
            fake = self._sampled(counts)
        scale = _scale(fake)
        return self.loss.of_critic(self._scores(counts), batch["cloud"] * scale, fake * scale)

    def _generator_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        fake = self._sampled(batch["counts"])
        scores = self._scores(batch["counts"])(fake * _scale(fake))
        return {"score": self.loss.of_generator(scores)}

    def _scores(self, counts: Tensor) -> _Scores:
        return _Scores(self.critic, counts, self.first_slots(counts))

    def _sampled(self, counts: Tensor) -> Tensor:
        return self.generate(torch.randn(len(counts), self.n_noise, device=counts.device), counts)


class _Scores:
    """The critic for given contents, as a function of scaled point clouds."""

    def __init__(self, critic: nn.Module, counts: Tensor, there: Tensor) -> None:
        self._critic, self._counts, self._there = critic, counts, there

    def __call__(self, scaled: Tensor) -> Tensor:
        found: Tensor = self._critic(scaled / _scale(scaled), self._counts, self._there)
        return found


class _Atoms(nn.Module):
    """Features of the contents and of the atoms in slots that any crystal of a batch has."""

    numbers: Tensor
    kinds: Tensor

    def __init__(self, slots: Mapping[str, int], width: int) -> None:
        super().__init__()
        kinds = [kind for kind, number in enumerate(slots.values()) for _ in range(number)]
        self.register_buffer("kinds", torch.tensor(kinds), persistent=False)
        self._z = np.array([atomic_numbers[element] for element in slots])
        self.register_buffer("numbers", torch.tensor(self._z[kinds]), persistent=False)
        self.elements = nn.Embedding(len(slots), width)
        self.contents = nn.Sequential(nn.Linear(2 * len(slots) + 1, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features of the slots and of the contents, and the edge (Å) of a cube of the expected volume."""
        whole = counts.float()
        total = whole.sum(1, keepdim=True)
        told = self.contents(torch.cat([whole / total, whole.clamp(min=1).log(), total.log()], dim=1))
        return self.elements(self.kinds), told, self._edges(counts)

    def _edges(self, counts: Tensor) -> Tensor:
        lengths = [log_length(np.repeat(self._z, row)) for row in counts.cpu().numpy()]
        return torch.tensor(np.exp(lengths), dtype=torch.float32, device=counts.device)


class _Critic(nn.Module):
    def __init__(self, slots: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.atoms = _Atoms(slots, width)
        self.cell = nn.Linear(6, width)
        self.layers = nn.ModuleList(PairLayer(width, width) for _ in range(_LAYERS))
        self.read = nn.Sequential(nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, clouds: Tensor, counts: Tensor, there: Tensor) -> Tensor:
        used = there.any(0).nonzero()[:, 0]
        elements, told, edge = self.atoms(counts)
        lengths, angles = clouds[:, 0] * LENGTH, clouds[:, 1] * ANGLE
        shape = torch.cat([(lengths / edge[:, None]).clamp(min=0.05).log(), torch.deg2rad(angles - 90)], dim=1)
        whole = told + self.cell(shape)
        present = there[:, used].float()
        fractions = (15 * clouds[:, 2 + used] - 2.5) / 10
        nodes = elements[used] + whole[:, None]
        pairs = pair_features(fractions, cell_vectors(lengths, angles), radii_of(self.atoms.numbers[used]))
        for layer in self.layers:
            nodes = layer(nodes, pairs, present)
        share = present / present.sum(1, keepdim=True)
        mean = torch.einsum("bn,bnw->bw", share, nodes)
        # The mean alone would hide one misplaced atom among many.
        rough = torch.einsum("bn,bnw->bw", share, (nodes - mean[:, None]).square())
        scores: Tensor = self.read(torch.cat([mean, rough, whole], dim=1))[:, 0]
        return scores


class _Generator(nn.Module):
    """Cell from noise, and atoms that move from random places to others in several steps."""

    def __init__(self, slots: Mapping[str, int], sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        self.noise = sizes.noise
        self.atoms = _Atoms(slots, width)
        self.whole = nn.Sequential(nn.Linear(sizes.noise + width, width), nn.SiLU(), nn.Linear(width, width))
        self.cell = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 6))
        self.layers = nn.ModuleList(PairLayer(width, width) for _ in range(_LAYERS + 1))
        self.moves = nn.ModuleList(nn.Linear(width, 3) for _ in range(_LAYERS + 1))

    def forward(self, noise: Tensor, counts: Tensor, there: Tensor) -> Tensor:
        used = there.any(0).nonzero()[:, 0]
        elements, told, edge = self.atoms(counts)
        whole = self.whole(torch.cat([noise[:, : self.noise], told], dim=1))
        shape = torch.tanh(self.cell(whole))
        lengths = edge[:, None] * torch.exp(_LENGTHS * shape[:, :3])
        angles = 90 + _ANGLES * shape[:, 3:]
        cells = cell_vectors(lengths, angles)
        places = noise[:, self.noise :].view(len(noise), -1, 3)[:, used]
        fractions = 0.5 * (1 + torch.erf(places / math.sqrt(2)))  # uniform
        present = there[:, used].float()
        nodes = elements[used] + whole[:, None]
        radii = radii_of(self.atoms.numbers[used])
        for layer, move in zip(self.layers, self.moves, strict=True):
            nodes = layer(nodes, pair_features(fractions, cells, radii), present)
            fractions = fractions + move(nodes)
        fractions = fractions - torch.floor(fractions.detach())
        slots = torch.zeros(len(noise), there.shape[1], 3, device=noise.device, dtype=fractions.dtype)
        slots[:, used] = (10 * fractions + 2.5) / 15 * present[..., None]
        return torch.cat([torch.stack([lengths / LENGTH, angles / ANGLE], dim=1), slots], dim=1)


def _scale(clouds: Tensor) -> Tensor:
    scale = torch.ones(clouds.shape[1], 1, device=clouds.device)
    scale[:2] = _CELL_SCALE
    return scale
