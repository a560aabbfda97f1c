"""Crystals from a generator: over-sampled, screened, the best and most diverse proposed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate, Outcome, Proposal
from hybridcsp.errors import GeneratorError, InputError, message_of
from hybridcsp.generators.base import Generator, Request
from hybridcsp.generators.external import Command, CommandGenerator
from hybridcsp.generators.loading import find_generator, one_thread, open_generator
from hybridcsp.generators.registry import GENERATORS
from hybridcsp.generators.selection import SelectedSample, Selection, requests_for, select
from hybridcsp.similarity import STARTS, StructureIndex, compute_descriptors
from hybridcsp.sources import sample_cache
from hybridcsp.sources.base import BaseSource, Context, SourceStatus
from hybridcsp.sources.preselection import Start, Waiting, check_one_shot, proposal, starts_of
from hybridcsp.utils.activity import announce
from hybridcsp.utils.background import BackgroundCall
from hybridcsp.utils.files import folder_within
from hybridcsp.utils.interrupts import exits_contained
from hybridcsp.utils.processes import python_command

#: Samples of each number of formula units in the first batch: small searches often end before they have used it up.
FIRST = 16

#: What share of a batch is proposed before the next one is sampled, unless energies rank it.
KEPT = 1 / 3

#: So many proposals are the model's first choices, before energies rank its samples: those are right so often that
#: energies of others would be a waste.
FIRST_CHOICES = 3

#: Argument of a source whose generator begins untrained.
SCRATCH = "scratch"

#: Seconds that one batch of a generator of another package may take.
TIMEOUT = 600.0

#: Where, in the run directory, samples are kept that are not made again.
SAMPLES = "samples"


@dataclass(kw_only=True)
class _Reading:
    """How far a batch has been proposed."""

    seed: int
    samples: int
    taken: set[int] = field(default_factory=set)


class _NotYetError(Exception):
    """A program is at work on the batch."""


class GenerativeSource(BaseSource):
    """Runs one generator.

    It asks for batches of samples, spread over the problem's formula units and under the conditions that the generator
    knows; screens them and puts them in order (:func:`hybridcsp.generators.selection.select`); proposes the first third
    of each batch, leaving out what it has proposed before; and then samples again. A generator that raises, hangs, or
    makes nothing that can be used is an error of the source, recorded and counted; after three in a row it is not
    called again.

    A batch follows from its seed, which the tags of its proposals hold, so that a search that is taken up again makes
    the same proposals. Generators of other packages run in a process of their own, which is ended when it takes too
    long; what such a process returned is kept in the run directory. With several workers it runs beside the search,
    which goes on with other sources meanwhile.

    Parameters
    ----------
    problem
        What is searched. With a fixed cell there is nothing to propose: no generator can be asked for one.
    argument
        A registered generator, or a folder of weights. A name may be followed by ``:scratch``: then it begins
        untrained, and proposes nothing until it has learned from the search itself.
    generator
        The generator itself.
    one_shot
        After the first three proposals, so many samples together become one job: it takes one energy of each, which
        are counted like all force calls, and relaxes the lowest; the two that are then the lowest follow
        (:mod:`hybridcsp.sources.preselection`). 1: every proposal is one sample.

    Attributes
    ----------
    name
        The generator's.
    beside
        Whether programs run beside the search; else it waits for them, so that every run of a seed is the same.
    versions
        In use: 0 is what it began with, higher ones were retrained during the search. Two take turns while the newer
        one is on trial.
    rejects
        How many samples came to nothing, by reason.
    seconds_in_background
        What programs beside the search have taken so far.

    Raises
    ------
    InputError
        If there is no such generator, or its weights cannot be used.
    """

    max_errors = 3

    def __init__(
        self,
        problem: Problem,
        argument: str | None = None,
        *,
        generator: Generator | None = None,
        one_shot: int = 1,
    ) -> None:
        check_one_shot(one_shot)
        self._problem = problem
        self.scratch = False
        self.one_shot = one_shot
        if generator is None:
            announce(f"loading the generator {argument}")
            generator, self.scratch = _opened(argument)
        self.name = generator.name
        self.beside = False
        self.seconds_in_background = 0.0
        self.versions: tuple[int, ...] = () if self.scratch else (0,)
        self.rejects: Counter[str] = Counter()
        self._generators: dict[int, Generator] = {0: generator}
        self._folders: dict[int, Path] = {}
        self._readings: dict[int, _Reading] = {}
        self._turns: Counter[int] = Counter()
        self._waiting: dict[int, Waiting] = {}  # by version
        self._known = StructureIndex(energy_window=None, tolerances=STARTS)
        self._batches: dict[tuple[int, int], Selection] = {}  # a cache
        self._errand: tuple[_Reading, BackgroundCall] | None = None

    def status(self) -> SourceStatus:
        """Return EXHAUSTED with a fixed cell, and BUSY while a program runs and nothing else is left to propose."""
        if self._problem.cell is not None:
            return SourceStatus.EXHAUSTED
        if self._errand is None or self._errand[1].done:
            return SourceStatus.READY
        left = any(waiting.next is not None for waiting in self._waiting.values())
        return SourceStatus.READY if left else SourceStatus.BUSY

    def close(self) -> None:
        """End a program that is running; a search that is taken up again runs it anew."""
        if self._errand is not None:
            self._errand[1].cancel()
            self._errand = None

    @property
    def weights(self) -> str | None:
        """Hash of the weights that it begins with; ``None`` for what has none, or does not tell."""
        found = self._generators[0].card.get("weights_sha256")
        return None if found is None else str(found)

    @property
    def learns(self) -> bool:
        """Whether the generator can be retrained during a search."""
        return self._generators[0].learns

    def generator(self, version: int) -> Generator:
        """Return one version of the generator, loaded if need be."""
        if version not in self._generators:
            announce(f"loading version {version} of {self.name}")
            self._generators[version] = type(self._generators[0]).load(self._folders[version])
        return self._generators[version]

    def adopt(self, versions: Sequence[int], folders: Mapping[int, Path]) -> None:
        """Sample from other versions from here on; ``folders`` says where those are that were not in use before."""
        self._folders.update(folders)
        self.versions = tuple(versions)
        self._turns = Counter()
        for version in set(self._generators) - {0, *versions}:
            del self._generators[version]

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Return at most one proposal; none while a program makes the next batch beside the search.

        Its tag holds ``version`` (of the model), ``batch`` (its seed), ``position`` in it, ``log_likelihood`` where the
        model knows it, and, for the first of a batch, ``samples`` and ``rejects``: what became of the others.

        Raises
        ------
        GeneratorError
            If none of the versions in use has anything to offer.
        """
        errors = []
        for version in sorted(self.versions, key=lambda v: (self._turns[v], -v)):
            try:
                return [self._from_version(version, context)]
            except _NotYetError:
                return []
            except GeneratorError as error:
                errors.append(f"version {version}: {error}" if version else str(error))
        if errors:
            raise GeneratorError("; ".join(errors))
        return []

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Go on in the batches that they came from."""
        for candidate in candidates:
            tag = candidate.proposal.tag
            version = int(tag["version"])
            waiting = self._waiting_of(version)
            starts = starts_of(candidate)
            new = [start for start in starts if start.about not in waiting]
            waiting.proposed(candidate.id, starts)
            self._turns[version] += 1
            if not new:
                continue
            reading = self._readings.get(version)
            if reading is None or reading.seed != tag["batch"]:
                reading = self._readings[version] = _Reading(seed=int(tag["batch"]), samples=int(tag["samples"]))
                self.rejects.update(tag["rejects"])
            reading.taken.update(int(start.about["position"]) for start in new)
            for start in new:
                self._known.add(len(self._known), compute_descriptors(start.atoms))

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Take note of energies; :mod:`hybridcsp.retraining` learns, and tells of it through :meth:`adopt`."""
        for outcome in outcomes:
            for waiting in self._waiting.values():
                waiting.observe(outcome)

    def _from_version(self, version: int, context: Context) -> Proposal:
        begun = time.perf_counter()
        waiting = self._waiting_of(version)
        if waiting.next is not None:
            return proposal(self.name, [waiting.next], {}, time.perf_counter() - begun)
        reading = self._readings.get(version)
        new = reading is None
        positions = [] if reading is None else self._next(self._batch(version, reading, context), reading)
        if reading is None or not positions:
            new, reading = True, self._new_reading(context.rng, first=reading is None)
            positions = self._next(self._batch(version, reading, context), reading)
        batch = self._batch(version, reading, context)
        if not positions and (ranked := waiting.ranked()):
            return proposal(self.name, ranked[:1], {}, time.perf_counter() - begun)
        if not positions:
            came = ", ".join(f"{count} {reason}" for reason, count in batch.rejects.most_common())
            known = f"{len(batch.chosen)} proposed before" if batch.chosen else ""
            raise GeneratorError(f"{self.name} made nothing that can be used: {'; '.join(filter(None, (came, known)))}")
        starts = [self._start(version, reading, position, batch.chosen[position]) for position in positions]
        best = [one for one in waiting.ranked() if len(one.atoms) == len(starts[0].atoms)][:1]
        starts = [*starts[: self.one_shot - 1], *best] if best else starts
        of_batch = {"samples": reading.samples, "rejects": dict(batch.rejects)} if new else {}
        return proposal(self.name, starts, of_batch, time.perf_counter() - begun)

    def _start(self, version: int, reading: _Reading, position: int, chosen: SelectedSample) -> Start:
        about: dict[str, Any] = {"version": version, "batch": reading.seed, "position": position}
        if chosen.log_likelihood is not None:
            about["log_likelihood"] = chosen.log_likelihood
        return Start(chosen.atoms, about)

    @property
    def _ranks(self) -> bool:
        """Whether energies choose by now."""
        return self.one_shot > 1 and len(self._known) >= FIRST_CHOICES

    def _waiting_of(self, version: int) -> Waiting:
        if version not in self._waiting:
            self._waiting[version] = Waiting(lambda tag: (tag["version"], tag["batch"], tag["position"]))
        return self._waiting[version]

    def _next(self, batch: Selection, reading: _Reading) -> list[int]:
        """Return the next positions, those of one proposal; none if another batch is due."""
        most = len(batch.chosen) if self._ranks else max(1, round(KEPT * reading.samples))
        if len(reading.taken) >= most:
            return []
        found: list[int] = []
        for position, chosen in enumerate(batch.chosen):
            same = not found or chosen.units == batch.chosen[found[0]].units
            if position not in reading.taken and same and self._known.find(chosen.described) is None:
                found.append(position)
                if len(found) == (self.one_shot if self._ranks else 1):
                    break
        return found

    def _new_reading(self, rng: np.random.Generator, *, first: bool) -> _Reading:
        if self._errand is not None:
            return self._errand[0]
        return _Reading(seed=int(rng.integers(2**31)), samples=self._batch_size(first=first))

    def _batch_size(self, *, first: bool) -> int:
        generator = self._generators[0]
        if first and generator.learns:
            return min(generator.batch_size, FIRST * len(self._problem.units))
        return generator.batch_size

    def _batch(self, version: int, reading: _Reading, context: Context) -> Selection:
        seed = reading.seed
        if (version, seed) not in self._batches:
            for other in [key for key in self._batches if key[0] == version]:
                del self._batches[other]
            keeps = self._generators[0].caches_samples
            file = context.archive.directory / SAMPLES / f"{self.name}-{version}-{seed}.extxyz" if keeps else None
            self._batches[version, seed] = (
                self._sampled(version, reading) if file is None else self._kept(version, reading, file)
            )
        return self._batches[version, seed]

    def _kept(self, version: int, reading: _Reading, file: Path) -> Selection:
        if not file.exists():
            folder_within(file.parents[1], SAMPLES)
            sample_cache.write(self._sampled(version, reading), file)
        return sample_cache.read(file)

    def _sampled(self, version: int, reading: _Reading) -> Selection:
        rng = np.random.default_rng(reading.seed)
        generator = self.generator(version)
        announce(f"drawing {reading.samples} structures from {self.name}")
        requests = requests_for(self._problem, generator.conditions, reading.samples, rng)
        if self.beside and isinstance(generator, CommandGenerator):
            answers = self._collected(reading, generator, requests, rng)
        else:
            with one_thread():
                answers = self._asked(lambda: generator.sample(requests, rng))
        return select(answers, self._problem, generator.conditions, len(requests), best_first=generator.best_first)

    def _collected(
        self, reading: _Reading, program: CommandGenerator, requests: list[Request], rng: np.random.Generator
    ) -> list[Any]:
        """Return what a program has made, or begin to run it."""
        if self._errand is None or self._errand[0].seed != reading.seed:
            self._errand = (
                reading,
                BackgroundCall(lambda stop: self._asked(lambda: program.sample(requests, rng, stop))),
            )
        if not self._errand[1].done:
            raise _NotYetError
        _, errand = self._errand
        self._errand = None
        self.seconds_in_background += errand.seconds
        answers: list[Any] = errand.result()
        return answers

    def _asked(self, sample: Callable[[], Sequence[Any]]) -> list[Any]:
        try:
            with exits_contained(passing=(KeyboardInterrupt,)):
                return list(sample())
        except GeneratorError:
            raise
        except Exception as error:  # a generator may be anybody's
            raise GeneratorError(f"{self.name} raised {message_of(error)}") from error


def wyckoff(problem: Problem, argument: str | None = None) -> GenerativeSource:
    """Make the source ``wyckoff``; the argument is a folder of weights or ``scratch``."""
    return _flagship("wyckoff", problem, argument)


def flow(problem: Problem, argument: str | None = None) -> GenerativeSource:
    """Make the source ``flow``; the argument is a folder of weights or ``scratch``."""
    return _flagship("flow", problem, argument)


def _flagship(name: str, problem: Problem, argument: str | None) -> GenerativeSource:
    if argument is None or argument == SCRATCH:
        return GenerativeSource(problem, name if argument is None else f"{name}:{SCRATCH}")
    entry, _ = find_generator(argument)
    if entry.name != name:
        raise InputError("source", f"{name}:{argument}", f"a folder of weights of {name}, not of {entry.name}")
    return GenerativeSource(problem, argument)


def _opened(argument: str | None) -> tuple[Generator, bool]:
    """Return the generator that an argument names, and whether it begins untrained."""
    if argument is None:
        names = ", ".join(GENERATORS.entries())
        raise InputError("source", "generative", f"say which generator: generative:NAME or generative:FOLDER ({names})")
    text, _, mode = argument.partition(":")
    if mode not in ("", SCRATCH):
        raise InputError("source", f"generative:{argument}", f"NAME, NAME:{SCRATCH}, or FOLDER")
    if mode == SCRATCH:
        if text not in GENERATORS.entries() and Path(text).expanduser().exists():
            names = ", ".join(GENERATORS.entries())
            allowed = f"the folder alone: its weights are trained; NAME:{SCRATCH} begins without any ({names})"
            raise InputError("source", f"generative:{argument}", allowed)
        return GENERATORS[text].load().from_scratch(), True
    entry, _ = find_generator(text)
    if entry.package == "hybridcsp":
        return open_generator(text), False
    options = ("--formula", "{formula}", "--n", "{n}", "--seed", "{seed}", "--output", "{output}")
    command = Command(
        tuple(python_command("hybridcsp", "sample", text, *options)), timeout=TIMEOUT, samples=Generator.batch_size
    )
    return CommandGenerator(entry.name, command), False
