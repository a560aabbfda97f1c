"""The append-only log of events in a run directory, with the structures that belong to them.

The table of events holds their order, and each structure is a row of an ASE database in the same file. Both are written
in one transaction; no event is ever changed or deleted. The only thing that changes in rows is which of them have the
key ``best``, and that follows from the events.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ase import Atoms

from hybridcsp.archive import structure_rows
from hybridcsp.archive.database import EVENTS, Database, has_events
from hybridcsp.archive.events import Event, event_from_json
from hybridcsp.archive.structure_rows import BEST, Row

_E = TypeVar("_E", bound=Event)

# Number of events that are decoded at once, which is faster than one by one.
_BATCH = 1000


class EventLog:
    """The log in one run directory.

    Parameters
    ----------
    directory
        Run directory.
    write
        Whether to create the log or append to it; this holds the lock of the directory until :meth:`close`. Readers
        need no lock.

    Raises
    ------
    ArchiveError, LockedError
        If the directory cannot be used; see :class:`~hybridcsp.archive.database.Database`.
    """

    def __init__(self, directory: Path, *, write: bool) -> None:
        self._database = Database(directory, write=write)
        self.directory = self._database.directory
        try:
            with self.reading():
                self._last = self._highest_sequence()
        except BaseException:
            self.close()
            raise

    def _highest_sequence(self) -> int:
        if not has_events(self._database.connection):
            return 0
        query = f"SELECT COALESCE(MAX(sequence), 0) FROM {EVENTS}"
        (last,) = self._database.connection.execute(query).fetchone()
        return int(last)

    @property
    def writable(self) -> bool:
        """Whether this log holds the lock of its directory."""
        return self._database.writable

    def reading(self) -> AbstractContextManager[None]:
        """Return a block in which errors that a damaged database causes become an ``ArchiveError``."""
        return self._database.reading()

    def grouped(self) -> AbstractContextManager[None]:
        """Return a block whose transactions are kept together, at its end or after a second."""
        return self._database.grouped()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Append the events that are added in the block; after a crash either all of them are there or none.

        Raises
        ------
        ArchiveError
            If they cannot be written; see :meth:`~hybridcsp.archive.database.Database.transaction`.
        ValueError
            If ASE's databases cannot hold a key of a row. Nothing is written.
        """
        with self._database.transaction() as connection:
            transaction = Transaction(self._last + 1, structure_rows.next_id(connection))
            yield transaction
            structure_rows.insert(connection, transaction.rows.items())
            for row in transaction.unmarked:
                structure_rows.take_best(connection, row)
            connection.executemany(f"INSERT INTO {EVENTS} VALUES (?, ?, ?, ?)", transaction.lines)
        self._last += len(transaction.lines)

    def mark_best(self, rows: Iterable[int | None]) -> None:
        """Mark the rows of the best relaxations in a database of an earlier version, which did not mark them."""
        with self.reading():
            if structure_rows.is_best_marked(self._database.connection):
                return
            with self._database.transaction() as connection:
                structure_rows.prepare_best(connection)
                for row in rows:
                    if row is not None:
                        structure_rows.put_best(connection, row)

    def read(self, *kinds: type[Event]) -> Iterator[Event]:
        """Yield the events in order, all of them or those of some kinds.

        Events of kinds that only later versions of hybridcsp know are left out.
        """
        self._database.commit()  # another connection reads, which sees nothing of what is not
        with self.reading(), closing(self._database.new_reader()) as connection:
            if not has_events(connection):
                return
            names = [event.kind for event in kinds]
            condition = f"WHERE kind IN ({', '.join('?' * len(names))})" if names else ""
            query = f"SELECT sequence, kind, row, data FROM {EVENTS} {condition} ORDER BY sequence"
            found = connection.execute(query, names)
            while lines := found.fetchmany(_BATCH):
                decoded = _decoded([data for _, _, _, data in lines])
                for (sequence, kind, row, _), data in zip(lines, decoded, strict=True):
                    event = event_from_json(kind, data, sequence, row)
                    if event is not None:
                        yield event

    def atoms(self, row: int) -> Atoms:
        """Return the structure of one row, with its results in a ``SinglePointCalculator``."""
        with self.reading():
            return structure_rows.read(self._database.connection, row)

    def check_structures(self) -> None:
        """Check that every event has its structure, so that damage is found when a search is opened and not in hours.

        Raises
        ------
        ArchiveError
            If a structure is missing, or the table of structures is damaged.
        """
        with self.reading():
            connection = self._database.connection
            if not has_events(connection):
                return
            # Without an index, so that the table itself is read.
            query = (
                f"SELECT COUNT(row), SUM(row IS NOT NULL AND NOT EXISTS "
                f"(SELECT 1 FROM systems NOT INDEXED WHERE systems.id = {EVENTS}.row)) FROM {EVENTS}"
            )
            structures, missing = connection.execute(query).fetchone()
            if missing:
                raise LookupError(f"{missing} of {structures} structures are missing")

    def close(self) -> None:
        """Leave everything in one file and release the lock; a second call does nothing."""
        self._database.close()


class Transaction:
    """Events that are written together.

    Parameters
    ----------
    sequence
        Number of the next event.
    row
        Number of the next row.

    Attributes
    ----------
    lines
        Rows of the table of events.
    rows
        Structures by the numbers of their rows.
    unmarked
        Numbers of rows that lose the key :data:`~hybridcsp.archive.structure_rows.BEST`.
    """

    def __init__(self, sequence: int, row: int) -> None:
        self.lines: list[tuple[int, str, int | None, str]] = []
        self.rows: dict[int, Row] = {}
        self.unmarked: list[int] = []
        self._sequence = sequence
        self._row = row

    def add(self, event: _E, structure: Row | None = None) -> _E:
        """Add an event and its structure, and return the event with its place in the log."""
        row = None if structure is None else self._row + len(self.rows)
        event = dataclasses.replace(event, sequence=self._sequence + len(self.lines), row=row)
        self.lines.append((event.sequence, event.kind, row, json.dumps(event.to_json())))
        if structure is not None and row is not None:
            place = {"event": event.kind, "sequence": event.sequence}
            self.rows[row] = dataclasses.replace(structure, keys={**place, **structure.keys})
        return event

    def mark_best(self, row: int) -> None:
        """Mark a row of this transaction as that of the best relaxation of a minimum."""
        self.rows[row].keys[BEST] = 1

    def unmark_best(self, row: int) -> None:
        """Remove the mark of a row whose relaxation is not the best of a minimum any more."""
        self.unmarked.append(row)


def _decoded(lines: Sequence[str]) -> list[dict[str, Any]]:
    """Return the objects that lines of JSON hold."""
    try:
        found = json.loads(f"[{','.join(lines)}]")
    except ValueError:
        found = [json.loads(line) for line in lines]
    if len(found) != len(lines) or not all(isinstance(data, dict) for data in found):
        raise ValueError("an event is not a JSON object")
    return found  # type: ignore[no-any-return]
