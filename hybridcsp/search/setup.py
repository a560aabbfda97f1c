"""Build the sources and the proposer of a search from its settings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ase import Atoms

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.part import ArchivePart
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import is_word
from hybridcsp.core.registry import split_argument
from hybridcsp.core.system import System
from hybridcsp.errors import InputError, NothingUsableError
from hybridcsp.generators.external import Command, CommandGenerator
from hybridcsp.retraining import Retrainer, Retraining, RetrainingScheduler
from hybridcsp.search.allocations import ALLOCATIONS
from hybridcsp.search.proposer import Proposer
from hybridcsp.search.settings import SearchSettings
from hybridcsp.sources.base import BaseSource
from hybridcsp.sources.generative import GenerativeSource
from hybridcsp.sources.preselection import check_samples_per_job
from hybridcsp.sources.random import check_spacegroups
from hybridcsp.sources.registry import SOURCES


def build_sources(
    sources: Sequence[str | BaseSource],
    problem: Problem,
    external: Mapping[str, Command] | None = None,
    samples_per_job: int = 1,
    *,
    in_background: bool = False,
    posterior: bool = True,
    lacking: dict[str, NothingUsableError] | None = None,
) -> dict[str, BaseSource]:
    """Build the sources from user-supplied names or objects, and return them by name.

    A name that occurs again becomes ``name-2`` and so on, also if one of the others is left out.

    Parameters
    ----------
    sources
        Names of sources, with arguments after a colon, or sources themselves.
    problem
        The problem that is searched.
    external
        Commands by name; the source ``external:NAME`` runs one and is itself called NAME.
    samples_per_job
        Number of samples per job of generators that are given by name.
    in_background
        Whether commands, and generators of other packages that are given by name, run in parallel with the search.
    posterior
        Whether samples of generators that are given by name are put in order by the heights in which they are expected
        to end.
    lacking
        If given, sources whose files hold nothing for this problem are left out, and their errors are put here by name.
        In a system this is no mistake, because they may hold something for other compositions.

    Raises
    ------
    InputError
        If there are no sources, or one of them cannot be built.
    """
    if isinstance(sources, str) or not sources:
        raise InputError("sources", sources, "a list of at least one source")
    check_samples_per_job(samples_per_job)
    check_spacegroups(problem)
    options = {"samples_per_job": samples_per_job, "in_background": in_background, "posterior": posterior}
    built: dict[str, BaseSource | None] = {}
    for given in sources:
        source: BaseSource | None
        try:
            name, source = _build(given, problem, external or {}, options)
            error = None
        except NothingUsableError as raised:
            if lacking is None:
                raise
            name, source, error = split_argument(str(given), "source")[0], None, raised
        if not is_word(name):
            raise InputError("source.name", name, "a word that begins with a letter")
        same = sum(known == name or known.startswith(f"{name}-") for known in built)
        name = f"{name}-{same + 1}" if same else name
        built[name] = source
        if lacking is not None and error is not None:
            lacking[name] = error
    return {name: source for name, source in built.items() if source is not None}


def build_sources_of_system(
    build: Callable[[Problem, dict[str, NothingUsableError]], dict[str, BaseSource]], system: System
) -> dict[str, dict[str, BaseSource]]:
    """Build the sources of as many compositions of a system as are needed to have each source once.

    Parameters
    ----------
    build
        Function that builds the sources of a composition, as :func:`build_sources` does with ``lacking``.
    system
        The system.

    Returns
    -------
    dict
        Sources by composition and name; the first composition is one with several elements.

    Raises
    ------
    NothingUsableError
        If a source has nothing for any composition.
    """
    order = sorted(system.compositions, key=lambda formula: formula in system.elements)
    found: dict[str, dict[str, BaseSource]] = {}
    names: set[str] = set()
    lacking: dict[str, NothingUsableError] = {}
    for formula in order:
        own = build(system.problem(formula), lacking)
        if not found or not own.keys() <= names:
            found[formula] = own
            names |= own.keys()
        missing = [name for name in lacking if name not in names]
        if not missing:
            return found
    reason = f"no structure there can be used at any of the compositions of {system.formula}: {', '.join(order)}"
    raise NothingUsableError("source", lacking[missing[0]].value, reason=reason)


def check_for_system(settings: SearchSettings) -> None:
    """Check that settings can be used in a search of a chemical system.

    Raises
    ------
    InputError
        If they hold follow-ups, or sources that are objects, each of which belongs to one composition.
    """
    for source in settings.sources:
        if not isinstance(source, str):
            reason = "in a search of a chemical system give the name of a source, because each composition has its own"
            raise InputError("sources", source, reason=reason)
    if settings.then.calculators:
        reason = "follow-ups are not available in a search of a chemical system"
        raise InputError("then", list(settings.then.names), reason=reason)


def check_learners(sources: Mapping[str, BaseSource], retraining: Retraining) -> None:
    """Check that generators that begin untrained are going to be trained.

    Raises
    ------
    InputError
        If there is such a generator, and retraining is turned off or there is no other source to learn from.
    """
    untrained = [
        name for name, source in sources.items() if isinstance(source, GenerativeSource) and source.from_scratch
    ]
    if untrained and (not retraining.every(from_scratch=True) or len(untrained) == len(sources)):
        reason = "it needs retraining (new_minima from 1) and another source, from whose minima it learns"
        raise InputError("source", f"{untrained[0]}:scratch", reason=reason)


def require_independent_source(sources: Iterable[object], named: object) -> None:
    """Check that at least one source does not depend on minima that others have found.

    Parameters
    ----------
    sources
        Sources, their classes, or the functions that build them.
    named
        The sources as an error shows them.

    Raises
    ------
    InputError
        If every source has ``needs_others``.
    """
    if all(_needs_others(source) for source in sources):
        raise InputError("sources", named, reason="it cannot run alone; add another source, such as random")


def refuse_system_sources(sources: Mapping[str, BaseSource], problem: Problem | System) -> None:
    """Check that no source of a search of one formula needs a chemical system.

    Raises
    ------
    InputError
        If a source has ``needs_system``.
    """
    for name, source in sources.items():
        if source.needs_system and isinstance(problem, Problem):
            elements = "-".join(problem.composition)
            example = elements if len(problem.composition) > 1 else f"{elements}-O"
            reason = (
                "it makes structures of one composition from minima of others, so that it needs a search of a chemical "
                f"system, such as {example}, and not of the formula {problem.formula}"
            )
            raise InputError("source", name, reason=reason)


def _needs_others(source: object) -> bool:
    if isinstance(source, type):
        return issubclass(source, BaseSource) and source.needs_others
    return isinstance(source, BaseSource) and source.needs_others


def _build(
    source: object, problem: Problem, external: Mapping[str, Command], options: Mapping[str, Any]
) -> tuple[str, BaseSource]:
    if not isinstance(source, str):
        if not isinstance(source, BaseSource):
            raise InputError("sources", source, reason=_not_a_source(source))
        return source.name or type(source).__name__, source
    name, argument = split_argument(source, "source")
    if name == "external" and argument is not None and argument in external:
        return argument, GenerativeSource(problem, generator=CommandGenerator(argument, external[argument]), **options)
    entry = SOURCES[name]
    kind = entry.load()
    own = options if isinstance(kind, type) and issubclass(kind, GenerativeSource) else {}
    return name, entry.build(problem, argument, **own)


def build_proposer(
    problem: Problem,
    settings: SearchSettings,
    archive: Archive,
    sources: Mapping[str, BaseSource],
    *,
    in_background: bool,
    calculator: str | None = None,
) -> Proposer:
    """Build the proposer of a search from its sources, with its allocation and the retraining of its generators.

    Parameters
    ----------
    problem, settings, archive, sources
        Problem, settings and archive of the search, and its sources by name.
    in_background
        Whether generators are trained in processes of their own, in parallel with the search.
    calculator
        Label of the calculator in use, if it is not the archive's.
    """
    retrainers = [
        Retrainer(name, source, problem, archive, settings.retraining, settings.seed, in_subprocess=in_background)
        for name, source in sources.items()
        if isinstance(source, GenerativeSource) and source.learns
    ]
    scheduler = RetrainingScheduler(retrainers, archive, settings.retraining.share)
    allocation = settings.allocation
    if isinstance(allocation, str):
        allocation = ALLOCATIONS[allocation](problem, settings.seed)
    elif isinstance(archive, ArchivePart):
        allocation = copy.deepcopy(allocation)  # each composition has its own
    if goals := settings.goals.with_estimators(_estimators(settings)):
        allocation.pursue(goals)
        for source in sources.values():
            source.pursue(goals)
    return Proposer(
        problem, archive, sources, allocation, settings.seed, scheduler, calculator, follow_up=settings.then
    )


def _estimators(settings: SearchSettings) -> dict[str, Callable[[Atoms], float]]:
    """Return functions that estimate the values of objectives for structures that are not relaxed, by name."""
    estimated = set(settings.goals.condition.intervals())
    built = {choice.name: choice.build() for choice in settings.objectives if choice.name in estimated}
    return {name: objective.value for name, objective in built.items() if objective.of_starts}


def _not_a_source(thing: object) -> str:
    """Explain why an object is not a source and how to make it one."""
    if isinstance(thing, type) and issubclass(thing, BaseSource):
        return f"this is a class; give an object of it, {thing.__name__}(...)"
    kind = thing.__qualname__ if isinstance(thing, type) else type(thing).__qualname__
    base = f"{BaseSource.__module__}.{BaseSource.__qualname__}"
    return f"{kind} is not a source; make the class a subclass of {base}, whose one abstract method is propose"
