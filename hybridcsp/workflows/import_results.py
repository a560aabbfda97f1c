"""Other codes' results into an archive: what they relaxed, what they made, and where it comes from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from shlex import quote
from statistics import median
from typing import Any

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from hybridcsp.archive.archive import Archive, SourceCall
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import (
    RELAX,
    USER,
    Candidate,
    Evaluation,
    Failed,
    FailureReason,
    Outcome,
    Proposal,
    Relaxed,
    is_word,
)
from hybridcsp.errors import InputError
from hybridcsp.io.formats import Record
from hybridcsp.io.frames import ReadFailure
from hybridcsp.similarity import STARTS, Descriptors, StructureIndex, compute_descriptors
from hybridcsp.similarity.parallel import DescriptorPool
from hybridcsp.utils.resources import garbage_collection_paused

#: How many structures are written at a time, in one transaction.
BATCH = 1000

#: How many results are held in memory, at about 3 kB each, so that they need not be read twice.
MOST_HELD = 150_000

#: How many complaints are kept word for word.
KEPT = 20


@dataclass(kw_only=True)
class Report:
    """What became of what was read.

    Attributes
    ----------
    relaxed, failed, candidates
        Taken in: relaxed structures, relaxations that failed, structures without an energy (candidates to relax).
    linked
        How many of these were candidates of ours that the other code had been given.
    known
        Were there already.
    others
        Structures of other compositions, by formula.
    broken, complaints
        How many were not readable, and the first of these.
    """

    relaxed: int = 0
    failed: int = 0
    candidates: int = 0
    linked: int = 0
    known: int = 0
    others: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    complaints: list[ReadFailure] = field(default_factory=list)

    @property
    def seen(self) -> int:
        """How many structures, broken ones included."""
        return self.relaxed + self.failed + self.candidates + self.known + self.others.total() + self.broken

    def complain(self, broken: ReadFailure) -> None:
        """Count something broken and keep it if it is among the first."""
        self.broken += 1
        if len(self.complaints) < KEPT:
            self.complaints.append(broken)


@dataclass(kw_only=True)
class Survey:
    """What is in a set of results, without taking it in.

    Attributes
    ----------
    sizes
        By reduced formula, smallest and largest number of its units in a cell, and how many structures.
    pressures_gpa
        Of structures that say it.
    calculators
        What energies come from, by how many.
    complaint
        About the first thing that is not readable.
    """

    sizes: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    pressures_gpa: list[float] = field(default_factory=list)
    calculators: Counter[str] = field(default_factory=Counter)
    complaint: ReadFailure | None = None

    def problem(self, path: Path, formula: str | None = None, pressure_gpa: float | None = None) -> Problem:
        """Return the problem that these are results of.

        Parameters
        ----------
        path
            Where they were found, for errors.
        formula
            One formula unit; by default that of most structures.
        pressure_gpa
            By default the median of what the structures say, to a tenth.

        Raises
        ------
        InputError
            If there are no structures, or none of that formula.
        """
        if not self.sizes:
            why = "" if self.complaint is None else f" ({self.complaint})"
            raise InputError("path", str(path), f"nothing that can be read was found there{why}")
        chosen = formula or max(self.sizes, key=lambda name: self.sizes[name][2])
        unit = Problem(chosen, max_atoms=10**6, formula_units=1)
        reduced = _reduced(unit.contents(1))
        if reduced not in self.sizes:
            there = ", ".join(f"{name} ({n})" for name, (_, _, n) in self.sizes.items())
            raise InputError("--formula", chosen, f"a composition that occurs: {there}")
        low, high, _ = self.sizes[reduced]
        atoms = unit.atoms_per_unit
        per_reduced = atoms // sum(Problem(reduced, max_atoms=10**6, formula_units=1).composition.values())
        if pressure_gpa is None:
            # A little tension is what is left of the stress of a relaxation at no pressure.
            pressure_gpa = max(0.0, round(median(self.pressures_gpa), 1)) if self.pressures_gpa else 0.0
        low, high = max(1, low // per_reduced), max(1, high // per_reduced)
        return Problem(chosen, formula_units=(low, high), max_atoms=high * atoms, pressure_gpa=pressure_gpa)


def survey(results: Iterable[Record | ReadFailure], on_progress: Callable[[int], None] = lambda _: None) -> Survey:
    """Look through results once; ``on_progress`` is called with the number of structures so far."""
    with garbage_collection_paused():  # the results may be kept
        return _survey(results, on_progress)


def _survey(results: Iterable[Record | ReadFailure], on_progress: Callable[[int], None]) -> Survey:
    found = Survey()
    reductions: dict[str, tuple[str, int]] = {}
    for n, record in enumerate(results, start=1):
        on_progress(n)
        if isinstance(record, ReadFailure):
            found.complaint = found.complaint or record
            continue
        formula = record.atoms.get_chemical_formula()
        if formula not in reductions:
            counts = Counter(record.atoms.symbols)
            reduced = _reduced(counts)
            reductions[formula] = reduced, len(record.atoms) // Problem(reduced, max_atoms=10**6).atoms_per_unit
        name, units = reductions[formula]
        low, high, known = found.sizes.get(name, (units, units, 0))
        found.sizes[name] = min(low, units), max(high, units), known + 1
        if record.pressure_gpa is not None and record.enthalpy is not None:
            found.pressures_gpa.append(record.pressure_gpa)
        if record.calculator:
            found.calculators[record.calculator] += 1
    return found


class Kept:
    """Results that are read once and gone through again, as long as they are not too many to be held in memory.

    Parameters
    ----------
    read
        Reads the results from the beginning.
    """

    def __init__(self, read: Callable[[], Iterable[Record | ReadFailure]]) -> None:
        self._read = read
        self._held: list[Record | ReadFailure] | None = None

    def __iter__(self) -> Iterator[Record | ReadFailure]:
        if self._held is not None:
            yield from self._held
            return
        held: list[Record | ReadFailure] = []
        for item in self._read():
            if len(held) <= MOST_HELD:
                held.append(item)
            yield item
        if len(held) <= MOST_HELD:
            self._held = held


def label(source: str, calculators: Mapping[str, int]) -> str:
    """Return what to call the calculator of a code's energies: ``"uspex:VASP"``, or ``"uspex"`` if it is not known."""
    return f"{source}:{max(calculators, key=lambda name: calculators[name])}" if calculators else source


def begin(archive: Archive, problem: Problem, source: str, path: Path, calculator: str) -> None:
    """Make an archive ready for results.

    Raises
    ------
    InputError
        If it holds results of another problem or calculator.
    """
    before = dict(archive.state.settings[-1]) if archive.state.settings else {}
    before.pop("calculator_label", None)  # it was in force when that session began
    if before and (formula := archive.problem.formula) != problem.formula:
        raise InputError("directory", str(archive.directory), f"one for {problem.formula}; it holds {formula}")
    known = archive.state.calculator
    if known is not None and known != calculator:
        raise InputError(
            "directory",
            str(archive.directory),
            f"a new one, since it holds energies of {known}, which those of {calculator} cannot be compared with. To "
            f"relax the structures in a search of your own: --source seeds:PATH; if it is the same calculator under "
            f"another name: --calculator {quote(known)}",
        )
    settings: dict[str, Any] = {"version": version("hybridcsp"), "problem": problem.describe(), **before}
    archive.open_session(settings | {"imported": {"source": source, "path": str(path.resolve())}})


def take_in(
    archive: Archive,
    results: Iterable[Record | ReadFailure],
    *,
    source: str,
    problem: Problem,
    calculator: str,
    strict: bool = False,
    on_progress: Callable[[Report], None] = lambda _: None,
    processes: int = 1,
) -> Report:
    """Record results in an archive that :func:`begin` made ready.

    What the code relaxed counts as relaxations, by the source ``source`` and with the code's own variation operators,
    in the order in which it is read. What was recorded by an earlier call is left out; candidates that were asked for
    and given to the code are recognised by their starting structures and end as they ended there. Structures without an
    energy become candidates of the user: :meth:`~hybridcsp.search.search.Search.pending` lists them.

    Parameters
    ----------
    archive
        Open for writing.
    results
        What a :class:`~hybridcsp.io.formats.Format` reads.
    source
        The name of the code.
    problem
        Of the archive; structures of another composition are counted and left out.
    calculator
        What the energies are called.
    strict
        Whether to stop at the first thing that cannot be read.
    on_progress
        Called after every :data:`BATCH`.
    processes
        How many processes beside this one describe structures for their comparison; 1: this one does. A script that
        asks for more needs the usual ``if __name__ == "__main__"``.

    Raises
    ------
    InputError
        If ``strict`` and something is broken. What was read before is in the archive.
    """
    report = Report()
    known = {
        event.data["tag"].get("key"): id_
        for id_, event in archive.state.candidates.items()
        if event.data["source"] == source
    }
    # A candidate of ours that the code relaxed carries our own tag: the code's name for it is in how it ended.
    prefix = f"{source}:"
    known |= {
        text.removeprefix(prefix).partition(" | ")[0]: id_
        for id_, text in archive.details().items()
        if text.startswith(prefix)
    }
    asked = _Asked(archive, known)
    with DescriptorPool(processes) as descriptors:
        for (batch, ended), places in descriptors.ahead(_batches(results, asked, source)):
            ahead = {id(ended[place]): described for place, described in places.items()}
            new = []
            for item in batch:
                if isinstance(item, ReadFailure):
                    report.complain(item)
                elif not asked.is_news(item, _key(item, source)):
                    report.known += 1
                elif problem.units_of(item.atoms.numbers) is None:
                    report.others[item.atoms.symbols.formula.format("metal")] += 1
                else:
                    try:
                        if id(item) not in ahead:
                            ahead[id(item)] = compute_descriptors(item.atoms)
                        asked.check_start(item)
                    except InputError as error:  # a cell that is too thin, or holds too many atoms
                        reason = f"{error.key} {error.allowed}"
                        report.complain(ReadFailure(file=item.file or Path(source), line=item.line, reason=reason))
                    else:
                        new.append(item)
            _record(archive, new, source, problem, calculator, asked, report, ahead)
            on_progress(report)
            if strict and report.broken:
                raise InputError("path", str(report.complaints[0].file), f"{report.complaints[0]} (--strict)")
    return report


def _batches(
    results: Iterable[Record | ReadFailure], asked: _Asked, source: str
) -> Iterator[tuple[tuple[list[Record | ReadFailure], list[Record]], list[Atoms]]]:
    """Yield results, so many at a time, with those among them that are new relaxations, and the structures of these."""
    stream = iter(results)
    while batch := list(islice(stream, BATCH)):
        ended = [
            item
            for item in batch
            if isinstance(item, Record)
            and not item.failure
            and _has_ended(item)
            and not asked.knows(_key(item, source))
        ]
        yield (batch, ended), [record.atoms for record in ended]


def _record(
    archive: Archive,
    records: list[Record],
    source: str,
    problem: Problem,
    calculator: str,
    asked: _Asked,
    report: Report,
    ahead: Mapping[int, Descriptors],
) -> None:
    """Record results; ``ahead`` holds what was described ahead, by the ids of the records."""
    described: dict[int, Descriptors] = {}
    candidates: list[Candidate] = []
    outcomes: list[Outcome] = []
    for record in records:
        candidate = asked.pop(record, _key(record, source))
        if candidate is None:
            id_ = archive.candidates + len(candidates) + 1
            candidate = Candidate(proposal=_proposal(record, source), id=id_, source=source)
            candidates.append(candidate)
        else:
            report.linked += candidate.source != source
        outcome = _outcome(record, candidate, problem, calculator)
        if outcome is not None and candidate.source != source:
            outcome = replace(
                outcome, detail=" | ".join(filter(None, [f"{source}:{_key(record, source)}", outcome.detail]))
            )
        if outcome is None:
            report.candidates += 1
            continue
        outcomes.append(outcome)
        if id(record) in ahead:
            described[candidate.id] = ahead[id(record)]
        report.relaxed += isinstance(outcome, Relaxed)
        report.failed += isinstance(outcome, Failed)
    if candidates:
        call = archive.state.calls[source]
        archive.record_call(
            SourceCall(source=source, call=call, requested=len(candidates), owner=USER, candidates=tuple(candidates))
        )
    archive.record_outcomes(outcomes, described, find_symmetry=False)


def _proposal(record: Record, source: str) -> Proposal:
    operator = re.sub(r"[^\w.+/-]+", "-", record.origin).strip("-").lower()
    tag = {"key": _key(record, source), "id": record.id, "generation": record.generation, "origin": record.origin}
    return Proposal(
        atoms=record.atoms if record.start is None else record.start,
        operator=operator if is_word(operator) else source,
        tag=tag,
    )


def _key(record: Record, source: str) -> str:
    """Return what tells a structure from the others of its source: codes number theirs, plain files do not."""
    return f"{record.file}:{record.line}:{record.id}" if source == "plain" else record.id


def _outcome(record: Record, candidate: Candidate, problem: Problem, calculator: str) -> Relaxed | Failed | None:
    if record.failure:
        return Failed(candidate=candidate, reason=FailureReason.REPORTED, detail=record.failure, atoms=record.atoms)
    work = problem.pressure * record.atoms.get_volume()
    energy, enthalpy = record.energy, record.enthalpy
    if enthalpy is None and energy is not None:
        enthalpy = energy + work
    if enthalpy is None:
        return None
    if energy is None or record.pressure_gpa != problem.pressure_gpa:
        energy = enthalpy - work
    atoms = record.atoms.copy()
    atoms.calc = SinglePointCalculator(atoms, energy=energy)
    evaluation = Evaluation(
        level=RELAX,
        calculator=calculator,
        energy=energy,
        enthalpy=enthalpy,
        max_force=None,
        max_stress_residual=None,
    )
    return Relaxed(candidate=candidate, atoms=atoms, evaluation=evaluation, converged=record.converged)


class _Asked:
    """What the archive has of a code already, and the candidates that wait for a result.

    Candidates of ours that another code was given are found again by the structures that it began with.

    Parameters
    ----------
    archive
        The archive.
    known
        Its candidates of that code, by the keys of their records.
    """

    def __init__(self, archive: Archive, known: Mapping[str, int]) -> None:
        self._known = dict(known)
        self._waiting = {candidate.id: candidate for candidate in archive.pending(USER)}
        self._index = StructureIndex(energy_window=None, tolerances=STARTS)
        own = set(known.values())
        for id_, candidate in self._waiting.items():
            if id_ not in own:
                self._index.add(id_, candidate.atoms)

    def knows(self, key: str) -> bool:
        """Whether a record of this key was seen before."""
        return key in self._known

    def is_news(self, record: Record, key: str) -> bool:
        """Whether a record is new, or says how a candidate ended that waited for it."""
        if key not in self._known:
            self._known[key] = 0
            return True
        return self._known[key] in self._waiting and _has_ended(record)

    def check_start(self, record: Record) -> None:
        """Check that what a structure began with can be compared with the candidates that wait.

        Raises
        ------
        InputError
            If not.
        """
        if record.start is not None and len(self._index):
            compute_descriptors(record.start)

    def pop(self, record: Record, key: str) -> Candidate | None:
        """Return the candidate that waited for this record, if there is one."""
        if not _has_ended(record):
            return None
        id_: int | None = self._known[key]
        if id_ not in self._waiting and record.start is not None and len(self._index):
            id_ = self._index.find(record.start)
            if id_ is not None:
                self._index.remove(id_)
        return None if id_ is None else self._waiting.pop(id_, None)


def _has_ended(record: Record) -> bool:
    return bool(record.failure) or record.energy is not None or record.enthalpy is not None


def _reduced(counts: Mapping[str, int]) -> str:
    from ase.formula import Formula

    return str(Formula.from_dict(dict(counts)).reduce()[0].format("metal"))


def up_to(results: Iterable[Record | ReadFailure], generation: int) -> Iterator[Record | ReadFailure]:
    """Leave out what is of a later generation."""
    for record in results:
        if isinstance(record, ReadFailure) or record.generation is None or record.generation <= generation:
            yield record
