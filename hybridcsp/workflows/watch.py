"""Beside another code that searches in generations: read its results, let our sources learn, give it seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hybridcsp.archive.archive import Archive
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import USER, Candidate, Rejected, RejectionReason
from hybridcsp.errors import ArchiveError, InputError, UnreadableError
from hybridcsp.io.formats import Format, Generational, Record, SeedSettings
from hybridcsp.search.search import Search
from hybridcsp.utils.files import atomic_write
from hybridcsp.utils.reading import read_json
from hybridcsp.workflows.import_results import ImportReport, import_records, open_for_import
from hybridcsp.workflows.survey import Survey, calculator_label, survey_results, up_to_generation

#: What is kept of a watch in its directory, beside the archive.
FILE = "watch.json"

#: Generations after which a seed that the other code did not relax is given up.
PATIENCE = 2


@dataclass(kw_only=True)
class _State:
    """What the archive does not know.

    Attributes
    ----------
    read
        Generations of the other code that are in the archive.
    given
        For candidates that were written as seeds and not seen again, how many generations had ended then.
    """

    read: int = 0
    given: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """The content of :data:`FILE`: which code is watched where, and the state."""

    code: str
    path: str
    state: _State


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one look at the other code came to.

    Attributes
    ----------
    finished
        How many of its generations have ended.
    report
        What was read, if a generation had ended since.
    given_up
        How many seeds of ours it did not relax.
    seeds
        How many were written.
    note
        Where, and what to set in the code's input; or why none were written.
    """

    finished: int
    report: ImportReport | None = None
    given_up: int = 0
    seeds: int = 0
    note: str = ""


class Watch:
    """Keeps a search of another code supplied with seeds.

    The archive holds the other code's results under its own calculator, so that our sources learn at its level of
    theory. It is a search for ask and tell (``Search(..., calculator=None)``): what our sources propose, the other code
    relaxes. Everything is in the directory; a watch that was stopped, at any moment, goes on from there.

    Parameters
    ----------
    directory
        Of the archive; made if it is not there.
    path
        The folder that the other code runs in.
    code
        Its files.
    sources
        Ours, as for :class:`~hybridcsp.search.search.Search`; a directory keeps those it began with.
    seed
        Of all randomness.
    seeds
        How many structures to give it each time.
    problem
        What is searched; by default found from the results (or as before).
    calculator
        What to call the energies; by default the code's name and what its input says.

    Raises
    ------
    InputError
        If this code has no generations.
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
            raise InputError("format", code.name, "a code with generations; hybridcsp import reads it")
        if not path.is_dir():
            raise InputError("path", str(path), "the folder that the other code runs in")
        self.directory, self.path, self.code = directory, path, code
        self.sources, self.seed, self.seeds = tuple(sources), seed, seeds
        self._problem, self._calculator = problem, calculator
        self._state = self._load()

    def look(self, on_progress: Callable[[ImportReport], None] = lambda _: None) -> Round:
        """Look once: read the generations that have ended, and write seeds for the next."""
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
                finished=finished, report=report, given_up=given_up, note="the seeds of before were not picked up yet"
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
            return 0, "our sources have nothing to offer"
        records = [_as_record(candidate, problem) for candidate in candidates]
        target = self.path if self.code.accepts_seeds_while_running else self.directory / "next_run"
        note = self.code.write(records, target, SeedSettings(elements=self.code.elements(self.path)))
        if not self.code.accepts_seeds_while_running:
            note += f" {self.code.name} takes structures only when it starts: these are for its next run."
        else:
            self._state.given |= {candidate.id: finished for candidate in candidates}
        self._save()
        return len(records), note

    def _to_give(self, search: Search) -> list[Candidate]:
        """Return what the code was not given yet: first what was asked for when a watch was cut off."""
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
            kept = TypeAdapter(_Kept).validate_python(read_json(file))
        except (UnreadableError, ValidationError) as error:
            raise ArchiveError(f"{file} is damaged: {error}; without it, results are read anew") from error
        if kept.code != self.code.name or kept.path != str(self.path.resolve()):
            raise InputError("directory", str(self.directory), f"one that does not watch {kept.path} already")
        return kept.state

    def _save(self) -> None:
        kept = _Kept(code=self.code.name, path=str(self.path.resolve()), state=self._state)
        with atomic_write(self.directory / FILE) as stream:
            json.dump(asdict(kept), stream, indent=1)


def _as_record(candidate: Candidate, problem: Problem) -> Record:
    return Record(
        atoms=candidate.atoms, id=str(candidate.id), origin=candidate.operator, pressure_gpa=problem.pressure_gpa
    )
