"""Networks of ccdcgan: crystal graphs, the published architecture, constraints, and what the losses teach."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hybridcsp.generators.ccdcgan.code_data import CodeData, PropertyData
from hybridcsp.generators.ccdcgan.crystal_graph import PlanarCrystalGraph
from hybridcsp.generators.ccdcgan.dense_networks import DenseNetworks
from hybridcsp.generators.ccdcgan.designs import published_autoencoder
from hybridcsp.generators.ccdcgan.graph_networks import GraphNetworks
from hybridcsp.generators.ccdcgan.model import CodeModel, Shape
from hybridcsp.generators.ccdcgan.sizes import SCALES, Sizes
from hybridcsp.generators.images.codes import Codes
from hybridcsp.generators.properties import PropertyTable

SIZES = Sizes(channels=2, site_code=16, cell_code=4, width=16, dense=32, noise=4)
SHAPE = Shape(n_elements=2, n_properties=1, n_features=2)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def codes(n: int = 4) -> Codes:
    return Codes(torch.rand(n, 4) * 1.6 - 0.8, torch.rand(n, 2, 16) * 1.6 - 0.8)


def property_data(values=(-1.0, 1.0, 0.5, np.nan)) -> PropertyData:
    contents = np.array([[1, 2], [2, 2], [3, 1], [1, 1]])
    return PropertyData(codes(), contents, np.array(values)[:, None], np.ones(4))


def batch(n: int = 64) -> dict[str, torch.Tensor]:
    table = PropertyTable(np.array([[1, 0.0], [1, 1.0], [1, 0.5], [0, 0]], dtype=np.float32), (2,))
    data = CodeData(property_data(), table, SIZES.noise, n)
    return dict(data.batch(np.arange(len(data.weights)), np.random.default_rng(0)))


class TestCrystalGraph:
    @pytest.mark.parametrize(("n_elements", "side"), [(1, 20), (2, 28), (3, 32), (6, 40)])
    def test_its_size_follows_from_the_number_of_elements(self, n_elements, side):
        graph = PlanarCrystalGraph(n_elements, 25, 200)
        given = Codes(torch.randn(3, 25), torch.randn(3, n_elements, 200))
        drawn = graph.draw(given)
        assert drawn.shape == (3, 1, side, side)
        for found, expected in zip(graph.read(drawn), given, strict=True):
            torch.testing.assert_close(found, expected)

    def test_two_elements_lie_where_the_authors_put_them(self):
        graph = PlanarCrystalGraph(2, 25, 200)
        given = Codes(torch.randn(1, 25), torch.randn(1, 2, 200))
        expected = np.zeros(784)
        expected[:25], expected[200:400], expected[400:600] = given.cell, given.sites[0, 0], given.sites[0, 1]
        np.testing.assert_array_equal(graph.draw(given).reshape(-1), expected.astype(np.float32))

    def test_the_code_of_the_cell_is_not_longer_than_that_of_an_element(self):
        with pytest.raises(ValueError, match="must not be longer"):
            PlanarCrystalGraph(2, 30, 20)


class TestPublished:
    def test_layers_have_the_shapes_of_the_authors_networks(self):
        sizes = SCALES["published"].sizes
        model = GraphNetworks(SHAPE, sizes)
        shapes = [list(p.shape) for p in model.generator.parameters() if p.ndim > 1]
        assert shapes == [[6272, 200], [128, 128, 3, 3], [64, 128, 3, 3], [1, 64, 3, 3]]
        shapes = [list(p.shape) for p in model.critic.parameters() if p.ndim > 1]
        assert shapes == [[32, 1, 3, 3], [64, 32, 3, 3], [128, 64, 3, 3], [256, 128, 3, 3], [1, 4096]]
        shapes = [list(p.shape) for p in model.constraint.parameters() if p.ndim == 2]
        assert shapes == [[1024, 4096], [256, 1024], [256, 256], [256, 256], [64, 256], [1, 64]]
        found = model.generate(torch.randn(2, 200), torch.ones(2, 2), torch.zeros(2, 2))
        assert [tuple(one.shape) for one in found] == [(2, 25), (2, 2, 200)]

    @pytest.mark.parametrize(("voxels", "code", "depth"), [(64, 200, 5), (32, 25, 4)])
    def test_image_networks_have_the_shapes_of_the_authors(self, voxels, code, depth):
        with torch.device("meta"):
            network = published_autoencoder(voxels, code, SCALES["published"].sizes)
        weights = dict(network.encoder.named_parameters())
        # The last of the authors' convolutions covers all 4 x 4 x 4 remaining voxels, as a dense layer does.
        assert len(weights) == depth
        assert not any(name.endswith("bias") for name in weights)
        assert list(weights.values())[-1].shape == (code, 64 * 4**3)
        assert len(list(network.decoder.parameters())) == depth

    def test_an_empty_image_has_the_code_zero(self):
        network = published_autoencoder(16, 8, SIZES)
        assert not network.encode(torch.zeros(1, 1, 16, 16, 16)).any()
        assert not network.decode(torch.zeros(1, 8)).any()

    def test_the_constraint_lowers_the_predicted_property(self):
        means = []
        for strength in (0.0, 3.0):
            torch.manual_seed(1)
            model = GraphNetworks(SHAPE, SIZES)
            learn(model.constraint, batch(8))
            means.append(trained(model, strength, steps=25))
        assert means[1] < means[0] - 0.1

    def test_a_frozen_constraint_stays_as_it_is(self):
        model = GraphNetworks(SHAPE, SIZES)
        model.constraint.freeze()
        before = {name: value.clone() for name, value in model.constraint.state_dict().items()}
        trained(model, 1.0, steps=2)
        after = model.constraint.state_dict()
        changed = [n for n in before if not torch.equal(before[n], after[n]) and not n.endswith("num_batches_tracked")]
        assert not changed
        model.constraint.thaw()
        assert all(value.requires_grad for value in model.constraint.parameters())


def trained(model: CodeModel, strength: float, steps: int = 30) -> float:
    """Train the generator against its first critic, and return the mean of the predicted property."""
    model.constraint.freeze()
    model.strength = strength
    given = batch()
    (turn,) = (turn for turn in model.turns() if turn.name == "generator")
    optimiser = torch.optim.Adam(turn.parameters, 0.003)
    model.train()
    for _ in range(steps):
        optimiser.zero_grad()
        torch.stack([term.mean() for term in turn.losses(given).values()]).sum().backward()
        optimiser.step()
    model.eval()
    with torch.no_grad():
        drawn = model.generate(given["noise"], given["contents"], given["features"])
        return float(model.constraint.predict(drawn, given["contents"]).mean())


class TestCorrected:
    def test_the_constraint_draws_samples_to_the_wanted_values(self):
        model = DenseNetworks(SHAPE, SIZES)
        model.adapt(codes())
        given = batch()
        learn(model.constraint, given)
        wrong = []
        for strength in (0.0, 10.0):
            trained(model, strength, steps=80)
            with torch.no_grad():
                drawn = model.generate(given["noise"], given["contents"], given["features"])
                error = model.constraint.predict(drawn, given["contents"]) - given["values"]
            wrong.append(float((error.square() * given["wanted"]).sum() / given["wanted"].sum()))
        assert wrong[1] < 0.3 * wrong[0]

    def test_competing_networks_have_gradients_everywhere(self):
        model = DenseNetworks(SHAPE, SIZES)
        model.adapt(codes())
        model.constraint.freeze()
        for turn in model.turns():
            torch.stack([term.sum() for term in turn.losses(batch()).values()]).sum().backward()
            assert all(value.grad is not None and value.grad.abs().max() > 0 for value in turn.parameters)
        assert all(value.grad is None for value in model.constraint.parameters())

    def test_the_constraint_drops_no_features_while_the_others_compete(self):
        model = DenseNetworks(SHAPE, SIZES).train()
        assert model.generator.training
        assert not model.constraint.training


def learn(network: torch.nn.Module, given: dict[str, torch.Tensor]) -> None:
    network.eval()
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(60):
        optimiser.zero_grad()
        network(given)["property"].sum().backward()
        optimiser.step()


@pytest.mark.parametrize("kind", [DenseNetworks, GraphNetworks])
def test_constraints_learn_the_known_values_of_one_batch(kind):
    model = kind(SHAPE, SIZES)
    data = property_data()
    model.adapt(codes())
    given = data.batch(np.arange(4), np.random.default_rng(0))
    learn(model.constraint, given)
    with torch.no_grad():
        found = model.constraint.predict(Codes(given["cell"], given["sites"]), given["contents"])[:3, 0]
    np.testing.assert_allclose(found, [-1, 1, 0.5], atol=0.15)


class TestData:
    def test_small_sets_are_presented_several_times_in_an_epoch_with_new_noise(self):
        data = CodeData(property_data(), None, 3, least=10)
        assert len(data.weights) == 12
        drawn = data.batch(np.array([1, 5]), np.random.default_rng(0))
        torch.testing.assert_close(drawn["cell"][0], drawn["cell"][1])
        assert not torch.equal(drawn["noise"][0], drawn["noise"][1])

    def test_values_are_wanted_only_where_they_are_known_and_shown(self):
        given = batch(400)
        unknown = given["known"] == 0
        assert not given["wanted"][unknown].any()
        assert 0.65 < given["wanted"][~unknown].mean() < 0.85

    def test_the_constraint_learns_from_crystals_with_values(self):
        assert len(property_data().with_known_values().weights) == 3
        assert property_data([np.nan] * 4).with_known_values() is None
