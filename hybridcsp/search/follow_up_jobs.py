"""The follow-up relaxations of a run: their jobs, and the records of their outcomes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from hybridcsp.archive.archive import Archive
from hybridcsp.core.outcomes import Failed, FollowUpOutcome, Relaxed
from hybridcsp.core.records import FOLLOW_UP, Job, Limits
from hybridcsp.relaxation.backends.base import Backend
from hybridcsp.search.failures import why_none_succeeded
from hybridcsp.search.follow_up import FollowUp, Selected, Selection

log = logging.getLogger(__name__)

#: Ratio of the seconds that a follow-up relaxation and a relaxation of the search may take: better calculators are ten
#: times slower and more.
TIME_FACTOR = 20


#: A structure is not relaxed with a follow-up calculator if it starts this much (eV/atom) above the lowest start of
#: those that were relaxed with it, unless the window is wider. Measured with SevenNet-l3i5 on 49 minima of CHGNet in
#: three systems: those that became one of its best started at most 45 meV/atom above it, and two thirds of the force
#: calls went into structures that started more than 100 meV/atom above. The few of these that came down ended in known
#: minima.
GIVE_UP_ABOVE = 0.1


class FollowUpJobs:
    """The follow-up relaxations of one run.

    Parameters
    ----------
    archive
        Archive of the search.
    backend
        Workers, of which each has built all follow-up calculators.
    settings
        Settings of the follow-ups.
    limits
        Limits of a relaxation of the search; a follow-up relaxation may take longer.
    most_failures
        As for :class:`~hybridcsp.search.follow_up.Selection`.

    Attributes
    ----------
    done
        Number of follow-up relaxations that have ended in this run.
    waiting
        Number of those that are left to do with the calculator at work, the running ones not included.
    """

    def __init__(
        self, archive: Archive, backend: Backend, settings: FollowUp, limits: Limits, most_failures: int
    ) -> None:
        self.done = 0
        self.waiting = 0
        self._archive = archive
        self._backend = backend
        self._settings = settings
        self._limits = replace(limits, seconds=TIME_FACTOR * limits.seconds)
        self._selection = Selection(archive, settings, most_failures)
        self._running: dict[int, Selected] = {}  # by the candidate of the job
        self._labels: Sequence[str] | None = None  # of the follow-up calculators; None until they are asked for
        self._warned: set[str] = set()

    @property
    def running(self) -> int:
        """Number of follow-up relaxations that the workers are busy with."""
        return len(self._running)

    def are_left(self) -> bool:
        """Return whether follow-up relaxations are running or left to do."""
        return bool(self._running or self._selection.left())

    def due(self) -> Job | None:
        """Return the next job while the search goes on, or ``None`` if none is due."""
        return self.next() if self._settings.calculators and self._selection.is_due() else None

    def next(self) -> Job | None:
        """Return the next job, or ``None`` if nothing can be started now."""
        if not self._settings.calculators:
            return None
        self._note_labels()
        left = self._selection.left([(one.number, one.minimum) for one in self._running.values()])
        self.waiting = max(0, len(left) - 1)
        if not left:
            return None
        self._running[left[0].start.candidate] = left[0]
        return self._job(left[0])

    def ended(self, outcomes: Sequence[Relaxed | Failed]) -> list[FollowUpOutcome]:
        """Return the records of outcomes of these jobs."""
        records = []
        for outcome in outcomes:
            one = self._running.pop(outcome.candidate.id)
            label = outcome.evaluation.calculator if isinstance(outcome, Relaxed) else self._label(one.number)
            spec = self._settings.names[one.number - 1]
            records.append(
                FollowUpOutcome(of=one.minimum, number=one.number, spec=spec, calculator=label, outcome=outcome)
            )
        self.done += len(records)
        return records

    def warn_of_failures(self, *, at_end: bool) -> None:
        """Warn of calculators with which no follow-up relaxation has succeeded.

        Parameters
        ----------
        at_end
            Whether nothing is left to do. Otherwise only calculators that are given up are reported.
        """
        for level in self._archive.state.follow_ups.levels[: len(self._settings.calculators)]:
            why = why_none_succeeded(level, self._archive.directory)
            if why and level.spec not in self._warned and (at_end or self._selection.is_given_up(level)):
                self._warned.add(level.spec)
                log.warning("%s", why)

    def _note_labels(self) -> None:
        """Record the labels of the calculators if one differs from the one with which there are results."""
        if self._labels is not None:
            return
        self._labels = self._backend.labels()[1:]
        known = [level.label for level in self._archive.state.follow_ups]
        if any(before and before != label for before, label in zip(known, self._labels, strict=False)):
            self._archive.record_follow_up_labels(self._labels)

    def _label(self, number: int) -> str:
        labels = self._labels or [level.label for level in self._archive.state.follow_ups]
        return labels[number - 1]

    def _job(self, one: Selected) -> Job:
        lowest = self._archive.state.follow_ups.levels[one.number - 1].lowest_start()
        margin = max(GIVE_UP_ABOVE, self._settings.window)
        return Job(
            candidate=self._archive.candidate(one.start.candidate),
            atoms=self._archive.structure_of(one.start),
            level=FOLLOW_UP,
            limits=self._limits,
            calculator=one.number,
            give_up_above=None if lowest is None else lowest + margin,
        )
