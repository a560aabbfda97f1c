"""All generators of a search that learn: one after the other, from one budget."""

from __future__ import annotations

from collections.abc import Sequence

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.credit import price
from hybridcsp.archive.history import ModelUpdate
from hybridcsp.core.records import REFINE, Failed, Outcome, Relaxed
from hybridcsp.retraining.retrainer import Retrainer

#: Seconds of retraining before the measured share of time is looked at.
GRACE = 60.0

#: What a force call is taken to last where nobody told: that of CHGNet for some ten atoms.
SECONDS_PER_FORCE_CALL = 0.04


class RetrainingScheduler:
    """Says whose turn it is to be trained, and what it may take.

    Generators take turns, because half of a budget each is often too little for a training that is worth it. Only one
    is trained at a time. All this follows from outcomes and events, so that it is as it was when a search is taken up
    again.

    Parameters
    ----------
    retrainers
        In the order in which they are trained first.
    archive
        Of the search.
    share
        Of its core time that all of them together may take.
    """

    def __init__(self, retrainers: Sequence[Retrainer], archive: Archive, share: float) -> None:
        self._retrainers = {retrainer.name: retrainer for retrainer in retrainers}
        self._archive = archive
        self._share = share
        self._spent = 0.0  # in force calls
        self._seconds = 0.0
        self._estimated = 0.0  # force calls that nobody counted

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Take note of what was relaxed."""
        for outcome in outcomes:
            if isinstance(outcome, Relaxed | Failed) and outcome.level != REFINE:
                self._estimated += price(outcome) - outcome.cost.force_calls
        for retrainer in self._retrainers.values():
            retrainer.observe(outcomes)

    def adopted(self, event: ModelUpdate) -> None:
        """Take note of a change of versions, and of what a training took; what is of no learner makes no difference.

        Raises
        ------
        ArchiveError
            If the files of a version in use are not what they were.
        """
        retrainer = self._retrainers.get(event.source)
        if retrainer is not None:
            self._seconds += event.cost.seconds
            self._spent += retrainer.force_calls(int(event.training.get("passes", 0)))
            retrainer.adopted(event)

    def step(self) -> ModelUpdate | None:
        """Do what is due now, and return the event that it comes to, to be recorded and :meth:`adopted`.

        Trials that have had their relaxations are settled, and trainings beside the search collected. Then, if none is
        running, it is the turn of one of those that have their new minima, the one that was trained least often: it is
        trained as soon as as many epochs as are worth it fit the budget, and the others wait for it. Only where
        measured seconds exceed the share after all, by a slow generator or a calculator that is much faster than force
        calls usually are, does a decision depend on the clock; it is recorded like the others.
        """
        for retrainer in self._retrainers.values():
            if (event := retrainer.follow_up()) is not None:
                return event
        if any(retrainer.running for retrainer in self._retrainers.values()):
            return None
        due = [retrainer for retrainer in self._retrainers.values() if retrainer.due]
        if not due:
            return None
        chosen = min(due, key=lambda retrainer: (not retrainer.untrained, retrainer.trainings))
        if self._out_of_time():
            return chosen.postponed()
        return chosen.train(self._share * self._force_calls() - self._spent)

    @property
    def status(self) -> list[str]:
        """Describe in words the work of each generator that learns, or the reason why it waits."""
        running = [retrainer.name for retrainer in self._retrainers.values() if retrainer.running]
        told = []
        for name, retrainer in self._retrainers.items():
            waits_for = [other for other in running if other != name]
            if retrainer.due and waits_for:
                told.append(f"{name} waits for the training of {waits_for[0]}")
            elif retrainer.status:
                told.append(retrainer.status)
        return told

    def close(self) -> None:
        """End a training that is running; it will begin again when the search is taken up."""
        for retrainer in self._retrainers.values():
            retrainer.close()

    def _force_calls(self) -> float:
        return self._archive.state.cost.force_calls + self._estimated

    def _out_of_time(self) -> bool:
        seconds = self._archive.state.cost.seconds + SECONDS_PER_FORCE_CALL * self._estimated
        return self._seconds > max(GRACE, self._share * seconds)
