"""Interface of generators that can complete crystals which are partly built."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from hybridcsp.generators.base import Generator


@dataclass(frozen=True, kw_only=True)
class PartialCrystal:
    """Represent a crystal of which the space group and some orbits may be known.

    Attributes
    ----------
    contents
        Number of atoms of each element in the primitive cell.
    spacegroup
        Number of the space group, or ``None`` if it is to be drawn.
    spacegroups
        Numbers of the space groups from which it is drawn; empty for all.
    sites
        Symbol of the element and Wyckoff letter of each orbit so far, in the order of the generator.
    energy_quantile, pressure_gpa
        Conditions as in a :class:`~hybridcsp.generators.base.Request`.
    """

    contents: Mapping[str, int]
    spacegroup: int | None = None
    spacegroups: tuple[int, ...] = ()
    sites: tuple[tuple[str, str], ...] = ()
    energy_quantile: float | None = None
    pressure_gpa: float | None = None


class GrowingGenerator(Generator):
    """Abstract base class of generators that build crystals orbit after orbit, and so can complete partial ones."""

    @abstractmethod
    def complete(self, partial: Sequence[PartialCrystal], rng: np.random.Generator) -> list[PartialCrystal | None]:
        """Return a random completion of each partial crystal with all orbits; ``None`` for those that have none.

        The known space group and orbits are kept, and the others follow them in the order of the generator.
        """

    @abstractmethod
    def build(self, complete: Sequence[PartialCrystal], rng: np.random.Generator) -> list[Atoms | None]:
        """Return the primitive cell of each complete crystal, with a random geometry; ``None`` if it is not plausible.

        Parameters
        ----------
        complete
            Crystals that :meth:`complete` returned.
        rng
            Random number generator.
        """
