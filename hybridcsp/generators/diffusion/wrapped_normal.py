"""The wrapped normal distribution on a circle of circumference 1: its score, and the mean square of the score."""

from __future__ import annotations

import torch
from torch import Tensor

# Numbers of periods to each side in sums over images; enough for standard deviations up to one period.
_PERIODS = 6
# Points of the numerical integral over the circle; a standard deviation of 0.005 spans five of their distances.
_POINTS = 1024


def score(displacement: Tensor, sigma: Tensor) -> Tensor:
    """Return the derivative of the logarithm of the density with respect to the displacement from the mean.

    Parameters
    ----------
    displacement
        Displacements from the mean; whole numbers can be added to them.
    sigma
        Standard deviations of the normal distribution that is wrapped, at most 1; shape that fits the displacements.

    Returns
    -------
    torch.Tensor
        Scores, shape of the displacements.
    """
    images = torch.arange(-_PERIODS, _PERIODS + 1, dtype=displacement.dtype, device=displacement.device)
    apart = (displacement - torch.round(displacement))[..., None] + images
    variance = sigma.square()[..., None]
    # Weights of the images, not their densities, which vanish in floating point a few standard deviations away.
    weights = torch.softmax(-apart.square() / (2 * variance), dim=-1)
    return -(weights * apart / variance).sum(-1)


def mean_square_score(sigma: Tensor) -> Tensor:
    """Return the mean squares of the score under the distribution, by integration over the circle.

    Parameters
    ----------
    sigma
        Standard deviations from 0.002 to 1, shape ``(n,)``.

    Returns
    -------
    torch.Tensor
        Mean squares in double precision, shape ``(n,)``. They are near 1 / sigma² for small standard deviations, and
        vanish for large ones.
    """
    points = torch.arange(_POINTS, dtype=torch.float64, device=sigma.device) / _POINTS - 0.5
    images = torch.arange(-_PERIODS, _PERIODS + 1, dtype=torch.float64, device=sigma.device)
    found = []
    for one in sigma.double():
        density = torch.exp(-((points[:, None] + images) ** 2) / (2 * one**2)).sum(-1)
        squares = score(points, one.expand(_POINTS)) ** 2
        found.append((density * squares).sum() / density.sum())
    return torch.stack(found)
