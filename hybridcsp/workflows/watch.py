"""Cooperation with another code that searches in generations: read its results, and supply seeds for the next."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.directory_lock import check_directory
from hybridcsp.core.outcomes import Rejected, RejectionReason
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import USER, Candidate
from hybridcsp.errors import ArchiveError, InputError, UnreadableError
from hybridcsp.io.formats import Format, Generational, Record, SeedSettings, check_folder
from hybridcsp.search.search import Search
from hybridcsp.utils.files import atomic_write
from hybridcsp.utils.reading import read_json
from hybridcsp.workflows.import_results import ImportReport, import_records, open_for_import
from hybridcsp.workflows.survey import Survey, calculator_label, survey_results, up_to_generation

#: The file in the directory that holds the state of a watch.
FILE = "watch.json"

#: Number of generations after which a seed that the other code has not relaxed is given up.
PATIENCE = 2


@dataclass(kw_only=True)
class _State:
    """The state of a watch that the archive does not contain.

    Attributes
    ----------
    read
        Number of generations of the other code that were imported.
    given
        For each candidate that was written as a seed and has no result, the number of generations that had ended then.
    """

    read: int = 0
    given: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _StateFile:
    """The content of :data:`FILE`: the code, the folder that it runs in, and the state."""

    code: str
    path: str
    state: _State


@dataclass(frozen=True, kw_only=True)
class Round:
    """The result of checking the other code once.

    Attributes
    ----------
    finished
        Number of generations of the code that have ended.
    report
        The report of the import; ``None`` if no generation has ended since the previous check.
    given_up
        Number of seeds that are given up because the code did not relax them.
    seeds
        Number of seeds that were written.
    note
        Where the seeds were written and what the code's input needs, or why none were written.
    """

    finished: int
    report: ImportReport | None = None
    given_up: int = 0
    seeds: int = 0
    note: str = ""


class Watch:
    """Supply a search of another code with seeds, generation by generation.

    The archive contains the other code's results under the label of its calculator, so that sources learn at its level
    of theory. The search has no calculator (``Search(..., calculator=None)``).
    The directory holds the whole state, and a watch can be stopped at any time and continued.

    Parameters
    ----------
    directory
        The directory of the archive; it is made if it does not exist.
    path
        The folder that the other code runs in.
    code
        The format of the code.
    sources
        Sources of the seeds, as for :class:`~hybridcsp.search.search.Search`; an existing directory keeps its own.
    seed
        Random seed.
    seeds
        Number of seeds for each generation.
    problem
        The problem; by default that of the directory, or else derived from the results.
    calculator
        The label of the calculator; by default the name of the code and the program in its input.

    Raises
    ------
    InputError
        If the code has no generations, or ``path`` is not a folder, is a run directory of hybridcsp, or holds results
        of another code.
    """

    def __init__(
        self,
        directory: Path,
        path: Path,
        code: Format,
        *,
        sources: Sequence[str],
        seed: int = 0,
        seeds: int = 5,
        problem: Problem | None = None,
        calculator: str | None = None,
    ) -> None:
        if not isinstance(code, Generational):
            raise InputError(
                "format", code.name, "a code that searches in generations; use hybridcsp import for this one"
            )
        if not path.is_dir():
            raise InputError("path", path, "the folder that the other code runs in")
        check_folder(path, code)
        check_directory(directory)
        if directory.resolve() == path.resolve():
            raise InputError("directory", directory, "another folder than the one that the other code runs in")
        self.directory, self.path, self.code = directory, path, code
        self.sources, self.seed, self.seeds = tuple(sources), seed, seeds
        self._problem, self._calculator = problem, calculator
        self._state = self._load()

    def check(self, on_progress: Callable[[ImportReport], None] = lambda _: None) -> Round:
        """Check the code once: import the generations that have ended, and write seeds for the next one."""
        finished = self.code.finished_generations(self.path)
        if finished <= self._state.read:
            return Round(finished=finished, note=f"waiting for generation {finished + 1} to end")
        report, given_up = self._read(finished, on_progress)
        self._state.read = finished
        self._save()
        if not report.relaxed and not self._is_begun():
            return Round(finished=finished, report=report, note="no relaxed structures yet")
        if self.code.accepts_seeds_while_running and not self.code.ready_for_seeds(self.path):
            return Round(
                finished=finished, report=report, given_up=given_up, note="the code has not read the previous seeds yet"
            )
        seeds, note = self._write(finished)
        return Round(finished=finished, report=report, given_up=given_up, seeds=seeds, note=note)

    def _read(self, finished: int, on_progress: Callable[[ImportReport], None]) -> tuple[ImportReport, int]:
        problem = self._problem
        found = Survey()
        if problem is None and self._is_begun():
            with Archive(self.directory) as archive:
                problem = Problem(**archive.state.settings[-1]["problem"])
        if problem is None or self._calculator is None:
            found = survey_results(up_to_generation(self.code.read(self.path), finished))
        problem = problem or found.problem(self.path)
        calculator = self._calculator or calculator_label(self.code.name, found.calculators)
        with Archive(self.directory, write=True) as archive:
            open_for_import(archive, problem, self.code.name, self.path, calculator)
            report = import_records(
                archive,
                up_to_generation(self.code.read(self.path), finished),
                source=self.code.name,
                problem=problem,
                calculator=calculator,
                on_progress=on_progress,
            )
            return report, self._give_up(archive, finished)

    def _give_up(self, archive: Archive, finished: int) -> int:
        waiting = {candidate.id: candidate for candidate in archive.pending(USER)}
        stale = [waiting[id_] for id_ in self._state.given if id_ in waiting]
        lost = [candidate for candidate in stale if finished >= self._state.given[candidate.id] + PATIENCE]
        if self.code.accepts_seeds_while_running and self.code.ready_for_seeds(self.path):
            archive.record_outcomes(
                [
                    Rejected(
                        candidate=candidate,
                        reason=RejectionReason.NOT_TAKEN,
                        detail=f"{self.code.name} did not relax it",
                    )
                    for candidate in lost
                ]
            )
        else:
            lost = []
        gone = {candidate.id for candidate in lost}
        self._state.given = {id_: at for id_, at in self._state.given.items() if id_ in waiting and id_ not in gone}
        return len(lost)

    def _write(self, finished: int) -> tuple[int, str]:
        with Archive(self.directory) as archive:
            before = archive.state.settings[-1]
            problem = Problem(**before["problem"])
        sources = tuple(before.get("sources", self.sources))
        with Search(
            problem,
            calculator=None,
            directory=self.directory,
            sources=sources,
            seed=int(before.get("seed", self.seed)),
            allocation="equal",
        ) as search:
            candidates = self._to_give(search)
        if not candidates:
            return 0, "the sources have no candidates"
        records = [_as_record(candidate, problem) for candidate in candidates]
        target = self.path if self.code.accepts_seeds_while_running else self.directory / "next_run"
        note = self.code.write(records, target, SeedSettings(elements=self.code.elements(self.path)))
        if not self.code.accepts_seeds_while_running:
            note += f" {self.code.name} reads seeds only when it starts, so these are for its next run."
        else:
            self._state.given |= {candidate.id: finished for candidate in candidates}
        self._save()
        return len(records), note

    def _to_give(self, search: Search) -> list[Candidate]:
        """Return candidates that were not given to the code, first those left by an interrupted check."""
        ready = [
            candidate
            for candidate in search.pending()
            if candidate.id not in self._state.given and candidate.source != self.code.name
        ][: self.seeds]
        return ready + search.ask(self.seeds - len(ready)) if len(ready) < self.seeds else ready

    def _is_begun(self) -> bool:
        try:
            with Archive(self.directory) as archive:
                return bool(archive.state.settings)
        except ArchiveError:
            return False

    def _load(self) -> _State:
        file = self.directory / FILE
        if not file.is_file():
            return _State()
        try:
            kept = TypeAdapter(_StateFile).validate_python(read_json(file))
        except (UnreadableError, ValidationError) as error:
            raise ArchiveError(f"{file} is damaged: {error}; remove it to import the results again") from error
        if kept.code != self.code.name or kept.path != str(self.path.resolve()):
            raise InputError("directory", self.directory, f"another directory; this one already watches {kept.path}")
        return kept.state

    def _save(self) -> None:
        kept = _StateFile(code=self.code.name, path=str(self.path.resolve()), state=self._state)
        with atomic_write(self.directory / FILE) as stream:
            json.dump(asdict(kept), stream, indent=1)


def _as_record(candidate: Candidate, problem: Problem) -> Record:
    return Record(
        atoms=candidate.atoms, id=str(candidate.id), origin=candidate.operator, pressure_gpa=problem.pressure_gpa
    )
