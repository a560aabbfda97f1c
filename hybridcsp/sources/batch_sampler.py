"""Provide the sampling of batches of crystals from a generator, in the foreground or in the background."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hybridcsp.core.problem import Problem
from hybridcsp.errors import GeneratorError, message_of
from hybridcsp.generators.base import Request
from hybridcsp.generators.external import CommandGenerator
from hybridcsp.generators.loading import one_thread
from hybridcsp.generators.selection import Selection, requests_for, select
from hybridcsp.objectives.goals import Goals
from hybridcsp.sources import sample_cache
from hybridcsp.sources.model_versions import ModelVersions
from hybridcsp.utils.activity import announce
from hybridcsp.utils.background import BackgroundCall
from hybridcsp.utils.files import folder_within
from hybridcsp.utils.interrupts import exits_contained

#: Samples of each number of formula units in the first batch: small searches often end before they have used it up.
FIRST_BATCH = 16

#: Subfolder of the run directory for samples that are stored.
SAMPLES = "samples"


class BatchPendingError(Exception):
    """The batch is being sampled in the background."""


@dataclass(kw_only=True)
class Batch:
    """One batch of samples, and the part of it that has been proposed.

    Attributes
    ----------
    seed
        Seed of the random numbers from which the whole batch follows.
    samples
        Number of samples that are requested.
    proposed
        Positions in the selection that have been proposed.
    """

    seed: int
    samples: int
    proposed: set[int] = field(default_factory=set)


class BatchSampler:
    """Sample batches of a generator and select the usable crystals.

    A batch follows from its seed, so that a resumed search gets the same one. The last batch of each version is kept in
    memory. Samples of a generator with ``caches_samples`` are also stored in the run directory and never made twice.

    Parameters
    ----------
    problem
        The problem of the search.
    versions
        The versions of the generator.
    in_background
        Whether external commands run in parallel with the search.

    Attributes
    ----------
    seconds_in_background
        Total wall time in seconds of finished background sampling.
    """

    def __init__(self, problem: Problem, versions: ModelVersions, *, in_background: bool = False) -> None:
        self.seconds_in_background = 0.0
        self._problem = problem
        self._versions = versions
        self._name = versions.initial.name
        self._in_background = in_background
        self._selections: dict[int, tuple[int, Selection]] = {}  # by version: seed and selection of the last batch
        self._running: tuple[Batch, BackgroundCall] | None = None
        self._goals = Goals()

    def pursue(self, goals: Goals) -> None:
        """Request values that meet the condition of the search, and disfavour samples that are estimated not to."""
        self._goals = goals

    @property
    def busy(self) -> bool:
        """Whether a batch is being sampled in the background now."""
        return self._running is not None and not self._running[1].done

    def new_batch(self, rng: np.random.Generator, *, first: bool) -> Batch:
        """Return a new batch, or the one that is being sampled in the background.

        Parameters
        ----------
        rng
            Random number generator for the seed.
        first
            Whether it is the first batch of its version, which may be smaller.
        """
        if self._running is not None:
            return self._running[0]
        generator = self._versions.initial
        samples = generator.batch_size
        if first and generator.learns:
            samples = min(samples, FIRST_BATCH * len(self._problem.units))
        return Batch(seed=int(rng.integers(2**31)), samples=samples)

    def select(self, version: int, batch: Batch, directory: Path) -> Selection:
        """Return the usable samples of a batch in the order in which to propose them.

        Parameters
        ----------
        version
            Version of the generator.
        batch
            The batch.
        directory
            The run directory.

        Raises
        ------
        BatchPendingError
            If the batch is being sampled in the background.
        GeneratorError
            If the generator raises, or if it returns nothing that can be stored.
        """
        if version not in self._selections or self._selections[version][0] != batch.seed:
            if self._versions.initial.caches_samples:
                file = directory / SAMPLES / f"{self._name}-{version}-{batch.seed}.extxyz"
                selection = self._stored(version, batch, file)
            else:
                selection = self._sample(version, batch)
            self._selections[version] = batch.seed, self._judged(selection)
        return self._selections[version][1]

    def close(self) -> None:
        """Stop background sampling; a resumed search starts it again."""
        if self._running is not None:
            self._running[1].cancel()
            self._running = None

    def _judged(self, selection: Selection) -> Selection:
        """Return a selection in which samples are disfavoured that are estimated not to meet the condition."""
        if not self._goals.estimators:
            return selection
        with one_thread():
            chosen = [replace(one, disfavoured=not self._goals.promises(one.atoms)) for one in selection.chosen]
        return replace(selection, chosen=tuple(chosen))

    def _stored(self, version: int, batch: Batch, file: Path) -> Selection:
        if not file.exists():
            folder_within(file.parents[1], SAMPLES)
            sample_cache.write(self._sample(version, batch), file)
        return sample_cache.read(file)

    def _sample(self, version: int, batch: Batch) -> Selection:
        rng = np.random.default_rng(batch.seed)
        generator = self._versions.load(version)
        announce(f"drawing {batch.samples} structures from {self._name}")
        wanted = self._goals.condition.intervals()
        targets = {name: interval for name, interval in wanted.items() if name in generator.targets}
        requests = requests_for(self._problem, generator.conditions, batch.samples, rng, targets)
        if self._in_background and isinstance(generator, CommandGenerator):
            answers = self._collect(batch, generator, requests, rng)
        else:
            with one_thread():
                answers = self._answers(lambda: generator.sample(requests, rng))
        return select(answers, self._problem, generator.conditions, len(requests), best_first=generator.best_first)

    def _collect(
        self, batch: Batch, generator: CommandGenerator, requests: list[Request], rng: np.random.Generator
    ) -> list[Any]:
        """Return the answers of a background call if it has ended; start it if it is not running."""
        if self._running is None or self._running[0].seed != batch.seed:
            call = BackgroundCall(lambda stop: self._answers(lambda: generator.sample(requests, rng, stop)))
            self._running = batch, call
        call = self._running[1]
        if not call.done:
            raise BatchPendingError
        self._running = None
        self.seconds_in_background += call.seconds
        answers: list[Any] = call.result()
        return answers

    def _answers(self, sample: Callable[[], Sequence[Any]]) -> list[Any]:
        try:
            with exits_contained(passing=(KeyboardInterrupt,)):
                return list(sample())
        except GeneratorError:
            raise
        except Exception as error:  # generators may be third-party code
            raise GeneratorError(f"{self._name} raised {message_of(error)}") from error
