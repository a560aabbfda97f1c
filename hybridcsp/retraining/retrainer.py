"""Decides when a source's generator learns, which versions of it are in use, and which is given up."""

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
from hybridcsp.archive.credit import Credit, price
from hybridcsp.archive.history import ModelUpdate
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import REFINE, Cost, Failed, Outcome, Relaxed
from hybridcsp.errors import GeneratorError, message_of
from hybridcsp.generators.base import Condition, Example
from hybridcsp.generators.loading import one_thread
from hybridcsp.retraining import versions
from hybridcsp.retraining.settings import Retraining
from hybridcsp.retraining.training_set import (
    first_lessons,
    lessons,
    replayed,
    replays,
    stretched,
    without_pressure,
)
from hybridcsp.sources.base import SourceStatus
from hybridcsp.sources.generative import GenerativeSource
from hybridcsp.utils.files import end_of_log
from hybridcsp.utils.interrupts import exits_contained
from hybridcsp.utils.processes import end_processes

#: Passes of one example through the training of a generator that are taken to last as long as one force call, unless it
#: says that they take longer (``effort``): for cells of 12 atoms flow matching takes 5 ms for one, and CHGNet 40 ms for
#: a force call (one thread).
PASSES_PER_FORCE_CALL = 4.0

#: A training of fewer epochs is not worth beginning: it waits until there is time for as many.
FEWEST_EPOCHS = 5

#: Trainings that came to nothing, in a row, after which a generator is left alone.
TRIES = 3

#: For a generator that begins untrained: its epochs and learning rate the first time.
FROM_SCRATCH = {"epochs": 100, "learning_rate": 3e-3, "anchor": 0.0}


@dataclass
class _Account:
    """What one version has brought since it has been in use together with another."""

    ended: int = 0
    paid: float = 0.0  # force calls
    earned: float = 0.0  # credit, as the allocation gives it

    @property
    def rate(self) -> float:
        return self.earned / self.paid if self.paid else 0.0


class Retrainer:
    """Keeps one source's generator in training.

    Its state follows from outcomes and from the events of adoption alone, so that it is as it was when a search is
    taken up again.

    Parameters
    ----------
    name, source
        Of whom.
    problem, archive
        Of the search.
    settings
        When and how.
    seed
        Of the search.
    apart
        Whether to train in a process of its own and adopt what comes of it when it is ready; else training happens at
        once, in the same place of every run of a seed.
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
        apart: bool,
    ) -> None:
        self.name = name
        self._source = source
        self._problem = problem
        self._archive = archive
        self._settings = settings
        self._seed = seed
        self._apart = apart
        self._credit = Credit()
        self._opened = 0  # minima, by all sources
        self._opened_before = 0  # at the last training
        self._made = 0  # the highest version there is
        self._failures = 0
        self.trainings = 0
        self._accounts: dict[int, _Account] = {}
        self._running: tuple[subprocess.Popen[bytes], Path, dict[str, Any], float] | None = None

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Count minima, and what each version brings."""
        for outcome in outcomes:
            if not isinstance(outcome, Relaxed | Failed) or outcome.level == REFINE:
                continue
            earned, shrinking = self._credit.of(outcome)
            for version in self._accounts.values():
                version.earned *= shrinking
            self._opened += isinstance(outcome, Relaxed) and outcome.is_new_minimum
            if outcome.candidate.source == self.name:
                account = self._accounts.get(int(outcome.candidate.proposal.tag["version"]))
                if account is not None:
                    account.ended += 1
                    account.paid += price(outcome)
                    account.earned += earned

    def adopted(self, event: ModelUpdate) -> None:
        """Take note of a change, and hand it on to the source.

        Raises
        ------
        ArchiveError
            If the files of a version in use are not what they were.
        """
        self._accounts = {version: _Account() for version in event.versions} if len(event.versions) > 1 else {}
        if event.training:
            self._opened_before = self._opened
            self.trainings += "passes" in event.training
            version = event.training.get("version")
            self._failures = 0 if version is not None else self._failures + bool(event.training.get("failed"))
            if version is not None:
                self._made = int(version)
                folder = versions.folder_of(self._archive.directory, self.name, self._made)
                versions.check(folder, str(event.training["digest"]))
                self._source.adopt(event.versions, {self._made: folder})
                return
        self._source.adopt(event.versions, {})

    @property
    def running(self) -> bool:
        """Whether a training goes on beside the search."""
        return self._running is not None

    @property
    def untrained(self) -> bool:
        """Whether the generator has learned nothing at all yet, and so proposes nothing."""
        return not self._source.versions

    @property
    def due(self) -> bool:
        """Whether there is enough to learn from, and nothing else that has to come to its end first."""
        done = self._source.status() is SourceStatus.EXHAUSTED or self._failures >= TRIES
        return not (done or self.running or len(self._source.versions) > 1) and self._is_due()

    @property
    def status(self) -> str:
        """Describe in words the work of the generator, or the reason why it waits."""
        if self._running is not None:
            epoch = versions.epoch_of(self._running[1])
            return f"training {self.name}" + (f": {epoch}" if epoch else " begins")
        if self._source.status() is SourceStatus.EXHAUSTED or self._settings.new_minima == 0 or self._failures >= TRIES:
            return ""
        if len(self._source.versions) > 1:
            old, new = self._source.versions
            ended = min((account.ended for account in self._accounts.values()), default=0)
            return f"{self.name}: version {new} on trial against {old}, {ended} of {self._settings.trial} relaxations"
        missing = self._settings.new_minima - (self._opened - self._opened_before)
        if missing > 0:
            return f"{self.name} learns after {missing} more new minima"
        return f"{self.name} waits until a training fits into its share of the time"

    def force_calls(self, passes: int) -> float:
        """Return how many force calls would take as long as so many passes of an example through a training."""
        return passes * self._effort / PASSES_PER_FORCE_CALL

    def follow_up(self) -> ModelUpdate | None:
        """Collect a training beside the search, or settle a trial, if it is over; return the event that it comes to."""
        if self._running is not None:
            return self._collected()
        if len(self._source.versions) > 1 and self._trial_over():
            return self._settled()
        return None

    def train(self, allowed: float) -> ModelUpdate | None:
        """Train a new version, or begin to; ``None`` if that is not over, or has to wait.

        Parameters
        ----------
        allowed
            How long it may take, in force calls.
        """
        fit = self._fit(allowed)
        if fit is None:
            return None
        start = time.perf_counter()
        rng = np.random.default_rng([self._seed, crc32(f"retraining {self.name}".encode()), self._made + 1])
        try:
            with exits_contained(passing=(KeyboardInterrupt,)):
                examples = self._examples(rng)
        except Exception as error:  # noqa: BLE001  # a generator may be anybody's, and a file of crystals anything
            why = f"nothing to learn from: {message_of(error)}"
            return self._unchanged(why, {"failed": True}, time.perf_counter() - start)
        training = {"examples": len(examples), "passes": fit["epochs"] * len(examples)}
        folder = versions.folder_of(self._archive.directory, self.name, self._made + 1)
        plan = {"seed": int(rng.integers(2**31)), "settings": fit}
        unfinished = versions.prepare(folder, examples, plan)
        if self._apart:
            process = versions.train_apart(unfinished, type(self._source.generator(0)), self._prior_folder())
            self._running = process, unfinished, training, time.perf_counter() - start
            return None
        preparing = time.perf_counter() - start
        try:
            versions.train(unfinished, copy.deepcopy(self._source.generator(self._root)))
        except GeneratorError as error:
            return self._unchanged(str(error), {**training, "failed": True}, time.perf_counter() - start)
        return self._trained(unfinished, training, preparing)

    def postponed(self) -> ModelUpdate:
        """Return the event that there is no time for a training now."""
        return self._unchanged("the time for retraining is used up", {"postponed": True})

    def close(self) -> None:
        """End a training that is running; it will begin again when the search is taken up."""
        if self._running is not None:
            process, unfinished, *_ = self._running
            end_processes([process])
            shutil.rmtree(unfinished, ignore_errors=True)
            self._running = None

    # When

    def _is_due(self) -> bool:
        enough = self._settings.new_minima
        return enough > 0 and self._opened - self._opened_before >= enough

    def _trial_over(self) -> bool:
        if self._is_due():  # one of them does not get on, or other sources are much busier
            return True
        return all(account.ended >= self._settings.trial for account in self._accounts.values())

    @property
    def _effort(self) -> float:
        return self._source.generator(0).effort

    def _fit(self, allowed: float) -> dict[str, Any] | None:
        """Return settings for ``fit``; ``None`` if it has to wait."""
        settings = self._settings
        own = self._source.generator(0).fine_tuning
        if self.untrained:
            return dict(FROM_SCRATCH)
        n_minima = self._archive.number_of_minima
        most = n_minima + (replays(n_minima) if settings.replay else 0)
        epochs = min(settings.epochs, int(allowed // self.force_calls(max(1, most))))
        if epochs < min(FEWEST_EPOCHS, settings.epochs):
            return None
        return {"epochs": epochs, "learning_rate": settings.learning_rate, "anchor": settings.anchor, **own}

    # What

    def _examples(self, rng: np.random.Generator) -> list[Example]:
        minima = self._archive.minima()
        own = lessons(minima, self.name, self._problem, self._settings)
        if not self._source.versions:
            return stretched([*first_lessons(self._problem, rng), *own], rng)
        prior = self._source.generator(self._root)
        with one_thread():
            before = replayed(prior, len(own), self._problem, self._settings, rng)
        if self._problem.pressure_gpa > 0 and Condition.PRESSURE not in prior.conditions:
            own = without_pressure(own, self._problem)
            if self._settings.replay_data is None:  # crystals from elsewhere are not of this pressure
                before = without_pressure(before, self._problem)
        return [*own, *before]

    @property
    def _root(self) -> int:
        """The version that each training begins from: the first that is trained at all."""
        return 1 if self._source.from_scratch and self._made else 0

    def _prior_folder(self) -> Path | None:
        if self._source.from_scratch and not self._made:
            return None
        folder = versions.folder_of(self._archive.directory, self.name, self._root)
        if not folder.exists():
            unfinished = versions.begin(folder)
            self._source.generator(self._root).save(unfinished)
            unfinished.rename(folder)
        return folder

    # What comes of it

    def _collected(self) -> ModelUpdate | None:
        assert self._running is not None
        process, unfinished, training, preparing = self._running
        status = process.poll()
        if status is None:
            return None
        self._running = None
        if status != 0:
            said = end_of_log(unfinished / versions.LOG).splitlines()
            why = said[-1] if said else f"training ended with exit status {status}"
            return self._unchanged(why, {**training, "failed": True}, preparing)
        return self._trained(unfinished, training, preparing)

    def _trained(self, unfinished: Path, training: Mapping[str, Any], preparing: float) -> ModelUpdate:
        folder, report = versions.finish(unfinished)
        seconds = preparing + float(report.pop("seconds"))
        before = self._source.versions
        new = self._made + 1
        # The first version of a generator without a past, and one without a trial, have no one to compare with.
        in_use = (before[-1], new) if before and self._settings.trial else (new,)
        return ModelUpdate(
            source=self.name,
            versions=in_use,
            cost=Cost(seconds=seconds),
            detail=f"version {new}, from {training['examples']} examples" + (", on trial" if len(in_use) > 1 else ""),
            training={**training, **report, "version": new, "digest": versions.digest(folder)},
        )

    def _settled(self) -> ModelUpdate:
        old, new = self._source.versions
        rates = {version: account.rate for version, account in self._accounts.items()}
        kept = new if rates[new] > rates[old] else old
        earned = ", ".join(f"{v}: {1000 * rate:.2f}" for v, rate in rates.items())
        outcome = "given up" if kept == old else "kept"
        return ModelUpdate(
            source=self.name, versions=(kept,), detail=f"version {new} {outcome}; credit per 1000 force calls: {earned}"
        )

    def _unchanged(self, why: str, training: Mapping[str, Any], seconds: float = 0.0) -> ModelUpdate:
        return ModelUpdate(
            source=self.name,
            versions=self._source.versions,
            cost=Cost(seconds=seconds),
            detail=why,
            training=training,
        )
