"""The network of coordinates and lattice: what it cannot see, and what it depends on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from crystals import random_crystal
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.generators.joint.network import Architecture, JointNetwork, cells
from hybridcsp.structure.lattice import cell_of

SMALL = Architecture(width=24, message=16, pair=16, layers=2, frequencies=4)


def network(seed: int = 0) -> JointNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = JointNetwork(SMALL)
        torch.nn.init.normal_(made.told.weight)  # pressure does not count before it is learned
        return made.double().eval()


def state(seed: int, numbers=(22, 22, 8, 8, 8, 8)) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    metric = torch.tensor([[1.2, 1.3, 1.4, 0.05, -0.1, 0.0]]).double()
    return {
        "numbers": torch.tensor([numbers]),
        "positions": torch.rand(1, len(numbers), 3, generator=draw, dtype=torch.float64),
        "lattice": torch.randn(1, 6, generator=draw, dtype=torch.float64),
        "metric": metric,
        "time": torch.tensor([0.3]).double(),
        "spacegroup": torch.tensor([136]),
        "energy": torch.tensor([[0.1, 1.0]]).double(),
        "pressure": torch.tensor([[0.4, 1.0]]).double(),
    }


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_velocities_are_equivariant_under_permutation_and_invariant_under_translation(seed):
    net, given_state = network(), state(seed)
    with torch.no_grad():
        velocity, strain = net(**given_state)
        order = torch.tensor(np.random.default_rng(seed).permutation(6))
        moved = dict(given_state, numbers=given_state["numbers"][:, order])
        moved["positions"] = (given_state["positions"][:, order] + torch.rand(3).double()) % 1.0
        velocity_then, strain_then = net(**moved)
    torch.testing.assert_close(velocity_then, velocity[:, order], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(strain_then, strain, atol=1e-6, rtol=1e-5)
    assert velocity.mean(1).abs().max() < 1e-12
    assert velocity.abs().max() > 1e-3  # there is something that could be wrong


def test_velocities_are_independent_of_padding():
    net, short = network(), state(3)
    padded = dict(short, numbers=torch.cat([short["numbers"], torch.zeros(1, 2, dtype=torch.int64)], 1))
    padded["positions"] = torch.cat([short["positions"], torch.rand(1, 2, 3).double()], 1)
    with torch.no_grad():
        (velocity, strain), (velocity_then, strain_then) = net(**short), net(**padded)
    torch.testing.assert_close(velocity_then[:, :6], velocity)
    torch.testing.assert_close(strain_then, strain)
    assert (velocity_then[:, 6:] == 0).all()


@pytest.mark.parametrize("what", ["positions", "lattice", "time", "spacegroup", "energy", "pressure", "numbers"])
def test_velocities_depend_on_all_inputs(what):
    net, first = network(), state(1)
    second = dict(first, **{what: first[what] + 1 if what == "spacegroup" else state(2)[what]})
    if what == "time":
        second["time"] = first["time"] + 0.3
    elif what in ("energy", "pressure"):
        second[what] = torch.tensor([[0.0, 0.0]]).double()
    elif what == "numbers":
        second["numbers"] = torch.tensor([[22, 22, 8, 8, 8, 16]])
    with torch.no_grad():
        assert (net(**first)[0] - net(**second)[0]).abs().max() > 1e-6


def test_pair_features_are_those_of_the_nearest_image():
    atoms = random_crystal("Ti2O4", 12.0, np.random.default_rng(4))
    net = network()
    k = torch.tensor([0.5 * np.log(30.0), 0.9, 1.1, 0.1, 0.0, -0.2]).double()[None]
    cell = cell_of(k[0].numpy())
    np.testing.assert_allclose(cells(k)[0].numpy(), cell, atol=1e-6)
    atoms.set_cell(cell, scale_atoms=True)
    positions = torch.tensor(atoms.get_scaled_positions())[None]
    found = net._geometry(torch.tensor(atoms.numbers)[None], positions, k)[0]
    frequencies = SMALL.frequencies
    centres = 0.5 + 0.15 * np.arange(12)
    near = found[..., 6 * frequencies : 6 * frequencies + 12].numpy()
    radii = net.radii[torch.tensor(atoms.numbers)].numpy()
    expected = atoms.get_all_distances(mic=True) / (radii[:, None] + radii)
    for i, j in [(0, 1), (0, 3), (4, 5)]:
        np.testing.assert_allclose(near[i, j], np.exp(-0.5 * ((expected[i, j] - centres) / 0.12) ** 2), atol=1e-4)
