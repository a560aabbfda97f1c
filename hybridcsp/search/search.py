"""A structure search in a run directory: run it with workers, or request candidates and report their results."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from weakref import WeakValueDictionary
from zlib import crc32

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.database import DATABASE
from hybridcsp.archive.directory_lock import check_directory
from hybridcsp.archive.history import SourceCall
from hybridcsp.archive.part import ArchivePart
from hybridcsp.core.minimum import Minimum
from hybridcsp.core.outcomes import Failed, FailureReason, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import ADDED, USER, Candidate, Proposal
from hybridcsp.core.system import System
from hybridcsp.errors import ArchiveError, InputError, LockedError, NothingUsableError
from hybridcsp.objectives import Objective
from hybridcsp.relaxation.backends import GenerationBackend
from hybridcsp.relaxation.backends.base import Backend
from hybridcsp.relaxation.backends.executors import LOCAL
from hybridcsp.relaxation.batch import open_pool
from hybridcsp.relaxation.batch_size import batch_size
from hybridcsp.relaxation.calculators.registry import (
    CalculatorLike,
    build_calculator,
    parameters_ahead,
    prepare_calculator,
    try_calculator,
)
from hybridcsp.relaxation.evaluation_files import EVALUATIONS
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.search.allocation import Allocation
from hybridcsp.search.progress import Progress, Summary
from hybridcsp.search.proposer import Proposer
from hybridcsp.search.references import Reference, read_references
from hybridcsp.search.resumption import check_same_calculator, check_same_files, check_same_search
from hybridcsp.search.run import Run
from hybridcsp.search.settings import SearchSettings, sort_keywords
from hybridcsp.search.setup import (
    build_proposer,
    build_sources,
    build_sources_of_system,
    check_for_system,
    check_learners,
    refuse_system_sources,
    require_independent_source,
)
from hybridcsp.search.stopping import StoppingCriteria, Target, stopping_criteria
from hybridcsp.search.system_proposer import SystemProposer
from hybridcsp.search.user_results import problem_of, relaxed_by_user, with_objectives, without_calculator
from hybridcsp.sources.base import BaseSource
from hybridcsp.sources.generative import GenerativeSource
from hybridcsp.sources.registry import DEFAULT_SOURCES, SYSTEM_SOURCES
from hybridcsp.utils.activity import announce
from hybridcsp.utils.formulas import elements_of_system

#: The open searches of this process, by run directory.
_open_searches: WeakValueDictionary[Path, Search] = WeakValueDictionary()

_BACKENDS = (
    "an instance of a subclass of hybridcsp.relaxation.backends.Backend, such as WorkerPool; "
    "ExecutorBackend makes one of an executor"
)


class Search:
    """A structure search in a run directory, new or resumed.

    Parameters
    ----------
    problem
        A :class:`Problem` or :class:`System`, or a formula or chemical system as text (``"TiO2"``, ``"V-O"``); then
        the other fields of the problem may follow as keywords.
    settings
        The settings of the search; default settings if not given.
    directory
        The run directory; by default named after the formula or system. If it holds a search with the same settings,
        that search is resumed: its events are replayed.
    backend
        A backend that runs the jobs instead of the executor of the settings.
    on_open
        Called with the run directory when that can be used, before anything is recorded in it. A description of the
        search that it writes there never exists without its search, nor the search without it.
    allow_calculator_change
        Whether the directory may hold energies of another calculator, or of the same one with other parameters. They
        are never compared: only minima of the calculator used last are ranked.
    **keywords
        Fields of :class:`~hybridcsp.search.settings.SearchSettings` and, if a formula is given, of :class:`Problem`.

    Raises
    ------
    InputError, CalculatorError
        For settings that are not valid, before anything is computed.
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
        problem: Problem | System | str,
        settings: SearchSettings | None = None,
        *,
        directory: Path | str | None = None,
        backend: Backend | None = None,
        on_open: Callable[[Path], None] | None = None,
        allow_calculator_change: bool = False,
        **keywords: Any,
    ) -> None:
        is_system = isinstance(problem, System) or (isinstance(problem, str) and bool(elements_of_system(problem)))
        own = list(Search.__init__.__kwdefaults__ or ())
        chosen, of_problem = sort_keywords(keywords, own, System if is_system else Problem)
        if isinstance(problem, str):
            problem = System(problem, **of_problem) if is_system else Problem(problem, **of_problem)
        elif of_problem:
            raise InputError(
                "problem", problem, reason=f"it is complete; {', '.join(of_problem)} cannot be added to it"
            )
        if backend is not None and not isinstance(backend, Backend):
            raise InputError("backend", backend, _BACKENDS)
        default = SearchSettings(sources=SYSTEM_SOURCES if is_system else DEFAULT_SOURCES)
        settings = replace(settings or default, **chosen)
        self.problem = problem
        self.directory = Path(os.path.abspath(directory or problem.formula))  # noqa: PTH100  # links are not followed
        check_directory(self.directory)
        if not (self.directory / DATABASE).exists():
            settings.check_condition(problem)
        self.settings = settings.resolved(problem, ask_and_tell=settings.calculator is None and backend is None)
        self._backend = backend
        self._allow_calculator_change = allow_calculator_change
        # Sources and allocation change as the search goes on. Where the calculator may change, the search starts again
        # from copies of them that know no energies.
        self._unused = copy.deepcopy((list(settings.sources), settings.allocation)) if allow_calculator_change else None
        sources = self._first_sources(settings)
        if settings.calculator is not None:  # with ask and tell, minima of other origin may be added or imported
            require_independent_source(sources.values(), list(sources))
        refuse_system_sources(sources, problem)
        check_learners(sources, settings.retraining)
        references = self._references(settings)
        weights = {n: s.weights for n, s in sources.items() if isinstance(s, GenerativeSource) and s.weights}
        record = self.settings.record(problem, weights)
        self._running = False
        _close_earlier(self.directory)
        if settings.choice is not None and backend is None:
            for one in (settings.choice, *settings.then.calculators):
                prepare_calculator(one)
                try_calculator(one)
        announce(f"opening {self.directory}")
        self.archive = Archive(self.directory, write=True, system=problem if isinstance(problem, System) else None)
        try:
            check_same_search(record, self.archive, allow_calculator_change=allow_calculator_change)
            self._check_calculator()
            label = None
            if allow_calculator_change and backend is None and self.archive.state.calculator is not None:
                label = record["calculator_label"] = self._label
            self._proposer = self._build_proposer(sources, settings.allocation, label)
            if on_open is not None:
                on_open(self.directory)
            self.archive.open_session(record)
            if isinstance(self._proposer, SystemProposer):
                self._proposer.announce_references(references)
        except BaseException:
            self.archive.close()
            raise
        _open_searches[self.directory.resolve()] = self

    def _check_calculator(self) -> None:
        """Compare the calculator with the archive's, as far as that can be done before the workers build it."""
        choice = self.settings.choice
        if self._allow_calculator_change or self._backend is not None or choice is None:
            return
        if isinstance(choice.calculator, BaseCalculator):
            check_same_calculator(build_calculator(choice)[1], self.archive)
        else:
            check_same_files(parameters_ahead(choice), self.archive)

    def close(self) -> None:
        """Stop what runs in the background and release the run directory."""
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
        """Return the ``n`` (default: all) best minima, best first, by the last follow-up calculator if there is any."""
        return self.archive.final_minima(n)

    @property
    def calculator(self) -> CalculatorLike | None:
        """The calculator as it was given; ``None`` for ask and tell."""
        return self.settings.calculator

    @property
    def workers(self) -> int | None:
        """Number of worker processes; on a cluster the largest number of jobs at once, ``None`` for any number."""
        return self.settings.workers

    @property
    def sources(self) -> Mapping[str, BaseSource]:
        """The sources, by the names that their candidates carry; in a chemical system those of one composition."""
        return self._proposer.sources

    @property
    def _in_background(self) -> bool:
        """Whether training and external programs run in parallel with the search.

        With one worker they do not, so that every run with the same seed is the same.
        """
        if self._backend is not None:
            return self._backend.parallel
        return self.calculator is not None and self.workers != 1

    def _first_sources(self, settings: SearchSettings) -> dict[str, BaseSource]:
        """Return the sources; of a chemical system each is that of one composition."""
        if isinstance(self.problem, Problem):
            return self._build_sources(settings.sources, self.problem)
        check_for_system(settings)
        self._ready = build_sources_of_system(
            lambda problem, lacking: self._build_sources(settings.sources, problem, lacking), self.problem
        )
        return {name: source for own in reversed(self._ready.values()) for name, source in own.items()}

    def _references(self, settings: SearchSettings) -> list[Reference]:
        if settings.references and isinstance(self.problem, Problem):
            path = settings.references[0]
            reason = f"it belongs to a search of a chemical system; use the file as a source, seeds:{path}"
            raise InputError("references", str(path), reason=reason)
        if isinstance(self.problem, Problem):
            return []
        return read_references(settings.references, self.problem, resumed=(self.directory / DATABASE).exists())

    def _build_sources(
        self,
        sources: Sequence[str | BaseSource],
        problem: Problem,
        lacking: dict[str, NothingUsableError] | None = None,
    ) -> dict[str, BaseSource]:
        one_shot = self.settings.one_shot
        assert one_shot is not None
        return build_sources(
            sources,
            problem,
            self.settings.external,
            one_shot,
            in_background=self._in_background,
            posterior=self.settings.retraining.posterior,
            lacking=lacking,
        )

    def _build_proposer(
        self, sources: Mapping[str, BaseSource], allocation: Allocation | str, calculator: str | None = None
    ) -> Proposer | SystemProposer:
        settings = replace(self.settings, allocation=allocation)
        common: dict[str, Any] = {"in_background": self._in_background, "calculator": calculator}
        if isinstance(self.problem, Problem):
            return build_proposer(self.problem, settings, self.archive, sources, **common)

        def build(part: ArchivePart) -> Proposer:
            own = replace(settings, seed=crc32(f"{settings.seed} {part.formula}".encode()))
            known = self._ready.pop(part.formula, None)
            if known is None:
                known = self._build_sources(settings.sources, part.problem, {})
            return build_proposer(part.problem, own, part, known, **common)

        return SystemProposer(self.archive, build, sources)

    def _rebuild_proposer(self) -> Proposer | SystemProposer:
        """Replace sources and allocation by new ones, which know energies of the calculator in use only."""
        assert self._unused is not None
        self._proposer.close()
        sources, allocation = copy.deepcopy(self._unused)
        first = self._first_sources(replace(self.settings, sources=sources))
        self._proposer = self._build_proposer(first, allocation)
        return self._proposer

    # Run

    def run(
        self,
        budget: StoppingCriteria | None = None,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        progress: bool = False,
        **limits: Any,
    ) -> Summary:
        """Search until a stopping criterion is met; then refine and follow up the best minima.

        Parameters
        ----------
        budget
            A :class:`~hybridcsp.search.stopping.StoppingCriteria`, or its fields as keywords:
            ``run(relaxations=100)``. It holds for the whole search: a directory that has 60 relaxations gets 40 more.
            ``hours`` hold for this run.
        on_progress
            Called with a :class:`~hybridcsp.search.progress.Progress` after every outcome, and twice a second.
        progress
            Whether to show the progress: live in a terminal and in a notebook, in lines elsewhere.

        Returns
        -------
        Summary

        Raises
        ------
        RelaxationsFailedError
            If the first relaxations all fail for the same reason (``budget.stop_after_failures``). Nothing is lost, and
            the search can be resumed.
        KeyboardInterrupt
            After everything has been recorded; the search can be resumed.
        BackendError
            If the backend breaks; the search can be resumed.
        """
        if self.calculator is None and self._backend is None:
            raise InputError("calculator", None, reason="run() needs a calculator; without one use ask() and tell()")
        criteria = stopping_criteria(budget, limits)
        Target(criteria.stop_at, self.problem)  # a target that cannot be used is an error before the workers start
        self._running = True
        try:
            with ExitStack() as stack:
                listeners = [on_progress] if on_progress else []
                if progress:
                    from hybridcsp.analysis.live_display import display

                    listeners.insert(0, stack.enter_context(display(criteria)).update)
                backend = stack.enter_context(nullcontext(self._backend) if self._backend else self._open_backend())
                run = Run(
                    self._proposer,
                    backend,
                    criteria,
                    self.settings.limits,
                    listeners,
                    calculator_known=self._backend is None or not self._allow_calculator_change,
                    rebuild_proposer=self._rebuild_proposer if self._allow_calculator_change else None,
                    follow_up=self.settings.then,
                )
                return run.execute()
        finally:
            self._running = False

    def _open_backend(self) -> Backend:
        assert self.settings.choice is not None
        relaxer = Relaxer(
            calculator=self.settings.choice,
            settings=self.settings.relaxation,
            follow_ups=self.settings.then.calculators,
            objectives=tuple(self.settings.objectives),
            evaluations=self.directory / EVALUATIONS if self.settings.keep_evaluations else None,
            folder=self.directory,
        )
        if self.settings.executor != LOCAL:
            announce(f"connecting to {self.settings.executor}")
        size = batch_size(self.settings.batch or 1, self.settings.choice)
        logs = self.directory / "workers"
        pool = open_pool(self.settings.executor, relaxer, workers=self.workers, size=size, log_directory=logs)
        return GenerationBackend(pool) if self.workers == 1 and size > 1 else pool

    # Ask and tell

    def ask(self, n: int = 1) -> list[Candidate]:
        """Return ``n`` candidates for the user to relax, fewer if the sources have no more.

        They are recorded as the user's: :meth:`pending` lists them until the user reports them with :meth:`tell` or
        :meth:`fail`, also after the process has ended, and no worker relaxes them. With ``one_shot``,
        ``candidate.starts`` are several structures, of which the most promising is worth relaxing.
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
        """Return the candidates that the user has asked for and not yet reported."""
        return self.archive.pending(USER)

    def tell(
        self, candidate: Candidate | int, atoms: Atoms, *, force_calls: int | None = None, converged: bool = True
    ) -> Relaxed:
        """Report the relaxed structure of a candidate.

        Parameters
        ----------
        candidate
            A candidate that :meth:`ask` returned, or its id.
        atoms
            The relaxed structure with its calculator, which provides the energy and, if it has them, forces, stress and
            magnetic moments. They must be computed at the level of theory of this search.
        force_calls
            Number of force calls of the relaxation. Without it, every relaxation counts as equally expensive when
            sources are compared.
        converged
            Whether the structure is a minimum. Unconverged structures are recorded, but do not count as minima.

        Raises
        ------
        InputError
            If the structure is not valid, has other contents than the problem, or has no energy.
        ArchiveError
            If the candidate was not given to the user or has been reported before.
        """
        asked = self._asked(candidate)
        outcome = self._relaxed(asked, atoms, force_calls or 0, converged)
        return self._proposer.record([outcome])[0]  # type: ignore[return-value]

    def fail(self, candidate: Candidate | int, reason: str) -> None:
        """Report that a candidate could not be relaxed, with the reason in words."""
        if not reason.strip():
            raise InputError("reason", reason, "a text of a few words")
        self._proposer.record([Failed(candidate=self._asked(candidate), reason=FailureReason.REPORTED, detail=reason)])

    def add(self, atoms: Atoms, *, force_calls: int | None = None, converged: bool = True) -> Relaxed:
        """Add a relaxed structure that the search did not propose; parameters and errors are those of :meth:`tell`.

        It is ranked and sources learn from it, but it does not count as a relaxation of this search.
        """
        proposal = Proposal(atoms=without_calculator(atoms), operator=ADDED)
        candidate = Candidate(proposal=proposal, id=self.archive.candidates + 1, source=ADDED)
        outcome = self._relaxed(candidate, atoms, force_calls or 0, converged)
        call = self.archive.state.calls[ADDED]
        self._proposer.announce(SourceCall(source=ADDED, call=call, requested=1, owner=USER, candidates=(candidate,)))
        return self._proposer.record([outcome])[0]  # type: ignore[return-value]

    def _asked(self, candidate: Candidate | int) -> Candidate:
        """Return the candidate if the user has it and has not reported it yet."""
        id_ = candidate if isinstance(candidate, int) else candidate.id
        asked = self.archive.candidate(id_)
        if self.archive.owner(id_) != USER:
            raise ArchiveError(f"candidate {id_} belongs to the workers; ask() returns candidates for you to relax")
        if self.archive.status(id_) != "pending":
            raise ArchiveError(f"candidate {id_} has been reported already: {self.archive.status(id_)}")
        return asked

    def _relaxed(self, candidate: Candidate, atoms: Atoms, force_calls: int, converged: bool) -> Relaxed:
        calculator = self.archive.state.calculator or self._label
        problem = self.problem
        if isinstance(problem, System):
            problem = problem_of(atoms, problem)
        relaxed = relaxed_by_user(
            candidate, atoms, problem, calculator=calculator, force_calls=force_calls, converged=converged
        )
        return with_objectives(relaxed, self._objectives) if self._objectives else relaxed

    @cached_property
    def _objectives(self) -> dict[str, Objective]:
        return {choice.name: choice.build() for choice in self.settings.objectives}

    @cached_property
    def _label(self) -> str:
        """The label that the workers give the calculator, so that results from before theirs are comparable."""
        return USER if self.settings.choice is None else build_calculator(self.settings.choice)[1]


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
            f"{directory} is in use by another Search of this process, which is running: wait until it ends, or stop "
            f"it first"
        )
    earlier.close()
