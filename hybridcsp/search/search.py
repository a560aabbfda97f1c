"""The loop: sources propose, workers relax, the archive remembers; or a person relaxes, through ask and tell."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, fields, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self
from weakref import WeakValueDictionary

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator

from hybridcsp.archive.archive import ADDED, Archive, SourceCall
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import (
    RELAX,
    USER,
    Candidate,
    Cost,
    Evaluation,
    Failed,
    FailureReason,
    Limits,
    Minimum,
    Proposal,
    Relaxed,
)
from hybridcsp.errors import ArchiveError, InputError, LockedError, UnknownNameError
from hybridcsp.generators.external import Command
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.backends.base import Backend
from hybridcsp.relaxation.calculators.registry import (
    CalculatorLike,
    build_calculator,
    check_calculator,
    parameters_ahead,
)
from hybridcsp.relaxation.properties import PropertyError, results_of
from hybridcsp.relaxation.relax import RelaxationSettings, Relaxer
from hybridcsp.retraining import Retrainer, Retraining, RetrainingScheduler
from hybridcsp.search.allocation import ALLOCATIONS, Allocation
from hybridcsp.search.proposer import Proposer
from hybridcsp.search.resumption import check_same, check_same_calculator, check_same_files, described
from hybridcsp.search.run import Progress, Run, Summary
from hybridcsp.search.setup import build_sources, check_learners, require_independent_source
from hybridcsp.search.stopping import StoppingCriteria, Target
from hybridcsp.sources.base import Source
from hybridcsp.sources.generative import GenerativeSource
from hybridcsp.sources.registry import DEFAULT_SOURCES, ONE_SHOT
from hybridcsp.structure.validity import has_finite_geometry, is_crystal_of
from hybridcsp.utils.activity import announce
from hybridcsp.utils.resources import available_cores

#: The searches of this process that hold a run directory.
_open_searches: WeakValueDictionary[Path, Search] = WeakValueDictionary()

#: Where settings go that are no keywords of a search.
_ELSEWHERE: dict[type, str] = {
    RelaxationSettings: "relaxation=RelaxationSettings(...)",
    Limits: "limits=Limits(...)",
    StoppingCriteria: "run()",
}


class Search:
    """A structure search in a run directory, new or taken up again.

    Parameters
    ----------
    problem
        A :class:`Problem`, or a formula with the problem's other fields as further keywords.
    calculator
        A name (``"chgnet"``, ``"mace:PATH"``, ``"module:factory"``), an ASE calculator, or a function that makes one.
        ``None``: only ask and tell.
    directory
        The run directory; by default named after the formula. If it holds a search with the same settings, that search
        goes on; its past is replayed.
    sources
        Names (``"random"``, ``"seeds:PATH"``) or :class:`~hybridcsp.sources.base.Source` objects;
        they share the budget.
    seed
        Of all randomness. One worker and one seed give the same search every time.
    workers
        Processes that relax, with one thread each; by default as many as there are cores.
    relaxation
        How relaxations run and when they are given up; pressure and cell are the problem's.
    limits
        What one relaxation may use.
    backend
        Something else than our own processes that runs the jobs.
    allocation
        What decides between the sources: ``"earnings"`` (what each has earned per force call), ``"equal"`` shares, or
        an object of your own.
    retraining
        When and how generators among the sources learn from the search's minima.
    external
        Programs that generate structures, by name: the source ``"external:NAME"`` runs one.
    one_shot
        How many structures of a generator become one job, which takes one energy of each and relaxes the lowest; 1:
        every structure is a job. By default 12, but 1 where nobody but you evaluates (ask and tell). Of sources that
        are objects it is their own affair.
    on_open
        Called with the run directory when that can be used, before anything is recorded in it: a description of the
        search that is written there is never without its search, nor the search without it.
    allow_calculator_change
        Whether the directory may hold energies of another calculator, or of the same with other parameters. They are
        never compared: only minima of the calculator used last are ranked.

    Raises
    ------
    InputError, CalculatorError
        For anything that cannot work, before any computing.
    ArchiveError, LockedError
        If the directory cannot be used. An earlier ``Search`` of the same process in this directory is closed first,
        so that a cell of a notebook can be run again, unless it is running.

    Examples
    --------
    >>> from hybridcsp import Search
    >>> search = Search("TiO2", formula_units=(1, 4), directory="tio2")  # doctest: +SKIP
    >>> search.run(relaxations=100)  # doctest: +SKIP
    """

    def __init__(
        self,
        problem: Problem | str,
        *,
        calculator: CalculatorLike | None = "chgnet",
        directory: Path | str | None = None,
        sources: Sequence[str | Source] = DEFAULT_SOURCES,
        seed: int = 0,
        workers: int | None = None,
        relaxation: RelaxationSettings | None = None,
        limits: Limits | None = None,
        backend: Backend | None = None,
        allocation: Allocation | str = "earnings",
        retraining: Retraining | None = None,
        external: Mapping[str, Command] | None = None,
        one_shot: int | None = None,
        on_open: Callable[[Path], None] | None = None,
        allow_calculator_change: bool = False,
        **problem_options: Any,
    ) -> None:
        _check_keywords(problem_options)
        if isinstance(problem, str):
            problem = Problem(problem, **problem_options)
        elif problem_options:
            raise InputError("problem", problem, f"is complete; {', '.join(problem_options)} cannot be added to it")
        if calculator is not None:
            check_calculator(calculator)
        if workers is not None and workers < 1:
            raise InputError("workers", workers, "a whole number from 1")
        if seed < 0:
            raise InputError("seed", seed, "a whole number from 0")
        self.problem = problem
        self.calculator = calculator
        self.workers = workers or available_cores()
        self.limits = limits or Limits()
        self.relaxation = _for_problem(relaxation or RelaxationSettings(), problem)
        self.directory = Path(os.path.abspath(directory or problem.formula))  # noqa: PTH100  # links are not followed
        self._backend = backend
        self._allow_calculator_change = allow_calculator_change
        if one_shot is None:
            one_shot = 1 if calculator is None and backend is None else ONE_SHOT
        self._make = partial(build_sources, problem=problem, external=external, one_shot=one_shot)
        self._seed = seed
        self._retraining = retraining = retraining or Retraining()
        # What a backend relaxes with is known when it tells: what the search begins with may be needed again then.
        self._beginning = copy.deepcopy((list(sources), allocation)) if allow_calculator_change else None
        built = self._make(sources)
        if calculator is not None:  # with ask and tell, what others find may be told or imported
            require_independent_source(built.values(), list(built))
        check_learners(built, retraining)
        if isinstance(allocation, str) and allocation not in ALLOCATIONS:
            raise UnknownNameError("allocation", allocation, ALLOCATIONS)
        settings = {
            "version": version("hybridcsp"),
            "problem": problem.describe(),
            "calculator": calculator if isinstance(calculator, str | None) else described(calculator),
            "sources": [source if isinstance(source, str) else described(source) for source in sources],
            "allocation": allocation if isinstance(allocation, str) else described(allocation),
            "seed": seed,
            "workers": self.workers,
            "relaxation": asdict(self.relaxation),
            "limits": asdict(self.limits),
            "retraining": asdict(retraining),
            "external": {name: asdict(command) for name, command in (external or {}).items()},
            "one_shot": one_shot,
            "weights": {n: s.weights for n, s in built.items() if isinstance(s, GenerativeSource) and s.weights},
        }
        self._running = False
        _close_earlier(self.directory)
        announce(f"opening {self.directory}")
        self.archive = Archive(self.directory, write=True)
        try:
            check_same(settings, self.archive, another_calculator=allow_calculator_change)
            self._check_calculator()
            label = None
            if allow_calculator_change and backend is None and self.archive.state.calculator is not None:
                label = settings["calculator_label"] = self._label
            self._proposer = self._proposing(built, allocation, label)
            if on_open is not None:
                on_open(self.directory)
            self.archive.open_session(settings)
        except BaseException:
            self.archive.close()
            raise
        _open_searches[self.directory.resolve()] = self

    def _check_calculator(self) -> None:
        """Compare the calculator with the archive's, as far as that can be done before the workers build it."""
        if self._allow_calculator_change or self._backend is not None or self.calculator is None:
            return
        if isinstance(self.calculator, BaseCalculator):
            check_same_calculator(build_calculator(self.calculator)[1], self.archive)
        else:
            check_same_files(parameters_ahead(self.calculator), self.archive)

    def close(self) -> None:
        """Give the run directory back to others."""
        if _open_searches.get(self.directory.resolve()) is self:
            del _open_searches[self.directory.resolve()]
        try:
            self._proposer.close()
        finally:
            self.archive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        from hybridcsp.analysis.reprs import text_of_search

        return text_of_search(self.problem, self.archive)

    def _repr_html_(self) -> str:
        from hybridcsp.analysis.reprs import html_of_search

        return html_of_search(self.problem, self.archive)

    def minima(self, n: int | None = None) -> list[Minimum]:
        """Return the ``n`` (default: all) best minima, best first."""
        return self.archive.minima(n)

    @property
    def _apart(self) -> bool:
        """Whether trainings and programs run beside the search; with one worker every run of a seed is the same."""
        workers = self.workers if self.calculator is not None else 1
        return (workers if self._backend is None else self._backend.capacity) > 1

    @property
    def sources(self) -> Mapping[str, Source]:
        """The sources, by the names that candidates carry."""
        return self._proposer.sources

    def _proposing(
        self, sources: Mapping[str, Source], allocation: Allocation | str, calculator: str | None
    ) -> Proposer:
        for source in sources.values():
            if isinstance(source, GenerativeSource):
                source.beside = self._apart
        retrainers = [
            Retrainer(name, source, self.problem, self.archive, self._retraining, self._seed, apart=self._apart)
            for name, source in sources.items()
            if isinstance(source, GenerativeSource) and source.learns
        ]
        scheduler = RetrainingScheduler(retrainers, self.archive, self._retraining.share)
        if isinstance(allocation, str):
            allocation = ALLOCATIONS[allocation](self.problem, self._seed)
        return Proposer(self.problem, self.archive, sources, allocation, self._seed, scheduler, calculator)

    def _begun_again(self) -> Proposer:
        """Return sources and allocation that know energies of the calculator in force only, in place of the others."""
        assert self._beginning is not None
        self._proposer.close()
        sources, allocation = copy.deepcopy(self._beginning)
        self._proposer = self._proposing(self._make(sources), allocation, None)
        return self._proposer

    # The loop

    def run(
        self,
        budget: StoppingCriteria | None = None,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        progress: bool = False,
        **limits: Any,
    ) -> Summary:
        """Search until a budget is used up; then refine the best minima.

        Parameters
        ----------
        budget
            A :class:`~hybridcsp.search.stopping.StoppingCriteria`, or its fields as keywords:
            ``run(relaxations=100)``. It holds for the whole search: a directory that has 60 relaxations gets 40 more.
            ``hours`` hold for this run.
        on_progress
            Called with a :class:`~hybridcsp.search.run.Progress` after every outcome, and twice a second.
        progress
            Whether to show how far the search is: live in a terminal and in a notebook, in lines elsewhere.

        Returns
        -------
        Summary

        Raises
        ------
        RelaxationsFailedError
            If the first relaxations all fail for the same reason (``budget.stop_after_failures``). Everything is kept,
            and the directory can be taken up again.
        KeyboardInterrupt
            After everything was put in order; likewise.
        BackendError
            If the machinery breaks; likewise.
        """
        if self.calculator is None and self._backend is None:
            raise InputError("calculator", None, "run() needs a calculator; without one there are ask() and tell()")
        budget = _budget(budget, limits)
        Target(budget.stop_at, self.problem)  # a target that makes no sense is an error before the workers start
        self._running = True
        try:
            with ExitStack() as stack:
                listeners = [on_progress] if on_progress else []
                if progress:
                    from hybridcsp.analysis.live_display import display

                    listeners.insert(0, stack.enter_context(display(budget)).update)
                backend = stack.enter_context(nullcontext(self._backend) if self._backend else self._pool())
                run = Run(self._proposer, backend, budget, self.limits, _all_of(listeners))
                run.may_change_calculator = self._allow_calculator_change
                run.begin_again = self._begun_again if self._beginning is not None else None
                run.calculator_known = self._backend is None or not self._allow_calculator_change
                return run.execute()
        finally:
            self._running = False

    def _pool(self) -> WorkerPool:
        assert self.calculator is not None
        relaxer = Relaxer(calculator=self.calculator, settings=self.relaxation)
        return WorkerPool(relaxer, workers=self.workers, log_directory=self.directory / "workers")

    # Ask and tell

    def ask(self, n: int = 1) -> list[Candidate]:
        """Return ``n`` candidates for you to relax, fewer if the sources have no more.

        They are recorded as yours: :meth:`pending` lists them until you :meth:`tell` or :meth:`fail` them, also after
        the process has ended, and no worker takes them. With ``one_shot``, ``candidate.starts`` are several structures,
        the lowest of which is worth relaxing.
        """
        self._proposer.learn()
        candidates: list[Candidate] = []
        while len(candidates) < n:
            if more := self._proposer.propose(USER):
                candidates += more
            elif self._proposer.preparing:
                self._proposer.wait()
            else:
                break
        return candidates

    def pending(self) -> list[Candidate]:
        """Return the candidates that you asked for and have not reported on."""
        return self.archive.pending(USER)

    def tell(
        self, candidate: Candidate | int, atoms: Atoms, *, force_calls: int | None = None, converged: bool = True
    ) -> Relaxed:
        """Report what you relaxed a candidate to.

        Parameters
        ----------
        candidate
            What :meth:`ask` returned, or its id.
        atoms
            The relaxed structure with its calculator; energy, and where there are any forces, stress and magnetic
            moments, are taken from it. They must come from the search's own level of theory.
        force_calls
            What it took, if you know; otherwise the sources are compared as if every relaxation took as many.
        converged
            Whether it is a minimum; unconverged structures are kept, but do not count as minima.

        Raises
        ------
        InputError
            If these are no atoms, or not those of the problem, or there is no energy.
        ArchiveError
            If the candidate is not one that you were given, or has been reported on.
        """
        asked = self._asked(candidate)
        outcome = self._relaxed(asked, atoms, force_calls or 0, converged)
        return self._proposer.record([outcome])[0]  # type: ignore[return-value]

    def fail(self, candidate: Candidate | int, reason: str) -> None:
        """Report that a candidate could not be relaxed, and why, in your words."""
        if not reason.strip():
            raise InputError("reason", reason, "a few words")
        self._proposer.record([Failed(candidate=self._asked(candidate), reason=FailureReason.REPORTED, detail=reason)])

    def add(self, atoms: Atoms, *, force_calls: int | None = None, converged: bool = True) -> Relaxed:
        """Hand in a relaxed structure that nobody asked for; otherwise as :meth:`tell`.

        It takes part in everything, but does not count as a relaxation of this search.
        """
        proposal = Proposal(atoms=_bare(atoms), operator=ADDED)
        candidate = Candidate(proposal=proposal, id=self.archive.candidates + 1, source=ADDED)
        outcome = self._relaxed(candidate, atoms, force_calls or 0, converged)
        call = self.archive.state.calls[ADDED]
        self._proposer.announce(SourceCall(source=ADDED, call=call, requested=1, owner=USER, candidates=(candidate,)))
        return self._proposer.record([outcome])[0]  # type: ignore[return-value]

    def _asked(self, candidate: Candidate | int) -> Candidate:
        id_ = candidate if isinstance(candidate, int) else candidate.id
        asked = self.archive.candidate(id_)
        if self.archive.owner(id_) != USER:
            raise ArchiveError(f"candidate {id_} belongs to the workers; ask() gives you your own")
        if self.archive.status(id_) != "pending":
            raise ArchiveError(f"candidate {id_} has been reported on already: {self.archive.status(id_)}")
        return asked

    def _relaxed(self, candidate: Candidate, atoms: Atoms, force_calls: int, converged: bool) -> Relaxed:
        relaxed = _bare(atoms)
        if atoms.calc is None:
            raise InputError("atoms", atoms, "needs a calculator that holds the energy")
        try:
            results = results_of(atoms)
        except PropertyError as error:
            allowed = f"needs a finite energy and results in ASE's form: {error}; report a failure with fail()"
            raise InputError("atoms", atoms, allowed) from error
        if not has_finite_geometry(atoms):
            raise InputError("atoms", atoms, "needs finite positions and a finite cell; report a failure with fail()")
        if not is_crystal_of(atoms, self.problem):
            raise InputError("atoms", atoms, f"must be a crystal of whole formula units of {self.problem.formula}")
        relaxed.calc = SinglePointCalculator(relaxed, **results)
        energy, forces, stress, residual = results["energy"], results.get("forces"), results.get("stress"), None
        if stress is not None:
            residual = float(np.abs(stress + self.problem.pressure * np.array([1, 1, 1, 0, 0, 0])).max())
        evaluation = Evaluation(
            level=RELAX,
            calculator=self.archive.state.calculator or self._label,
            energy=energy,
            enthalpy=energy + self.problem.pressure * relaxed.get_volume(),
            max_force=None if forces is None else float(np.linalg.norm(forces, axis=1).max()),
            max_stress_residual=residual,
            magmoms=results.get("magmoms"),
        )
        cost = Cost(force_calls=force_calls)
        return Relaxed(candidate=candidate, cost=cost, atoms=relaxed, evaluation=evaluation, converged=converged)

    @cached_property
    def _label(self) -> str:
        """What our own workers would call the calculator, so that what comes before their results is compared too."""
        return USER if self.calculator is None else build_calculator(self.calculator)[1]


def _close_earlier(directory: Path) -> None:
    """Close a search of this process in the same directory, so that a cell of a notebook can be run again.

    Raises
    ------
    LockedError
        If it is running at this moment.
    """
    earlier = _open_searches.get(directory.resolve())
    if earlier is None:
        return
    if earlier._running:
        raise LockedError(
            f"{directory} is being searched by another Search of this process, which is running: wait for it, or stop "
            f"it first"
        )
    earlier.close()


def _for_problem(relaxation: RelaxationSettings, problem: Problem) -> RelaxationSettings:
    if relaxation.pressure_gpa not in (0.0, problem.pressure_gpa):
        raise InputError("relaxation.pressure_gpa", relaxation.pressure_gpa, "set it for the problem")
    return replace(relaxation, pressure_gpa=problem.pressure_gpa, fixed_cell=problem.cell is not None)


def _check_keywords(problem_options: Mapping[str, Any]) -> None:
    known = {field.name for field in fields(Problem)} - {"formula"}
    for name in problem_options:
        if name not in known:
            elsewhere = "".join(
                f"; {name} belongs into {where}"
                for kind, where in _ELSEWHERE.items()
                if name in {field.name for field in fields(kind)}
            )
            raise UnknownNameError("keyword", name, known | set(Search.__init__.__kwdefaults__ or ()), elsewhere[2:])


def _budget(budget: StoppingCriteria | None, limits: Mapping[str, Any]) -> StoppingCriteria:
    """Return the budget of a run from what it was given."""
    known = [field.name for field in fields(StoppingCriteria)]
    for name in limits:
        if name not in known:
            raise UnknownNameError("keyword", name, known)
    return replace(budget, **limits) if budget else StoppingCriteria(**limits)


def _all_of(listeners: Sequence[Callable[[Progress], None]]) -> Callable[[Progress], None] | None:
    """Return one function that calls all of these; ``None`` without any."""

    def notify(progress: Progress) -> None:
        for listener in listeners:
            listener(progress)

    return notify if listeners else None


def _bare(atoms: Atoms) -> Atoms:
    if not isinstance(atoms, Atoms):
        raise InputError("atoms", atoms, "a crystal, as ase.Atoms")
    bare = atoms.copy()
    bare.calc = None
    bare.pbc = True
    return bare
