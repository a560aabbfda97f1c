"""The lowest minima of a search as jobs take them along, to end relaxations that fall into one of them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.basins import Basin
from hybridcsp.archive.reader import ArchiveReader
from hybridcsp.core.records import WORKERS, KnownMinimum
from hybridcsp.relaxation.saddle import WINDOW

#: Number of minima that a job takes along.
NUMBER = 64


class LowestMinima:
    """Read the lowest minima of the calculator in use, in a chemical system those of one composition, each once.

    Parameters
    ----------
    archive
        Archive of the search.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        # By composition and minimum, with the number of the best event of the minimum.
        self._read: dict[ArchiveReader, dict[int, tuple[int, KnownMinimum]]] = {}

    def lowest(self, candidate: int) -> tuple[KnownMinimum, ...]:
        """Return the lowest minima at present that a relaxation of a candidate may fall into, lowest first.

        Suspects are left out, because heights are not those above a hole.
        """
        archive = self._archive.of_candidate(candidate)
        read = self._read.get(archive, {})
        certain = list(islice((one for one in archive.state.lowest_first() if self._is_certain(one, read)), NUMBER))
        # Ends that were higher than this when they were found were not examined, and may be saddle points.
        basins = [basin for basin in certain if basin.enthalpy_per_atom <= certain[0].enthalpy_per_atom + WINDOW]
        read = self._read[archive] = {basin.id: self._known(basin, read.get(basin.id)) for basin in basins}
        return tuple(known for _, known in read.values())

    def _is_certain(self, basin: Basin, read: Mapping[int, tuple[int, KnownMinimum]]) -> bool:
        """Return whether it is no hole and workers have made sure that it is no saddle point.

        Earlier versions, which had no niches, did not make sure of that.
        """
        if basin.suspect or basin.best.niche is None:
            return False
        if basin.id in read and read[basin.id][0] == basin.best.sequence:
            return True  # as it was when it was read
        return self._archive.owner(basin.best.candidate) == WORKERS

    def _known(self, basin: Basin, read: tuple[int, KnownMinimum] | None) -> tuple[int, KnownMinimum]:
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
