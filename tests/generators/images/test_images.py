"""Images of crystals: their autoencoder, and the reading of images that no network has touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk
from crystals import rutile

from hybridcsp.generators.images.image_data import ImageData, SparseImages, reoriented, unchanged
from hybridcsp.generators.images.image_network import ClampedOutput, ImageAutoencoder, LogisticOutput, normalised
from hybridcsp.generators.images.reading import OTHER_CONTENTS, FixedThreshold, WantedPeaks
from hybridcsp.similarity import same_structure
from hybridcsp.structure.lattice import canonical_cell
from hybridcsp.structure.representations.base import DecodingError
from hybridcsp.structure.representations.voxel_grid import VoxelGrid
from hybridcsp.structure.representations.voxels import VoxelImages, Voxels

GRID = VoxelGrid(sites=16, cell=16, box=8.0, width=0.5, atoms=8, edge=8.0)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class TestReading:
    @pytest.mark.parametrize("reading", [WantedPeaks(), FixedThreshold()])
    def test_images_are_read_back(self, reading):
        atoms = canonical_cell(rutile())
        voxels = Voxels()
        back = reading.read(voxels.encode(atoms), voxels.grid, {22: 2, 8: 4})
        assert same_structure(back, atoms)

    @pytest.mark.parametrize("reading", [WantedPeaks(), FixedThreshold()])
    @pytest.mark.parametrize("oxygen", [3, 5])
    def test_images_of_other_contents_are_refused(self, reading, oxygen):
        voxels = Voxels()
        with pytest.raises(DecodingError, match=OTHER_CONTENTS):
            reading.read(voxels.encode(rutile()), voxels.grid, {22: 2, 8: oxygen})

    @pytest.mark.parametrize("reading", [WantedPeaks(), FixedThreshold()])
    def test_images_are_read_without_wanted_contents(self, reading):
        voxels = Voxels()
        assert same_structure(reading.read(voxels.encode(canonical_cell(rutile())), voxels.grid, None), rutile())

    def test_wanted_contents_decide_about_faint_peaks(self):
        voxels = Voxels()
        images = voxels.encode(canonical_cell(rutile()))
        faint = VoxelImages(cell=images.cell, sites={22: images.sites[22] * 0.2, 8: images.sites[8]})
        assert same_structure(WantedPeaks().read(faint, voxels.grid, {22: 2, 8: 4}), rutile())
        with pytest.raises(DecodingError, match=OTHER_CONTENTS):
            FixedThreshold().read(faint, voxels.grid, {22: 2, 8: 4})


class TestImages:
    def test_one_batch_is_reproduced(self):
        voxels = Voxels(GRID)
        atoms = [bulk("CuAu", "cesiumchloride", a=3.2), bulk("CuAu", "rocksalt", a=5.4)]
        images = SparseImages(GRID.sites)
        for one in atoms:
            images.append(voxels.encode(canonical_cell(one)).sites[29])
        data = ImageData(images, np.ones(2), unchanged)
        batch = data.batch(np.arange(2), np.random.default_rng(0))
        network = ImageAutoencoder(16, 4, 2, 8, normalised, LogisticOutput())
        optimiser = torch.optim.Adam(network.parameters(), 0.02)
        for _ in range(80):
            optimiser.zero_grad()
            network(batch)["image"].sum().backward()
            optimiser.step()
        with torch.no_grad():
            found = network.decode(network.encode(batch["image"]))
        assert (found - batch["image"]).abs().max() < 0.1

    @pytest.mark.parametrize(("end", "bias"), [(2, True), (4, False)])
    def test_codes_and_images_have_the_sizes_of_the_network(self, end, bias):
        network = ImageAutoencoder(16, 2, 2, 5, normalised, LogisticOutput(), end=end, bias=bias)
        code = network.encode(torch.rand(3, 1, 16, 16, 16))
        assert code.shape == (3, 5)
        assert network.decode(code).shape == (3, 1, 16, 16, 16)
        with pytest.raises(ValueError, match=f"must be a power of 2 from {2 * end}, not 12"):
            ImageAutoencoder(12, 2, 2, 5, normalised, LogisticOutput(), end=end, bias=bias)

    def test_voxels_that_are_cut_off_have_no_gradient_as_published(self):
        gradients = []
        for output in (ClampedOutput(), LogisticOutput()):
            raw = torch.tensor([[-1.0, 1.0]], requires_grad=True)
            output.loss(raw, torch.tensor([[1.0, 0.0]])).sum().backward()
            gradients.append(raw.grad.abs().min().item())
        assert gradients[0] == 0
        assert gradients[1] > 0

    def test_reoriented_images_are_those_of_the_crystal_in_other_axes(self):
        voxels, rng = Voxels(GRID), np.random.default_rng(1)
        cell = voxels.encode(bulk("Cu", "sc", a=3.3)).cell
        np.testing.assert_allclose(reoriented(cell, rng), cell, atol=1e-12)  # it has all symmetries
        atoms = canonical_cell(bulk("CuAu", "rocksalt", a=5.4))
        atoms.rotate(20, (1, 2, 3), rotate_cell=True)
        image = voxels.encode(atoms).sites[29]
        turned = [reoriented(image, rng) for _ in range(5)]
        assert len({one.tobytes() for one in turned}) > 1
        for one in turned:
            np.testing.assert_allclose(np.sort(one, axis=None), np.sort(image, axis=None))
            assert one[8, 8, 8] == image[8, 8, 8]
