"""Crystals as three-dimensional images: one of the cell, and one of the sites of each element.

The representation of iMatGen (Noh et al., Matter 1, 1370 (2019), doi:10.1016/j.matt.2019.08.017) and, with other sizes,
of CCDCGAN (Long et al., npj Comput. Mater. 7, 66 (2021), doi:10.1038/s41524-021-00526-4):

- The image of an element has a Gaussian of the distance at each of its atoms, in a cubic box, whose centre is the mean
  of the positions of all atoms of the cell. It is in Cartesian coordinates, with the first cell vector along x and the
  second in the plane of x and y.
- The image of the cell has a Gaussian of the distance to the centre of the cell, on a grid of fractional coordinates.

The two versions have different components. By default, atoms are placed around the centre of the box
(:func:`around_centre`), which fits more crystals into it, and the cell is fitted to all voxels (:class:`MetricFit`). As
published, they are placed in the cell (:func:`in_cell`), and the cell is read from single voxels
(:class:`AxisReading`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from hybridcsp.structure.geometry import nearest_distances
from hybridcsp.structure.representations.base import DecodingError, Representation, right_handed_fractions
from hybridcsp.structure.representations.voxel_grid import (
    COMPACT,
    OVERLAP,
    PUBLISHED,
    RESOLUTION,
    SMALLEST,
    VoxelGrid,
)
from hybridcsp.structure.representations.voxel_peaks import PeakFinder, find_peaks

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]

#: Shift in fractional coordinates that decides which of several images at equal distances is the nearest.
TIE_BREAK = np.array([1.0e-6, 1.3e-6, 1.7e-6])


@dataclass(frozen=True, kw_only=True, eq=False)
class VoxelImages:
    """A crystal as images.

    Attributes
    ----------
    sites
        Image of each element by atomic number, shape ``(n, n, n)``, values from 0 to 1.
    cell
        Image of the cell, shape ``(m, m, m)``, values from 0 to 1.
    """

    sites: Mapping[int, Array]
    cell: Array


def in_cell(fractions: Array, cell: Array) -> Array:
    """Return the positions (Å) of the images of atoms in the cell, shape ``(n_atoms, 3)``.

    Parameters
    ----------
    fractions
        Fractional coordinates, shape ``(n_atoms, 3)``.
    cell
        Cell vectors (Å) as rows.
    """
    return (fractions % 1.0) @ cell


def around_centre(fractions: Array, cell: Array) -> Array:
    """Return the positions (Å) of those images of atoms that extend least from their mean.

    They are the images nearest to one of the atoms, which is chosen for the smallest extent. The parameters are those
    of :func:`in_cell`.
    """
    from ase.geometry import find_mic

    found, least = fractions @ cell, (np.inf, 0.0, 0.0, 0.0)
    for centre in fractions:
        # Images at equal distances are common in symmetric crystals: a small shift decides between them, not rounding.
        displacements, _ = find_mic((fractions - centre + TIE_BREAK) @ cell, cell)
        extent = np.abs(displacements - displacements.mean(axis=0)).max()
        rank = (round(float(extent), 4), *np.round(centre % 1.0, 4))
        if rank < least:
            found, least = displacements, rank
    return np.asarray(found)


class CellDecoder(ABC):
    """Abstract base class of a way to read the cell from its image."""

    @abstractmethod
    def metric(self, image: Array, width: float) -> Array:
        """Return the metric tensor (Å²) of the cell, shape ``(3, 3)``.

        Parameters
        ----------
        image
            Image of the cell.
        width
            Standard deviation (Å) of its Gaussian.

        Raises
        ------
        DecodingError
            If the image shows no cell.
        """


class MetricFit(CellDecoder):
    """Fit of the metric tensor to all voxels of the image.

    For a voxel at the fractional displacement f from the centre, ``-2 width² ln(value) = fᵀ G f`` is linear in the
    metric tensor G. Voxels are weighted by the square of their values, as the logarithm of a value with noise of
    constant size has a variance of one over this square.
    """

    def metric(self, image: Array, width: float) -> Array:
        """Return the metric tensor by weighted least squares."""
        from scipy.ndimage import label

        size = image.shape[0]
        used = (image >= SMALLEST) & (image <= 1.0)
        # In skewed cells, periodic images of the Gaussian are on the grid too, apart from the one at the centre.
        parts, _ = label(used)
        used &= parts == parts[(size // 2,) * 3]
        steps = np.argwhere(used) / size - 0.5
        values = image[used]
        if len(values) < 7:
            raise DecodingError("the image of the cell is empty")
        x, y, z = steps.T
        terms = np.stack([x * x, y * y, z * z, 2 * y * z, 2 * x * z, 2 * x * y], axis=1)
        found, _, rank, _ = np.linalg.lstsq(
            terms * values[:, None], -2 * width**2 * np.log(values) * values, rcond=1e-8
        )
        if rank < 6:
            raise DecodingError("the image of the cell shows fewer than three axes")
        xx, yy, zz, yz, xz, xy = found
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


class AxisReading(CellDecoder):
    """Reading of lengths and angles from single voxels on the axes and face diagonals, as published.

    The smallest value that is not zero on a line through the centre gives the length along the line. It is the voxel
    with the largest relative error, so that noise of the decoder changes the cell.
    """

    #: Lines through the centre of the cell, in fractional coordinates.
    LINES: ClassVar = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0))

    def metric(self, image: Array, width: float) -> Array:
        """Return the metric tensor from the squared lengths along the axes and the face diagonals."""
        xx, yy, zz, across_yz, across_xz, across_xy = (
            self._squared(image, np.array(line), width) for line in self.LINES
        )
        yz, xz, xy = (across_yz - yy - zz) / 2, (across_xz - xx - zz) / 2, (across_xy - xx - yy) / 2
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])

    def _squared(self, image: Array, line: NDArray[np.integer], width: float) -> float:
        size = image.shape[0]
        steps = np.arange(1, size - size // 2)
        values = image[tuple((size // 2 + np.outer(steps, line)).T)]
        seen = (values >= SMALLEST) & (values < 1.0)
        if not seen.any():
            raise DecodingError("the image of the cell is empty along an axis")
        smallest = np.flatnonzero(seen)[np.argmin(values[seen])]
        return float(-2 * width**2 * np.log(values[smallest]) * (size / steps[smallest]) ** 2)


@dataclass(frozen=True, kw_only=True)
class VoxelDecoder:
    """Reading of a crystal from its images.

    Attributes
    ----------
    cell
        Reading of the cell.
    lowest_peak
        Local maxima of the images of the elements below this are no atoms.
    peaks
        How maxima are found: :func:`find_peaks` or :func:`find_voxels`.
    """

    cell: CellDecoder = field(default_factory=MetricFit)
    lowest_peak: float = 0.3
    peaks: PeakFinder = find_peaks

    def decode(self, images: VoxelImages, grid: VoxelGrid) -> Atoms:
        """Return the crystal in images of the sizes of ``grid``.

        Raises
        ------
        DecodingError
            If the images show no cell or no atoms.
        """
        metric = self.cell.metric(images.cell, grid.width)
        found = {number: self.peaks(image, self.lowest_peak, grid) for number, image in images.sites.items()}
        return assemble(metric, {number: peaks.positions for number, peaks in found.items()}, grid)


class Voxels(Representation[VoxelImages]):
    """Representation of a crystal as images of its cell and of the sites of its elements.

    Parameters
    ----------
    grid
        Sizes of the images.
    decoder
        Reading of crystals from images.
    place
        Choice of the periodic images of the atoms that are drawn: :func:`around_centre` or :func:`in_cell`.
    """

    name = "voxels"

    def __init__(
        self,
        grid: VoxelGrid = COMPACT,
        decoder: VoxelDecoder | None = None,
        place: Callable[[Array, Array], Array] = around_centre,
    ) -> None:
        self.grid = grid
        self.decoder = decoder or VoxelDecoder()
        self.place = place

    @classmethod
    def published(cls) -> Voxels:
        """Return the representation with the authors' sizes, placement, and reading of the cell."""
        return cls(PUBLISHED, VoxelDecoder(cell=AxisReading()), in_cell)

    def _own_limit(self, atoms: Atoms) -> str:
        """Return why a crystal has no image: its number of atoms, edges, or extent beyond the box."""
        grid = self.grid
        if len(atoms) > grid.atoms:
            return f"it has {len(atoms)} atoms, more than {grid.atoms}"
        if (edge := atoms.cell.lengths().max()) > grid.edge:
            return f"it has an edge of {edge:.1f} Å, longer than {grid.edge:g} Å"
        shortest = float(nearest_distances(atoms[:1], OVERLAP * grid.width)[0, 0])
        if shortest < OVERLAP * grid.width:
            return f"it has a lattice vector of {shortest:.2f} Å, too short for the image of the cell"
        for number in np.unique(atoms.numbers):
            nearest = nearest_distances(atoms[atoms.numbers == number], RESOLUTION * grid.width).min()
            if nearest < RESOLUTION * grid.width:
                return f"an atom is {nearest:.2f} Å from another of its element, too close to tell them apart"
        reach = np.abs(self._placed(atoms)[1]).max() + 2 * grid.width
        if reach > grid.box / 2:
            return f"its atoms extend beyond a box of {grid.box:g} Å"
        return ""

    def encode(self, atoms: Atoms) -> VoxelImages:
        """Return the images of a crystal in its own axes, turned so that the first is along x.

        Raises
        ------
        InputError
            If the crystal is beyond the limits.
        """
        self.check(atoms)
        cell, positions = self._placed(atoms)
        sites = {int(number): self._sites(positions[atoms.numbers == number]) for number in np.unique(atoms.numbers)}
        return VoxelImages(sites=sites, cell=self._cell(cell))

    def decode(self, encoded: VoxelImages) -> Atoms:
        """Return the crystal in images."""
        return self.decoder.decode(encoded, self.grid)

    def _placed(self, atoms: Atoms) -> tuple[Array, Array]:
        """Return the turned cell (Å) and the positions (Å) relative to their mean."""
        fractions = right_handed_fractions(atoms)
        cell = np.linalg.cholesky(atoms.cell.array @ atoms.cell.array.T)
        positions = self.place(fractions, cell)
        return cell, positions - positions.mean(axis=0)

    def _sites(self, positions: Array) -> Array:
        size, box = self.grid.sites, self.grid.box
        steps = np.arange(size) * (box / size) - box / 2
        offsets = steps[None, None, :] - positions[:, :, None]  # the atom, the axis, the voxel
        offsets -= box * np.round(offsets / box)
        x, y, z = np.moveaxis(np.exp(-(offsets**2) / (2 * self.grid.width**2)), 1, 0)
        images = np.einsum("ai,aj,ak->aijk", x, y, z)
        images[images < SMALLEST] = 0.0
        return np.asarray(images.sum(axis=0))

    def _cell(self, cell: Array) -> Array:
        metric = cell @ cell.T
        steps = np.arange(self.grid.cell) / self.grid.cell - 0.5
        # Lattice points with a larger index along an axis are too far from all voxels for a value above SMALLEST.
        reach = self.grid.width * np.sqrt(-2 * np.log(SMALLEST))
        largest = np.floor(reach * np.linalg.norm(np.linalg.inv(cell), axis=0) + 0.5).astype(int)
        image = np.zeros((self.grid.cell,) * 3)
        for indices in np.ndindex(*(2 * largest + 1)):
            x, y, z = (steps[:, None] + largest - indices).T
            x, y, z = x[:, None, None], y[None, :, None], z[None, None, :]
            squared = metric[0, 0] * x * x + (metric[1, 1] * y + 2 * metric[0, 1] * x) * y
            squared = squared + (metric[2, 2] * z + 2 * metric[0, 2] * x + 2 * metric[1, 2] * y) * z
            np.maximum(image, np.exp(-squared / (2 * self.grid.width**2)), out=image)
        image[image < SMALLEST] = 0.0
        return image


def assemble(metric: Array, positions: Mapping[int, Array], grid: VoxelGrid) -> Atoms:
    """Return the crystal of a metric tensor and of atoms in images.

    Parameters
    ----------
    metric
        Metric tensor (Å²) of the cell, shape ``(3, 3)``.
    positions
        Positions of the atoms in voxels by atomic number, shape ``(n_atoms, 3)`` each.
    grid
        Sizes of the images.

    Raises
    ------
    DecodingError
        If the metric tensor is not positive, or there are no atoms.
    """
    from ase import Atoms

    try:
        cell = np.linalg.cholesky(metric)
    except np.linalg.LinAlgError:
        raise DecodingError("the image of the cell has no positive metric tensor") from None
    numbers = [number for number, places in positions.items() for _ in places]
    if not numbers:
        raise DecodingError("the images show no atoms")
    cartesian = np.concatenate(list(positions.values())) * (grid.box / grid.sites)
    atoms = Atoms(numbers=numbers, positions=cartesian, cell=cell, pbc=True)
    atoms.wrap()
    return atoms
