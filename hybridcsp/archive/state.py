"""What the events of a search add up to: minima, tallies, costs. No files and no structures here."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hybridcsp.archive.event_log import FORMAT, Event
from hybridcsp.core.records import REFINE, WORKERS, Cost
from hybridcsp.errors import ArchiveError


@dataclass(kw_only=True)
class Tally:
    """What one operator of one source has done so far."""

    proposed: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    relaxed: int = 0
    unconverged: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    first_reached: int = 0
    best: float | None = None  # eV/atom
    cost: Cost = field(default_factory=Cost)


@dataclass(kw_only=True)
class Basin:
    """A minimum, with the event of its best relaxation in place of a structure; see :class:`records.Minimum`."""

    id: int
    found_by: int
    first_relaxation: int
    first_force_calls: int
    best: Event
    multiplicity: int = 1

    @property
    def enthalpy_per_atom(self) -> float:
        """In eV/atom."""
        return float(self.best.data["enthalpy_per_atom"])

    @property
    def calculator(self) -> str:
        """Label of the calculator."""
        return str(self.best.data["calculator"])


@dataclass(kw_only=True)
class Failures:
    """Relaxations that failed one after the other for the same reason, before any succeeded."""

    reason: str
    detail: str  # of the first
    count: int = 1


#: Why a run ended in which nothing but such failures happened.
ALL_FAILED = "every relaxation failed"


class Ranking:
    """The basins of one calculator, in the order of their enthalpies as they come, change and go.

    The lowest is known at any time, and the whole order is worked out when it is asked for, so that reading the events
    of a long search takes time in proportion to their number.
    """

    def __init__(self) -> None:
        self._basins: dict[int, Basin] = {}
        self._heap: list[tuple[float, int]] = []  # entries of basins that have changed or gone are left in it
        self._sorted: list[Basin] = []
        self._is_sorted = True

    def __len__(self) -> int:
        return len(self._basins)

    def put(self, basin: Basin) -> None:
        """Take in a basin, or what has become of it."""
        self._basins[basin.id] = basin
        heapq.heappush(self._heap, (basin.enthalpy_per_atom, basin.id))
        self._is_sorted = False

    def remove(self, basin: Basin) -> None:
        """Forget a basin."""
        del self._basins[basin.id]
        self._is_sorted = False

    def found(self) -> list[Basin]:
        """Return the basins in the order in which they came."""
        return list(self._basins.values())

    def best(self) -> Basin | None:
        """Return the basin of lowest enthalpy per atom."""
        while self._heap:
            enthalpy, id_ = self._heap[0]
            basin = self._basins.get(id_)
            if basin is not None and basin.enthalpy_per_atom == enthalpy:
                return basin
            heapq.heappop(self._heap)
        return None

    def sorted(self) -> list[Basin]:
        """Return the basins, lowest enthalpy per atom first, and of equal ones the older."""
        if not self._is_sorted:
            known = [basin for basin in self._sorted if self._basins.get(basin.id) is basin]
            have = {basin.id for basin in known}
            known += [basin for basin in self._basins.values() if basin.id not in have]
            self._sorted = sorted(known, key=lambda basin: (basin.enthalpy_per_atom, basin.id))
            self._is_sorted = True
        return list(self._sorted)


class SearchState:
    """The state of a search, folded from its events: the same code when they happen and when they are read back.

    Attributes
    ----------
    settings
        Of every session, oldest first.
    stops
        Why each run ended.
    tallies
        By source and operator.
    calls
        How often each source was called.
    errors
        By source, how many of its calls ended with an error.
    last_errors
        By source, what the last of them was.
    explanations
        By reason of failure, what was said of the first relaxation that failed for it.
    attempts, successes
        How many relaxations by our workers have ended, and how many of them in a structure, since the calculator was
        last changed. What a person tells or imports says nothing about the calculator of the workers.
    failures
        The last relaxations by our workers, where none has succeeded and they failed for the same reason; those from
        before the search was last ended for that do not count.
    adoptions
        By source, every change of its model, oldest first.
    cost, proposing
        Of everything, and of proposing alone.
    relaxations
        How many relaxations have come to an end, failures included.
    calculator
        Label of the calculator in force, which is the one used last: only its minima are compared.
    calculator_since
        How many relaxations had come to an end when it came into force.
    candidates
        By id, the event of each.
    terminal
        By candidate, the kind of the outcome that ended it.
    loose_ends
        By candidate, relaxations that did not converge and are in no basin.
    refined
        Candidates on which a refinement was tried.
    basins
        By id.
    last_minimum
        The highest id that any basin ever had.
    """

    def __init__(self) -> None:
        self.settings: list[Mapping[str, Any]] = []
        self.stops: list[str] = []
        self.tallies: dict[tuple[str, str], Tally] = {}
        self.calls: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.last_errors: dict[str, str] = {}
        self.explanations: dict[str, str] = {}
        self.attempts = 0
        self.successes = 0
        self.failures: Failures | None = None
        self.adoptions: dict[str, list[Mapping[str, Any]]] = {}
        self.cost = Cost()
        self.proposing = Cost()
        self.relaxations = 0
        self.calculator: str | None = None
        self.calculator_since = 0
        self.candidates: dict[int, Event] = {}
        self.terminal: dict[int, str] = {}
        self.unconverged: dict[int, Event] = {}
        self.refined: set[int] = set()
        self.basins: dict[int, Basin] = {}
        self.last_minimum = 0
        self._rankings: defaultdict[str, Ranking] = defaultdict(Ranking)
        self._improvements: defaultdict[str, list[tuple[int, int, float]]] = defaultdict(list)
        self._bests: dict[str, dict[tuple[str, str], float]] = {}  # of the tallies, by calculators used before
        self._ending: dict[int, int] = {}  # basins by the candidates of their best relaxations

    def ranked(self) -> list[Basin]:
        """Return the basins of the calculator in force, lowest enthalpy per atom first."""
        return self._comparable.sorted()

    def best(self) -> Basin | None:
        """Return the basin of lowest enthalpy per atom."""
        return self._comparable.best()

    def lowest(self) -> float | None:
        """Return the lowest enthalpy per atom in eV."""
        best = self.best()
        return None if best is None else best.enthalpy_per_atom

    def comparable(self) -> list[Basin]:
        """Return the basins of the calculator in force, in the order of discovery; cheaper than :meth:`ranked`."""
        return self._comparable.found()

    @property
    def improvements(self) -> list[tuple[int, int, float]]:
        """Relaxation, force calls and enthalpy per atom (eV) of every new best minimum of the calculator in force."""
        return self._improvements[self.calculator or ""]

    @property
    def number_of_minima(self) -> int:
        """Number of basins of the calculator in force."""
        return len(self._comparable)

    @property
    def _comparable(self) -> Ranking:
        return self._rankings[self.calculator or ""]

    def basin_ending(self, candidate: int) -> Basin | None:
        """Return the basin whose best relaxation is that of a candidate."""
        id_ = self._ending.get(candidate)
        return None if id_ is None else self.basins[id_]

    def apply(self, event: Event) -> None:
        """Take in one event; ``ArchiveError`` for one of another format, ``KeyError`` and others for damage."""
        data = event.data
        match event.kind:
            case "opened":
                if data["format"] != FORMAT:
                    raise ArchiveError(
                        f"search.db has events of format {data['format']}, and this version of hybridcsp reads those "
                        f"of format {FORMAT}: use the version that wrote it"
                    )
                self.settings.append(data["settings"])
                if data["settings"].get("calculator_label"):
                    self._use(data["settings"]["calculator_label"])
            case "stopped":
                self.stops.append(data["reason"])
                if data["reason"] == ALL_FAILED:  # whoever goes on has changed something
                    self.failures = None
            case "called":
                self.calls[data["source"]] = data["call"] + 1
                self.errors[data["source"]] += bool(data["error"])
                if data["error"]:
                    self.last_errors[data["source"]] = data["error"]
                self.cost += Cost(**data["cost"])
                self.proposing += Cost(**data["cost"])
            case "adopted":
                self.adoptions.setdefault(data["source"], []).append(data)
                self.cost += Cost(**data["cost"])
            case "proposed":
                self.candidates[data["candidate"]] = event
                self._tally(data).proposed += 1
            case "rejected":
                self.terminal[data["candidate"]] = event.kind
                self._tally(data).rejected[data["reason"]] += 1
            case "failed":
                self._apply_cost(event)
                if data["level"] != REFINE:
                    self._tally(data).failed[data["reason"]] += 1
                    self.explanations.setdefault(data["reason"], data["detail"])
                    self._apply_failure(data)
            case "relaxed":
                self._use(data["calculator"])
                self._apply_cost(event)
                self._apply_relaxed(event)

    def _apply_cost(self, event: Event) -> None:
        data = event.data
        cost = Cost(**data["cost"])
        self.cost += cost
        self._tally(data).cost += cost
        if data["relaxation"] is not None:
            self.relaxations = data["relaxation"]
        if data["level"] == REFINE:
            self.refined.add(data["candidate"])
        else:
            self.terminal[data["candidate"]] = event.kind

    def _use(self, calculator: str) -> None:
        """Bring a calculator into force; energies of the one before are kept, and compared with no others."""
        if calculator == self.calculator:
            return
        if self.calculator is not None:
            self._bests[self.calculator] = {
                name: tally.best for name, tally in self.tallies.items() if tally.best is not None
            }
            known = self._bests.get(calculator, {})
            for name, tally in self.tallies.items():
                tally.best = known.get(name)
            self.attempts, self.successes, self.failures = 0, 0, None
            self.calculator_since = self.relaxations
        self.calculator = calculator

    def _is_of_workers(self, data: Mapping[str, Any]) -> bool:
        return bool(self.candidates[data["candidate"]].data["owner"] == WORKERS)

    def _apply_failure(self, data: Mapping[str, Any]) -> None:
        if not self._is_of_workers(data):
            return
        self.attempts += 1
        if self.successes:
            return
        reason, detail = data["reason"], data["detail"]
        # The words may differ: they hold numbers, and a calculator that has failed once often fails otherwise then.
        if self.failures is not None and self.failures.reason == reason:
            self.failures.count += 1
        else:
            self.failures = Failures(reason=reason, detail=detail)

    def _apply_relaxed(self, event: Event) -> None:
        data = event.data
        if data["level"] != REFINE and self._is_of_workers(data):
            self.attempts += 1
            self.successes += 1
            self.failures = None
        tally = self._tally(data)
        tally.relaxed += data["level"] != REFINE
        tally.unconverged += data["level"] != REFINE and not data["converged"]
        before = self.lowest()
        if data["minimum"] is None:
            if data["level"] != REFINE:
                self.unconverged[data["candidate"]] = event
            return
        loose_end = self.unconverged.pop(data["candidate"], None)
        first = event if loose_end is None else loose_end
        if data["opened"]:
            basin = self.basins[data["minimum"]] = Basin(
                id=data["minimum"],
                found_by=data["candidate"],
                first_relaxation=first.data["relaxation"] or self.relaxations,
                first_force_calls=first.data["force_calls"],
                best=event,
            )
            self._best_changed(basin)
            self.last_minimum = max(self.last_minimum, basin.id)
            tally.first_reached += 1
        else:
            basin = self.basins[data["minimum"]]
            own = data["level"] == REFINE and basin.best.data["candidate"] == data["candidate"]
            basin.multiplicity += loose_end is not None or data["level"] != REFINE
            if own or data["enthalpy_per_atom"] < basin.enthalpy_per_atom:
                self._ending.pop(basin.best.data["candidate"], None)
                basin.best = event
                self._best_changed(basin)
        if data["absorbed"] is not None:
            other = self.basins.pop(data["absorbed"])
            self._rankings[other.calculator].remove(other)
            if self._ending.get(other.best.data["candidate"]) == other.id:
                del self._ending[other.best.data["candidate"]]
            basin.multiplicity += other.multiplicity
            if other.first_relaxation < basin.first_relaxation:
                basin.found_by, basin.first_relaxation = other.found_by, other.first_relaxation
                basin.first_force_calls = other.first_force_calls
        if tally.best is None or data["enthalpy_per_atom"] < tally.best:
            tally.best = data["enthalpy_per_atom"]
        after = self.lowest()
        if after is not None and (before is None or after < before):
            self.improvements.append((self.relaxations, self.cost.force_calls, after))

    def _best_changed(self, basin: Basin) -> None:
        self._rankings[basin.calculator].put(basin)
        self._ending[basin.best.data["candidate"]] = basin.id

    def _tally(self, data: Mapping[str, Any]) -> Tally:
        return self.tallies.setdefault((data["source"], data["operator"]), Tally())
