"""The minima of one calculator, and whether one more relaxation ended in one of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable

from ase import Atoms

from hybridcsp.archive.state import Basin
from hybridcsp.similarity import ENERGY_WINDOW, Descriptors, StructureIndex


class KnownMinima:
    """An index of minima whose structures are read and described when something of about their energy is looked for.

    Describing a structure takes half a millisecond: for the 100,000 minima of a long search, a minute, of which most
    sessions need a small part.

    Parameters
    ----------
    basins
        What is known at the beginning.
    structure_of
        Reads the structure of one of them.
    """

    def __init__(self, basins: Iterable[Basin], structure_of: Callable[[Basin], Atoms]) -> None:
        self._index = StructureIndex(energy_window=ENERGY_WINDOW)
        self._structure_of = structure_of
        self._unread = {basin.id: basin for basin in basins}
        self._by_energy = sorted((basin.enthalpy_per_atom, basin.id) for basin in self._unread.values())

    def find(self, described: Descriptors, enthalpy_per_atom: float) -> int | None:
        """Return the id of the same minimum, ``None`` if it is not among them."""
        # A little wider than the window of the index, which decides.
        first = bisect_left(self._by_energy, (enthalpy_per_atom - 1.001 * ENERGY_WINDOW, 0))
        last = bisect_right(self._by_energy, (enthalpy_per_atom + 1.001 * ENERGY_WINDOW, 0))
        for _, id_ in self._by_energy[first:last]:
            if (basin := self._unread.pop(id_, None)) is not None:
                self._index.add(id_, self._structure_of(basin), basin.enthalpy_per_atom)
        del self._by_energy[first:last]
        return self._index.find(described, enthalpy_per_atom)

    def put(self, id_: int, described: Descriptors, enthalpy_per_atom: float) -> None:
        """Take in a minimum, or put another structure in its place."""
        self.remove(id_)
        self._index.add(id_, described, enthalpy_per_atom)

    def remove(self, id_: int) -> None:
        """Forget a minimum, if it is among them."""
        self._unread.pop(id_, None)
        if id_ in self._index:
            self._index.remove(id_)
