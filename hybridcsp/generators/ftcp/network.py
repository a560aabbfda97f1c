"""Variational autoencoder of matrices of crystals, with a branch that predicts properties.

The architecture of FTCP (Ren et al., Matter 5, 314 (2022), doi:10.1016/j.matt.2021.11.032): convolutions along the rows
of the matrix, whose columns are channels, and a branch from the mean of the latent vector to the properties.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Kernels and strides of the three convolutions.
KERNELS, STRIDES = (5, 3, 3), (2, 2, 1)
#: The number of rows is padded to a multiple of this, the product of the strides.
ROWS = 4
#: Weight of the squared error of the scaled properties in the loss, as published.
PROPERTY_WEIGHT = 10.0


@dataclass(frozen=True, kw_only=True)
class FtcpArchitecture:
    """Sizes of the network; the defaults are the published ones.

    Attributes
    ----------
    channels
        Channels after the last convolution; half and a quarter of it after the others.
    hidden
        Width of the dense layer between the convolutions and the latent vector.
    latent
        Dimensions of the latent vector.
    branch
        Width of the first layer of the branch of properties; that of the second is a quarter of it.
    """

    channels: int = 128
    hidden: int = 1024
    latent: int = 256
    branch: int = 128


#: Sizes by name; the compact ones are trained on 7,000 crystals within an hour on two cores.
SIZES = {"published": FtcpArchitecture(), "compact": FtcpArchitecture(channels=64, hidden=512, latent=128)}


class Divergence(ABC):
    """Abstract base class of the way in which the divergence of the latent distribution counts in the loss."""

    @abstractmethod
    def term(self, each: Tensor) -> Tensor:
        """Return the term of the loss, shape ``(batch,)``.

        Parameters
        ----------
        each
            Kullback-Leibler divergence of each latent dimension from the standard normal distribution, shape
            ``(batch, latent)``.
        """


@dataclass(frozen=True)
class SummedDivergence(Divergence):
    """Sum over the latent dimensions, as in the evidence lower bound of a decoder with a given variance.

    Attributes
    ----------
    weight
        Weight relative to the squared error of the scaled matrix.
    """

    weight: float = 0.01

    def term(self, each: Tensor) -> Tensor:
        """Return the weighted sum."""
        return self.weight * each.sum(dim=1)


@dataclass(frozen=True)
class PublishedDivergence(Divergence):
    """Mean over the latent dimensions and over the batch, as in the authors' code.

    Their squared error is a sum over the batch, so that the divergence counts 1 / (latent dimensions x batch) times as
    much as in an evidence lower bound.

    Attributes
    ----------
    weight
        Weight.
    """

    weight: float = 2.0

    def term(self, each: Tensor) -> Tensor:
        """Return the weighted mean over the latent dimensions, divided by the number of crystals in the batch."""
        return self.weight * each.mean(dim=1) / len(each)


class FourierAutoencoder(nn.Module):
    """Variational autoencoder of scaled matrices, as published.

    Parameters
    ----------
    entry_weights
        Weight of each entry of a matrix in the reconstruction error; its shape is that of the matrices, ``(rows,
        columns)``, and the number of rows is a multiple of :data:`ROWS`.
    properties
        Number of properties; 0 if there is no branch.
    architecture
        Sizes.
    divergence
        Term of the divergence in the loss.
    """

    #: Momentum of the running mean and variance in batch normalisation, that of Keras.
    momentum: ClassVar[float] = 0.01

    def __init__(self, entry_weights: Tensor, properties: int, architecture: FtcpArchitecture, divergence: Divergence):
        super().__init__()
        rows, columns = entry_weights.shape
        size = architecture
        narrow, middle, wide = size.channels // 4, size.channels // 2, size.channels
        self.divergence = divergence
        self.register_buffer("entry_weights", entry_weights.float(), persistent=False)
        self._length = rows // ROWS
        self._wide = wide
        self.encoding = nn.Sequential(
            *self._down(columns, narrow, KERNELS[0], STRIDES[0]),
            *self._down(narrow, middle, KERNELS[1], STRIDES[1]),
            *self._down(middle, wide, KERNELS[2], STRIDES[2]),
            nn.Flatten(),
            nn.Linear(wide * self._length, size.hidden),
        )
        self.activation: nn.Module = nn.Sigmoid()
        self.mean = nn.Linear(size.hidden, size.latent)
        self.log_variance = nn.Linear(size.hidden, size.latent)
        self.expanding = nn.Sequential(nn.Linear(size.latent, wide * self._length), nn.ReLU())
        self.decoding = nn.Sequential(
            self._norm(wide),
            *self._up(wide, middle, KERNELS[2], STRIDES[2]),
            *self._up(middle, narrow, KERNELS[1], STRIDES[1]),
            _transposed(narrow, columns, KERNELS[0], STRIDES[0]),
        )
        self.branch: nn.Module | None = None
        if properties:
            self.branch = nn.Sequential(
                nn.ReLU(),
                nn.Linear(size.latent, size.branch),
                nn.ReLU(),
                nn.Linear(size.branch, max(1, size.branch // 4)),
                nn.ReLU(),
                nn.Linear(max(1, size.branch // 4), properties),
                nn.Sigmoid(),
            )
        self.apply(_initialise)

    def encode(self, matrices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means and the logarithms of the variances of latent vectors, shape ``(batch, latent)`` each.

        Parameters
        ----------
        matrices
            Scaled matrices, shape ``(batch, rows, columns)``.
        """
        hidden = self.activation(self._hidden(matrices))
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, latent: Tensor) -> Tensor:
        """Return scaled matrices, shape ``(batch, rows, columns)``, of latent vectors, shape ``(batch, latent)``."""
        return torch.sigmoid(self._logits(latent))

    def predict(self, latent: Tensor) -> Tensor:
        """Return the scaled properties, shape ``(batch, properties)``, for latent vectors."""
        if self.branch is None:
            return latent.new_zeros(len(latent), 0)
        predicted: Tensor = self.branch(latent)
        return predicted

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the terms of the loss, shape ``(batch,)`` each.

        Parameters
        ----------
        batch
            ``matrices``; ``properties``, scaled, shape ``(batch, properties)``; and ``known``, 1 where a property is
            known and 0 elsewhere, of the same shape.
        """
        matrices = batch["matrices"]
        mean, log_variance = self.encode(matrices)
        log_variance = log_variance.clamp(-20.0, 20.0)
        # Noise from the generator of the CPU is the same on every device.
        noise = torch.randn(mean.shape, device="cpu").to(mean) if self.training else torch.zeros_like(mean)
        decoded = self.decode(mean + (log_variance / 2).exp() * noise)
        each = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        terms = {
            "reconstruction": ((decoded - matrices).square() * self.entry_weights).sum(dim=(1, 2)),
            "divergence": self.divergence.term(each),
        }
        if self.branch is not None:
            errors = (self.predict(mean) - batch["properties"]).square() * batch["known"]
            terms["properties"] = PROPERTY_WEIGHT * errors.sum(dim=1)
        return terms

    def _hidden(self, matrices: Tensor) -> Tensor:
        """Return the features of matrices, shape ``(batch, hidden)``."""
        hidden: Tensor = self.encoding(matrices.transpose(1, 2))
        return hidden

    def _logits(self, latent: Tensor) -> Tensor:
        """Return scaled matrices before the sigmoid."""
        expanded = self.expanding(latent).reshape(len(latent), self._wide, self._length)
        decoded: Tensor = self.decoding(expanded)
        return decoded.transpose(1, 2)

    def _norm(self, channels: int) -> nn.Module:
        return nn.BatchNorm1d(channels, eps=1e-3, momentum=self.momentum)

    def _down(self, before: int, after: int, kernel: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv1d(before, after, kernel, stride)
        return [_SamePadding(kernel, stride), convolution, self._norm(after), nn.LeakyReLU(0.2)]

    def _up(self, before: int, after: int, kernel: int, stride: int) -> list[nn.Module]:
        return [_transposed(before, after, kernel, stride), self._norm(after), nn.ReLU()]


class DirectAutoencoder(FourierAutoencoder):
    """Variational autoencoder with dense layers for the rows of real space, besides the convolutions.

    These rows (elements, cell, coordinates and occupancies) are of different kinds, and crystals are decoded from them
    alone. A convolution applies the same weights to all of them. Here dense layers add to its result, in the encoder
    and in the decoder.

    Parameters
    ----------
    entry_weights, properties, architecture, divergence
        As in :class:`FourierAutoencoder`.
    real_space
        Numbers of the first rows and columns that describe real space.
    """

    momentum = 0.1

    def __init__(
        self,
        entry_weights: Tensor,
        properties: int,
        architecture: FtcpArchitecture,
        divergence: Divergence,
        *,
        real_space: tuple[int, int],
    ):
        super().__init__(entry_weights, properties, architecture, divergence)
        rows, columns = self._real_space = real_space
        hidden = architecture.hidden
        self.activation = nn.LeakyReLU(0.2)
        self.reading = nn.Sequential(nn.Linear(rows * columns, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden))
        self.writing = nn.Sequential(
            nn.Linear(architecture.latent, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, rows * columns),
        )
        self.reading.apply(_initialise)
        self.writing.apply(_initialise)

    def _hidden(self, matrices: Tensor) -> Tensor:
        rows, columns = self._real_space
        read: Tensor = self.reading(matrices[:, :rows, :columns].flatten(1))
        return super()._hidden(matrices) + read

    def _logits(self, latent: Tensor) -> Tensor:
        rows, columns = self._real_space
        logits = super()._logits(latent)
        written = self.writing(latent).reshape(len(latent), rows, columns)
        beyond = (0, logits.shape[2] - columns, 0, logits.shape[1] - rows)
        return logits + functional.pad(written, beyond)


class _SamePadding(nn.Module):
    """Padding with which a convolution of stride s gives 1 / s of the length, as ``padding="same"`` does in Keras."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        total = max(kernel - stride, 0)
        self._sides = total // 2, total - total // 2

    def forward(self, values: Tensor) -> Tensor:
        return functional.pad(values, self._sides)


def _transposed(before: int, after: int, kernel: int, stride: int) -> nn.Module:
    return nn.ConvTranspose1d(before, after, kernel, stride, padding=(kernel - 1) // 2, output_padding=stride - 1)


def _initialise(layer: nn.Module) -> None:
    """Draw weights from Glorot's uniform distribution, and set biases to 0, as Keras does."""
    if isinstance(layer, nn.Linear | nn.Conv1d | nn.ConvTranspose1d):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
