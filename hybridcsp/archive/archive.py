"""Everything a search has found: the events in their order, and the minima they add up to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from ase import Atoms

from hybridcsp.archive import events as translation
from hybridcsp.archive.event_log import DATABASE, FORMAT, Event, EventLog
from hybridcsp.archive.known_minima import KnownMinima
from hybridcsp.archive.state import Basin, SearchState
from hybridcsp.archive.structure_rows import BEST
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import REFINE, Candidate, Cost, Failed, Minimum, Outcome, Rejected, Relaxed
from hybridcsp.errors import ArchiveError
from hybridcsp.similarity import Descriptors, compute_descriptors
from hybridcsp.structure.symmetry import spacegroups
from hybridcsp.utils.interrupts import uninterrupted
from hybridcsp.utils.resources import garbage_collection_paused

#: The source of structures that were handed in without having been asked for; they do not count as relaxations.
ADDED = "added"

_NONE_AHEAD: Mapping[int, Descriptors] = {}


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceCall:
    """One call of a source.

    Attributes
    ----------
    source
        Its name.
    call
        The number of the call, from 0.
    requested
        How many proposals were asked for.
    owner
        :data:`WORKERS` or :data:`USER`.
    candidates
        What came of it.
    cost
        What it took.
    error
        What the source raised, if it did.
    sequence
        0 until it is written.
    """

    source: str
    call: int
    requested: int
    owner: str
    candidates: tuple[Candidate, ...] = ()
    cost: Cost = field(default_factory=Cost)
    error: str = ""
    sequence: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelUpdate:
    """A change of the versions of its model that a source samples from, or an attempt at one.

    Attributes
    ----------
    source
        Its name.
    versions
        In use from here on; 0 is what the source began with.
    cost
        What it took.
    detail
        Why, in words.
    training
        Plain JSON about the training that it ends, empty if there was none.
    sequence
        0 until it is written.
    """

    source: str
    versions: tuple[int, ...]
    cost: Cost = field(default_factory=Cost)
    detail: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    sequence: int = 0


@dataclass(frozen=True, kw_only=True)
class End:
    """Where one relaxation ended, without its structure."""

    relaxation: int
    source: str
    enthalpy_per_atom: float
    converged: bool


class Archive:
    """The record of one search, in its run directory.

    Parameters
    ----------
    directory
        The run directory; ``search.db`` in it is an ASE database.
    write
        Whether to create or append to it. Only one process can.

    Raises
    ------
    ArchiveError, LockedError
        If it cannot be used; see :class:`~hybridcsp.archive.event_log.EventLog`.
    """

    def __init__(self, directory: Path | str, *, write: bool = False) -> None:
        self._log = EventLog(Path(directory), write=write)
        self.directory = self._log.directory
        self.state = SearchState()
        self._known: dict[str, KnownMinima] = {}  # by calculator
        self._minima: dict[int, Minimum] = {}  # a cache
        try:
            with self.reading(), garbage_collection_paused():
                rows = set()
                for event in self._log.read():
                    self.state.apply(event)
                    if event.row is not None:
                        rows.add(event.row)
                self._log.check_structures(rows)
                if write:
                    self._log.mark_best(basin.best.row for basin in self.state.basins.values())
        except BaseException:  # an interrupted opening must not keep the lock
            self._log.close()
            raise

    def reading(self) -> AbstractContextManager[None]:
        """Give a block in which what the archive holds is read: what damage causes there is an ``ArchiveError``."""
        return self._log.reading()

    @property
    def problem(self) -> Problem:
        """The problem that was searched, or imported, in the last session.

        Raises
        ------
        ArchiveError
            If no session was begun, or the settings are damaged.
        """
        with self.reading():
            if not self.state.settings:
                raise ArchiveError(f"{self.directory} holds no search that was begun: its {DATABASE} has no events")
            return Problem(**self.state.settings[-1]["problem"])

    def close(self) -> None:
        """Give the run directory back to others."""
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What is in it

    @property
    def candidates(self) -> int:
        """How many candidates there are; ids run from 1 to this."""
        return len(self.state.candidates)

    def minima(self, n: int | None = None) -> list[Minimum]:
        """Return the ``n`` (default: all) minima of lowest enthalpy per atom, best first.

        Only minima of the calculator used last are compared.
        """
        with self.reading():
            return [self._minimum(basin) for basin in self.state.ranked()[:n]]

    def stream_minima(self, n: int | None = None) -> Iterator[Minimum]:
        """Yield what :meth:`minima` returns one after the other, without holding them all in memory."""
        with self.reading():
            for basin in self.state.ranked()[:n]:
                yield self._read_minimum(basin)

    @property
    def number_of_minima(self) -> int:
        """How many distinct minima there are."""
        return self.state.number_of_minima

    @property
    def best_enthalpy_per_atom(self) -> float | None:
        """Of the best minimum in eV/atom."""
        return self.state.lowest()

    def state_until(self, relaxations: int) -> SearchState:
        """Return the state of the search when so many relaxations had ended."""
        state = SearchState()
        for event in self._log.read():
            state.apply(event)
            if state.relaxations >= relaxations:
                break
        return state

    def pending(self, owner: str) -> list[Candidate]:
        """Return the candidates that an owner was given and has not reported on, oldest first."""
        with self.reading():
            return [
                self.candidate(id_)
                for id_, event in self.state.candidates.items()
                if id_ not in self.state.terminal and event.data["owner"] == owner
            ]

    def candidate(self, id_: int) -> Candidate:
        """Return one candidate.

        Raises
        ------
        ArchiveError
            If there is none of that number.
        """
        if id_ not in self.state.candidates:
            raise ArchiveError(f"there is no candidate {id_}; they run from 1 to {self.candidates}")
        return self._candidate(id_)

    def status(self, id_: int) -> str:
        """Return "pending", "relaxed", "failed" or "rejected"."""
        return self.state.terminal.get(id_, "pending")

    def owner(self, id_: int) -> str:
        """Return who relaxes a candidate."""
        return str(self.state.candidates[id_].data["owner"])

    def ends(self) -> list[End]:
        """Return where every relaxation of the calculator used last ended, in the order of completion."""
        with self.reading():
            return [
                End(
                    relaxation=event.data["relaxation"],
                    source=event.data["source"],
                    enthalpy_per_atom=event.data["enthalpy_per_atom"],
                    converged=event.data["converged"],
                )
                for event in self._log.read()
                if event.kind == "relaxed"
                and event.data["relaxation"] is not None
                and event.data["calculator"] == self.state.calculator
            ]

    def details(self) -> dict[int, str]:
        """Return what was said of how candidates ended, by candidate, where anything was."""
        with self.reading():
            return {
                event.data["candidate"]: event.data["detail"]
                for event in self._log.read()
                if event.kind in ("relaxed", "failed", "rejected") and event.data["detail"]
            }

    def structure(self, basin: Basin) -> Atoms:
        """Return the structure of a basin's best relaxation."""
        return self._atoms(basin.best)

    def history(self) -> Iterator[SourceCall | Outcome | ModelUpdate]:
        """Yield every call of a source, every outcome and every change of a model, in order, with structures."""
        with self.reading():
            for event in self._log.read():
                if event.kind == "called":
                    yield self._called(event)
                elif event.kind in ("relaxed", "failed", "rejected"):
                    candidate = self._candidate(event.data["candidate"])
                    yield translation.outcome(event, candidate, self._atoms(event))
                elif event.kind == "adopted":
                    data = event.data | {"versions": tuple(event.data["versions"]), "cost": Cost(**event.data["cost"])}
                    yield ModelUpdate(**data, sequence=event.sequence)

    def to_refine(self, n: int, window: float) -> list[Relaxed]:
        """Return what a final refinement still has to do.

        Of the ``n`` best minima and unconverged relaxations, those within ``window`` (eV/atom) of the best minimum on
        which no refinement was tried.
        """
        ranked = self.state.ranked()
        if not ranked:
            return []
        ends = [basin.best for basin in ranked]
        ends += [
            event for event in self.state.unconverged.values() if event.data["calculator"] == self.state.calculator
        ]
        ends.sort(key=lambda event: float(event.data["enthalpy_per_atom"]))
        top = ranked[0].enthalpy_per_atom + window
        with self.reading():
            return [
                self._relaxed(event)
                for event in ends[:n]
                if event.data["enthalpy_per_atom"] <= top and event.data["candidate"] not in self.state.refined
            ]

    # What happens to it: applied to the state and written to the log, never one without the other

    def open_session(self, settings: Mapping[str, Any]) -> None:
        """Record the settings that the events which follow are made with."""
        self._record([Event(kind="opened", data={"format": FORMAT, "settings": dict(settings)})])

    def record_stop(self, reason: str) -> None:
        """Record why a run came to its end."""
        self._record([Event(kind="stopped", data={"reason": reason})])

    def record_adoption(self, adopted: ModelUpdate) -> ModelUpdate:
        """Record that a source goes on with other versions of its model; return it with its sequence number."""
        data = asdict(adopted)
        del data["sequence"]
        event = Event(kind="adopted", data=data)
        self._record([event])
        return replace(adopted, sequence=event.sequence)

    @uninterrupted()
    def record_call(self, called: SourceCall, rejected: Sequence[Rejected] = ()) -> list[Outcome]:
        """Record a call of a source, the candidates it became, and those of them that were rejected on the spot."""
        data = {
            "source": called.source,
            "call": called.call,
            "requested": called.requested,
            "owner": called.owner,
            "candidates": [candidate.id for candidate in called.candidates],
            "cost": asdict(called.cost),
            "error": called.error,
        }
        events = [Event(kind="called", data=data)]
        events += [translation.candidate_event(candidate, called.owner) for candidate in called.candidates]
        for event in events:
            self.state.apply(event)
        return self._record_outcomes(events, rejected)

    @uninterrupted()
    def record_outcomes(
        self,
        outcomes: Sequence[Outcome],
        described: Mapping[int, Descriptors] = _NONE_AHEAD,
        *,
        find_symmetry: bool = True,
    ) -> list[Outcome]:
        """Record outcomes that arrived together; return them with their sequence numbers.

        Parameters
        ----------
        outcomes
            In the order of their arrival.
        described
            By candidate, the structures that were described ahead.
        find_symmetry
            Whether to record space groups, which take milliseconds to find for each structure. Otherwise those of a
            minimum are found when they are asked for.
        """
        return self._record_outcomes([], outcomes, described, find_symmetry=find_symmetry)

    def _record_outcomes(
        self,
        before: list[Event],
        outcomes: Sequence[Outcome],
        described: Mapping[int, Descriptors] = _NONE_AHEAD,
        *,
        find_symmetry: bool = True,
    ) -> list[Outcome]:
        # One after the other, because two that arrive together may be the same new minimum; then one transaction.
        events = []
        for outcome in outcomes:
            match outcome:
                case Relaxed():
                    groups = spacegroups(outcome.atoms) if find_symmetry else None
                    event = self._place(outcome, groups, described.get(outcome.candidate.id))
                case Failed():
                    event = translation.failed_event(outcome, self._number(outcome), self._force_calls(outcome))
                case Rejected():
                    event = translation.rejected_event(outcome)
            was_best = self._best_of(event)
            self.state.apply(event)
            if event.data.get("minimum") is not None:
                is_best = [self.state.basins[event.data["minimum"]].best]
                event.displaced = [other for other in was_best if other not in is_best]
                if event in is_best:
                    event.keys[BEST] = 1
            events.append(event)
        self._log.append([*before, *events])
        return [_recorded(outcome, event) for event, outcome in zip(events, outcomes, strict=True)]

    @uninterrupted()
    def _record(self, events: list[Event]) -> None:
        for event in events:
            self.state.apply(event)
        self._log.append(events)

    def _place(self, outcome: Relaxed, groups: tuple[int, int] | None, described: Descriptors | None) -> Event:
        """Make the event of a relaxation: which basin it ended in, and what that does to the other basins."""
        event = translation.relaxed_event(outcome, self._number(outcome), self._force_calls(outcome), groups)
        if not outcome.converged:
            return event
        calculator = outcome.evaluation.calculator
        known = self._known.get(calculator)
        if known is None:
            basins = [basin for basin in self.state.basins.values() if basin.calculator == calculator]
            known = self._known[calculator] = KnownMinima(basins, self.structure)
        if described is None:
            described = compute_descriptors(outcome.atoms)
        own = self.state.basin_ending(outcome.candidate.id) if outcome.level == REFINE else None
        if own is not None and own.calculator != calculator:
            own = None
        found = known.find(described, outcome.enthalpy_per_atom)
        target = found if found is not None else own.id if own else self.state.last_minimum + 1
        absorbed = own.id if own is not None and own.id != target else None
        if absorbed is not None:
            known.remove(absorbed)
        basin = self.state.basins.get(target)
        if basin is None or basin is own or outcome.enthalpy_per_atom < basin.enthalpy_per_atom:
            known.put(target, described, outcome.enthalpy_per_atom)
        event.data |= {"minimum": target, "opened": basin is None, "absorbed": absorbed}
        event.keys |= {"minimum": target}
        return event

    def _best_of(self, event: Event) -> list[Event]:
        """Return the best relaxations of the minima that a relaxation has to do with, before it is taken in."""
        ids = (event.data.get("minimum"), event.data.get("absorbed"))
        return [self.state.basins[id_].best for id_ in ids if id_ in self.state.basins]

    def _number(self, outcome: Relaxed | Failed) -> int | None:
        counted = outcome.level != REFINE and outcome.candidate.source != ADDED
        return self.state.relaxations + 1 if counted else None

    def _force_calls(self, outcome: Relaxed | Failed) -> int:
        return self.state.cost.force_calls + outcome.cost.force_calls

    # From events to records

    def _minimum(self, basin: Basin) -> Minimum:
        cached = self._minima.get(basin.id)
        if (
            cached is None
            or cached.best.sequence != basin.best.sequence
            or cached.multiplicity != basin.multiplicity
            or cached.found_by.id != basin.found_by
        ):
            cached = self._minima[basin.id] = self._read_minimum(basin)
        return cached

    def _read_minimum(self, basin: Basin) -> Minimum:
        groups = basin.best.data["spacegroup"], basin.best.data["spacegroup_loose"]
        best = self._relaxed(basin.best)
        return Minimum(
            id=basin.id,
            best=best,
            found_by=best.candidate if best.candidate.id == basin.found_by else self._candidate(basin.found_by),
            spacegroups=None if None in groups else groups,
            multiplicity=basin.multiplicity,
            first_relaxation=basin.first_relaxation,
            first_force_calls=basin.first_force_calls,
        )

    def _called(self, event: Event) -> SourceCall:
        data = event.data
        return SourceCall(
            source=data["source"],
            call=data["call"],
            requested=data["requested"],
            owner=data["owner"],
            candidates=tuple(self._candidate(id_) for id_ in data["candidates"]),
            cost=Cost(**data["cost"]),
            error=data["error"],
            sequence=event.sequence,
        )

    def _candidate(self, id_: int) -> Candidate:
        with self.reading():
            event = self.state.candidates[id_]
            return translation.candidate(event, self._atoms(event))

    def _relaxed(self, event: Event) -> Relaxed:
        return translation.relaxed(event, self._candidate(event.data["candidate"]), self._atoms(event))

    def _atoms(self, event: Event) -> Atoms:
        with self.reading():
            if event.row is None:
                raise LookupError(f"event {event.sequence} has no structure")
            return self._log.atoms(event.row)


def is_begun(directory: Path | str) -> bool:
    """Whether a directory holds a search or an import that has begun, and not only what a kill left before that.

    Raises
    ------
    ArchiveError
        If there is a database that cannot be read.
    """
    if not os.path.lexists(Path(directory) / DATABASE):
        return False
    with Archive(directory) as archive:
        return bool(archive.state.settings)


def _recorded(outcome: Outcome, event: Event) -> Outcome:
    if isinstance(outcome, Relaxed):
        data = event.data
        return replace(outcome, sequence=event.sequence, minimum=data["minimum"], is_new_minimum=data["opened"])
    return replace(outcome, sequence=event.sequence)
