"""Components of the configurations of ``imatgen``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from ase import Atoms

from hybridcsp.generators.images import image_network
from hybridcsp.generators.images.courses import AS_AUTHORS, Course
from hybridcsp.generators.images.crystal_images import as_given
from hybridcsp.generators.images.image_data import Change, reoriented, unchanged
from hybridcsp.generators.images.image_network import ClampedOutput, ImageAutoencoder, ImageOutput, LogisticOutput
from hybridcsp.generators.images.reading import FixedThreshold, Reading, WantedPeaks
from hybridcsp.generators.imatgen.drawing import AroundKnown, AroundSimilar, LatentDraws
from hybridcsp.generators.imatgen.materials_data import FormationEnergyLimit, LowerHalf, StabilityRule
from hybridcsp.generators.imatgen.materials_network import (
    ContentsAutoencoder,
    ConvolutionAutoencoder,
    MaterialsAutoencoder,
)
from hybridcsp.generators.imatgen.sizes import Scale, Sizes
from hybridcsp.structure.lattice import canonical_cell
from hybridcsp.structure.representations.voxel_grid import VoxelGrid
from hybridcsp.structure.representations.voxels import Voxels, around_centre, in_cell
from hybridcsp.training.configurations import CORRECTED, PUBLISHED
from hybridcsp.training.optimisation import AdamWCosine, ConstantAdam

#: Parts of the training in their order.
SITES, CELLS, MATERIALS = "sites", "cells", "materials"


@dataclass(frozen=True, kw_only=True)
class Recipe:
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
    activation, output
        Components of the image autoencoders.
    materials
        Materials autoencoder.
    stability
        What the classifier learns.
    draws
        How latent points are drawn.
    reading
        How crystals are read from decoded images.
    courses
        Courses of the training of each part.
    """

    name: str
    scale: str
    place: Callable[..., Any]
    axes: Callable[[Atoms], Atoms]
    change: Change
    activation: Callable[[int], torch.nn.Module]
    output: Callable[[], ImageOutput]
    materials: Callable[[int, Sizes], MaterialsAutoencoder]
    stability: StabilityRule
    draws: LatentDraws
    reading: Reading
    courses: Mapping[str, Course]

    def voxels(self, grid: VoxelGrid) -> Voxels:
        """Return the representation."""
        return Voxels(grid, place=self.place)

    def networks(self, scale: Scale, n_elements: int) -> torch.nn.ModuleDict:
        """Return untrained networks by part."""
        sizes, grid = scale.sizes, scale.grid

        def images(voxels: int, code: int) -> ImageAutoencoder:
            return ImageAutoencoder(voxels, sizes.channels, sizes.widening, code, self.activation, self.output())

        return torch.nn.ModuleDict(
            {
                SITES: images(grid.sites, sizes.site_code),
                CELLS: images(grid.cell, sizes.cell_code),
                MATERIALS: self.materials(n_elements, sizes),
            }
        )


_PUBLISHED = Recipe(
    name=PUBLISHED,
    scale="published",
    place=in_cell,
    axes=as_given,
    change=unchanged,
    activation=image_network.plain,
    output=ClampedOutput,
    materials=ConvolutionAutoencoder,
    stability=FormationEnergyLimit(),
    draws=AroundKnown(),
    reading=FixedThreshold(),
    courses={
        SITES: Course(
            optimisation=ConstantAdam(),
            settings={**AS_AUTHORS, "learning_rate": 3e-4, "batch_size": 20, "epochs": 21},
        ),
        CELLS: Course(
            optimisation=ConstantAdam(),
            settings={**AS_AUTHORS, "learning_rate": 1e-4, "batch_size": 20, "epochs": 21},
        ),
        MATERIALS: Course(
            optimisation=ConstantAdam(),
            settings={**AS_AUTHORS, "learning_rate": 1e-4, "batch_size": 64, "epochs": 200},
        ),
    },
)

_IMAGES: Mapping[str, Any] = {"learning_rate": 2e-3, "batch_size": 32, "averaging": 0.99, "clip": 100.0, "patience": 40}

_CORRECTED = Recipe(
    name=CORRECTED,
    scale="compact",
    place=around_centre,
    axes=canonical_cell,
    change=reoriented,
    activation=image_network.normalised,
    output=LogisticOutput,
    materials=ContentsAutoencoder,
    stability=LowerHalf(),
    draws=AroundSimilar(),
    reading=WantedPeaks(),
    courses={
        SITES: Course(optimisation=AdamWCosine(), settings=_IMAGES, presentations=200_000),
        CELLS: Course(optimisation=AdamWCosine(), settings=_IMAGES, presentations=100_000),
        MATERIALS: Course(
            optimisation=AdamWCosine(),
            settings={"learning_rate": 1e-3, "averaging": 0.99, "clip": 10.0, "patience": 40},
            presentations=1_000_000,
        ),
    },
)

#: Components of the configurations by name, the default first.
RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in (_CORRECTED, _PUBLISHED)})
