"""The lowest minima of a search as jobs take them along, to end relaxations that fall into one of them."""

from __future__ import annotations

from itertools import islice

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.basins import Basin
from hybridcsp.core.records import WORKERS, KnownMinimum
from hybridcsp.relaxation.saddle import WINDOW

#: Number of minima that a job takes along.
NUMBER = 64


class LowestMinima:
    """Read the lowest minima of the calculator in use, each once.

    Parameters
    ----------
    archive
        Archive of the search.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._read: dict[int, tuple[int, KnownMinimum]] = {}  # by minimum, with the number of its best event

    def lowest(self) -> tuple[KnownMinimum, ...]:
        """Return the lowest minima at present, lowest first."""
        certain = list(islice(filter(self._is_certain, self._archive.state.ranked()), NUMBER))
        # Ends that were higher than this when they were found were not examined, and may be saddle points.
        basins = [basin for basin in certain if basin.enthalpy_per_atom <= certain[0].enthalpy_per_atom + WINDOW]
        self._read = {basin.id: self._known(basin) for basin in basins}
        return tuple(known for _, known in self._read.values())

    def _is_certain(self, basin: Basin) -> bool:
        """Return whether workers have made sure that it is no saddle point, which earlier versions did not."""
        return basin.best.niche is not None and self._archive.owner(basin.best.candidate) == WORKERS

    def _known(self, basin: Basin) -> tuple[int, KnownMinimum]:
        read = self._read.get(basin.id)
        if read is not None and read[0] == basin.best.sequence:
            return read
        atoms = self._archive.structure(basin)
        known = KnownMinimum(
            id=basin.id,
            enthalpy_per_atom=basin.enthalpy_per_atom,
            numbers=atoms.numbers,
            cell=atoms.cell.array,
            positions=atoms.positions,
        )
        return basin.best.sequence, known
