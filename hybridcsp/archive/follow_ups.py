"""The follow-up relaxations of a search: their results by calculator, apart from those of the search itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from hybridcsp.archive.basins import Ranking
from hybridcsp.archive.events import FollowUpEvent
from hybridcsp.archive.follow_up_events import FollowUpFailed, FollowUpRelaxed
from hybridcsp.core.records import Cost


@dataclass(kw_only=True)
class FollowUpMinimum:
    """A minimum of a follow-up calculator.

    Attributes
    ----------
    id
        Number among the minima of this calculator, from 1 in the order of discovery.
    best
        Event of the follow-up relaxation of lowest enthalpy per atom that ended in it.
    """

    id: int
    best: FollowUpRelaxed

    @property
    def enthalpy_per_atom(self) -> float:
        """Enthalpy of ``best`` in eV/atom."""
        return float(self.best.enthalpy_per_atom)


@dataclass(kw_only=True)
class _Results:
    """The follow-up relaxations with one label of a calculator.

    Attributes
    ----------
    relaxed
        Lowest converged result, by minimum of the search.
    unconverged
        Last result that did not converge, by minimum of the search.
    failed
        Last failure, by minimum of the search.
    minima
        Minima of the calculator by number.
    ranking
        These minima in the order of their enthalpies.
    last_minimum
        Highest number that any of these minima ever had.
    improvements
        Relaxations of the search, force calls of the follow-ups, and enthalpy (eV/atom) at every new lowest minimum.
    """

    relaxed: dict[int, FollowUpRelaxed] = field(default_factory=dict)
    unconverged: dict[int, FollowUpRelaxed] = field(default_factory=dict)
    failed: dict[int, FollowUpFailed] = field(default_factory=dict)
    minima: dict[int, FollowUpMinimum] = field(default_factory=dict)
    ranking: Ranking[FollowUpMinimum] = field(default_factory=Ranking)
    last_minimum: int = 0
    improvements: list[tuple[int, int, float]] = field(default_factory=list)

    def redirect(self, absorbed: int, minimum: int) -> None:
        """Give the results of one minimum of the search to another."""
        result = self.relaxed.pop(absorbed, None)
        kept = self.relaxed.get(minimum)
        if result is not None and (kept is None or result.enthalpy_per_atom < kept.enthalpy_per_atom):
            self.relaxed[minimum] = result
        if (unconverged := self.unconverged.pop(absorbed, None)) is not None:
            self.unconverged.setdefault(minimum, unconverged)
        if (failed := self.failed.pop(absorbed, None)) is not None:
            self.failed.setdefault(minimum, failed)


class FollowUpLevel:
    """The follow-up relaxations with one calculator.

    Results are kept by the label of the calculator, because energies of different versions or weights must not be
    compared. Only those with the present label count.

    Attributes
    ----------
    spec
        Name of the calculator as it was given.
    number
        Number of the calculator from 1.
    label
        Present label: that of the last follow-up relaxation; empty before any.
    cost
        Cost of all its follow-up relaxations.
    """

    def __init__(self, spec: str, number: int) -> None:
        self.spec = spec
        self.number = number
        self.label = ""
        self.cost = Cost()
        self._by_label: dict[str, _Results] = {"": _Results()}

    def result(self, minimum: int) -> FollowUpRelaxed | None:
        """Return the converged follow-up relaxation of a minimum of the search; ``None`` if there is none."""
        return self._results.relaxed.get(minimum)

    def has_tried(self, minimum: int) -> bool:
        """Return whether a follow-up relaxation of a minimum of the search has ended, failures included."""
        found = self._results
        return minimum in found.relaxed or minimum in found.unconverged or minimum in found.failed

    @property
    def results(self) -> int:
        """Number of minima of the search that have a converged result."""
        return len(self._results.relaxed)

    @property
    def unconverged(self) -> int:
        """Number of minima of the search whose follow-up relaxation did not converge."""
        return len(self._results.unconverged) - self.given_up

    @property
    def given_up(self) -> int:
        """Number of minima of the search that were evaluated but not relaxed, because they lie too high."""
        return sum(event.start_enthalpy == event.enthalpy_per_atom for event in self._results.unconverged.values())

    @property
    def failed(self) -> Counter[str]:
        """Numbers of minima of the search whose follow-up relaxation failed, by reason."""
        return Counter(event.reason for event in self._results.failed.values())

    @property
    def failures(self) -> list[FollowUpFailed]:
        """Failures in the order in which they happened."""
        return list(self._results.failed.values())

    @property
    def improvements(self) -> list[tuple[int, int, float]]:
        """Relaxations of the search, force calls of this level and enthalpy (eV/atom) at every new lowest minimum."""
        return self._results.improvements

    def ranked(self) -> list[FollowUpMinimum]:
        """Return the minima of this calculator by ascending enthalpy per atom."""
        return self._results.ranking.sorted()

    def newest_first(self) -> Iterator[FollowUpMinimum]:
        """Yield the minima of this calculator, the one that was discovered last first."""
        return reversed(self._results.minima.values())

    def lowest(self) -> float | None:
        """Return the lowest enthalpy in eV/atom, or ``None`` if there is no minimum."""
        best = self._results.ranking.best()
        return None if best is None else best.enthalpy_per_atom

    def lowest_start(self) -> float | None:
        """Return the lowest enthalpy (eV/atom) from which a converged relaxation started; ``None`` if none is known."""
        starts = [event.start_enthalpy for event in self._results.relaxed.values() if event.start_enthalpy is not None]
        return min(starts, default=None)

    def members(self) -> dict[int, list[int]]:
        """Return the ids of the minima of the search that ended in each minimum of this calculator, by its number."""
        found: dict[int, list[int]] = {}
        for of, event in self._results.relaxed.items():
            assert event.minimum is not None  # it has converged
            found.setdefault(event.minimum, []).append(of)
        return found

    def minima(self, label: str) -> list[FollowUpMinimum]:
        """Return the minima of the calculator with a label, in the order of discovery."""
        found = self._by_label.get(label)
        return [] if found is None else list(found.minima.values())

    def minimum(self, label: str, number: int) -> FollowUpMinimum | None:
        """Return the minimum of a number of the calculator with a label."""
        found = self._by_label.get(label)
        return None if found is None else found.minima.get(number)

    def next_number(self, label: str) -> int:
        """Return the number of the next minimum of the calculator with a label."""
        found = self._by_label.get(label)
        return 1 if found is None else found.last_minimum + 1

    def use(self, label: str) -> None:
        """Make a label the present one; an empty one changes nothing.

        Failures from before any label was known belong to the first label.
        """
        if not label or label == self.label:
            return
        if label not in self._by_label:
            self._by_label[label] = _Results() if self.label else self._by_label.pop("")
        self.label = label

    def forget_failures(self) -> None:
        """Forget the failures if nothing has succeeded."""
        if not self.results and not self.unconverged:
            self._results.failed.clear()

    def apply(self, event: FollowUpEvent) -> None:
        """Update the results by one event."""
        self.cost += event.cost
        self.use(event.calculator)
        found = self._results
        if isinstance(event, FollowUpFailed):
            found.failed[event.of] = event
        elif event.minimum is None:
            found.unconverged[event.of] = event
        else:
            self._apply_relaxed(found, event, event.minimum)

    def _apply_relaxed(self, found: _Results, event: FollowUpRelaxed, number: int) -> None:
        found.failed.pop(event.of, None)
        found.unconverged.pop(event.of, None)
        found.relaxed[event.of] = event
        before = self.lowest()
        if event.is_new_minimum:
            minimum = found.minima[number] = FollowUpMinimum(id=number, best=event)
            found.last_minimum = max(found.last_minimum, number)
            found.ranking.put(minimum)
        elif event.enthalpy_per_atom < found.minima[number].enthalpy_per_atom:
            found.minima[number].best = event
            found.ranking.put(found.minima[number])
        after = self.lowest()
        if after is not None and (before is None or after < before):
            found.improvements.append((event.relaxation, self.cost.force_calls, after))

    def redirect(self, absorbed: int, minimum: int) -> None:
        """Give the results of a minimum of the search to the one that it turned out to be the same as."""
        for found in self._by_label.values():
            found.redirect(absorbed, minimum)

    @property
    def _results(self) -> _Results:
        return self._by_label[self.label]


class FollowUps:
    """The follow-up relaxations of a search, by calculator.

    Attributes
    ----------
    levels
        Follow-up calculators in their order, as the last session that named any gave it.
    last_relaxation
        Number of relaxations of the search that had ended at the last follow-up relaxation; 0 before any.
    """

    def __init__(self) -> None:
        self.levels: list[FollowUpLevel] = []
        self.last_relaxation = 0
        self._known: dict[str, FollowUpLevel] = {}  # by name, those included that are not in use any more
        self._has_stopped = False
        self._absorbed: dict[int, int] = {}  # minima of the search by those that were absorbed

    def __bool__(self) -> bool:
        return any(level.results for level in self.levels)

    def __iter__(self) -> Iterator[FollowUpLevel]:
        return iter(self.levels)

    def open_session(self, specs: Sequence[str], labels: Sequence[str] = ()) -> None:
        """Set the follow-up calculators by their names, and their labels as far as they are known.

        Failures of a calculator with which nothing has succeeded are forgotten if the run in which they happened has
        ended: one that follows is one in which something was mended.
        """
        self.levels = []
        for number, spec in enumerate(specs, start=1):
            level = self._level(spec, number)
            level.number = number
            self.levels.append(level)
        for level, label in zip(self.levels, labels, strict=False):
            level.use(label)
        if self._has_stopped:
            self._has_stopped = False
            for level in self.levels:
                level.forget_failures()

    def note_stop(self) -> None:
        """Note that a run has ended by itself."""
        self._has_stopped = True

    def level(self, spec: str) -> FollowUpLevel | None:
        """Return the level of a follow-up calculator; ``None`` before the calculator is used."""
        return self._known.get(spec)

    def last_result(self, minimum: int) -> tuple[FollowUpLevel, FollowUpRelaxed] | None:
        """Return the converged result of the last calculator that has one for a minimum of the search, if any has."""
        for level in reversed(self.levels):
            if (result := level.result(minimum)) is not None:
                return level, result
        return None

    def apply(self, event: FollowUpEvent) -> None:
        """Update the results by one event."""
        level = self._level(event.spec, event.number)
        if level not in self.levels:
            self.levels.append(level)
            self.levels.sort(key=lambda one: one.number)
        level.apply(event)
        self.last_relaxation = event.relaxation
        # A relaxation that began before its minimum was absorbed by another.
        if event.of in self._absorbed:
            level.redirect(event.of, self.present(event.of))

    def redirect(self, absorbed: int, minimum: int) -> None:
        """Note that a minimum of the search turned out to be the same as another."""
        self._absorbed[absorbed] = minimum
        for level in self._known.values():
            level.redirect(absorbed, minimum)

    def present(self, minimum: int) -> int:
        """Return the id of the minimum that an id of an earlier minimum of the search stands for now."""
        while minimum in self._absorbed:
            minimum = self._absorbed[minimum]
        return minimum

    def same_as(self, minima: Iterable[int], below: int) -> set[int]:
        """Return minima of the search with all others that ended in the same minimum at one of the lower levels.

        Parameters
        ----------
        minima
            Ids of minima of the search.
        below
            Number of the level; only levels with lower numbers are considered.
        """
        found = set(minima)
        groups = [set(group) for level in self.levels[: below - 1] for group in level.members().values()]
        while any(group & found and not group <= found for group in groups):
            for group in groups:
                if group & found:
                    found |= group
        return found

    def _level(self, spec: str, number: int) -> FollowUpLevel:
        level = self._known.get(spec)
        if level is None:
            level = self._known[spec] = FollowUpLevel(spec, number)
        return level
