"""The score of the wrapped normal distribution and its mean square, against values that are derived otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hybridcsp.generators.diffusion.wrapped_normal import mean_square_score, score

SIGMAS = (0.005, 0.02, 0.1, 0.3, 0.5, 0.8)


def by_fourier_series(x, sigma):
    """Return density and derivative by the theta function, whose terms fall where sums over images need many."""
    n = np.arange(1, 800)
    terms = np.exp(-2 * (math.pi * n * sigma) ** 2)
    angles = 2 * math.pi * np.multiply.outer(x, n)
    return 1 + 2 * np.cos(angles) @ terms, -4 * math.pi * np.sin(angles) @ (n * terms)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_score_is_that_of_the_fourier_series(sigma):
    x = np.random.default_rng(0).normal(0, sigma, 200)  # where the density does not vanish
    density, derivative = by_fourier_series(x, sigma)
    found = score(torch.as_tensor(x), torch.tensor(sigma).double().expand(200)).numpy()
    np.testing.assert_allclose(found, derivative / density, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_score_is_periodic_odd_and_finite_in_single_precision(sigma):
    x = torch.linspace(-0.49, 0.49, 99)
    wide = torch.tensor(sigma).expand(99)
    found = score(x, wide)
    assert torch.isfinite(found).all()  # where densities are zero in floating point, too
    torch.testing.assert_close(score(-x, wide), -found)
    torch.testing.assert_close(score(x + 3, wide), found, rtol=1e-3, atol=1e-3 / sigma**2)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_mean_square_score_is_that_of_random_numbers(sigma):
    rng = np.random.default_rng(1)
    x = rng.normal(0, sigma, 5_000)
    density, derivative = by_fourier_series(x, sigma)
    squares = (derivative / density) ** 2
    found = float(mean_square_score(torch.tensor([sigma]))[0])
    assert found == pytest.approx(squares.mean(), abs=5 * squares.std() / math.sqrt(len(squares)))


def test_mean_square_score_has_its_known_limits():
    narrow, wide = mean_square_score(torch.tensor([0.005, 0.8])).tolist()
    assert narrow == pytest.approx(1 / 0.005**2, rel=1e-6)
    # The density is 1 + 2 exp(-2 π² σ²) cos 2πx, apart from terms that vanish.
    assert wide == pytest.approx(8 * math.pi**2 * math.exp(-4 * (math.pi * 0.8) ** 2), rel=1e-3)
