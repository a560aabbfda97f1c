"""Autoencoder of voxel images: convolutions to a latent code and back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch.nn.functional import binary_cross_entropy_with_logits


class ImageOutput(torch.nn.Module):
    """Abstract base class of the last step of a decoder: from the numbers of its last convolution to an image."""

    @abstractmethod
    def image(self, raw: torch.Tensor) -> torch.Tensor:
        """Return images with values from 0 to 1."""

    @abstractmethod
    def loss(self, raw: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Return the losses, shape ``(batch,)``, of images of shape ``(batch, 1, n, n, n)``, summed over voxels."""


class ClampedOutput(ImageOutput):
    """Output times 2500, cut off at 0 and 1, with the squared error, as published.

    Voxels that are cut off have no gradient.
    """

    def image(self, raw: torch.Tensor) -> torch.Tensor:
        """Return the clamped multiple."""
        return (2500 * raw).clamp(0, 1)

    def loss(self, raw: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Return the squared error."""
        return (self.image(raw) - image).square().flatten(1).sum(1)


class LogisticOutput(ImageOutput):
    """Logistic function with the cross entropy, which has a gradient at every voxel.

    The entropy of the image is subtracted, so that a perfect image has a loss of 0. The learned offset begins at the
    value of nearly empty images.
    """

    def __init__(self) -> None:
        super().__init__()
        self.offset = torch.nn.Parameter(torch.tensor(-6.0))

    def image(self, raw: torch.Tensor) -> torch.Tensor:
        """Return the logistic function."""
        return (raw + self.offset).sigmoid()

    def loss(self, raw: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Return the relative entropy of the voxels."""
        image = image.clamp(0, 1)
        least = -(torch.xlogy(image, image) + torch.xlogy(1 - image, 1 - image))
        return (binary_cross_entropy_with_logits(raw + self.offset, image, reduction="none") - least).flatten(1).sum(1)


def plain(channels: int) -> torch.nn.Module:
    """Return the leaky rectifier that follows a convolution, as published."""
    return torch.nn.LeakyReLU(0.2)


def normalised(channels: int) -> torch.nn.Module:
    """Return a normalisation of groups of channels (doi:10.48550/arXiv.1803.08494) and a smooth rectifier.

    Images are nearly empty. Without a normalisation, the first hundreds of steps learn the mean image only.
    """
    groups = next(n for n in (4, 3, 2, 1) if channels % n == 0)
    return torch.nn.Sequential(torch.nn.GroupNorm(groups, channels), torch.nn.SiLU())


class ImageAutoencoder(torch.nn.Module):
    """Convolutions of 4³ voxels with stride 2 without biases, a dense layer with tanh, and the mirrored decoder.

    A dense layer is a convolution over all remaining voxels.

    Parameters
    ----------
    voxels
        Voxels along an edge of an image, a power of 2.
    channels
        Channels of the first convolution.
    widening
        Factor of the number of channels from one convolution to the next.
    code
        Length of the latent code.
    activation
        Function that returns what follows a convolution of a number of channels: :func:`plain` or :func:`normalised`.
    output
        Last step of the decoder.
    end
        Voxels along an edge at which the convolutions end, a power of 2.
    bias
        Whether the dense layers have biases. Without them, and with an activation and an output that map zero to zero,
        an empty image has the code zero.
    """

    def __init__(
        self,
        voxels: int,
        channels: int,
        widening: int,
        code: int,
        activation: Callable[[int], torch.nn.Module],
        output: ImageOutput,
        *,
        end: int = 2,
        bias: bool = True,
    ) -> None:
        super().__init__()
        depth = (voxels // end).bit_length() - 1
        if depth < 1 or end << depth != voxels:
            raise ValueError(f"the voxels along an edge of an image must be a power of 2 from {2 * end}, not {voxels}")
        widths = [channels * widening**layer for layer in range(depth)]
        flat = widths[-1] * end**3
        down: list[torch.nn.Module] = []
        up: list[torch.nn.Module] = [torch.nn.Linear(code, flat, bias), torch.nn.Unflatten(1, (-1, *(end,) * 3))]
        for before, after in pairwise([1, *widths]):
            down += [torch.nn.Conv3d(before, after, 4, 2, 1, bias=False), activation(after)]
        for before, after in pairwise([*widths[::-1], 1]):
            up += [activation(before), torch.nn.ConvTranspose3d(before, after, 4, 2, 1, bias=False)]
        self.encoder = torch.nn.Sequential(
            *down, torch.nn.Flatten(), torch.nn.Linear(flat, code, bias), torch.nn.Tanh()
        )
        self.decoder = torch.nn.Sequential(*up)
        self.output = output

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Return the latent codes of images of shape ``(batch, 1, n, n, n)``, values from -1 to 1."""
        return self.encoder(images)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the images of latent codes, values from 0 to 1."""
        return self.output.image(self.decoder(codes))

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the error of reconstruction of the batch's ``image``."""
        image = batch["image"]
        return {"image": self.output.loss(self.decoder(self.encode(image)), image)}
