"""Variational autoencoders of materials: from the codes of the images of a crystal to a latent space and back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, leaky_relu, silu

from hybridcsp.generators.images.codes import Codes
from hybridcsp.generators.imatgen.sizes import Sizes


class MaterialsAutoencoder(torch.nn.Module):
    """Abstract base class of variational autoencoders (doi:10.48550/arXiv.1312.6114) with a classifier of stability.

    The tensors of a batch are ``cell`` and ``sites`` (:class:`Codes`); ``contents``, the number of atoms of each
    element, shape ``(batch, n_elements)``; and ``stable``, 1 for stable crystals, 0 for others, and -1 where it is
    unknown, shape ``(batch,)``.
    """

    @abstractmethod
    def encode(self, codes: Codes, contents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return means and logarithms of variances in the latent space, shape ``(batch, latent)`` each."""

    @abstractmethod
    def decode(self, latent: torch.Tensor, contents: torch.Tensor) -> Codes:
        """Return the codes of the images of points in the latent space."""

    @abstractmethod
    def stability(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the logits of the probability that points in the latent space are stable crystals."""

    @abstractmethod
    def perturb(self, mean: torch.Tensor, log_variance: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return points of the latent space that are drawn with normally distributed noise."""

    @abstractmethod
    def terms(self, error: torch.Tensor, divergence: torch.Tensor, stability: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the weighted terms of the loss, shape ``(batch,)`` each.

        Parameters
        ----------
        error
            Mean squared error of the codes.
        divergence
            Kullback-Leibler divergence from the standard normal distribution.
        stability
            Cross entropy of the classifier, 0 for crystals of unknown stability.
        """

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the terms of the loss; latent points are drawn in training, and means in evaluation."""
        codes, contents, stable = Codes(batch["cell"], batch["sites"]), batch["contents"], batch["stable"]
        mean, log_variance = self.encode(codes, contents)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        latent = self.perturb(mean, log_variance, noise)
        found = self.decode(latent, contents)
        wrong = torch.cat([(found.cell - codes.cell), (found.sites - codes.sites).flatten(1)], 1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        crossed = binary_cross_entropy_with_logits(self.stability(latent), stable.clamp(min=0), reduction="none")
        return self.terms(wrong.square().mean(1), divergence, crossed * (stable >= 0))


class ConvolutionAutoencoder(MaterialsAutoencoder):
    """Convolutions along the stacked codes, as published.

    Each element has one channel, and so has the cell, whose code is repeated to the same length. The latent points are
    ``1e-4 (mean + deviation · noise)``; the loss is the squared error plus 1e-6 times the divergence plus 5e-7 times
    the cross entropy. The contents of crystals are not known to the network.

    Parameters
    ----------
    n_elements
        Number of elements.
    sizes
        Sizes.
    """

    #: Factor between what the encoder returns and the latent points.
    FACTOR = 1e-4

    def __init__(self, n_elements: int, sizes: Sizes) -> None:
        super().__init__()
        if sizes.site_code % 8 or sizes.site_code % sizes.cell_code:
            raise ValueError("the length of the code of an element must be a multiple of 8 and of that of the cell")
        channels, width, half = n_elements + 1, sizes.width, max(1, sizes.width // 2)
        self._repeats = sizes.site_code // sizes.cell_code
        self._length, flat = sizes.site_code // 8, half * sizes.site_code // 8
        self.down = torch.nn.ModuleList(
            [
                torch.nn.Conv1d(channels, width, 4, 2, 1),
                torch.nn.Conv1d(width, width, 4, 2, 1),
                torch.nn.Conv1d(width, width, 4, 2, 1),
                torch.nn.Conv1d(width, half, 3, 1, 1),
            ]
        )
        self.to_latent = torch.nn.Linear(flat, 2 * sizes.latent)
        self.from_latent = torch.nn.Linear(sizes.latent, flat)
        self.up = torch.nn.ModuleList(
            [
                torch.nn.ConvTranspose1d(half, width, 3, 1, 1),
                torch.nn.ConvTranspose1d(width, width, 4, 2, 1),
                torch.nn.ConvTranspose1d(width, width, 4, 2, 1),
                torch.nn.ConvTranspose1d(width, channels, 4, 2, 1),
            ]
        )
        self.classifier = torch.nn.Linear(sizes.latent, 1)

    def encode(self, codes: Codes, contents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return means and logarithms of variances; the contents are ignored."""
        stacked = torch.cat([codes.cell.repeat(1, self._repeats)[:, None], codes.sites], 1)
        for layer in self.down:
            stacked = leaky_relu(layer(stacked), 0.2)
        mean, log_variance = self.to_latent(stacked.flatten(1)).chunk(2, 1)
        return mean, log_variance

    def decode(self, latent: torch.Tensor, contents: torch.Tensor) -> Codes:
        """Return the codes of the images; the contents are ignored."""
        stacked = self.from_latent(latent / self.FACTOR).unflatten(1, (-1, self._length))
        for layer in self.up:
            stacked = layer(leaky_relu(stacked, 0.2))
        stacked = stacked.tanh()
        return Codes(stacked[:, 0].unflatten(1, (self._repeats, -1)).mean(1), stacked[:, 1:])

    def stability(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the logits of a linear classifier."""
        return self.classifier(latent / self.FACTOR)[:, 0]

    def perturb(self, mean: torch.Tensor, log_variance: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the scaled sum of the mean and the noise."""
        return self.FACTOR * (mean + (0.5 * log_variance).exp() * noise)

    def terms(self, error: torch.Tensor, divergence: torch.Tensor, stability: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the terms with the authors' weights."""
        return {"codes": error, "divergence": 1e-6 * divergence, "stability": 5e-7 * stability}


class ContentsAutoencoder(MaterialsAutoencoder):
    """Dense layers over all codes that know the contents of the crystal.

    The numbers in a code have no order that convolutions could use. Encoder and decoder are given the numbers of atoms,
    so that the latent space need not hold them, and a point can be decoded with other contents. The loss is the
    negative evidence lower bound for codes with errors of :attr:`DEVIATION`, plus the cross entropy of the classifier.

    Parameters
    ----------
    n_elements
        Number of elements.
    sizes
        Sizes.
    """

    #: Standard deviation of the errors of the codes, values from -1 to 1.
    DEVIATION = 0.1
    #: Number of atoms in the unit of the networks.
    ATOMS = 10.0

    def __init__(self, n_elements: int, sizes: Sizes) -> None:
        super().__init__()
        self._cell, self._sites = sizes.cell_code, sizes.site_code
        flat = sizes.cell_code + n_elements * sizes.site_code
        self._flat = flat
        self.into = torch.nn.Linear(flat + n_elements, sizes.width)
        self.between = torch.nn.Linear(sizes.width, sizes.width)
        self.to_latent = torch.nn.Linear(sizes.width, 2 * sizes.latent)
        self.from_latent = torch.nn.Linear(sizes.latent + n_elements, sizes.width)
        self.onwards = torch.nn.Linear(sizes.width, sizes.width)
        self.out = torch.nn.Linear(sizes.width, flat)
        self.classifier = torch.nn.Sequential(
            torch.nn.Linear(sizes.latent, sizes.latent), torch.nn.SiLU(), torch.nn.Linear(sizes.latent, 1)
        )

    def encode(self, codes: Codes, contents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return means and logarithms of variances."""
        hidden = silu(self.into(torch.cat([codes.cell, codes.sites.flatten(1), contents / self.ATOMS], 1)))
        hidden = hidden + silu(self.between(hidden))
        mean, log_variance = self.to_latent(hidden).chunk(2, 1)
        return mean, log_variance.clamp(-12, 4)

    def decode(self, latent: torch.Tensor, contents: torch.Tensor) -> Codes:
        """Return the codes of the images of points with given contents."""
        hidden = silu(self.from_latent(torch.cat([latent, contents / self.ATOMS], 1)))
        hidden = hidden + silu(self.onwards(hidden))
        cell, sites = self.out(hidden).tanh().split([self._cell, self._flat - self._cell], 1)
        return Codes(cell, sites.unflatten(1, (-1, self._sites)))

    def stability(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the logits of a classifier with one hidden layer."""
        return self.classifier(latent)[:, 0]

    def perturb(self, mean: torch.Tensor, log_variance: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the sum of the mean and the noise."""
        return mean + (0.5 * log_variance).exp() * noise

    def terms(self, error: torch.Tensor, divergence: torch.Tensor, stability: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the terms of the evidence lower bound."""
        return {
            "codes": error * self._flat / (2 * self.DEVIATION**2),
            "divergence": divergence,
            "stability": stability,
        }
