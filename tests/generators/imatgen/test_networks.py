"""Networks of imatgen: overfitting, gradients, drawing of latent points, and what counts as stable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk

from hybridcsp.generators.base import Example
from hybridcsp.generators.images.codes import Codes
from hybridcsp.generators.imatgen.drawing import AroundKnown, AroundSimilar, KnownMaterials
from hybridcsp.generators.imatgen.materials_data import UNKNOWN, FormationEnergyLimit, LowerHalf, MaterialsData
from hybridcsp.generators.imatgen.materials_network import ContentsAutoencoder, ConvolutionAutoencoder
from hybridcsp.generators.imatgen.recipes import RECIPES
from hybridcsp.generators.imatgen.sizes import Scale, Sizes
from hybridcsp.structure.representations.voxel_grid import VoxelGrid

GRID = VoxelGrid(sites=16, cell=16, box=8.0, width=0.5, atoms=8, edge=8.0)
SIZES = Sizes(channels=4, site_code=16, cell_code=4, width=16, latent=4)


def codes(n: int) -> tuple[Codes, np.ndarray]:
    draw = torch.Generator().manual_seed(0)
    cell, sites = (torch.rand(n, *shape, generator=draw) * 1.6 - 0.8 for shape in ((4,), (2, 16)))
    return Codes(cell, sites), np.array([[1, 2], [2, 2], [3, 1]])[:n]


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_every_weight_of_the_image_networks_has_a_gradient():
    scale = Scale(grid=GRID, sizes=SIZES)
    for name, recipe in RECIPES.items():
        networks = recipe.networks(scale, 2)
        networks["sites"]({"image": torch.rand(2, 1, 16, 16, 16)})["image"].sum().backward()
        without = [key for key, value in networks["sites"].named_parameters() if value.grad is None]
        assert not without, name


class TestMaterials:
    @pytest.mark.parametrize("kind", [ContentsAutoencoder, ConvolutionAutoencoder])
    def test_one_batch_is_reproduced(self, kind):
        given, contents = codes(3)
        network = kind(2, SIZES)
        data = MaterialsData(given, contents, np.array([1.0, 0.0, UNKNOWN]), np.ones(3))
        batch = data.batch(np.arange(3), np.random.default_rng(0))
        optimiser = torch.optim.Adam(network.parameters(), 0.02)
        for _ in range(150):
            optimiser.zero_grad()
            sum(term.sum() for term in network(batch).values()).backward()
            optimiser.step()
        known = KnownMaterials.encoded(network, data)
        with torch.no_grad():
            points = network.perturb(known.means, known.log_variances, torch.zeros_like(known.means))
            found = network.decode(points, batch["contents"])
        assert (found.cell - given.cell).abs().max() < 0.15
        assert (found.sites - given.sites).abs().max() < 0.15
        if kind is ContentsAutoencoder:
            assert network.stability(points).sign().tolist()[:2] == [1.0, -1.0]

    @pytest.mark.parametrize("kind", [ContentsAutoencoder, ConvolutionAutoencoder])
    def test_every_weight_has_a_gradient(self, kind):
        given, contents = codes(2)
        network = kind(2, SIZES)
        batch = MaterialsData(given, contents, np.array([1.0, 0.0]), np.ones(2)).batch(
            np.arange(2), np.random.default_rng(0)
        )
        sum(term.sum() for term in network(batch).values()).backward()
        assert all(value.grad is not None and value.grad.abs().max() > 0 for value in network.parameters())

    def test_unknown_stability_does_not_count(self):
        given, contents = codes(2)
        batch = MaterialsData(given, contents, np.full(2, UNKNOWN), np.ones(2)).batch(
            np.arange(2), np.random.default_rng(0)
        )
        assert not ContentsAutoencoder(2, SIZES)(batch)["stability"].any()


class TestDrawing:
    def known(self) -> KnownMaterials:
        return KnownMaterials(
            means=torch.tensor([[0.0, 0.0], [5.0, 5.0], [-5.0, 5.0]]),
            log_variances=torch.zeros(3, 2),
            contents=torch.tensor([[1.0, 2.0], [1.0, 2.0], [2.0, 2.0]]),
            stable=torch.tensor([0.0, 1.0, 1.0]),
        )

    def test_points_lie_around_stable_crystals_of_the_nearest_contents(self):
        network = ConvolutionAutoencoder(2, Sizes(site_code=16, cell_code=4, width=16, latent=2))
        wanted = np.array([[1, 2], [2, 4], [1, 1]])
        points = AroundKnown(spread=0.0).draw(
            network, self.known(), wanted, np.zeros(3, dtype=bool), np.random.default_rng(0)
        )
        np.testing.assert_allclose(points / network.FACTOR, [[5, 5], [5, 5], [-5, 5]])

    def test_crystals_of_similar_contents_are_centres_more_often(self):
        network = ContentsAutoencoder(2, Sizes(site_code=16, cell_code=4, width=16, latent=2))
        points = AroundSimilar(difference=0.3, spreads=(0.0, 0.0)).draw(
            network, self.known(), np.tile([2, 2], (200, 1)), np.zeros(200, dtype=bool), np.random.default_rng(0)
        )
        near = (points == torch.tensor([-5.0, 5.0])).all(1).sum()
        assert 100 < near < 200

    def test_the_classifier_chooses_among_points_where_low_energies_are_wanted(self):
        network = ContentsAutoencoder(2, Sizes(site_code=16, cell_code=4, width=16, latent=2))
        draws = [
            AroundSimilar(choices=8).draw(
                network, self.known(), np.ones((50, 2)), np.full(50, low), np.random.default_rng(0)
            )
            for low in (False, True)
        ]
        with torch.no_grad():
            logits = [network.stability(points).mean().item() for points in draws]
        assert logits[1] > logits[0]


class TestStability:
    def test_limits(self):
        values = [-2.0, 0.4, 0.6, 3.0]
        given = [Example(atoms=bulk("Cu"), properties={"e": value}) for value in values] + [Example(atoms=bulk("Cu"))]
        published, corrected = (rule.stability(given) for rule in (FormationEnergyLimit(), LowerHalf()))
        assert published.labels(given).tolist() == [1, 1, 0, 0, UNKNOWN]
        assert corrected.at_most == pytest.approx(0.5)
        assert LowerHalf().stability(given[-1:]).labels(given).tolist() == [UNKNOWN] * 5
