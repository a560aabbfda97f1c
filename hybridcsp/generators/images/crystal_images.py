"""The images of the crystals of a training set, and their codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.generators.base import Example
from hybridcsp.generators.images.codes import Codes
from hybridcsp.generators.images.image_data import SparseImages
from hybridcsp.generators.images.image_network import ImageAutoencoder
from hybridcsp.structure.representations.voxels import VoxelImages, Voxels

#: Number of images that are encoded or decoded at a time.
TOGETHER = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class CrystalImages:
    """Represent the images of several crystals.

    Attributes
    ----------
    cells
        Image of the cell of each crystal.
    sites
        Images of the elements; each crystal has one for every element that it contains.
    owners
        Crystal and element, as numbers of a row and a column, of each image of an element, shape ``(n_images, 2)``.
    contents
        Number of atoms of each element, shape ``(n, n_elements)``.
    """

    cells: SparseImages
    sites: SparseImages
    owners: NDArray[np.int_]
    contents: NDArray[np.int_]

    @classmethod
    def of(cls, crystals: Sequence[Atoms], elements: Sequence[int], voxels: Voxels) -> Self:
        """Draw the images of crystals within the limits of the representation.

        Parameters
        ----------
        crystals
            Crystals.
        elements
            Atomic numbers of the elements.
        voxels
            Representation.
        """
        cells, sites = SparseImages(voxels.grid.cell), SparseImages(voxels.grid.sites)
        owners = []
        for row, atoms in enumerate(crystals):
            images = voxels.encode(atoms)
            cells.append(images.cell)
            for number, image in images.sites.items():
                sites.append(image)
                owners.append((row, elements.index(number)))
        return cls(
            cells=cells,
            sites=sites,
            owners=np.array(owners, dtype=int).reshape(-1, 2),
            contents=contents_of(crystals, elements),
        )


def contents_of(crystals: Sequence[Atoms], elements: Sequence[int]) -> NDArray[np.int_]:
    """Return the number of atoms of each element in each crystal, shape ``(n, n_elements)``."""
    found = [[int((atoms.numbers == number).sum()) for number in elements] for atoms in crystals]
    return np.array(found, dtype=int).reshape(-1, len(elements))


def as_given(atoms: Atoms) -> Atoms:
    """Return the crystal in its own axes."""
    return atoms


def within_limits(
    examples: Sequence[Example], voxels: Voxels, axes: Callable[[Atoms], Atoms]
) -> tuple[list[Example], list[str]]:
    """Return the examples that can be drawn, in the axes in which they are drawn, and the reasons against the others.

    Parameters
    ----------
    examples
        Examples.
    voxels
        Representation.
    axes
        Function that returns a crystal in the axes in which it is drawn.
    """
    turned = [replace(example, atoms=axes(example.atoms)) for example in examples]
    reasons = [voxels.limit(example.atoms) for example in turned]
    return [one for one, reason in zip(turned, reasons, strict=True) if not reason], [one for one in reasons if one]


@torch.no_grad()
def encode_images(images: CrystalImages, of_sites: ImageAutoencoder, of_cells: ImageAutoencoder) -> Codes:
    """Return the codes of the images of crystals; an element that a crystal lacks has the code of an empty image."""
    of_sites.eval()
    of_cells.eval()
    empty = of_sites.encode(torch.zeros(1, 1, *(images.sites.voxels,) * 3))
    n, n_elements = images.contents.shape
    sites = empty.expand(n, n_elements, -1).clone()
    for numbers in _parts(len(images.sites)):
        rows, columns = torch.from_numpy(images.owners[numbers].T)
        sites[rows, columns] = of_sites.encode(images.sites.tensor(numbers))
    cells = [of_cells.encode(images.cells.tensor(numbers)) for numbers in _parts(len(images.cells))]
    return Codes(torch.cat(cells), sites)


@torch.no_grad()
def decode_images(
    codes: Codes,
    contents: NDArray[np.int_],
    elements: Sequence[int],
    of_sites: ImageAutoencoder,
    of_cells: ImageAutoencoder,
) -> Iterator[VoxelImages]:
    """Yield the images of codes, those of the elements that ``contents``, shape ``(n, n_elements)``, asks for."""
    for numbers in _parts(len(contents)):
        cells = of_cells.decode(codes.cell[numbers])[:, 0].double().numpy()
        rows, columns = np.nonzero(contents[numbers])
        sites = of_sites.decode(codes.sites[numbers][rows, columns])[:, 0].double().numpy()
        for row, cell in enumerate(cells):
            own = np.flatnonzero(rows == row)
            yield VoxelImages(sites={elements[columns[one]]: sites[one] for one in own}, cell=cell)


def _parts(n: int) -> Iterator[NDArray[np.int_]]:
    for start in range(0, n, TOGETHER):
        yield np.arange(start, min(start + TOGETHER, n))
