"""Import of other codes' results into an archive, as relaxations and candidates of those codes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Any

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.history import SourceCall
from hybridcsp.core.outcomes import Evaluation, Failed, FailureReason, Outcome, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import RELAX, USER, Candidate, Proposal, is_word
from hybridcsp.errors import InputError
from hybridcsp.io.formats import Record
from hybridcsp.io.frames import ReadFailure
from hybridcsp.similarity import Descriptors, compute_descriptors
from hybridcsp.similarity.parallel import DescriptorPool
from hybridcsp.workflows.known_records import KnownRecords, has_result

#: Number of structures that are written in one transaction.
BATCH_SIZE = 1000

#: Maximum number of read failures that a report lists.
MAX_LISTED_FAILURES = 20


@dataclass(kw_only=True)
class ImportReport:
    """Numbers of imported and omitted structures.

    Attributes
    ----------
    relaxed, failed, candidates
        Numbers of imported relaxed structures, of failed relaxations, and of structures without an energy, which become
        candidates.
    linked
        Number of these that are candidates of a search, given to the other code as seeds.
    known
        Number of structures that the archive contained before.
    others
        Numbers of omitted structures of other compositions, by formula.
    other_calculators
        Numbers of omitted structures with energies of other calculators, by calculator.
    unreadable
        Number of structures that could not be read.
    read_failures
        The first of these failures.
    """

    relaxed: int = 0
    failed: int = 0
    candidates: int = 0
    linked: int = 0
    known: int = 0
    others: Counter[str] = field(default_factory=Counter)
    other_calculators: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    read_failures: list[ReadFailure] = field(default_factory=list)

    @property
    def seen(self) -> int:
        """Number of structures, including those that could not be read."""
        omitted = self.known + self.others.total() + self.other_calculators.total() + self.unreadable
        return self.relaxed + self.failed + self.candidates + omitted

    def add_failure(self, failure: ReadFailure) -> None:
        """Count a read failure, and list it if it is among the first."""
        self.unreadable += 1
        if len(self.read_failures) < MAX_LISTED_FAILURES:
            self.read_failures.append(failure)


def open_for_import(archive: Archive, problem: Problem, source: str, path: Path, calculator: str) -> None:
    """Open a session of an archive for the results of a code.

    Parameters
    ----------
    archive
        The archive, open for writing; it may be new.
    problem
        The problem that the results belong to.
    source
        The name of the code.
    path
        The location of the results.
    calculator
        The label of the calculator of their energies.

    Raises
    ------
    InputError
        If the archive contains results of another problem or calculator.
    """
    before = dict(archive.state.settings[-1]) if archive.state.settings else {}
    before.pop("calculator_label", None)  # the label belongs to that session
    if before and (formula := archive.problem.formula) != problem.formula:
        raise InputError("directory", archive.directory, f"a directory of {problem.formula}, not of {formula}")
    known = archive.state.calculator
    if known is not None and known != calculator:
        raise InputError(
            "directory",
            archive.directory,
            f"a new directory, because this one holds energies of {known}, which cannot be compared with those of "
            f"{calculator}. To relax the structures in a search, use --source seeds:PATH; if it is the same calculator "
            f"under another name, give --calculator {quote(known)} with the import",
        )
    settings: dict[str, Any] = {"version": version("hybridcsp"), "problem": problem.describe(), **before}
    archive.open_session(settings | {"imported": {"source": source, "path": str(path.resolve())}})


def import_records(
    archive: Archive,
    results: Iterable[Record | ReadFailure],
    *,
    source: str,
    problem: Problem,
    calculator: str,
    omit: Collection[str] = (),
    strict: bool = False,
    on_progress: Callable[[ImportReport], None] = lambda _: None,
    processes: int = 1,
) -> ImportReport:
    """Record results in an archive after :func:`open_for_import`.

    Relaxed structures count as relaxations of the source ``source``, with the code's own variation operators, in the
    order of the results. Structures that an earlier import recorded are omitted. Candidates of a search that were given
    to the code are recognised by their starting structures, and get the code's result as their outcome. Structures
    without an energy become candidates of the user, which :meth:`~hybridcsp.search.search.Search.pending` lists.

    Parameters
    ----------
    archive
        The archive, open for writing.
    results
        The records of a :class:`~hybridcsp.io.formats.Format`.
    source
        The name of the code.
    problem
        The problem of the archive; structures of other compositions are counted and omitted.
    calculator
        The label of the calculator of the energies.
    omit
        Calculators, as the records name them, whose energies are omitted, because they cannot be compared.
    strict
        Whether to stop at the first structure that cannot be read.
    on_progress
        Called after each batch of :data:`BATCH_SIZE` structures.
    processes
        Number of processes that compute descriptors for the comparison of structures; 1 computes them in this process.
        A script that uses more needs ``if __name__ == "__main__"``.

    Raises
    ------
    InputError
        If ``strict`` and a structure cannot be read. Structures before it are in the archive.
    """
    report = ImportReport()
    known = KnownRecords(archive, source)
    with DescriptorPool(processes) as descriptors:
        for (batch, ended), places in descriptors.ahead(_batches(results, known)):
            ahead = {id(ended[place]): described for place, described in places.items()}
            new = []
            for item in batch:
                if isinstance(item, ReadFailure):
                    report.add_failure(item)
                elif not known.register(item):
                    report.known += 1
                elif problem.units_of(item.atoms.numbers) is None:
                    report.others[item.atoms.symbols.formula.format("metal")] += 1
                elif item.calculator in omit and has_result(item):
                    report.other_calculators[item.calculator] += 1
                else:
                    try:
                        if id(item) not in ahead:
                            ahead[id(item)] = compute_descriptors(item.atoms)
                        known.check_start(item)
                    except InputError as error:  # the cell is too thin, or contains too many atoms
                        reason = f"{error.key}: {error.clause}"
                        report.add_failure(ReadFailure(file=item.file or Path(source), line=item.line, reason=reason))
                    else:
                        new.append(item)
            _record(archive, new, source, problem, calculator, known, report, ahead)
            on_progress(report)
            if strict and report.unreadable:
                first = report.read_failures[0]
                raise InputError("path", first.file, reason=f"with --strict every file must be readable: {first}")
    return report


def _batches(
    results: Iterable[Record | ReadFailure], known: KnownRecords
) -> Iterator[tuple[tuple[list[Record | ReadFailure], list[Record]], list[Atoms]]]:
    """Yield batches of results, the new relaxed structures among them, and the ``Atoms`` of these."""
    stream = iter(results)
    while batch := list(islice(stream, BATCH_SIZE)):
        ended = [
            item
            for item in batch
            if isinstance(item, Record) and not item.failure and has_result(item) and item not in known
        ]
        yield (batch, ended), [record.atoms for record in ended]


def _record(
    archive: Archive,
    records: list[Record],
    source: str,
    problem: Problem,
    calculator: str,
    known: KnownRecords,
    report: ImportReport,
    ahead: Mapping[int, Descriptors],
) -> None:
    """Record results; ``ahead`` contains descriptors that were computed before, by the ``id()`` of the records."""
    described: dict[int, Descriptors] = {}
    candidates: list[Candidate] = []
    outcomes: list[Outcome] = []
    for record in records:
        candidate = known.pop(record)
        if candidate is None:
            id_ = archive.candidates + len(candidates) + 1
            candidate = Candidate(proposal=_proposal(record, source, known.key(record)), id=id_, source=source)
            candidates.append(candidate)
        else:
            report.linked += candidate.source != source
        outcome = _outcome(record, candidate, problem, calculator)
        if outcome is not None and candidate.source != source:
            outcome = replace(
                outcome, detail=" | ".join(filter(None, [f"{source}:{known.key(record)}", outcome.detail]))
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


def _proposal(record: Record, source: str, key: str) -> Proposal:
    operator = re.sub(r"[^\w.+/-]+", "-", record.origin).strip("-").lower()
    tag = {"key": key, "id": record.id, "generation": record.generation, "origin": record.origin}
    return Proposal(
        atoms=record.atoms if record.start is None else record.start,
        operator=operator if is_word(operator) else source,
        tag=tag,
    )


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
