"""Sizes of the images and of the networks of ``ccdcgan``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hybridcsp.structure.representations import voxel_grid
from hybridcsp.structure.representations.voxel_grid import VoxelGrid


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the networks.

    Attributes
    ----------
    channels
        Channels of the first convolution of the image autoencoders.
    widening
        Factor of the number of channels from one convolution to the next.
    site_code
        Length of the latent code of the image of an element.
    cell_code
        Length of the latent code of the image of the cell, at most ``site_code``.
    width
        Channels of the convolutions on crystal graphs; a multiple of 4.
    dense
        Features of the dense layers of networks without convolutions.
    noise
        Number of random numbers from which a crystal is made.
    """

    channels: int = 8
    widening: int = 2
    site_code: int = 200
    cell_code: int = 25
    width: int = 128
    dense: int = 512
    noise: int = 200


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Sizes of the images, and the sizes of networks that suit them."""

    grid: VoxelGrid
    sizes: Sizes


#: Sizes by name: those that two processor cores should train within an hour, by the duration of a step, and those of
#: the authors.
SCALES: Mapping[str, Scale] = MappingProxyType(
    {
        "compact": Scale(grid=voxel_grid.COMPACT, sizes=Sizes(noise=64)),
        "published": Scale(grid=voxel_grid.PUBLISHED, sizes=Sizes(channels=64, widening=1)),
    }
)
