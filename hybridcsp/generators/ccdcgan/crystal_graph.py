"""Two-dimensional crystal graphs: the codes of the images of a crystal as one square picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from hybridcsp.generators.images.codes import Codes


@dataclass(frozen=True)
class PlanarCrystalGraph:
    """Layout of a crystal graph.

    The code of the cell, filled up with zeros to the length of the others, and the codes of the elements follow each
    other, filled up with zeros to a square. With two elements and codes of 200 numbers, it has the 28 x 28 numbers of
    the paper (doi:10.1038/s41524-021-00526-4).

    Attributes
    ----------
    n_elements
        Number of elements.
    cell_code
        Length of the code of the cell.
    site_code
        Length of the code of an element.

    Raises
    ------
    ValueError
        If the code of the cell is longer than that of an element.
    """

    n_elements: int
    cell_code: int
    site_code: int

    def __post_init__(self) -> None:
        if self.cell_code > self.site_code:
            raise ValueError("the code of the cell must not be longer than that of an element")

    @property
    def side(self) -> int:
        """Numbers along an edge: the smallest multiple of 4 that is enough."""
        return 4 * math.ceil(math.isqrt(self._length - 1) // 4 + 1) if self._length > 1 else 4

    @property
    def _length(self) -> int:
        return (1 + self.n_elements) * self.site_code

    def draw(self, codes: Codes) -> Tensor:
        """Return the crystal graphs of codes, shape ``(batch, 1, side, side)``."""
        cell = pad(codes.cell, (0, self.site_code - self.cell_code))
        flat = torch.cat([cell, codes.sites.flatten(1)], 1)
        return pad(flat, (0, self.side**2 - self._length)).unflatten(1, (1, self.side, self.side))

    def read(self, graphs: Tensor) -> Codes:
        """Return the codes in crystal graphs; numbers that should be zero are passed over."""
        rows = graphs.flatten(1)[:, : self._length].unflatten(1, (1 + self.n_elements, self.site_code))
        return Codes(rows[:, 0, : self.cell_code], rows[:, 1:])
