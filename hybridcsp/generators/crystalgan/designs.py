"""The components of the configurations of CrystalGAN."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray

from hybridcsp.core.problem import plain_problem
from hybridcsp.generators.crystalgan.domains import Array, Domains, PairData, cartesian, fractional
from hybridcsp.generators.crystalgan.models import CrossDomain, DistanceBounds, PublishedBounds, Refinement
from hybridcsp.generators.crystalgan.networks import PairCritic, PairTransfer, RowCritic, RowTransfer, Sizes
from hybridcsp.structure.lattice import log_length
from hybridcsp.training.adversarial import AdversarialAdam, AdversarialModel
from hybridcsp.training.adversarial_losses import CrossEntropy, SoftplusDifference
from hybridcsp.training.batches import TrainingData

# Factor of the smallest distances that a problem allows, and of sums of covalent radii for the nearest neighbours.
_LOWEST, _HIGHEST = 1.1, 1.3


class Design(ABC):
    """Abstract base class of the components of a configuration.

    Attributes
    ----------
    sizes
        Sizes of the networks.
    optimisation
        Optimiser and course of the learning rate.
    settings
        Settings of the training that differ from those of all trainings.
    """

    sizes: Sizes
    optimisation = AdversarialAdam(betas=(0.5, 0.999))
    settings: Mapping[str, Any]

    @abstractmethod
    def rows(self, encoded: Array) -> Array:
        """Return crystals with fractional coordinates in the coordinates of the networks."""

    @abstractmethod
    def decoded(self, rows: Array) -> Array:
        """Return crystals of the networks with fractional coordinates."""

    @abstractmethod
    def binaries(self, domains: Domains, sizes: Sizes) -> CrossDomain:
        """Return the networks of both binary systems."""

    @abstractmethod
    def ternaries(self, domains: Domains, sizes: Sizes) -> AdversarialModel:
        """Return the networks of the ternary system."""

    @abstractmethod
    def ternary_data(self, joined: tuple[Array, Array], pairs: PairData) -> TrainingData:
        """Return the training data of the ternary system.

        Parameters
        ----------
        joined
            Joined crystals in cells of the second and of the first system.
        pairs
            Crystals of the binary systems.
        """

    @abstractmethod
    def finished(self, model: AdversarialModel, joined: torch.Tensor, host: int) -> torch.Tensor:
        """Return ternary crystals from joined ones, whose cells are of the first (0) or second (1) system."""

    def join(self, domains: Domains, host: Array, guest: Array, kind: int) -> Array:
        """Return crystals with the atoms of one element of others.

        Parameters
        ----------
        domains
            Domains.
        host
            Crystals, shape ``(n, 3 + n_slots, 4)``.
        guest
            Crystals from which the atoms of one element are taken.
        kind
            Position of this element.
        """
        rows = host.copy()
        taken = np.flatnonzero(domains.kinds == kind) + 3
        rows[:, taken] = guest[:, taken]
        return rows


class PublishedDesign(Design):
    """Components as published: see :class:`~hybridcsp.generators.crystalgan.generator.CrystalGAN`."""

    sizes = Sizes(width=100, layers=10, joined_layers=5)
    settings: Mapping[str, Any] = {
        "epochs": 100,
        "batch_size": 35,
        "learning_rate": 1e-4,
        "averaging": 0.0,
        "patience": 100,
        "clip": 1e4,
    }

    def rows(self, encoded: Array) -> Array:
        """Return crystals with Cartesian coordinates."""
        return cartesian(encoded)

    def decoded(self, rows: Array) -> Array:
        """Return crystals with fractional coordinates."""
        return fractional(rows)

    def binaries(self, domains: Domains, sizes: Sizes) -> CrossDomain:
        """Return transfers and critics that act on single rows."""
        make = partial(RowTransfer, sizes), partial(RowCritic, sizes)
        return CrossDomain(*make, sizes.layers, SoftplusDifference(), 5)

    def ternaries(self, domains: Domains, sizes: Sizes) -> AdversarialModel:
        """Return transfers between the two sets of joined crystals; the distances are computed without gradients."""
        make = partial(RowTransfer, sizes), partial(RowCritic, sizes)
        bounds = PublishedBounds(torch.as_tensor(domains.kinds == 0))
        return CrossDomain(*make, sizes.joined_layers, SoftplusDifference(), 5, bounds)

    def ternary_data(self, joined: tuple[Array, Array], pairs: PairData) -> TrainingData:
        """Return pairs of joined crystals."""
        return PairData(*joined)

    def finished(self, model: AdversarialModel, joined: torch.Tensor, host: int) -> torch.Tensor:
        """Return joined crystals after a transfer to the other set."""
        assert isinstance(model, CrossDomain)
        found: torch.Tensor = (model.to_first if host == 0 else model.to_second)(joined)
        return found


class CorrectedDesign(Design):
    """Components that see pairs of atoms and have gradients of distances; see the generator."""

    sizes = Sizes(width=32, layers=2, joined_layers=3)
    settings: Mapping[str, Any] = {
        "epochs": 100,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "averaging": 0.98,
        "patience": 100,
        "clip": 10.0,
    }

    def rows(self, encoded: Array) -> Array:
        """Return crystals as they are."""
        return encoded

    def decoded(self, rows: Array) -> Array:
        """Return crystals as they are."""
        return rows

    def binaries(self, domains: Domains, sizes: Sizes) -> CrossDomain:
        """Return transfers and critics that see pairs of atoms."""
        return CrossDomain(*_pair_networks(domains, sizes), sizes.layers, CrossEntropy(penalty=1.0), 1)

    def ternaries(self, domains: Domains, sizes: Sizes) -> AdversarialModel:
        """Return a generator of ternary crystals from joined ones."""
        numbers = [atomic_numbers[element] for element in domains.elements]
        table = plain_problem(dict.fromkeys(domains.elements, 1)).distance_table[np.ix_(numbers, numbers)]
        radii = covalent_radii[numbers]
        of_slots = np.ix_(domains.kinds, domains.kinds)
        bounds = DistanceBounds(
            torch.as_tensor(_LOWEST * table[of_slots], dtype=torch.float32),
            torch.as_tensor(_HIGHEST * (radii[:, None] + radii)[of_slots], dtype=torch.float32),
        )
        kinds = torch.as_tensor(domains.kinds)
        return Refinement(*_pair_networks(domains, sizes), sizes.joined_layers, kinds, bounds)

    def ternary_data(self, joined: tuple[Array, Array], pairs: PairData) -> TrainingData:
        """Return joined crystals with binary ones."""
        return JoinedData(np.concatenate(joined), pairs)

    def finished(self, model: AdversarialModel, joined: torch.Tensor, host: int) -> torch.Tensor:
        """Return refined crystals."""
        assert isinstance(model, Refinement)
        found: torch.Tensor = model.refine(joined)
        return found

    def join(self, domains: Domains, host: Array, guest: Array, kind: int) -> Array:
        """Return joined crystals in cells that are scaled to the volume expected from their contents."""
        rows = super().join(domains, host, guest, kind)
        numbers = np.array([atomic_numbers[element] for element in domains.elements])
        for row, counts in zip(rows, domains.counts(rows), strict=True):
            edge = np.exp(log_length(np.repeat(numbers, counts)))
            row[:3, :3] *= edge / max(abs(float(np.linalg.det(row[:3, :3]))), 1e-3) ** (1 / 3)
        return rows


@dataclass(eq=False)
class JoinedData:
    """Joined crystals, each with a binary crystal of both systems.

    Attributes
    ----------
    joined
        Joined crystals.
    pairs
        Binary crystals.
    """

    joined: Array
    pairs: PairData

    def __post_init__(self) -> None:
        n = len(self.joined)
        self.weights = np.ones(n)
        self.sizes = np.ones(n, dtype=int)

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        """Return joined crystals and random binary ones."""
        binary = self.pairs.batch(rng.integers(len(self.pairs.weights), size=len(indices)), rng)
        return {"joined": torch.as_tensor(self.joined[indices]), **binary}


def _pair_networks(domains: Domains, sizes: Sizes) -> tuple[partial[PairTransfer], partial[PairCritic]]:
    shared = torch.as_tensor(domains.kinds == 0, dtype=torch.float32)
    radii = covalent_radii[[atomic_numbers[element] for element in domains.elements]][domains.kinds]
    given = {"shared": shared, "radii": torch.as_tensor(radii, dtype=torch.float32)}
    return partial(PairTransfer, sizes, **given), partial(PairCritic, sizes, **given)
