"""Predictions do not depend on how a crystal is described, and are smooth functions of its geometry."""

import copy

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hybridcsp.predictors.graphs import NearestNeighbours, SmoothNeighbours
from hybridcsp.predictors.network import batch_of
from hybridcsp.predictors.registry import PREDICTORS

NAMES = ("cgcnn", "equivariant")


def network_of(name, configuration="corrected"):
    torch.manual_seed(3)
    return PREDICTORS[name].load().configured(configuration).network().eval()


NETWORKS = {name: network_of(name) for name in NAMES}


def predicted(network, crystal):
    with torch.no_grad():
        return float(network.predict(batch_of([network.neighbourhood.graph(crystal)]))[0])


def crystal(seed):
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(4, 6, 3)) + rng.uniform(-0.8, 0.8, (3, 3))
    corners = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    return Atoms("TiO2N", cell=cell, scaled_positions=corners + rng.uniform(-0.1, 0.1, (4, 3)), pbc=True)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=12, deadline=None)
def test_descriptions_of_one_crystal_have_one_prediction(name, seed):
    network, rng = NETWORKS[name], np.random.default_rng(seed)
    one = crystal(seed)
    expected = predicted(network, one)

    rotated = one.copy()
    rotation = Rotation.random(random_state=seed).as_matrix() * rng.choice([-1, 1])
    rotated.set_cell(one.cell.array @ rotation.T)
    rotated.set_positions(one.positions @ rotation.T)
    translated = one.copy()
    translated.translate(rng.uniform(-5, 5, 3))
    translated.wrap()
    sheared = one.copy()
    sheared.set_cell(np.array([[1, 1, 0], [0, 1, 0], [0, -1, 1]]) @ one.cell.array)
    images = one.copy()
    images.positions += rng.integers(-2, 3, (4, 3)) @ one.cell.array
    for other in (rotated, translated, one[rng.permutation(4)], sheared, images):
        assert predicted(network, other) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("matrix", [np.diag([2, 1, 1]), [[1, 1, 0], [-1, 1, 0], [0, 0, 2]]])
def test_supercells_have_the_prediction_of_the_cell(name, matrix):
    one = crystal(5)
    assert predicted(NETWORKS[name], make_supercell(one, matrix)) == pytest.approx(
        predicted(NETWORKS[name], one), abs=2e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_equally_distant_neighbours_are_treated_equally(name):
    # Each atom of bcc iron has 8 neighbours and then 6 at one distance, of which the twelfth is one.
    one = bulk("CsCl", "cesiumchloride", 4.1)
    one.numbers[:] = [26, 28]
    other = make_supercell(one, [[1, 1, 0], [0, 1, 1], [1, 0, 1]])[[3, 0, 2, 1]]
    assert predicted(NETWORKS[name], other) == pytest.approx(predicted(NETWORKS[name], one), abs=2e-5)
    assert set(np.bincount(SmoothNeighbours().graph(one).centre)) == {14}
    assert set(np.bincount(NearestNeighbours().graph(one).centre)) == {12}


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_finite_differences(name):
    network = copy.deepcopy(NETWORKS[name]).double()
    batch = batch_of([network.neighbourhood.graph(crystal(1))])
    batch["vectors"] = batch["vectors"].double().requires_grad_()
    (gradient,) = torch.autograd.grad(network.predict(batch)[0], batch["vectors"])
    rng = np.random.default_rng(0)
    direction = torch.tensor(rng.normal(size=gradient.shape))
    steps = []
    for sign in (1, -1):
        moved = {**batch, "vectors": batch["vectors"].detach() + sign * 1e-6 * direction}
        steps.append(float(network.predict(moved)[0]))
    assert float((gradient * direction).sum()) == pytest.approx((steps[0] - steps[1]) / 2e-6, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_change_smoothly_when_neighbours_exchange_ranks(name):
    one = crystal(2)
    values = []
    for shift in np.linspace(0, 0.6, 61):
        moved = one.copy()
        moved.positions[0, 0] += shift
        values.append(predicted(NETWORKS[name], moved))
    steps = np.abs(np.diff(values))
    assert steps.max() < 0.2 * np.ptp(values) + 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_all_weights_learn_and_batches_do_not_matter(name):
    network = copy.deepcopy(NETWORKS[name]).train()
    graphs = [network.neighbourhood.graph(crystal(seed)) for seed in range(3)]
    together = network.predict(batch_of(graphs))
    alone = [float(network.predict(batch_of([graph]))[0]) for graph in graphs]
    assert together.tolist() == pytest.approx(alone, abs=2e-5)
    together.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters() if p.numel())


def test_published_network_has_the_size_of_the_paper():
    assert 80_000 < sum(p.numel() for p in network_of("cgcnn", "published").parameters()) < 82_000


def test_graphs_of_isolated_and_wide_crystals():
    alone = Atoms("Ar", cell=[30, 30, 30], pbc=True)
    assert len(SmoothNeighbours().graph(alone).centre) == 0
    for network in NETWORKS.values():
        assert np.isfinite(predicted(network, alone))
        assert np.isfinite(
            predicted(network, Atoms("Ar2", cell=[7, 9, 30], scaled_positions=[[0] * 3, [0.5] * 3], pbc=True))
        )
