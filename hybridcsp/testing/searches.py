"""Conformance suites of sources and allocations: whole searches that must repeat and resume exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.history import ModelUpdate, SourceCall
from hybridcsp.core.outcomes import FollowUpOutcome, Outcome, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate, is_word
from hybridcsp.relaxation.backends import Backend, ExecutorBackend
from hybridcsp.relaxation.calculators.registry import CalculatorLike
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.search.allocation import Allocation
from hybridcsp.search.follow_up import FollowUp
from hybridcsp.search.progress import Progress
from hybridcsp.search.search import Search
from hybridcsp.sources.base import BaseSource
from hybridcsp.testing.relaxations import RememberingRelaxer
from hybridcsp.testing.requirements import conformance_suite, require, require_structure

#: One entry of a comparison: the kind of the event, its data, and the bytes of its structure.
_Entry = tuple[Any, ...]


@conformance_suite
def check_source(
    make: Callable[[Problem], BaseSource],
    directory: Path,
    *,
    problem: Problem | None = None,
    others: Sequence[str] = ("random",),
    calculator: CalculatorLike = "emt",
    follow_up: CalculatorLike = "lj",
    relaxations: int = 16,
) -> None:
    """Check that a source proposes valid structures and that searches with it repeat and resume exactly.

    Three searches with one worker and one seed are run: one uninterrupted, one the same again, and one that is
    interrupted twice and resumed with new source objects. All three must record the same events. So must two searches
    in which another calculator follows up the best minima after every three relaxations, one of them interrupted. The
    relaxations run in a thread of this process, and one that a later search repeats is not computed again.

    Parameters
    ----------
    make
        Function that returns a new source for a problem.
    directory
        Existing empty folder for the run directories.
    problem
        Problem of the searches; by default CuAu with one to four formula units.
    others
        Names of further sources, which provide minima to sources that need them. Relaxations are shared equally.
    calculator
        Calculator of the searches; the default, EMT, knows Al, Cu, Ag, Au, Ni, Pd and Pt.
    follow_up
        Calculator of the follow-up relaxations.
    relaxations
        Number of relaxations of each search, at least 6: enough for the source to take part.

    Raises
    ------
    AssertionError
        If the source breaks a rule; the message names it.
    """
    problem = problem or Problem("CuAu", formula_units=(1, 4))
    source = make(problem)
    require(isinstance(source, BaseSource), f"{type(source).__name__} must inherit hybridcsp.sources.base.BaseSource.")
    name = source.name or type(source).__name__
    require(is_word(name), f"The name {name!r} of the source must be a word that begins with a letter.")
    source.close()
    source.close()  # closing twice is allowed

    with _thread(problem, calculator, follow_up) as backend:

        def search(folder: str, then: FollowUp) -> Search:
            return Search(
                problem,
                calculator=calculator,
                directory=directory / folder,
                sources=[*others, make(problem)],
                allocation="equal",
                workers=1,
                then=then,
                backend=backend,
            )

        with search("uninterrupted", FollowUp()) as run:
            run.run(relaxations=relaxations, refine=0)
            own = list(run.sources)[-1]
            _require_valid_calls(run.archive, own, problem)
        _require_exactness(search, directory, relaxations, f"the source {name}", _following_up(follow_up))


@conformance_suite
def check_allocation(make: Callable[[Problem, int], Allocation], directory: Path, *, relaxations: int = 16) -> None:
    """Check that an allocation chooses among the available sources and that searches with it repeat and resume exactly.

    Parameters
    ----------
    make
        Function of a problem and a random seed that returns a new allocation.
    directory
        Existing empty folder for the run directories.
    relaxations
        Number of relaxations of each search, at least 6.

    Raises
    ------
    AssertionError
        If the allocation breaks a rule; the message names it.
    """
    problem = Problem("CuAu", formula_units=(1, 4))
    allocation = make(problem, 0)
    require(isinstance(allocation, Allocation), f"{type(allocation).__name__} must inherit Allocation.")
    for available in (["random"], ["random", "prototypes"], ["swarm", "evolution", "random"]):
        chosen = allocation.choose(available)
        require(
            chosen in available, f"choose({available}) returned {chosen!r}, which is not among the available sources."
        )
    name = type(allocation).__name__

    with _thread(problem, "emt", "lj") as backend:

        def search(folder: str, then: FollowUp) -> Search:
            return Search(
                problem,
                calculator="emt",
                directory=directory / folder,
                sources=["random", "prototypes", "basin-hopping"],
                allocation=make(problem, 0),
                workers=1,
                then=then,
                backend=backend,
            )

        with search("uninterrupted", FollowUp()) as run:
            run.run(relaxations=relaxations, refine=0)
        _require_exactness(search, directory, relaxations, f"the allocation {name}", _following_up("lj"))


@contextmanager
def _thread(problem: Problem, calculator: CalculatorLike, follow_up: CalculatorLike) -> Iterator[Backend]:
    """Provide a backend that relaxes in one thread, where a search starts sooner than with a process of its own."""
    settings = RelaxationSettings(pressure_gpa=problem.pressure_gpa, fixed_cell=problem.cell is not None)
    relaxer = Relaxer(calculator=calculator, settings=settings, follow_ups=(follow_up,))
    make_runner = RememberingRelaxer(relaxer)
    with ThreadPoolExecutor(1) as executor, ExecutorBackend(executor, make_runner, capacity=1) as backend:
        yield backend


def _following_up(calculator: CalculatorLike) -> FollowUp:
    """Return settings with which a calculator follows up minima often, and everything counts its results."""
    return FollowUp(calculators=(calculator,), every=3, best=3, window=0.0, counts=True)


def _require_exactness(
    search: Callable[[str, FollowUp], Search], directory: Path, relaxations: int, what: str, then: FollowUp
) -> None:
    """Require that the search in the folder "uninterrupted" is repeated and resumed exactly, also with follow-ups."""
    expected = _entries(directory / "uninterrupted")
    with search("repeated", FollowUp()) as run:
        run.run(relaxations=relaxations, refine=0)
    difference = _first_difference(expected, _entries(directory / "repeated"))
    require(
        difference is None,
        f"Two searches with {what} and the same seed differ at event {difference}: draw random numbers from the given "
        "generator alone, and let no decision depend on the clock or on global state.",
    )
    thirds = [relaxations // 3, 2 * relaxations // 3]
    _run_with_interruptions(
        lambda: search("resumed", FollowUp()), relaxations, lambda progress: progress.relaxations, thirds
    )
    difference = _first_difference(expected, _entries(directory / "resumed"))
    require(
        difference is None,
        f"A resumed search with {what} differs from an uninterrupted one at event {difference}: change state in "
        "proposed() and observe() only, which are called again when a search is resumed.",
    )
    with search("followed-up", then) as run:
        run.run(relaxations=relaxations, refine=0)
    # follow-ups are counted from the beginning of each run, and each time there are three
    _run_with_interruptions(
        lambda: search("followed-up-resumed", then), relaxations, lambda progress: progress.follow_ups_done, [2, 3]
    )
    difference = _first_difference(_entries(directory / "followed-up"), _entries(directory / "followed-up-resumed"))
    require(
        difference is None,
        f"A resumed search with {what} and follow-ups differs from an uninterrupted one at event {difference}: change "
        "state in proposed(), observe() and observe_follow_ups() only, which are called again when a search is "
        "resumed.",
    )


def _run_with_interruptions(
    search: Callable[[], Search], relaxations: int, count: Callable[[Progress], int], after: Sequence[int]
) -> None:
    """Run a search and interrupt and resume it each time when a count of its progress has the next given value."""
    left = list(after)

    def interrupt(progress: Progress) -> None:
        if left and count(progress) == left[0]:
            del left[0]
            raise KeyboardInterrupt

    while True:
        with search() as run:
            try:
                run.run(relaxations=relaxations, refine=0, on_progress=interrupt)
            except KeyboardInterrupt:
                continue
        return


def _require_valid_calls(archive: Archive, name: str, problem: Problem) -> None:
    candidates: list[Candidate] = []
    for event in archive.history():
        if isinstance(event, SourceCall) and event.source == name:
            require(not event.error, f"The source {name} raised an error in its call {event.call}: {event.error}")
            require(
                len(event.candidates) <= event.requested,
                f"The source {name} returned {len(event.candidates)} proposals in its call {event.call}; at most "
                f"{event.requested} were requested.",
            )
            candidates += event.candidates
    require(
        candidates,
        f"The source {name} proposed nothing; give the search more relaxations or the sources that it needs (others).",
    )
    rejected = [candidate for candidate in candidates if archive.status(candidate.id) == "rejected"]
    require(
        len(rejected) < len(candidates),
        f"All {len(candidates)} proposals of the source {name} were rejected by the screening.",
    )
    for candidate in candidates:
        require_structure(candidate.atoms, problem, f"Proposal {candidate.id} of the source {name}")
        require(
            all(1 <= parent < candidate.id for parent in candidate.proposal.parents),
            f"Proposal {candidate.id} of the source {name} names parents that do not exist: "
            f"{candidate.proposal.parents}.",
        )


def _entries(directory: Path) -> list[_Entry]:
    """Return the events of a search without times."""
    with Archive(directory) as archive:
        return [_entry(event) for event in archive.history()]


def _entry(event: object) -> _Entry:
    if isinstance(event, SourceCall):
        structures = [(_bytes(c), c.id, c.operator, c.proposal.parents, dict(c.proposal.tag)) for c in event.candidates]
        return "call", event.source, event.call, event.error, structures
    if isinstance(event, ModelUpdate):
        return "model", event.source, event.versions
    if isinstance(event, FollowUpOutcome):
        return "follow-up", event.number, event.of, _entry(event.outcome)
    assert isinstance(event, Outcome)
    end = (event.atoms.positions.tobytes(), event.evaluation.enthalpy) if isinstance(event, Relaxed) else ()
    return type(event).__name__, event.candidate.id, end


def _bytes(candidate: Candidate) -> tuple[bytes, bytes]:
    atoms = candidate.atoms
    return atoms.positions.tobytes(), atoms.cell.array.tobytes()


def _first_difference(expected: list[_Entry], found: list[_Entry]) -> int | None:
    """Return the number of the first event that differs, counted from 1; ``None`` if there is none."""
    for number, (one, other) in enumerate(zip(expected, found, strict=False), start=1):
        if one != other:
            return number
    return None if len(expected) == len(found) else min(len(expected), len(found)) + 1
