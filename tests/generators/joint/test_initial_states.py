"""Initial states of samples: conditions, space groups, batches."""

from __future__ import annotations

import numpy as np
import torch

from hybridcsp.generators.base import Request
from hybridcsp.generators.joint.initial_states import InitialState, atomic_numbers_of, batches, with_space_groups
from hybridcsp.generators.joint.network import SpacegroupPrior


def test_initial_states_have_the_requested_conditions():
    request = Request(contents={"Cu": 1}, energy_quantile=0.25, pressure_gpa=30.0, spacegroup=225)
    start = InitialState.sample(0, request, atomic_numbers_of({"Cu": 1}), np.random.default_rng(0))
    assert (start.energy, start.pressure, start.spacegroup) == ((0.25, 1.0), (0.5, 1.0), 225)
    nothing = InitialState.sample(
        0, Request(contents={"Cu": 1}), atomic_numbers_of({"Cu": 1}), np.random.default_rng(0)
    )
    assert (nothing.energy, nothing.pressure, nothing.spacegroup) == ((0.0, 0.0), (0.0, 0.0), None)


def test_space_groups_of_equal_requests_are_sampled_systematically():
    torch.manual_seed(0)
    prior = SpacegroupPrior().eval()
    starts = [
        InitialState.sample(
            i, Request(contents=one, spacegroup=group), atomic_numbers_of(one), np.random.default_rng(i)
        )
        for i, (one, group) in enumerate([({"Ti": 2, "O": 4}, None)] * 400 + [({"Cu": 1}, None), ({"Cu": 1}, 227)])
    ]
    told = with_space_groups(prior, starts, np.random.default_rng(0))
    assert told[-1].spacegroup == 227  # asked for
    with torch.no_grad():
        chances = prior(torch.tensor([[22, 22, 8, 8, 8, 8]]))[0].exp().numpy()
    found = np.bincount([start.spacegroup for start in told[:400]], minlength=231)
    np.testing.assert_allclose(found, 400 * chances, atol=1.0)
    assert found[0] == 0
    order = [chances[start.spacegroup] for start in told[:400]]
    assert order == sorted(order, reverse=True)


def test_batches_have_every_state_once_and_similar_sizes():
    sizes = [3, 20, 4, 1, 4, 19, 60, 2, 200]
    starts = [
        InitialState.sample(i, Request(contents={"Cu": n}), atomic_numbers_of({"Cu": n}), np.random.default_rng(0))
        for i, n in enumerate(sizes)
    ]
    found = [[len(start.numbers) for start in batch] for batch in batches(starts)]
    assert found == [[1], [2], [3], [4, 4], [19, 20], [60], [200]]
