"""Components of the configurations of ``ccdcgan``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from ase import Atoms

from hybridcsp.generators.ccdcgan.answering import Answering, Conditional, Unconditional
from hybridcsp.generators.ccdcgan.dense_networks import DenseNetworks
from hybridcsp.generators.ccdcgan.graph_networks import GraphNetworks, glorot
from hybridcsp.generators.ccdcgan.model import CodeModel, Shape
from hybridcsp.generators.ccdcgan.quantities import OwnUnit, StandardUnits, Units
from hybridcsp.generators.ccdcgan.sizes import Scale, Sizes
from hybridcsp.generators.images import image_network
from hybridcsp.generators.images.courses import AS_AUTHORS, Course
from hybridcsp.generators.images.crystal_images import as_given
from hybridcsp.generators.images.image_data import Change, reoriented, unchanged
from hybridcsp.generators.images.image_network import ClampedOutput, ImageAutoencoder, LogisticOutput
from hybridcsp.generators.images.reading import FixedThreshold, Reading, WantedPeaks
from hybridcsp.structure.lattice import canonical_cell
from hybridcsp.structure.representations.voxel_grid import SMALLEST
from hybridcsp.structure.representations.voxel_peaks import find_voxels
from hybridcsp.structure.representations.voxels import AxisReading, VoxelDecoder, around_centre, in_cell
from hybridcsp.structure.validity import is_too_close
from hybridcsp.training.adversarial import AdversarialAdam
from hybridcsp.training.configurations import CORRECTED, PUBLISHED
from hybridcsp.training.optimisation import AdamWCosine, ConstantAdam

#: Parts of the training in their order.
SITES, CELLS, CONSTRAINT, NETWORKS = "sites", "cells", "constraint", "networks"

# Smallest distance (Å) of atoms in a sample, as published.
_SMALLEST_DISTANCE = 0.5


@dataclass(frozen=True, kw_only=True)
class Design:
    """Represent the components of a configuration.

    Attributes
    ----------
    name
        Name of the configuration.
    scale
        Name of the default sizes.
    place
        Which images of the atoms are drawn.
    axes
        Function that returns a crystal in the axes in which it is drawn.
    change
        Random change of the images in the training of their autoencoders.
    autoencoder
        Function from the voxels along an edge of an image, the length of its code, and the sizes to its autoencoder.
    reading
        How crystals are read from decoded images.
    too_close
        Function that returns whether the atoms of a sample are too close.
    units
        Units of properties in the networks.
    networks
        Networks that compete.
    answering
        How requests are answered.
    strength
        Factor of the loss of the constraint.
    courses
        Courses of the training of each part.
    """

    name: str
    scale: str
    place: Callable[..., Any]
    axes: Callable[[Atoms], Atoms]
    change: Change
    autoencoder: Callable[[int, int, Sizes], ImageAutoencoder]
    reading: Reading
    too_close: Callable[[Atoms], bool]
    units: Units
    networks: Callable[[Shape, Sizes], CodeModel]
    answering: Answering
    strength: float
    courses: Mapping[str, Course]

    def untrained(self, scale: Scale, shape: Shape) -> torch.nn.ModuleDict:
        """Return untrained networks: two autoencoders of images, and networks that compete with their constraint."""
        grid, sizes = scale.grid, scale.sizes
        return torch.nn.ModuleDict(
            {
                SITES: self.autoencoder(grid.sites, sizes.site_code, sizes),
                CELLS: self.autoencoder(grid.cell, sizes.cell_code, sizes),
                NETWORKS: self.networks(shape, sizes),
            }
        )


def closer_than_half_an_angstrom(atoms: Atoms) -> bool:
    """Return whether two atoms are closer than 0.5 Å, images of one atom not counted, as published."""
    distances = atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)]
    return bool(len(distances) and distances.min() < _SMALLEST_DISTANCE)


def published_autoencoder(voxels: int, code: int, sizes: Sizes) -> ImageAutoencoder:
    """Return an autoencoder whose convolutions end at 4³ voxels, without biases and normalisation."""
    network = ImageAutoencoder(
        voxels,
        sizes.channels,
        sizes.widening,
        code,
        image_network.plain,
        ClampedOutput(),
        end=4,
        bias=False,
    )
    network.apply(glorot)
    return network


def corrected_autoencoder(voxels: int, code: int, sizes: Sizes) -> ImageAutoencoder:
    """Return an autoencoder with normalisation, and with an error that has a gradient in every voxel."""
    return ImageAutoencoder(voxels, sizes.channels, sizes.widening, code, image_network.normalised, LogisticOutput())


_ADVERSARIAL: Mapping[str, Any] = {"clip": 1e4, "patience": 10**6}

_PUBLISHED = Design(
    name=PUBLISHED,
    scale="published",
    place=in_cell,
    axes=as_given,
    change=unchanged,
    autoencoder=published_autoencoder,
    reading=FixedThreshold(VoxelDecoder(cell=AxisReading(), lowest_peak=SMALLEST, peaks=find_voxels)),
    too_close=closer_than_half_an_angstrom,
    units=OwnUnit(),
    networks=GraphNetworks,
    answering=Unconditional(),
    strength=0.1,
    courses={
        SITES: Course(
            optimisation=ConstantAdam(),
            settings={**AS_AUTHORS, "learning_rate": 3e-4, "batch_size": 1},
            presentations=166_246,
        ),
        CELLS: Course(
            optimisation=ConstantAdam(),
            settings={**AS_AUTHORS, "learning_rate": 3e-4, "batch_size": 1},
            presentations=62_511,
        ),
        CONSTRAINT: Course(
            optimisation=ConstantAdam(betas=(0.5, 0.999)),
            settings={**AS_AUTHORS, "learning_rate": 2e-4, "batch_size": 64},
            presentations=64 * 20_001,
        ),
        NETWORKS: Course(
            optimisation=AdversarialAdam(betas=(0.5, 0.999)),
            settings={**_ADVERSARIAL, "learning_rate": 2e-4, "batch_size": 128, "averaging": 0.0},
            presentations=128 * 1_000_000,
            most_epochs=2000,
        ),
    },
)

_IMAGES: Mapping[str, Any] = {"learning_rate": 2e-3, "batch_size": 32, "averaging": 0.99, "clip": 100.0, "patience": 40}

_CORRECTED = Design(
    name=CORRECTED,
    scale="compact",
    place=around_centre,
    axes=canonical_cell,
    change=reoriented,
    autoencoder=corrected_autoencoder,
    reading=WantedPeaks(),
    too_close=is_too_close,
    units=StandardUnits(),
    networks=DenseNetworks,
    answering=Conditional(),
    strength=0.3,
    courses={
        SITES: Course(optimisation=AdamWCosine(), settings=_IMAGES, presentations=200_000),
        CELLS: Course(optimisation=AdamWCosine(), settings=_IMAGES, presentations=100_000),
        CONSTRAINT: Course(
            optimisation=AdamWCosine(),
            settings={"learning_rate": 1e-3, "averaging": 0.99, "clip": 10.0, "patience": 40},
            presentations=500_000,
        ),
        NETWORKS: Course(
            optimisation=AdversarialAdam(betas=(0.0, 0.9)),
            settings={**_ADVERSARIAL, "learning_rate": 2e-4, "batch_size": 64, "averaging": 0.999},
            presentations=64 * 30_000,
        ),
    },
)

#: Components of the configurations by name, the default first.
DESIGNS: Mapping[str, Design] = MappingProxyType({design.name: design for design in (_CORRECTED, _PUBLISHED)})
