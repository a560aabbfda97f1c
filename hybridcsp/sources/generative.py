"""Provide the sources that propose samples of generators: by name, from a folder of weights, or of a given object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hybridcsp.core.outcomes import Outcome
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate, Proposal
from hybridcsp.errors import GeneratorError, InputError
from hybridcsp.generators.base import Generator
from hybridcsp.generators.external import Command, CommandGenerator
from hybridcsp.generators.loading import find_generator, shared_generator
from hybridcsp.generators.registry import GENERATORS
from hybridcsp.objectives.goals import Goals
from hybridcsp.similarity import STARTS, StructureIndex
from hybridcsp.sources.base import BaseSource, Context, SourceStatus
from hybridcsp.sources.batch_queue import BatchQueue
from hybridcsp.sources.batch_sampler import BatchPendingError, BatchSampler
from hybridcsp.sources.height_posterior import HeightPosterior
from hybridcsp.sources.model_versions import ModelVersions
from hybridcsp.sources.preselection import check_samples_per_job
from hybridcsp.utils.activity import announce
from hybridcsp.utils.paths import expanded
from hybridcsp.utils.processes import python_command

#: Argument of a source whose generator starts untrained.
SCRATCH = "scratch"

#: Time limit in seconds for one batch of a generator of another package.
TIMEOUT = 600.0


class GenerativeSource(BaseSource):
    """Propose samples of one generator.

    The source requests batches of samples, spread over the numbers of formula units of the problem and under the
    conditions that the generator knows; screens and sorts them (:func:`hybridcsp.generators.selection.select`);
    proposes the first third of each batch except crystals that it has proposed before; and then requests the next
    batch. A generator that raises, exceeds its time limit, or makes nothing that can be used causes an error of the
    source, which is recorded and counted; after three errors in a row the source is not called again.

    A batch follows from its seed, which the tags of its proposals contain, so that a resumed search makes the same
    proposals. Generators of other packages run in a separate process with a time limit; their samples are stored in
    the run directory.

    Parameters
    ----------
    problem
        The problem of the search. Generators cannot fill a fixed cell: with one, the source is exhausted.
    argument
        Name of a registered generator, or a folder of weights. ``NAME:scratch`` starts untrained, and proposes nothing
        before it has been trained on minima of the search.
    generator
        The generator itself, in place of an argument.
    samples_per_job
        Number of samples that make one job. After the first three proposals, the samples of a job compete, and the most
        promising is relaxed (:mod:`hybridcsp.relaxation.preselection`); all force calls are counted. The next two
        follow as jobs of their own (:mod:`hybridcsp.sources.preselection`). With 1 every proposal is one sample.
    in_background
        Whether generators of other packages run in parallel with the search. If not, the search waits for them, and
        every run with the same seed is the same.
    from_scratch
        Whether a given ``generator`` is untrained.
    posterior
        Whether the samples of a batch are put in order by the heights in which they are expected to end, which are
        learned from the relaxations of the search (:mod:`hybridcsp.sources.height_posterior`).

    Attributes
    ----------
    from_scratch
        Whether the generator started untrained.
    samples_per_job
        Number of samples that make one job.
    posterior
        Posterior of the heights in which samples end; ``None`` if it is not used.

    Raises
    ------
    InputError
        If there is no such generator, its weights cannot be used, or ``samples_per_job`` is below 1.
    """

    max_errors = 3

    def __init__(
        self,
        problem: Problem,
        argument: str | None = None,
        *,
        generator: Generator | None = None,
        samples_per_job: int = 1,
        in_background: bool = False,
        from_scratch: bool = False,
        posterior: bool = True,
    ) -> None:
        check_samples_per_job(samples_per_job)
        if generator is None:
            announce(f"loading the generator {argument}")
            generator, from_scratch = _load_generator(argument)
        self.name = generator.name
        self.from_scratch = from_scratch
        self.samples_per_job = samples_per_job
        self._problem = problem
        self._versions = ModelVersions(generator, trained=not from_scratch)
        self._sampler = BatchSampler(problem, self._versions, in_background=in_background)
        self._queues: dict[int, BatchQueue] = {}  # by version
        self._known = StructureIndex(energy_window=None, tolerances=STARTS)
        self.posterior: HeightPosterior | None = HeightPosterior() if posterior else None

    def pursue(self, goals: Goals) -> None:
        """Request values of learned properties that meet the condition, and propose samples that may meet it first."""
        self._sampler.pursue(goals)

    def status(self) -> SourceStatus:
        """Return EXHAUSTED with a fixed cell, and BUSY while a batch is sampled and nothing else is left to propose."""
        if self._problem.cell is not None:
            return SourceStatus.EXHAUSTED
        if self._sampler.busy and not any(queue.has_leftover for queue in self._queues.values()):
            return SourceStatus.BUSY
        return SourceStatus.READY

    def close(self) -> None:
        """Stop a generator that runs in the background; a resumed search starts it again."""
        self._sampler.close()

    @property
    def weights(self) -> str | None:
        """SHA-256 hash of the initial weights; ``None`` if unknown."""
        found = self._versions.initial.card.get("weights_sha256")
        return None if found is None else str(found)

    @property
    def learns(self) -> bool:
        """Whether the generator can be retrained during a search."""
        return self._versions.initial.learns

    @property
    def versions(self) -> tuple[int, ...]:
        """Numbers of the versions in use: 0 is the initial one; two are in use while the newer one is on trial."""
        return self._versions.in_use

    def generator(self, version: int) -> Generator:
        """Return one version of the generator; read its weights if they are not in memory."""
        return self._versions.load(version)

    def adopt(self, versions: Sequence[int], folders: Mapping[int, Path]) -> None:
        """Sample from other versions from now on; ``folders`` holds the weights of versions not in use before."""
        self._versions.adopt(versions, folders)

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Return at most one proposal; none while the next batch is sampled in the background.

        Its tag contains ``version`` (of the model), ``batch`` (its seed), ``position`` in the batch, ``log_likelihood``
        if the model knows it, and, for the first proposal of a batch, ``samples`` (requested) and ``rejects`` (number
        of unusable samples by reason).

        Raises
        ------
        GeneratorError
            If no version in use has anything to propose.
        """
        errors = []
        for version in self._versions.next_in_turn():
            try:
                return [self._queue(version).propose(context)]
            except BatchPendingError:
                return []
            except GeneratorError as error:
                errors.append(f"version {version}: {error}" if version else str(error))
            finally:
                self.seconds_in_background = self._sampler.seconds_in_background
        if errors:
            raise GeneratorError("; ".join(errors))
        return []

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Record how far each version has proposed its batch."""
        for candidate in candidates:
            version = int(candidate.proposal.tag["version"])
            self._queue(version).proposed(candidate)
            self._versions.proposed(version)

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Record the energies of samples; :mod:`hybridcsp.retraining` trains, and calls :meth:`adopt`."""
        for outcome in outcomes:
            if self.posterior is not None:
                self.posterior.observe(outcome)
            for queue in self._queues.values():
                queue.observe(outcome)

    def _queue(self, version: int) -> BatchQueue:
        if version not in self._queues:
            self._queues[version] = BatchQueue(
                self._sampler, version, self.name, self._known, self.samples_per_job, self.posterior
            )
        return self._queues[version]


class NamedGenerativeSource(GenerativeSource):
    """Propose samples of one of our own generators, which the name of the source determines.

    Parameters
    ----------
    problem
        The problem of the search.
    argument
        A folder of weights of that generator, or ``scratch``; the weights of this package by default.
    samples_per_job, in_background, posterior
        See :class:`GenerativeSource`.

    Raises
    ------
    InputError
        If the folder holds no weights, or weights of another generator.
    """

    registered_name: str

    def __init__(
        self,
        problem: Problem,
        argument: str | None = None,
        *,
        samples_per_job: int = 1,
        in_background: bool = False,
        posterior: bool = True,
    ) -> None:
        name = self.registered_name
        if argument is None:
            generator = name
        elif argument == SCRATCH:
            generator = f"{name}:{SCRATCH}"
        else:
            generator = argument
            entry, _ = find_generator(argument)
            if entry.name != name:
                raise InputError("source", f"{name}:{argument}", f"a folder of weights of {name}, not of {entry.name}")
        super().__init__(
            problem, generator, samples_per_job=samples_per_job, in_background=in_background, posterior=posterior
        )


class WyckoffSource(NamedGenerativeSource):
    """Propose samples of the Wyckoff transformer."""

    registered_name = "wyckoff"


class FlowSource(NamedGenerativeSource):
    """Propose samples of the flow-matching model."""

    registered_name = "flow"


def _load_generator(argument: str | None) -> tuple[Generator, bool]:
    """Return the generator that an argument names, and whether it starts untrained."""
    if argument is None:
        names = ", ".join(GENERATORS.entries())
        allowed = f"generative:NAME or generative:FOLDER, which name the generator ({names})"
        raise InputError("source", "generative", allowed)
    text, _, mode = argument.partition(":")
    if mode not in ("", SCRATCH):
        raise InputError(
            "source", f"generative:{argument}", f"one of generative:NAME, generative:NAME:{SCRATCH}, generative:FOLDER"
        )
    if mode == SCRATCH:
        if text not in GENERATORS and expanded(text).exists():
            names = ", ".join(GENERATORS.entries())
            allowed = f"the folder alone, because its weights are trained; NAME:{SCRATCH} starts without any ({names})"
            raise InputError("source", f"generative:{argument}", allowed)
        return GENERATORS[text].load().from_scratch(), True
    entry, _ = find_generator(text)
    if entry.package == "hybridcsp":
        return shared_generator(text), False
    options = ("--formula", "{formula}", "--n", "{n}", "--seed", "{seed}", "--output", "{output}")
    command = Command(
        tuple(python_command("hybridcsp", "sample", text, *options)), timeout=TIMEOUT, samples=Generator.batch_size
    )
    return CommandGenerator(entry.name, command), False
