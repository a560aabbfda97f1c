"""Noise of coordinates and lattices, and the steps that remove it, against exact results."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hybridcsp.errors import InputError
from hybridcsp.generators.diffusion.configurations import CONFIGURATIONS
from hybridcsp.generators.diffusion.coordinates import Ancestral, CoordinateNoise, ProbabilityFlow
from hybridcsp.generators.diffusion.lattices import LatticeContext, LatticeMatrices, LogLattices
from hybridcsp.generators.diffusion.sampling import Sampling
from hybridcsp.generators.diffusion.wrapped_normal import score

CONTEXT = LatticeContext(
    mean=torch.zeros(6).double(), spread=torch.full((6,), 0.3).double(), lengths=torch.tensor([[1.4] * 3 + [0.0] * 3])
)


def normal(*shape, seed=0):
    return torch.as_tensor(np.random.default_rng(seed).standard_normal(shape))


def test_published_noise_is_that_of_the_authors():
    published = CONFIGURATIONS["published"]
    sigmas = published.coordinates.sigmas
    assert (sigmas[0], len(sigmas)) == (0, 1001)
    np.testing.assert_allclose(sigmas[[1, 1000]], [0.005, 0.5])
    ratios = sigmas[2:] / sigmas[1:-1]
    np.testing.assert_allclose(ratios, 100 ** (1 / 999))
    assert published.sampling == Sampling(steps=1000, correction=1e-5)


def test_variance_of_lattices_follows_a_cosine():
    kept = LogLattices(1000).kept.numpy()
    assert kept[0] == 1
    added = 1 - kept[1:] / kept[:-1]
    assert added.min() == pytest.approx(1e-4)
    assert added.max() == pytest.approx(0.9999)
    level = np.arange(100, 1000)  # where no limit applies
    expected = np.cos((level / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
    np.testing.assert_allclose(kept[level], expected / expected[0] * kept[100], rtol=1e-9)
    np.testing.assert_allclose(kept[100], expected[0] / math.cos(0.008 / 1.008 * math.pi / 2) ** 2, rtol=2e-3)


def test_scores_of_noise_have_no_mean_and_padding_has_none():
    noise = CoordinateNoise(10)
    present = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).double()
    level = torch.tensor([3, 9])
    positions, drawn = torch.rand(2, 4, 3).double(), normal(2, 4, 3)
    noisy, scores = noise.noisy(positions, present, level, drawn)
    assert ((noisy >= 0) & (noisy < 1)).all()
    np.testing.assert_allclose(scores.sum(1), 0, atol=1e-12)
    assert (scores[0, 3] == 0).all()
    sigma = noise.sigmas[3]
    plain = score(sigma * drawn[0, :3], sigma.expand(3, 3)) / noise.units[3]
    np.testing.assert_allclose(scores[0, :3], plain - plain.mean(0))


def test_ancestral_steps_keep_the_distribution():
    """Noise around one point, removed in part, is the narrower noise around it."""
    noise = CoordinateNoise(20, smallest=0.01, largest=0.06)  # so narrow that nothing is wrapped
    now, then = 18, 11
    x = float(noise.sigmas[now]) * normal(200_000)
    scores = score(x, noise.sigmas[now].expand_as(x))
    ancestral = Ancestral()
    moved = ancestral.step(noise, x, scores, (now, then))
    moved = moved + ancestral.deviation(noise, (now, then)) * normal(200_000, seed=1)
    assert float(moved.std()) == pytest.approx(float(noise.sigmas[then]), rel=0.01)
    followed = ProbabilityFlow().step(noise, x, scores, (now, then))
    np.testing.assert_allclose(followed / x, noise.sigmas[then] / noise.sigmas[now], rtol=1e-6)


@pytest.mark.parametrize("predictor", [Ancestral(), ProbabilityFlow()])
def test_exact_scores_lead_from_uniform_coordinates_to_the_crystal(predictor):
    noise = CoordinateNoise(1000)
    target = torch.tensor([0.1, 0.4, 0.95]).double()
    x = torch.as_tensor(np.random.default_rng(2).random((500, 3)))
    for now, then in Sampling(steps=60, correction=0.0).pairs(1000):
        scores = score(x - target, noise.sigmas[now].expand_as(x))
        kick = predictor.deviation(noise, (now, then)) * normal(500, 3, seed=now)
        x = (predictor.step(noise, x, scores, (now, then)) + kick) % 1.0
    apart = x - target
    assert (apart - apart.round()).abs().max() < 1e-6


@pytest.mark.parametrize("noise", [LogLattices(1000), LatticeMatrices(1000)])
def test_steps_of_lattices_are_those_of_denoising_diffusion(noise):
    """Against the mean and the variance in Ho et al., arXiv:2006.11239, equations 7 and 11."""
    clean, drawn = 0.7 * normal(4, *noise.shape, seed=1), normal(4, *noise.shape)
    for now, then in ((1000, 999), (500, 499), (2, 1), (600, 580)):
        kept, kept_then = noise.kept[now], noise.kept[then]
        alpha = kept / kept_then
        level = torch.full((4,), now)
        state = noise.noisy(clean, level, drawn)
        told, dust = noise._clean_and_noise(noise.target(clean, level, drawn), state, now)
        np.testing.assert_allclose(dust, drawn, atol=1e-9)
        np.testing.assert_allclose(told, clean, atol=1e-6)
        mean = (state - (1 - alpha) / (1 - kept).sqrt() * drawn) / alpha.sqrt()
        deviation = noise.deviation((now, then))
        found = math.sqrt(kept_then) * told + math.sqrt(1 - kept_then - deviation**2) * dust
        np.testing.assert_allclose(found, mean, atol=1e-6)
        variance = (1 - kept_then) / (1 - kept) * (1 - alpha)
        assert deviation**2 == pytest.approx(float(variance), rel=1e-9)
    assert noise.deviation((1, 0)) == 0


def test_exact_velocities_lead_to_the_lattice():
    noise = LogLattices(1000)
    clean, state = 0.5 * normal(8, 6), normal(8, 6, seed=1)
    for now, then in Sampling(steps=50, correction=0.0).pairs(1000):
        kept = noise.kept[now]
        dust = (state - kept.sqrt() * clean) / (1 - kept).sqrt()
        velocity = noise.target(clean, torch.full((8,), now), dust)
        state = noise.step(state, velocity, (now, then)) + noise.deviation((now, then)) * normal(8, 6, seed=now)
    np.testing.assert_allclose(state, clean, atol=1e-9)


def test_predicted_noise_of_matrices_turns_with_them():
    noise = LatticeMatrices(10)
    rotation = torch.linalg.qr(normal(3, 3, seed=3))[0]
    state, found = normal(2, 3, 3), normal(2, 6, seed=1)
    for one, other in zip(noise.read(state, CONTEXT), noise.read(state @ rotation, CONTEXT), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_allclose(noise.prediction(found, state @ rotation), noise.prediction(found, state) @ rotation)


def test_matrices_are_read_as_the_log_lattices_that_they_come_from():
    noise, lattices = LatticeMatrices(10), normal(5, 6)
    read, metric = noise.read(noise.clean(lattices, CONTEXT), CONTEXT)
    np.testing.assert_allclose(read, lattices, atol=1e-6)
    np.testing.assert_allclose(metric, lattices * CONTEXT.spread + CONTEXT.mean + CONTEXT.lengths, atol=1e-6)
    flat = torch.zeros(1, 3, 3).double()
    assert all(torch.isfinite(one).all() for one in noise.read(flat, CONTEXT))


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"steps": 0, "correction": 0.0}, "a whole number from 1 to 100"),
        ({"steps": 101, "correction": 0.0}, "a whole number from 1 to 100"),
        ({"steps": 5, "correction": -1.0}, "a number from 0"),
        ({"steps": 5, "correction": 0.0, "guidance": math.nan}, "a number from 0"),
    ],
)
def test_settings_out_of_their_ranges_are_refused(settings, allowed):
    with pytest.raises(InputError, match=allowed):
        Sampling(**settings).check(100)


def test_steps_begin_at_the_last_level_and_end_at_none():
    pairs = list(Sampling(steps=7, correction=0.0).pairs(10))
    assert (pairs[0][0], pairs[-1][1], len(pairs)) == (10, 0, 7)
    assert all(now > then for now, then in pairs)
