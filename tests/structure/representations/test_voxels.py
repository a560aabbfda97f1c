"""Crystals as images of the cell and of the sites of each element."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from crystals import random_crystal, rutile
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hybridcsp.errors import InputError
from hybridcsp.similarity import same_structure
from hybridcsp.structure.lattice import canonical_cell
from hybridcsp.structure.representations.base import DecodingError
from hybridcsp.structure.representations.voxel_grid import COMPACT
from hybridcsp.structure.representations.voxel_peaks import find_peaks, find_voxels
from hybridcsp.structure.representations.voxels import (
    AxisReading,
    MetricFit,
    VoxelDecoder,
    VoxelImages,
    Voxels,
    in_cell,
)

crystals = st.builds(
    lambda symbols, seed: canonical_cell(random_crystal(symbols, 14.0, np.random.default_rng(seed))),
    st.sampled_from(["Ti2O4", "NaCl", "Mg3Al2", "C"]),
    st.integers(0, 2**32 - 1),
)


def metric(atoms: Atoms) -> np.ndarray:
    return atoms.cell.array @ atoms.cell.array.T


@settings(max_examples=20, deadline=None)
@given(crystals)
def test_decoding_restores_a_crystal(atoms):
    voxels = Voxels()
    assume(not voxels.limit(atoms))
    back = voxels.decode(voxels.encode(atoms))
    np.testing.assert_allclose(metric(back), metric(atoms), atol=1e-3)
    assert same_structure(back, atoms)


def test_published_version_restores_a_crystal():
    voxels = Voxels.published()
    back = voxels.decode(voxels.encode(rutile()))
    np.testing.assert_allclose(metric(back), metric(rutile()), atol=1e-6)
    assert same_structure(back, rutile())


def test_published_peaks_are_voxels_and_every_one_of_equal_neighbours():
    grid = COMPACT
    image = Voxels(place=in_cell).encode(rutile()).sites[22]
    between, whole = find_peaks(image, 0.1, grid), find_voxels(image, 0.1, grid)
    assert len(between.positions) == len(whole.positions) == 2
    assert np.abs(np.sort(between.positions, axis=0) - np.sort(whole.positions, axis=0)).max() <= 0.5 + 1e-9
    # Images that are cut off at 1, as decoded ones are, have several equal voxels at an atom.
    flat = np.clip(1.5 * image, 0, 1)
    assert len(find_peaks(flat, 0.1, grid).positions) == 2
    assert len(find_voxels(flat, 0.1, grid).positions) > 2


def test_images_do_not_depend_on_a_rotation_or_on_the_order_of_atoms():
    atoms = rutile()
    turned = atoms[::-1]
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    first, second = Voxels().encode(atoms), Voxels().encode(turned)
    np.testing.assert_allclose(first.cell, second.cell, atol=1e-9)
    for number, image in first.sites.items():
        np.testing.assert_allclose(image, second.sites[number], atol=1e-9)


def test_left_handed_cell_is_drawn_as_the_same_crystal_in_right_handed_axes():
    atoms = canonical_cell(random_crystal("Ti2O4", 14.0, np.random.default_rng(3)))
    left = Atoms(atoms.numbers, cell=atoms.cell.array[[1, 0, 2]], positions=atoms.positions, pbc=True)
    right = Atoms(atoms.numbers, cell=-left.cell.array, positions=atoms.positions, pbc=True)
    assert np.linalg.det(left.cell.array) < 0
    first, second = Voxels().encode(left), Voxels().encode(right)
    np.testing.assert_allclose(first.cell, second.cell, atol=1e-9)
    for number, image in first.sites.items():
        np.testing.assert_allclose(image, second.sites[number], atol=1e-9)


def test_a_skewed_cell_is_restored_although_images_of_the_gaussian_are_on_its_grid():
    atoms = bulk("Cu", "fcc", a=3.6)
    skewed = Atoms("Cu", cell=np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]]) @ atoms.cell.array, pbc=True)
    back = Voxels().decode(Voxels().encode(skewed))
    np.testing.assert_allclose(metric(back), metric(skewed), rtol=1e-6)


def test_fit_to_all_voxels_withstands_noise_better_than_single_voxels():
    images = Voxels(place=in_cell).encode(rutile())
    generator = np.random.default_rng(0)
    errors = {MetricFit: [], AxisReading: []}
    for _ in range(20):
        noisy = np.where(images.cell > 0, np.clip(images.cell + generator.normal(0, 0.01, images.cell.shape), 0, 1), 0)
        for decoder, found in errors.items():
            found.append(np.abs(decoder().metric(noisy, COMPACT.width) - metric(rutile())).max())
    assert np.median(errors[MetricFit]) < 0.2 * np.median(errors[AxisReading])


@pytest.mark.parametrize("cell", [MetricFit(), AxisReading()])
def test_images_without_a_crystal_are_refused_with_a_reason(cell):
    images = Voxels().encode(bulk("Cu", "sc", a=3.0))
    decode = VoxelDecoder(cell=cell).decode
    with pytest.raises(DecodingError, match="image of the cell is empty"):
        decode(VoxelImages(sites=images.sites, cell=np.zeros_like(images.cell)), COMPACT)
    with pytest.raises(DecodingError, match="show no atoms"):
        decode(VoxelImages(sites={29: np.zeros_like(images.sites[29])}, cell=images.cell), COMPACT)


def test_image_of_an_indefinite_metric_is_refused():
    steps = np.arange(32) / 32 - 0.5
    x, y, z = np.meshgrid(steps, steps, steps, indexing="ij")
    form = np.abs(16 * x**2 + 16 * y**2 + 16 * z**2 + 40 * x * y)
    image = np.where(form < 0.5, np.exp(-form / (2 * 0.35**2)), 0)
    with pytest.raises(DecodingError, match="metric"):
        VoxelDecoder().decode(VoxelImages(sites={29: image}, cell=image), COMPACT)


@pytest.mark.parametrize(
    ("atoms", "reason"),
    [
        (bulk("Cu", "sc", a=3.0) * (3, 3, 3), "27 atoms, more than 20"),
        (bulk("Cu", "sc", a=11.0), "edge of 11.0 Å, longer than 10 Å"),
        (Atoms(), "there must be atoms"),
        (Atoms("Cu2", cell=[4, 4, 4], scaled_positions=[[0, 0, 0], [0.2, 0, 0]], pbc=True), "0.80 Å from another"),
    ],
)
def test_crystals_beyond_the_limits_are_refused_in_a_sentence(atoms, reason):
    with pytest.raises(InputError, match=reason):
        Voxels().encode(atoms)


def test_atoms_in_corners_of_a_large_cell_need_the_placement_around_the_centre():
    atoms = Atoms("CuAu", cell=[9.9, 9.9, 9.9], scaled_positions=[[0, 0, 0], [0.95, 0.95, 0.95]], pbc=True)
    assert Voxels(place=in_cell).limit(atoms) == "its atoms extend beyond a box of 10 Å"
    assert same_structure(Voxels().decode(Voxels().encode(atoms)), atoms)


def test_atoms_half_way_between_voxels_are_single_atoms():
    edge = 18 * 10 / 32
    atoms = Atoms("Na2", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=[edge] * 3, pbc=True)
    voxels = Voxels()
    positions = np.array([[0.5, 0.5, 0.5], [5.5, 9.0, 0.5], [31.5, 4.25, 20.0]]) * 10 / 32 - 5.0
    peaks = find_peaks(voxels._sites(positions), 0.3, voxels.grid)
    found = (peaks.positions + 16) % 32 - 16
    wanted = ((positions + 5.0) * 3.2 + 16) % 32 - 16
    assert sorted(map(tuple, found.round(2))) == sorted(map(tuple, wanted.round(2)))
    assert peaks.heights == pytest.approx(1.0, abs=0.01)
    assert same_structure(voxels.decode(voxels.encode(atoms)), atoms)


@pytest.mark.parametrize("corner", [(5, 7, 9), (31, 31, 31), (31, 0, 16)])
def test_a_saturated_block_of_voxels_is_one_atom_in_its_centre(corner):
    steps = np.arange(32)
    distances = [(steps - place - 0.5 + 16) % 32 - 16 for place in corner]
    image = np.minimum(3 * np.exp(-sum(d**2 for d in np.meshgrid(*distances, indexing="ij")) / 2), 1.0)
    peaks = find_peaks(image, 0.3, COMPACT)
    assert (image == 1.0).sum() == 8
    assert (peaks.positions[0] % 32).tolist() == pytest.approx([(place + 0.5) % 32 for place in corner])
    assert len(peaks.positions) == 1


@pytest.mark.parametrize(("between", "atoms"), [(0.9, 1), (0.2, 2)])
def test_ripples_of_one_peak_are_one_atom(between, atoms):
    image = np.zeros((32,) * 3)
    image[13:20, 16, 16] = [0.05, 0.3, 1.0, between, 0.99, 0.3, 0.05]
    peaks = find_peaks(image, 0.3, COMPACT)
    assert len(peaks.positions) == atoms
    assert peaks.positions[0] == pytest.approx([15.0, 16.0, 16.0], abs=0.5)


def test_constant_images_have_at_most_one_atom():
    assert len(find_peaks(np.ones((32,) * 3), 0.3, COMPACT).positions) == 1
    assert find_peaks(np.zeros((32,) * 3), 0.3, COMPACT).positions.shape == (0, 3)
