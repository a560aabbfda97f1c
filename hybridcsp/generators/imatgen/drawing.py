"""Drawing of points in the latent space of materials."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from hybridcsp.generators.images.codes import Codes
from hybridcsp.generators.imatgen.materials_data import MaterialsData
from hybridcsp.generators.imatgen.materials_network import MaterialsAutoencoder


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

    def differences(self, contents: NDArray[np.int_]) -> NDArray[np.float64]:
        """Return the difference of the contents of each crystal from the wanted ones, shape ``(n,)``.

        It is the sum of the differences of the proportions of the elements, plus 0.03 for each atom more or less.
        """
        own = self.contents.numpy().astype(float)
        shares = own / own.sum(1, keepdims=True) - contents / contents.sum()
        found: NDArray[np.float64] = np.abs(shares).sum(1) + 0.03 * np.abs(own - contents).sum(1)
        return found


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
            differences = known.differences(row)
            near = np.flatnonzero(differences <= differences.min() + 1e-9)
            good = near[stable[near] == stable[near].max()]
            chosen.append(int(rng.choice(good)))
        deviation = known.means.std(0, unbiased=False)
        noise = torch.as_tensor(rng.standard_normal((len(chosen), known.means.shape[1])), dtype=torch.float32)
        centres = known.means[chosen] + self.spread * deviation * noise
        return network.perturb(centres, torch.zeros_like(centres), torch.zeros_like(centres))


@dataclass(frozen=True)
class AroundSimilar(LatentDraws):
    """Normally distributed points around training crystals of equal or similar contents.

    The networks are given the wanted contents when they decode a point, so that crystals of other contents can be
    centres, too. They are the more probable, the more similar their contents are. Points around a crystal lie close to
    it or farther away. Where a stable crystal is wanted, the point is the one of several that the classifier thinks
    most stable.

    Attributes
    ----------
    difference
        Difference of contents (see :meth:`KnownMaterials.differences`) that makes a crystal less probable by a factor
        of e.
    spreads
        Smallest and largest standard deviation of the points, as fractions of that of the training crystals.
    choices
        Number of points among which the classifier chooses.
    """

    difference: float = 0.05
    spreads: tuple[float, float] = (0.1, 0.6)
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
        n, latent = len(contents), known.means.shape[1]
        centres = np.empty((n, self.choices), dtype=int)
        for number, row in enumerate(contents):
            differences = known.differences(row)
            weights = np.exp(-(differences - differences.min()) / self.difference)
            centres[number] = rng.choice(len(weights), size=self.choices, p=weights / weights.sum())
        spreads = rng.uniform(*self.spreads, size=(n, self.choices, 1))
        noise = torch.as_tensor(spreads * rng.standard_normal((n, self.choices, latent)), dtype=torch.float32)
        means = known.means[torch.from_numpy(centres)] + known.means.std(0, unbiased=False) * noise
        points = network.perturb(means, torch.zeros_like(means), torch.zeros_like(means))
        with torch.no_grad():
            logits = network.stability(points.flatten(0, 1)).reshape(n, self.choices).numpy()
        best = np.where(low_energy, logits.argmax(1), 0)
        return points[torch.arange(n), torch.from_numpy(best)]
