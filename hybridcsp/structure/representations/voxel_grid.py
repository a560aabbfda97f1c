"""Sizes of the images of crystals."""

from __future__ import annotations

from dataclasses import dataclass

#: Values of a Gaussian below this are zero in the images, as in the authors' code.
SMALLEST = 0.02
#: Atoms of one element at smaller distances, in standard deviations, make one peak; peaks at less than half of this
#: distance are one atom.
RESOLUTION = 3.0
#: Gaussians at smaller distances, in standard deviations, overlap in the image of the cell.
OVERLAP = 5.6


@dataclass(frozen=True, kw_only=True)
class VoxelGrid:
    """Sizes of the images.

    Attributes
    ----------
    sites
        Voxels along an edge of the images of the elements.
    box
        Edge (Å) of the box of the images of the elements.
    width
        Standard deviation (Å) of the Gaussians of both kinds of images.
    cell
        Voxels along an axis of the image of the cell.
    atoms
        Largest number of atoms in a cell.
    edge
        Longest edge (Å) of a cell.
    """

    sites: int = 32
    box: float = 10.0
    width: float = 0.35
    cell: int = 32
    atoms: int = 20
    edge: float = 10.0


#: Sizes that a processor can train on.
COMPACT = VoxelGrid()
#: Sizes of the authors of iMatGen and of CCDCGAN.
PUBLISHED = VoxelGrid(sites=64, box=15.0, width=0.26)
