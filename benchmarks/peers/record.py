"""What both peers share: relaxations on this project's own worker, and the record of a run.

The record has the fields of ``recovery_run.run``, so that one table holds all methods. A peer runs in a directory with
task.json and reference.extxyz, and leaves run.json.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import ase.io
from ase import Atoms
from pymatgen.analysis.structure_matcher import StructureMatcher

from hybridcsp import Problem
from hybridcsp.archive.tallies import Tally
from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.records import Candidate, Job, Proposal
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.similarity import ENERGY_WINDOW, StructureIndex
from hybridcsp.structure.conversion import to_pymatgen

#: Seconds of processor time after which a peer that has made no proposal is given up: some loops of theirs have no end.
PATIENCE = 600


class Stopped(Exception):
    """The run is over, for the reason given."""


class _OutOfPatience(BaseException):
    """Not an ``Exception``: CrySPY catches those and goes on."""


class Run:
    """Relaxes what a peer proposes, and ends the run when it is solved and found, or out of relaxations.

    Attributes
    ----------
    contents
        An atom of the crystal each, without its positions and cell: all that a peer may know of it.
    volume
        To expect, in Å³: the estimate that this project's own sources start from.
    seed
        Of the run.
    """

    def __init__(self, task: dict[str, Any], reference: Atoms, pool: WorkerPool) -> None:
        self.contents = sorted(reference.get_chemical_symbols())
        formula = reference.get_chemical_formula(mode="hill")
        problem = Problem(formula, formula_units=1, max_atoms=max(20, len(reference)))
        self.volume = problem.expected_volume_per_atom * len(reference)
        self.seed: int = task["seed"]
        self.stopped = "relaxations used up"
        self._task, self._pool = task, pool
        self._deepest = reference.get_potential_energy() / len(reference) - task["hole"]
        self._matcher, self._wanted = StructureMatcher(), to_pymatgen(reference)
        self._minima = StructureIndex(energy_window=ENERGY_WINDOW)
        self._new_minima = self._holes = 0
        self._tallies: dict[str, Tally] = {}
        self._improvements: list[tuple[int, int, float, str, str]] = []
        self._solved_at: tuple[int, int] | None = None
        self._found_at: tuple[int, int] | None = None
        self._calls: list[int] = []
        self._seconds: list[float] = []
        self._failed: Counter[str] = Counter()
        self._proposing_seconds = self._proposing_processor_seconds = 0.0
        self._calculator = ""
        self._start = time.perf_counter()

    @contextlib.contextmanager
    def proposing(self) -> Iterator[None]:
        """Count the time of the block as the peer's own; whatever goes wrong in it ends the run."""
        start, start_of_processor = time.perf_counter(), time.process_time()
        signal.signal(signal.SIGPROF, _out_of_patience)
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)
        try:
            yield
        except Stopped:
            raise
        except _OutOfPatience:
            raise Stopped(f"the peer made no proposal in {PATIENCE} s of processor time") from None
        except Exception as error:  # another code fails in any way, and that is a result
            raise Stopped(f"the peer failed: {type(error).__name__}: {error}") from error
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._proposing_seconds += time.perf_counter() - start
            self._proposing_processor_seconds += time.process_time() - start_of_processor

    def reject(self, operator: str, reason: str) -> None:
        """Count a proposal that came to nothing before it was relaxed."""
        tally = self._tallies.setdefault(operator, Tally())
        tally.proposed += 1
        tally.rejected[reason] += 1

    def relax(self, atoms: Atoms, operator: str) -> Relaxed | Failed:
        """Relax a proposal as the search itself does, and record the outcome.

        Raises
        ------
        Stopped
            If that ended the run; the outcome is recorded all the same.
        """
        bare = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
        proposal = Proposal(atoms=bare, operator=operator)
        candidate = Candidate(proposal=proposal, id=len(self._calls) + 1, source=self._task["method"])
        self._pool.submit(Job(candidate=candidate, atoms=bare))
        (outcome,) = self._pool.completed(None)
        self._record(outcome)
        if self._solved_at is not None and self._found_at is not None:
            raise Stopped("solved and found")
        if len(self._calls) == self._task["relaxations"]:
            raise Stopped("relaxations used up")
        return outcome

    def _record(self, outcome: Relaxed | Failed) -> None:
        tally = self._tallies.setdefault(outcome.candidate.operator, Tally())
        tally.proposed += 1
        tally.cost += outcome.cost
        self._calls.append(outcome.cost.force_calls)
        self._seconds.append(outcome.cost.seconds)
        if isinstance(outcome, Failed):
            tally.failed[outcome.reason] += 1
            self._failed[str(outcome.reason)] += 1
            return
        self._calculator = outcome.evaluation.calculator
        tally.relaxed += 1
        tally.unconverged += not outcome.converged
        energy = outcome.enthalpy_per_atom
        if not outcome.converged:
            return
        now = len(self._calls), sum(self._calls)
        opened = self._minima.find(outcome.atoms, energy) is None
        if opened:
            self._minima.add(now[0], outcome.atoms, energy)
            self._new_minima += 1
            tally.first_reached += 1
        if energy < self._deepest:
            self._holes += opened
            return
        if not self._improvements or energy < self._improvements[-1][2] - 1e-6:
            self._improvements.append((*now, energy, self._task["method"], outcome.candidate.operator))
        if self._solved_at is None and energy <= self._task["goal"]:
            self._solved_at = now
        if opened and self._found_at is None and self._matcher.fit(self._wanted, to_pymatgen(outcome.atoms)):
            self._found_at = now

    def line(self, package: str) -> dict[str, Any]:
        """Return the record, with the versions of a peer's package and of what it ran with."""
        method = self._task["method"]
        return {
            "stopped": self.stopped,
            "relaxations": len(self._calls),
            "force_calls": sum(self._calls),
            "calls": self._calls,
            "solved_at": self._solved_at,
            "found_at": self._found_at,
            "improvements": self._improvements,
            "holes": self._holes,
            "new_minima": self._new_minima,
            "captured": 0,
            "failed": dict(self._failed),
            "tallies": [_tally_line(method, operator, tally) for operator, tally in self._tallies.items()],
            "processor": None,
            "calculator_seconds": round(sum(self._seconds), 2),
            "proposing_seconds": round(self._proposing_seconds, 2),
            "proposing_processor_seconds": round(self._proposing_processor_seconds, 2),
            "seconds": round(time.perf_counter() - self._start, 2),
            "calculator_label": self._calculator,
            "versions": {name: version(name) for name in (package, "ase", "pymatgen", "pyxtal", "numpy", "torch")},
        }


def _tally_line(source: str, operator: str, tally: Tally) -> dict[str, Any]:
    return {
        "source": source,
        "operator": operator,
        "proposed": tally.proposed,
        "rejected": dict(tally.rejected),
        "relaxed": tally.relaxed,
        "unconverged": tally.unconverged,
        "failed": dict(tally.failed),
        "first_reached": tally.first_reached,
        "force_calls": tally.cost.force_calls,
    }


def main(search: Callable[[Run], None], package: str) -> None:
    """Do the task of this directory with a peer's search, which ends by :class:`Stopped`."""
    task = json.loads(Path("task.json").read_text())
    with WorkerPool(Relaxer(calculator=task["calculator"]), workers=1) as pool:
        pool.wait_ready()
        run = Run(task, ase.io.read("reference.extxyz"), pool)
        try:
            search(run)
        except Stopped as end:
            run.stopped = str(end)
        Path("run.json").write_text(json.dumps(run.line(package)))


def _out_of_patience(number: int, frame: FrameType | None) -> None:
    raise _OutOfPatience
