"""Guidance by conditions in flow and diffusion."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ase.build import bulk

from hybridcsp.generators.base import Example, Request, Sample
from hybridcsp.generators.diffusion import DiffusionGenerator, Sampling
from hybridcsp.generators.flow import Architecture, FlowGenerator, Integration
from hybridcsp.generators.joint.conditioning import Conditions, NoisyCrystals, conditioned, guided
from hybridcsp.generators.joint.network import JointNetwork
from hybridcsp.generators.properties import PropertyTable

TINY = Architecture(width=16, message=12, pair=12, layers=1, frequencies=4)
SALT = {"Na": 1, "Cl": 1}
ABOVE = {"gap": (5.0, math.inf)}


def crystals():
    """Rock salt with a large volume and a gap, and caesium chloride with a small volume and none."""
    wide = [bulk("NaCl", "rocksalt", a=5.6 * scale) for scale in (0.98, 1.0, 1.02, 1.04)]
    narrow = [bulk("NaCl", "cesiumchloride", a=3.2 * scale) for scale in (0.98, 1.0, 1.02, 1.04)]
    return [Example(atoms=atoms, properties={"gap": 5.0 + 0.01 * i}) for i, atoms in enumerate(wide)] + [
        Example(atoms=atoms, properties={"gap": 0.01 * i}) for i, atoms in enumerate(narrow)
    ]


@pytest.fixture(scope="module", params=["flow", "diffusion"])
def learned(request):
    """A small generator that has learned the gap."""
    made = {
        "flow": lambda: FlowGenerator(TINY, Integration(steps=6)),
        "diffusion": lambda: DiffusionGenerator("corrected", TINY, Sampling(steps=6, correction=0.0)),
    }[request.param]()
    settings = {"batch_size": 16, "device": "cpu", "learning_rate": 0.01, "warm_up": 1, "averaging": 0.9}
    made.fit(crystals() * 8, epochs=20, **settings)
    return made


def drawn(generator, weight, targets=ABOVE, n=4):
    requests = [Request(contents=SALT, targets=targets, guidance=weight)] * n
    answers = generator.sample(requests, np.random.default_rng(3))
    return [answer.atoms for answer in answers if isinstance(answer, Sample)]


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a.positions, b.positions) and np.array_equal(a.cell, b.cell)
        for a, b in zip(first, second, strict=True)
    )


def test_weight_0_and_requests_without_targets_give_the_samples_without_guidance(learned):
    requests = [Request(contents=SALT, targets=ABOVE)] * 4
    plain = [
        answer.atoms for answer in learned.sample(requests, np.random.default_rng(3)) if isinstance(answer, Sample)
    ]
    assert same(drawn(learned, 0.0), plain)
    assert same(drawn(learned, 2.0, {}), drawn(learned, 0.0, {}))
    assert not same(drawn(learned, 2.0), plain)


def test_guided_samples_are_further_towards_the_target(learned):
    def size(weight):
        return float(np.mean([np.log(atoms.get_volume()) for atoms in drawn(learned, weight, n=24)]))

    assert size(2.0) > size(0.0) + 0.01


def test_guidance_is_that_of_each_request(learned):
    requests = [Request(contents=SALT, targets=ABOVE, guidance=weight) for weight in (0.0, 3.0, 0.0)]
    mixed = learned.sample(requests, np.random.default_rng(5))
    plain = learned.sample([Request(contents=SALT, targets=ABOVE)] * 3, np.random.default_rng(5))
    assert {len(one.atoms) for one in mixed} == {2}
    moved = [not np.allclose(a.atoms.positions, b.atoms.positions) for a, b in zip(mixed, plain, strict=True)]
    assert moved[1] or sum(moved) >= 1


def network_and_state():
    torch.manual_seed(0)
    network = JointNetwork(TINY)
    network.learn_properties(3)
    torch.nn.init.normal_(network.properties.weight)
    state = NoisyCrystals(
        numbers=torch.tensor([[11, 17], [11, 17]]),
        positions=torch.rand(2, 2, 3),
        lattice=torch.randn(2, 6),
        metric=torch.tensor([[1.3, 1.3, 1.3, 0.0, 0.0, 0.0]] * 2),
        time=torch.tensor([0.4, 0.6]),
    )
    conditions = Conditions(
        spacegroup=torch.tensor([225, 221]),
        energy=torch.zeros(2, 2),
        pressure=torch.zeros(2, 2),
        properties=torch.tensor([[1.0, 0.5, 0.0], [1.0, 1.0, 0.2]]),
        guidance=torch.tensor([0.0, 2.0]),
    )
    return network.eval(), state, conditions


@torch.no_grad()
def test_guidance_extrapolates_from_the_prediction_without_properties():
    network, state, conditions = network_and_state()
    plain = conditioned(network, state, conditions)
    without = Conditions(
        spacegroup=conditions.spacegroup, energy=conditions.energy, pressure=conditions.pressure, properties=None
    )
    free = conditioned(network, state, without)
    found = guided(network, state, conditions)
    for now, told, left in zip(found, plain, free, strict=True):
        assert torch.equal(now[0], told[0])
        torch.testing.assert_close(now[1], 3 * told[1] - 2 * left[1])
        assert (told[1] - left[1]).abs().max() > 1e-4
    group = conditioned(network, state, Conditions(**{**vars(conditions), "spacegroup": torch.zeros(2).long()}))
    found = guided(network, state, Conditions(**{**vars(conditions), "guidance": None}), by_spacegroup=0.5)
    for now, told, left in zip(found, plain, group, strict=True):
        torch.testing.assert_close(now, 1.5 * told - 0.5 * left)


def test_several_properties_are_hidden_together_often_enough():
    table = PropertyTable(np.ones((1, 6), dtype=np.float32), (2, 4, 6))
    rows = table.partly_hidden(np.zeros(20_000, dtype=int), np.random.default_rng(0))
    assert np.mean(~rows.any(1)) == pytest.approx(0.1 + 0.9 * 0.25**3, abs=0.01)
    assert np.mean(rows[:, 0] == 0) == pytest.approx(0.1 + 0.9 * 0.25, abs=0.015)
