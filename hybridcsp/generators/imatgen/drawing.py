"""Drawing of points in the latent space of materials."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from hybridcsp.generators.imatgen.materials_data import MaterialsData
from hybridcsp.generators.imatgen.materials_network import Codes, MaterialsAutoencoder


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownMaterials:
    """Represent the encoded training set.

    Attributes
    ----------
    means, log_variances
        What the encoder returns, shape ``(n, latent)``.
    contents
        Number of atoms of each element, shape ``(n, n_elements)``.
    stable
        1 for stable crystals, 0 for others, -1 where it is unknown, shape ``(n,)``.
    """

    means: torch.Tensor
    log_variances: torch.Tensor
    contents: torch.Tensor
    stable: torch.Tensor

    @classmethod
    def encoded(cls, network: MaterialsAutoencoder, data: MaterialsData) -> Self:
        """Encode the training set of a materials autoencoder."""
        network.eval()
        tensors = data.batch(np.arange(len(data.weights)), np.random.default_rng(0))
        with torch.no_grad():
            means, log_variances = network.encode(Codes(tensors["cell"], tensors["sites"]), tensors["contents"])
        return cls(means=means, log_variances=log_variances, contents=tensors["contents"], stable=tensors["stable"])

    def check(self, n_elements: int, latent: int) -> None:
        """Check the shapes of tensors that were read from a file.

        Raises
        ------
        ValueError
            If they are not those of a training set.
        """
        n = len(self.means)
        shapes = [tuple(tensor.shape) for tensor in self.tensors().values()]
        if not n or shapes != [(n, latent), (n, latent), (n, n_elements), (n,)] or (self.contents.sum(1) < 1).any():
            raise ValueError("the encoded training set is incomplete")

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors by name."""
        return {
            "means": self.means,
            "log_variances": self.log_variances,
            "contents": self.contents,
            "stable": self.stable,
        }

    def nearest(self, contents: NDArray[np.int_]) -> NDArray[np.int_]:
        """Return the numbers of the crystals whose contents are nearest to the wanted ones, shape ``(n_nearest,)``.

        Equal proportions of the elements come before equal numbers of atoms.
        """
        own = self.contents.numpy().astype(float)
        shares = own / own.sum(1, keepdims=True) - contents / contents.sum()
        distance = np.abs(shares).sum(1) + 0.01 * np.abs(own - contents).sum(1)
        return np.flatnonzero(distance <= distance.min() + 1e-9)


class LatentDraws(ABC):
    """Abstract base class of ways to draw points in the latent space."""

    @abstractmethod
    def draw(
        self,
        network: MaterialsAutoencoder,
        known: KnownMaterials,
        contents: NDArray[np.int_],
        low_energy: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> torch.Tensor:
        """Return one point for each wanted crystal, shape ``(batch, latent)``.

        Parameters
        ----------
        network
            Materials autoencoder.
        known
            Encoded training set.
        contents
            Wanted number of atoms of each element, shape ``(batch, n_elements)``.
        low_energy
            Whether a stable crystal is wanted, shape ``(batch,)``.
        rng
            Random number generator.
        """


@dataclass(frozen=True)
class AroundKnown(LatentDraws):
    """Normally distributed points around training crystals, stable ones where they are known.

    The training crystals are those whose contents are nearest to the wanted ones.

    Attributes
    ----------
    spread
        Standard deviation, as a fraction of that of the training crystals.
    """

    spread: float = 0.2

    def draw(
        self,
        network: MaterialsAutoencoder,
        known: KnownMaterials,
        contents: NDArray[np.int_],
        low_energy: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> torch.Tensor:
        """Return one point around a random crystal for each wanted crystal."""
        stable = known.stable.numpy()
        chosen = []
        for row in contents:
            near = known.nearest(row)
            good = near[stable[near] == stable[near].max()]
            chosen.append(int(rng.choice(good)))
        deviation = known.means.std(0, unbiased=False)
        noise = torch.as_tensor(rng.standard_normal((len(chosen), known.means.shape[1])), dtype=torch.float32)
        centres = known.means[chosen] + self.spread * deviation * noise
        return network.perturb(centres, torch.zeros_like(centres), torch.zeros_like(centres))


@dataclass(frozen=True)
class PriorDraws(LatentDraws):
    """Points of the normal distribution that the autoencoder was trained towards.

    Where a stable crystal is wanted, the point is the one of several that the classifier thinks most stable.

    Attributes
    ----------
    temperature
        Standard deviation of the points.
    choices
        Number of points among which the classifier chooses.
    """

    temperature: float = 1.0
    choices: int = 4

    def draw(
        self,
        network: MaterialsAutoencoder,
        known: KnownMaterials,
        contents: NDArray[np.int_],
        low_energy: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> torch.Tensor:
        """Return one point for each wanted crystal."""
        shape = (len(contents), self.choices, known.means.shape[1])
        points = torch.as_tensor(self.temperature * rng.standard_normal(shape), dtype=torch.float32)
        with torch.no_grad():
            logits = network.stability(points.flatten(0, 1)).reshape(shape[:2]).numpy()
        best = np.where(low_energy, logits.argmax(1), 0)
        return points[torch.arange(len(contents)), torch.from_numpy(best)]
