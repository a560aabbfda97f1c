"""Scheduler of retraining: generators take turns and share one compute budget."""

from __future__ import annotations

from collections.abc import Sequence

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.credit import price
from hybridcsp.archive.history import ModelUpdate
from hybridcsp.core.outcomes import Failed, FollowUpOutcome, Outcome, Relaxed
from hybridcsp.core.records import REFINE
from hybridcsp.retraining.retrainer import Retrainer
from hybridcsp.retraining.steps import Deferred, Finished, Started

#: Seconds of retraining before the measured share of the time is checked.
GRACE = 60.0

#: Assumed duration of a force call in seconds if it is not known: that of CHGNet for some ten atoms.
SECONDS_PER_FORCE_CALL = 0.04


class RetrainingScheduler:
    """Schedule the retraining of generators within the compute budget.

    Generators take turns, because half of the budget each is often too little for a useful training, and only one is
    trained at a time. The state of the scheduler follows from outcomes and events alone, so that a resumed search
    continues as it would have without interruption.

    Parameters
    ----------
    retrainers
        Retrainers of the generators, in the order of their first trainings.
    archive
        Archive of the search.
    share
        Largest fraction of the search's core time that all trainings together may take.
    """

    def __init__(self, retrainers: Sequence[Retrainer], archive: Archive, share: float) -> None:
        self._retrainers = {retrainer.name: retrainer for retrainer in retrainers}
        self._archive = archive
        self._share = share
        self._spent = 0.0  # planned costs of all trainings in force calls
        self._seconds = 0.0  # measured duration of all trainings
        self._estimated = 0.0  # expected force calls of relaxations whose number is not known

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Note the costs of relaxations, and the minima that generators can learn from."""
        for outcome in outcomes:
            if isinstance(outcome, Relaxed | Failed) and outcome.level != REFINE:
                self._estimated += price(outcome) - outcome.cost.force_calls
        for retrainer in self._retrainers.values():
            retrainer.observe(outcomes)

    def observe_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> None:
        """Note what follow-up relaxations are worth; called only in a search in which they count."""
        for retrainer in self._retrainers.values():
            retrainer.observe_follow_ups(outcomes)

    def adopted(self, update: ModelUpdate) -> None:
        """Note a recorded change of versions and the costs of its training; ignore sources that are not retrained.

        Raises
        ------
        ArchiveError
            If the files of a version in use are missing or have changed.
        """
        retrainer = self._retrainers.get(update.source)
        if retrainer is not None:
            self._seconds += update.cost.seconds
            self._spent += retrainer.training_cost(int(update.training.get("passes", 0)))
            retrainer.adopted(update)

    def step(self) -> Started | Deferred | Finished:
        """Take the next step that is due: settle a trial, collect a training or start one.

        Call it again after a :class:`Finished` step has been recorded and :meth:`adopted`.

        Trials with enough relaxations are settled, and trainings in the background that have ended are collected. Then,
        if none is running, one of the generators with enough new minima is trained: an untrained one first, or else the
        one with the fewest trainings. It is trained as soon as the budget allows the smallest number of epochs, and the
        others wait for it. The clock matters only if the measured seconds exceed the share, because of a slow generator
        or unusually fast force calls; this is recorded, too.
        """
        retrainers = self._retrainers.values()
        for retrainer in retrainers:
            if (finished := retrainer.follow_up()) is not None:
                return finished
        for retrainer in retrainers:
            if retrainer.running:
                return Deferred(f"the training of {retrainer.name} is running")
        due = [retrainer for retrainer in retrainers if retrainer.due]
        if not due:
            return Deferred("no generator is due to be trained")
        chosen = min(due, key=lambda retrainer: (not retrainer.untrained, retrainer.trainings))
        if self._is_time_used_up():
            return chosen.postponed()
        return chosen.train(self._share * self._force_calls() - self._spent)

    @property
    def is_training(self) -> bool:
        """Whether a training runs in the background."""
        return any(retrainer.running for retrainer in self._retrainers.values())

    @property
    def status(self) -> list[str]:
        """State of each generator that learns from the search, one phrase each."""
        running = [retrainer.name for retrainer in self._retrainers.values() if retrainer.running]
        status = []
        for name, retrainer in self._retrainers.items():
            others = [other for other in running if other != name]
            if retrainer.due and others:
                status.append(f"{name} waits for the training of {others[0]}")
            elif retrainer.status:
                status.append(retrainer.status)
        return status

    def close(self) -> None:
        """Stop a running training, which is started again when the search is resumed."""
        for retrainer in self._retrainers.values():
            retrainer.close()

    def _force_calls(self) -> float:
        return self._archive.state.cost.force_calls + self._estimated

    def _is_time_used_up(self) -> bool:
        seconds = self._archive.state.cost.seconds + SECONDS_PER_FORCE_CALL * self._estimated
        return self._seconds > max(GRACE, self._share * seconds)
