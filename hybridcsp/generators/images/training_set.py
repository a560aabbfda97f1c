"""Examples of one chemical system that can be drawn as images, and their images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.generators.base import Example
from hybridcsp.generators.datasets import split
from hybridcsp.generators.images.crystal_images import CrystalImages, within_limits
from hybridcsp.generators.images.image_data import Change, ImageData
from hybridcsp.structure.representations.voxels import Voxels

#: Most elements of a chemical system.
MOST_ELEMENTS = 6
#: Fewest crystals that can be learned.
FEWEST_CRYSTALS = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageTrainingSet:
    """Represent examples and their images.

    Attributes
    ----------
    parts
        Examples that are learned and, if there are any, those of the held-out formulas, in the axes in which they are
        drawn.
    images
        Images of each part.
    beyond_limits
        Why the other examples cannot be drawn.
    """

    parts: Sequence[Sequence[Example]]
    images: Sequence[CrystalImages]
    beyond_limits: Sequence[str]

    @classmethod
    def of(
        cls, examples: Sequence[Example], elements: Sequence[int], voxels: Voxels, axes: Callable[[Atoms], Atoms]
    ) -> Self:
        """Draw examples.

        Parameters
        ----------
        examples
            Examples.
        elements
            Atomic numbers of the elements of the chemical system.
        voxels
            Representation.
        axes
            Function that returns a crystal in the axes in which it is drawn.

        Raises
        ------
        InputError
            If fewer than :data:`FEWEST_CRYSTALS` examples can be drawn.
        """
        kept, reasons = within_limits(examples, voxels, axes)
        if len(kept) < FEWEST_CRYSTALS:
            raise _too_few(len(kept), reasons)
        parts = [part for part in split(kept) if part]
        images = [CrystalImages.of([one.atoms for one in part], elements, voxels) for part in parts]
        return cls(parts=parts, images=images, beyond_limits=reasons)

    @property
    def learned(self) -> Sequence[Example]:
        """Examples that are learned."""
        return self.parts[0]

    @property
    def held_out(self) -> int:
        """Number of examples that are held out."""
        return sum(len(part) for part in self.parts[1:])

    @property
    def weights(self) -> list[NDArray[np.float64]]:
        """Weights of the examples of each part, shape ``(n,)``."""
        return [np.array([example.weight for example in part]) for part in self.parts]

    def of_sites(self, change: Change) -> list[ImageData]:
        """Return the images of the elements of each part as training data, changed at random."""
        together = zip(self.images, self.weights, strict=True)
        return [ImageData(one.sites, own[one.owners[:, 0]], change) for one, own in together]

    def of_cells(self, change: Change) -> list[ImageData]:
        """Return the images of the cells of each part as training data, changed at random."""
        return [ImageData(one.cells, own, change) for one, own in zip(self.images, self.weights, strict=True)]


def elements_of(examples: Sequence[Example], known: Sequence[int], generator: str) -> Sequence[int]:
    """Return the atomic numbers of the elements of a training set, those of the weights if there are any.

    Parameters
    ----------
    examples
        Training set.
    known
        Atomic numbers of the elements of the weights; empty for an untrained generator.
    generator
        Name of the generator, for the error.

    Raises
    ------
    InputError
        If there are no examples, or they have too many or other elements.
    """
    if not examples:
        raise InputError("examples", 0, reason="training needs at least one crystal")
    found = sorted({int(number) for example in examples for number in example.atoms.numbers})
    symbols = ", ".join(chemical_symbols[number] for number in found)
    if known:
        if not set(found) <= set(known):
            names = ", ".join(chemical_symbols[number] for number in known)
            reason = f"these weights are of crystals of {names}, and no other elements can be added; train anew"
            raise InputError("elements", symbols, reason=reason)
        return known
    if len(found) > MOST_ELEMENTS:
        reason = (
            f"the crystals have {len(found)} elements, and {generator} learns one chemical system of at most "
            f"{MOST_ELEMENTS}; choose the crystals of one system"
        )
        raise InputError("elements", symbols, reason=reason)
    return found


def _too_few(n: int, reasons: Sequence[str]) -> InputError:
    found = "; ".join(f"{times} times: {reason}" for reason, times in Counter(reasons).most_common(3))
    return InputError(
        "examples",
        n + len(reasons),
        reason=f"training needs at least {FEWEST_CRYSTALS} crystals that can be drawn as images, and {n} of these can"
        + (f" ({found})" if found else ""),
    )
