"""Relaxation of several jobs at the same time, whose structures are evaluated together.

Each job runs the code of a job that is relaxed alone, :func:`~hybridcsp.relaxation.relax.relax_job`, with its own
guards, optimiser and limits, in a thread of its own. Of all threads only one runs at a time, until its relaxation needs
an evaluation or ends; then the next one does. When all of them wait, their structures are evaluated in one call of the
calculator. Therefore a batch does the same steps in the same order every time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.records import Job
from hybridcsp.errors import CalculatorError
from hybridcsp.objectives import Objective
from hybridcsp.relaxation.backends import Backend, BatchedPool
from hybridcsp.relaxation.backends.executors.registry import open_backend
from hybridcsp.relaxation.batch_evaluation import BatchEvaluator, Results
from hybridcsp.relaxation.calculators.server.batch import BatchCalculator
from hybridcsp.relaxation.calculators.stand_in import StandInCalculator, class_name_of
from hybridcsp.relaxation.evaluation_files import JobEvaluations
from hybridcsp.relaxation.relax import Ended, Relaxer, calculator_of, relax_job, run_job, with_objectives
from hybridcsp.relaxation.runner import Batch
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.relaxation.worker import run_contained
from hybridcsp.utils.activity import steps

#: Function that relaxes a job; it gets functions that wait for results and that return the time that the job has taken.
_Relaxation: TypeAlias = Callable[[Job, Callable[[Atoms], dict[str, Any]], Callable[[], float]], Ended]


@dataclass(frozen=True, kw_only=True)
class BatchedRelaxer:
    """Factory of the batch of a worker, which may have several jobs at the same time.

    Attributes
    ----------
    relaxer
        The calculators, settings and objectives.

    Examples
    --------
    >>> from hybridcsp.relaxation.batch import BatchedRelaxer
    >>> from hybridcsp.relaxation.relax import Relaxer
    >>> batch = BatchedRelaxer(relaxer=Relaxer(calculator="chgnet"))()  # doctest: +SKIP
    """

    relaxer: Relaxer

    def __call__(self) -> RelaxationBatch:
        """Build the calculators and objectives, and return an empty batch.

        Follow-up calculators need not be batch calculators; those that are not evaluate one structure after the other.

        Raises
        ------
        CalculatorError
            If a calculator cannot be built, or the first one cannot evaluate several structures at once.
        InputError
            If an objective cannot be built.
        """
        calculators, objectives = self.relaxer.build()
        if calculators[0] is not None and not isinstance(calculators[0][0], BatchCalculator):
            raise CalculatorError(
                f"{class_name_of(calculators[0][0])} cannot evaluate several structures at once; leave batch out, or "
                "use chgnet, mace:MODEL in the interpreter of hybridcsp, or a calculator that inherits BatchCalculator"
            )
        return RelaxationBatch(calculators, self.relaxer.settings, objectives, self.relaxer.evaluations)


def open_pool(
    executor: str, relaxer: Relaxer, *, workers: int | None, size: int, log_directory: Path | None = None
) -> Backend:
    """Return the backend of an executor, each worker of which relaxes a number of structures at the same time.

    Parameters
    ----------
    executor
        Name of the executor; with a ``size`` above 1 it is the local one.
    relaxer
        The calculators, settings and objectives.
    workers
        Number of workers, as of :func:`~hybridcsp.relaxation.backends.executors.registry.open_backend`.
    size
        Number of structures that each relaxes at the same time.
    log_directory
        Folder of the output of the workers; by default it is discarded.
    """
    if size == 1 or workers is None:
        return open_backend(executor, relaxer, workers=workers, log_directory=log_directory)
    return BatchedPool(BatchedRelaxer(relaxer=relaxer), workers=workers, size=size, log_directory=log_directory)


class RelaxationBatch(Batch):
    """Jobs that are relaxed at the same time.

    Parameters
    ----------
    calculators
        Calculators and their labels, by the numbers that jobs have; ``None`` for one that is missing.
    settings
        Settings of relaxations.
    objectives
        Objectives by name. They are evaluated when a relaxation has ended, one after the other, with the calculator
        that it has.
    evaluations
        Folder of files with all structures that jobs evaluate; ``None`` for no files.
    """

    def __init__(
        self,
        calculators: Sequence[tuple[Calculator, str] | None],
        settings: RelaxationSettings,
        objectives: Mapping[str, Objective],
        evaluations: Path | None = None,
    ) -> None:
        self.labels = tuple("" if one is None else one[1] for one in calculators)
        self._calculators = calculators
        self._settings = settings
        self._objectives = objectives
        self._evaluations = evaluations
        self._evaluators = {
            number: BatchEvaluator(one[0])
            for number, one in enumerate(calculators)
            if one is not None and isinstance(one[0], BatchCalculator)
        }
        self._jobs: dict[int, _JobThread] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, number: int, job: Job) -> None:
        """Add a job, which has begun after the next :meth:`advance`."""
        self._jobs[number] = _JobThread(job, self._relax)

    def _relax(self, job: Job, wait_for: Callable[[Atoms], dict[str, Any]], clock: Callable[[], float]) -> Ended:
        """Relax a job in its thread."""
        calculator, label = calculator_of(job, self._calculators)
        record = None if self._evaluations is None else JobEvaluations(self._evaluations, job, label)
        add = None if record is None else record.add
        if job.calculator in self._evaluators:
            waiting = _WaitingCalculator(calculator, wait_for)
            ended = relax_job(job, waiting, label, self._settings, add, clock=clock)
        else:  # a follow-up calculator, which no other job uses until this one has ended
            outcome = run_job(job, calculator, label, self._settings, on_evaluation=add)
            ended = Ended(job=job, outcome=outcome, evaluated=None, seconds=clock())
        if record is not None:
            record.write()
        return ended

    def advance(self) -> list[tuple[int, Relaxed | Failed, bool]]:
        """Let every job go on to its next evaluation or to its end, and evaluate the structures together.

        Returns
        -------
        list of tuple
            Number, outcome and soundness (:func:`~hybridcsp.relaxation.worker.run_contained`) of each job that has
            ended, in the order in which they were added.
        """
        for job in self._jobs.values():
            job.go_on()
        ended = [(number, job) for number, job in self._jobs.items() if job.has_ended]
        for number, _ in ended:
            del self._jobs[number]
        for calculator, evaluator in self._evaluators.items():
            self._evaluate(evaluator, [job for job in self._jobs.values() if job.job.calculator == calculator])
        return [(number, *self._finished(job)) for number, job in ended]

    def steps(self) -> dict[int, tuple[int, float]]:
        """Return the force calls so far and the enthalpy per atom (eV) of the jobs that have been evaluated."""
        return {number: job.step for number, job in self._jobs.items() if job.step is not None}

    def _evaluate(self, evaluator: BatchEvaluator, jobs: Sequence[_JobThread]) -> None:
        """Evaluate the structures for which jobs wait; each job pays for its share of the atoms."""
        structures = [job.structure for job in jobs]
        if not structures:
            return
        start = time.perf_counter()
        results = evaluator.evaluate(structures)
        seconds = (time.perf_counter() - start) / sum(map(len, structures))
        for job, structure, result in zip(jobs, structures, results, strict=True):
            job.seconds += seconds * len(structure)
            job.results = result

    def _finished(self, job: _JobThread) -> tuple[Relaxed | Failed, bool]:
        """Return the outcome of a job that has ended, with the values of objectives, and whether it is sound.

        Objectives are computed in the main thread, because only there their time can be limited.
        """
        outcome, sound, ended = job.outcome
        if ended is None or not self._objectives:
            return outcome, sound
        calculator, _ = calculator_of(job.job, self._calculators)
        settings, objectives = self._settings, self._objectives
        completed, sound_still = run_contained(
            lambda _: with_objectives(ended, calculator, settings, objectives), job.job
        )
        return completed, sound and sound_still


class _JobThread:
    """One job of a batch, whose thread runs only during :meth:`go_on`.

    Attributes
    ----------
    seconds
        Time in s that the job has taken until it was last interrupted, with its share of evaluations.
    structure
        The structure for whose results it waits.
    results
        Its results, when they are there.
    step
        Force calls so far and enthalpy per atom in eV; ``None`` before the first force call.
    """

    def __init__(self, job: Job, relax: _Relaxation) -> None:
        self.job = job
        self.seconds = 0.0
        self.structure = Atoms()
        self.results: Results = {}
        self.step: tuple[int, float] | None = None
        self._relax = relax
        self._ended: Ended | None = None
        self._outcome: tuple[Relaxed | Failed, bool, Ended | None] | None = None
        self._resumed_at = 0.0
        self._turn, self._rest = threading.Semaphore(0), threading.Semaphore(0)
        # The listeners of the worker, for example to calculator servers, are those of the thread too.
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), daemon=True)

    @property
    def has_ended(self) -> bool:
        """Whether there is an outcome."""
        return self._outcome is not None

    @property
    def outcome(self) -> tuple[Relaxed | Failed, bool, Ended | None]:
        """The outcome, whether it is sound, and the end of the relaxation unless the job raised an error."""
        assert self._outcome is not None, "the job has ended"
        return self._outcome

    def go_on(self) -> None:
        """Run the job until it waits for results or has ended."""
        if not self._thread.is_alive():
            self._thread.start()
        self._resumed_at = time.perf_counter()
        self._turn.release()
        self._rest.acquire()
        self.seconds = self._clock()

    def _clock(self) -> float:
        """Return the time in s that the job has taken; called while it runs."""
        return self.seconds + time.perf_counter() - self._resumed_at

    def _run(self) -> None:
        def run(job: Job) -> Relaxed | Failed:
            self._ended = self._relax(job, self._wait_for, self._clock)
            return self._ended.outcome

        self._turn.acquire()
        with steps(self._note):
            outcome, sound = run_contained(run, self.job)
        self._outcome = outcome, sound, self._ended
        self._rest.release()

    def _note(self, force_calls: int, enthalpy_per_atom: float) -> None:
        self.step = force_calls, enthalpy_per_atom

    def _wait_for(self, structure: Atoms) -> dict[str, Any]:
        """Let the other jobs run until the structure has been evaluated; called by the thread."""
        self.structure = structure
        self._rest.release()
        self._turn.acquire()
        if isinstance(self.results, Exception):
            raise self.results
        return self.results


class _WaitingCalculator(Calculator, StandInCalculator):  # type: ignore[misc]
    """Calculator of one job, which waits until its structure has been evaluated together with those of others."""

    def __init__(self, calculator: Calculator, wait_for: Callable[[Atoms], dict[str, Any]]) -> None:
        super().__init__()
        self.results: dict[str, Any] = {}
        self.implemented_properties = list(calculator.implemented_properties)
        self._class_name = class_name_of(calculator)
        self._wait_for = wait_for

    @property
    def class_name(self) -> str:
        """Name of the class of the calculator that evaluates the structures."""
        return self._class_name

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Wait for the results of a structure, or raise the exception of its evaluation."""
        if self.results and not system_changes:
            return  # what is not among the results is not available
        super().calculate(atoms, properties, system_changes)
        self.results = dict(self._wait_for(self.atoms))
