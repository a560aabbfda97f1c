"""Recognition of records that an archive already contains, and of candidates that another code has relaxed."""

from __future__ import annotations

from hybridcsp.archive.archive import Archive
from hybridcsp.core.records import USER, Candidate
from hybridcsp.io.formats import Record
from hybridcsp.similarity import STARTS, StructureIndex, compute_descriptors


class KnownRecords:
    """The records of a code in an archive, and the candidates whose result the archive lacks.

    Candidates of a search that were given to the other code as seeds are recognised by their starting structures.

    Parameters
    ----------
    archive
        The archive.
    source
        The name of the code.
    """

    def __init__(self, archive: Archive, source: str) -> None:
        self._source = source
        self._candidates = _candidates_by_key(archive, source)
        self._waiting = {candidate.id: candidate for candidate in archive.pending(USER)}
        self._index = StructureIndex(energy_window=None, tolerances=STARTS)
        own = set(self._candidates.values())
        for id_, candidate in self._waiting.items():
            if id_ not in own:
                self._index.add(id_, candidate.atoms)

    def key(self, record: Record) -> str:
        """Return a key that is unique among the records of the code.

        Search codes number their structures; records of plain files are identified by their location.
        """
        return f"{record.file}:{record.line}:{record.id}" if self._source == "plain" else record.id

    def __contains__(self, record: Record) -> bool:
        return self.key(record) in self._candidates

    def register(self, record: Record) -> bool:
        """Register a record; return whether it is new, or is the result of a candidate that waited for one."""
        key = self.key(record)
        if key not in self._candidates:
            self._candidates[key] = 0
            return True
        return self._candidates[key] in self._waiting and has_result(record)

    def check_start(self, record: Record) -> None:
        """Check that the starting structure of a record can be compared with the waiting candidates.

        Raises
        ------
        InputError
            If its cell is too thin or it has too many atoms.
        """
        if record.start is not None and len(self._index):
            compute_descriptors(record.start)

    def pop(self, record: Record) -> Candidate | None:
        """Return and remove the candidate that waited for a record; ``None`` if there is none."""
        if not has_result(record):
            return None
        id_: int | None = self._candidates[self.key(record)]
        if id_ not in self._waiting and record.start is not None and len(self._index):
            id_ = self._index.find(record.start)
            if id_ is not None:
                self._index.remove(id_)
        return None if id_ is None else self._waiting.pop(id_, None)


def has_result(record: Record) -> bool:
    """Return whether a record has an energy or an enthalpy, or is a failed relaxation."""
    return bool(record.failure) or record.energy is not None or record.enthalpy is not None


def _candidates_by_key(archive: Archive, source: str) -> dict[str, int]:
    found = {event.tag["key"]: event.candidate for event in archive.state.candidates_of(source) if "key" in event.tag}
    # Candidates of other sources keep their own tags; the detail of their outcome begins with the code's key.
    prefix = f"{source}:"
    return found | {
        text.removeprefix(prefix).partition(" | ")[0]: id_
        for id_, text in archive.details().items()
        if text.startswith(prefix)
    }
