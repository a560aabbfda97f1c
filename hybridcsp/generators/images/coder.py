"""Encoding of crystals to the codes of their images, and decoding of codes to crystals of wanted contents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from hybridcsp.generators.images.codes import Codes
from hybridcsp.generators.images.crystal_images import CrystalImages, decode_images, encode_images
from hybridcsp.generators.images.image_network import ImageAutoencoder
from hybridcsp.generators.images.reading import Reading
from hybridcsp.structure.representations.base import BeyondLimitsError, DecodingError
from hybridcsp.structure.representations.voxels import Voxels
from hybridcsp.structure.validity import is_finite_crystal, is_too_close

# Reasons for rejection are recorded in event logs and must not change.
_NO_CONTENTS = "not the contents of a cell"
_TOO_MANY = "the decoded images show more atoms than crystals have"
_TOO_CLOSE = "atoms of the decoded crystal are too close"

#: Function from the codes of crystals and their contents, shape ``(n, n_elements)``, to what becomes of the codes.
Through = Callable[[Codes, NDArray[np.int_]], Codes]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageCoder:
    """Autoencoders of the images of the crystals of one chemical system, with the reading of their images.

    Attributes
    ----------
    elements
        Atomic numbers of the elements.
    voxels
        Representation.
    axes
        Function that returns a crystal in the axes in which it is drawn.
    of_sites, of_cells
        Trained autoencoders of the images of elements and of cells.
    reading
        How crystals are read from decoded images.
    too_close
        Function that returns whether atoms are too close for a crystal.
    """

    elements: Sequence[int]
    voxels: Voxels
    axes: Callable[[Atoms], Atoms]
    of_sites: ImageAutoencoder
    of_cells: ImageAutoencoder
    reading: Reading
    too_close: Callable[[Atoms], bool] = is_too_close

    def refusal(self, contents: Mapping[str, int]) -> str:
        """Return why no crystal of these contents can be decoded, or an empty string."""
        counts = list(contents.values())
        if not counts or min(counts) < 0 or sum(counts) < 1 or any(symbol not in atomic_numbers for symbol in contents):
            return _NO_CONTENTS
        if any(n and atomic_numbers[symbol] not in self.elements for symbol, n in contents.items()):
            return self._other_elements()
        if sum(counts) > self.voxels.grid.atoms:
            return f"the images hold at most {self.voxels.grid.atoms} atoms"
        return ""

    def counts(self, contents: Mapping[str, int]) -> NDArray[np.int_]:
        """Return the number of atoms of each element, shape ``(n_elements,)``."""
        return np.array([contents.get(chemical_symbols[number], 0) for number in self.elements])

    def encode(self, images: CrystalImages) -> Codes:
        """Return the codes of images."""
        codes: Codes = encode_images(images, self.of_sites, self.of_cells)
        return codes

    @torch.no_grad()
    def decode(self, codes: Codes, contents: NDArray[np.int_] | None) -> list[Atoms | DecodingError]:
        """Return the crystals of codes, or the errors.

        Parameters
        ----------
        codes
            Codes.
        contents
            Wanted number of atoms of each element, shape ``(n, n_elements)``; ``None`` for whatever contents the images
            show.
        """
        found: list[Atoms | DecodingError] = []
        rows = np.ones((len(codes.cell), len(self.elements)), dtype=int) if contents is None else contents
        drawn = decode_images(codes, rows, self.elements, self.of_sites, self.of_cells)
        for images, row in zip(drawn, rows, strict=True):
            wanted = {number: int(n) for number, n in zip(self.elements, row, strict=True) if n}
            try:
                atoms = self.reading.read(images, self.voxels.grid, None if contents is None else wanted)
            except DecodingError as error:
                found.append(error)
                continue
            found.append(DecodingError(reason) if (reason := self._fault(atoms)) else atoms)
        return found

    def reconstruct(self, crystals: Sequence[Atoms], through: Through) -> list[Atoms | DecodingError]:
        """Encode crystals, and decode what becomes of their codes.

        Parameters
        ----------
        crystals
            Crystals in any cells.
        through
            What happens to the codes of the crystals that can be drawn.

        Returns
        -------
        list
            Crystals, or the errors; a :class:`~hybridcsp.structure.representations.base.BeyondLimitsError` for a
            crystal that cannot be drawn.
        """
        turned = [self.axes(atoms) if is_finite_crystal(atoms) else atoms for atoms in crystals]
        found: list[Atoms | DecodingError] = [BeyondLimitsError(self._limit(atoms)) for atoms in turned]
        good = [number for number, error in enumerate(found) if isinstance(error, DecodingError) and not error.reason]
        if not good:
            return found
        images = CrystalImages.of([turned[number] for number in good], self.elements, self.voxels)
        codes = through(self.encode(images), images.contents)
        for number, decoded in zip(good, self.decode(codes, images.contents), strict=True):
            found[number] = decoded
        return found

    def _fault(self, atoms: Atoms) -> str:
        """Return why decoded atoms are of no use, or an empty string."""
        if len(atoms) > self.voxels.grid.atoms:
            return _TOO_MANY
        return _TOO_CLOSE if not is_finite_crystal(atoms) or self.too_close(atoms) else ""

    def _limit(self, atoms: Atoms) -> str:
        others = sorted({chemical_symbols[n] for n in atoms.numbers if n not in self.elements})
        return self._other_elements() if others else self.voxels.limit(atoms)

    def _other_elements(self) -> str:
        return f"the model knows only {' and '.join(chemical_symbols[number] for number in self.elements)}"
