"""Retrainer of one source's generator: its trainings, the trials of new versions, and their selection."""

from __future__ import annotations

import copy
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.credit import CreditTracker
from hybridcsp.archive.history import ModelUpdate
from hybridcsp.core.outcomes import Failed, FollowUpOutcome, Outcome, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import REFINE, Cost
from hybridcsp.errors import GeneratorError, message_of
from hybridcsp.generators.base import Condition, Example
from hybridcsp.generators.loading import one_thread
from hybridcsp.retraining import versions
from hybridcsp.retraining.settings import Retraining
from hybridcsp.retraining.steps import Deferred, Finished, Started
from hybridcsp.retraining.training_set import (
    augment_volumes,
    examples_from_minima,
    initial_training_set,
    number_of_replays,
    replay_examples,
    without_pressure,
)
from hybridcsp.sources.base import SourceStatus
from hybridcsp.sources.generative import GenerativeSource
from hybridcsp.utils.files import end_of_log
from hybridcsp.utils.interrupts import exits_contained
from hybridcsp.utils.processes import end_processes

#: Passes of one example through a training that are assumed to last as long as one force call, for a generator with an
#: ``effort`` of 1: for cells of 12 atoms flow matching takes 5 ms for a pass, and CHGNet 40 ms for a force call.
PASSES_PER_FORCE_CALL = 4.0

#: Smallest number of epochs of a useful training, for which a generator waits.
MIN_EPOCHS = 5

#: Number of consecutive failed trainings after which a generator is not trained again.
MAX_FAILURES = 3

#: Settings of the first training of an untrained generator.
INITIAL_TRAINING = {"epochs": 100, "learning_rate": 3e-3, "anchor": 0.0}


@dataclass(frozen=True)
class _RunningTraining:
    process: subprocess.Popen[bytes]
    folder: Path
    summary: Mapping[str, Any]
    preparation: float  # seconds


class Retrainer:
    """Retrain the generator of one source.

    The state of a retrainer follows from outcomes and recorded updates alone, so that a resumed search continues as it
    would have without interruption.

    Parameters
    ----------
    name, source
        Name of the source, and the source.
    problem, archive
        Problem and archive of the search.
    settings
        Settings of retraining.
    seed
        Random seed of the search.
    in_subprocess
        Whether to train in a process of its own, in parallel with the search, and to use the new version when it is
        ready. Otherwise the search waits for each training, which makes every run with the same seed equal.
    """

    def __init__(
        self,
        name: str,
        source: GenerativeSource,
        problem: Problem,
        archive: Archive,
        settings: Retraining,
        seed: int,
        *,
        in_subprocess: bool,
    ) -> None:
        self.name = name
        self._source = source
        self._problem = problem
        self._archive = archive
        self._settings = settings
        self._seed = seed
        self._in_subprocess = in_subprocess
        self._every = settings.every(from_scratch=source.from_scratch)
        self._credit = CreditTracker()  # by version; accounts are open during trials
        self._minima = 0  # of all sources
        self._minima_before = 0  # at the last training
        self._latest_version = 0
        self._failures = 0
        self.trainings = 0
        self._running: _RunningTraining | None = None

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Count new minima, and the credit of each version that is on trial."""
        for outcome in outcomes:
            if not isinstance(outcome, Relaxed | Failed) or outcome.level == REFINE:
                continue
            self._minima += isinstance(outcome, Relaxed) and outcome.is_new_minimum
            version = None
            if outcome.candidate.source == self.name:
                version = int(outcome.candidate.proposal.tag["version"])
            on_trial = version if self._is_trial and version in self._source.versions else None
            self._credit.observe(outcome, on_trial)

    def observe_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> None:
        """Replace the credit of versions that are on trial by what follow-up relaxations of their minima are worth."""
        self._credit.observe_follow_ups(outcomes)

    def adopted(self, update: ModelUpdate) -> None:
        """Note a recorded change of versions, and apply it to the source.

        Raises
        ------
        ArchiveError
            If the files of a version in use are missing or have changed.
        """
        self._credit.close_accounts()
        folders = {}
        if update.training:
            self._minima_before = self._minima
            self.trainings += "passes" in update.training
            version = update.training.get("version")
            self._failures = 0 if version is not None else self._failures + bool(update.training.get("failed"))
            if version is not None:
                self._latest_version = int(version)
                folder = versions.version_folder(self._archive.directory, self.name, self._latest_version)
                versions.check(folder, str(update.training["digest"]))
                folders[self._latest_version] = folder
        self._source.adopt(update.versions, folders)

    @property
    def running(self) -> bool:
        """Whether a training is running in the background."""
        return self._running is not None

    @property
    def untrained(self) -> bool:
        """Whether the generator has not been trained yet, and so proposes nothing."""
        return not self._source.versions

    @property
    def due(self) -> bool:
        """Whether there are enough new minima, and neither a training nor a trial has to end first."""
        return not (self._is_done or self.running or self._is_trial) and self._has_enough_minima

    @property
    def status(self) -> str:
        """Current work of the generator, or the reason why it waits; empty if it will not be trained."""
        if self._running is not None:
            epoch = versions.read_epoch(self._running.folder)
            return f"training {self.name}" + (f": {epoch}" if epoch else " begins")
        if self._is_done or self._every == 0:
            return ""
        if self._is_trial:
            old, new = self._source.versions
            relaxations = min(self._credit.account(version).relaxations for version in (old, new))
            return (
                f"{self.name}: version {new} on trial against {old}, "
                f"{relaxations} of {self._settings.trial} relaxations"
            )
        missing = self._every - (self._minima - self._minima_before)
        if missing > 0:
            return f"{self.name} learns after {missing} more new minima"
        return f"{self.name} waits until a training fits into its share of the time"

    def training_cost(self, passes: int) -> float:
        """Return the number of force calls that take as long as ``passes`` passes of an example through a training."""
        return passes * self._source.generator(0).effort / PASSES_PER_FORCE_CALL

    def follow_up(self) -> Finished | None:
        """Collect a training or settle a trial that has ended; return ``None`` if there is none."""
        if self._running is not None:
            return self._collect()
        if self._is_trial and self._is_trial_over():
            return self._settle_trial()
        return None

    def train(self, budget: float) -> Started | Deferred | Finished:
        """Train a new version, or start to train it in the background.

        Parameters
        ----------
        budget
            Largest cost of the training in force calls.
        """
        fit_settings = self._fit_settings(budget)
        if fit_settings is None:
            return Deferred(f"the training of {self.name} does not fit into its share of the time yet")
        start = time.perf_counter()
        number = self._latest_version + 1
        rng = np.random.default_rng([self._seed, crc32(f"retraining {self.name}".encode()), number])
        try:
            with exits_contained(passing=(KeyboardInterrupt,)):
                examples = self._training_set(rng)
        except Exception as error:  # noqa: BLE001  # generators of users and files of crystals may fail in any way
            reason = f"nothing to learn from: {message_of(error)}"
            return self._unchanged(reason, {"failed": True}, time.perf_counter() - start)
        summary = {"examples": len(examples), "passes": fit_settings["epochs"] * len(examples)}
        plan = {"seed": int(rng.integers(2**31)), "settings": fit_settings}
        folder = versions.prepare(self._version_folder(number), examples, plan)
        if self._in_subprocess:
            process = versions.train_in_subprocess(folder, type(self._source.generator(0)), self._initial_weights())
            self._running = _RunningTraining(process, folder, summary, time.perf_counter() - start)
            return Started(self.name)
        preparation = time.perf_counter() - start
        try:
            versions.train(folder, copy.deepcopy(self._source.generator(self._initial_version)))
        except GeneratorError as error:
            return self._unchanged(str(error), {**summary, "failed": True}, time.perf_counter() - start)
        return self._trained(folder, summary, preparation)

    def postponed(self) -> Finished:
        """Return the update that there is no time for a training until there are as many new minima again."""
        return self._unchanged("the time for retraining is used up", {"postponed": True})

    def close(self) -> None:
        """Stop a running training, which is started again when the search is resumed."""
        if self._running is not None:
            end_processes([self._running.process])
            shutil.rmtree(self._running.folder, ignore_errors=True)
            self._running = None

    @property
    def _is_done(self) -> bool:
        return self._source.status() is SourceStatus.EXHAUSTED or self._failures >= MAX_FAILURES

    @property
    def _is_trial(self) -> bool:
        return len(self._source.versions) > 1

    @property
    def _has_enough_minima(self) -> bool:
        return 0 < self._every <= self._minima - self._minima_before

    def _is_trial_over(self) -> bool:
        if self._has_enough_minima:  # one version proposes nothing, or other sources get most of the relaxations
            return True
        relaxations = [self._credit.account(version).relaxations for version in self._source.versions]
        return min(relaxations) >= self._settings.trial

    def _fit_settings(self, budget: float) -> dict[str, Any] | None:
        """Return the settings of ``fit``, or ``None`` if the budget is too small for a useful training."""
        if self.untrained:
            return dict(INITIAL_TRAINING)
        settings = self._settings
        n_minima = self._archive.number_of_minima
        n_examples = n_minima + (number_of_replays(n_minima) if settings.replay else 0)
        epochs = min(settings.epochs, int(budget // self.training_cost(max(1, n_examples))))
        if epochs < min(MIN_EPOCHS, settings.epochs):
            return None
        return {
            "epochs": epochs,
            "learning_rate": settings.learning_rate,
            "anchor": settings.anchor,
            **self._source.generator(0).fine_tuning,
        }

    def _training_set(self, rng: np.random.Generator) -> list[Example]:
        learned = examples_from_minima(self._archive.preferred_minima(), self.name, self._problem, self._settings)
        if self.untrained:
            return augment_volumes([*initial_training_set(self._problem, rng), *learned], rng)
        generator = self._source.generator(self._initial_version)
        with one_thread():
            replayed = replay_examples(generator, len(learned), self._problem, self._settings, rng)
        if self._problem.pressure_gpa > 0 and Condition.PRESSURE not in generator.conditions:
            learned = without_pressure(learned, self._problem)
            if self._settings.replay_data is None:  # crystals of a file are not of this pressure
                replayed = without_pressure(replayed, self._problem)
        return [*learned, *replayed]

    @property
    def _initial_version(self) -> int:
        """Version whose weights every training starts from: the first trained one."""
        return 1 if self._source.from_scratch and self._latest_version else 0

    def _initial_weights(self) -> Path | None:
        """Return the folder of the weights that trainings start from, or ``None`` for an untrained generator."""
        if self._source.from_scratch and not self._latest_version:
            return None
        folder = self._version_folder(self._initial_version)
        if not folder.exists():
            unfinished = versions.begin(folder)
            self._source.generator(self._initial_version).save(unfinished)
            unfinished.rename(folder)
        return folder

    def _version_folder(self, version: int) -> Path:
        return versions.version_folder(self._archive.directory, self.name, version)

    def _collect(self) -> Finished | None:
        assert self._running is not None
        running, status = self._running, self._running.process.poll()
        if status is None:
            return None
        self._running = None
        if status != 0:
            log = end_of_log(running.folder / versions.LOG).splitlines()
            reason = log[-1] if log else f"training ended with exit status {status}"
            return self._unchanged(reason, {**running.summary, "failed": True}, running.preparation)
        return self._trained(running.folder, running.summary, running.preparation)

    def _trained(self, unfinished: Path, summary: Mapping[str, Any], preparation: float) -> Finished:
        folder, report = versions.finish(unfinished)
        seconds = preparation + float(report.pop("seconds"))
        before = self._source.versions
        new = self._latest_version + 1
        # The first version of an untrained generator has nothing to be compared with.
        in_use = (before[-1], new) if before and self._settings.trial else (new,)
        detail = f"version {new}, from {summary['examples']} examples" + (", on trial" if len(in_use) > 1 else "")
        training = {**summary, **report, "version": new, "digest": versions.digest(folder)}
        return self._finished(in_use, detail, training, seconds)

    def _settle_trial(self) -> Finished:
        old, new = self._source.versions
        rates = {version: self._credit.rate(version) for version in (old, new)}
        kept = new if rates[new] > rates[old] else old
        earned = ", ".join(f"{version}: {1000 * rate:.2f}" for version, rate in rates.items())
        outcome = "given up" if kept == old else "kept"
        return self._finished((kept,), f"version {new} {outcome}; credit per 1000 force calls: {earned}")

    def _unchanged(self, reason: str, training: Mapping[str, Any], seconds: float = 0.0) -> Finished:
        return self._finished(self._source.versions, reason, training, seconds)

    def _finished(
        self, in_use: tuple[int, ...], detail: str, training: Mapping[str, Any] | None = None, seconds: float = 0.0
    ) -> Finished:
        cost = Cost(seconds=seconds)
        return Finished(
            ModelUpdate(source=self.name, versions=in_use, cost=cost, detail=detail, training=training or {})
        )
