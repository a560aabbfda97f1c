"""Search for one known crystal, in a process of its own: `recovery.py` starts it, with the package that it measures.

    python -P recovery_run.py TASK.json

The task names the sources and settings of the search, the seed, the crystal (relaxed with the calculator of the search,
with its energy) and what is sought besides, of which no source may know. The result is written to ``result`` in the
folder of the task. Only what both an earlier and the present version of the package offer is used here, so that both
are measured in the same way; ``hard_cells`` is imported from the benchmarks of the package that is measured.

The processor time of the search is sampled: a timer interrupts the process, and the time since the last interruption is
added to the concern whose code was running. Time of the process that is spent on the comparison with the known
crystal is left out.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import ase.io
import psutil
from ase import Atoms
from pymatgen.analysis.structure_matcher import StructureMatcher

from hybridcsp import Problem, Retraining, Search
from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.records import Limits
from hybridcsp.generators.datasets import is_held_out
from hybridcsp.generators.loading import read_card
from hybridcsp.generators.registry import GENERATORS
from hybridcsp.generators.weights_io import overlap, shipped
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.sources.registry import DEFAULT_SOURCES
from hybridcsp.structure.conversion import to_pymatgen

#: Nested settings, which a task gives as tables.
NESTED = {"retraining": Retraining, "relaxation": RelaxationSettings, "limits": Limits}

#: Seconds of processor time between samples of what the search is doing.
INTERVAL = 0.02

#: Concerns by parts of the paths of their code: the outermost frame that belongs to one decides, but for loading, which
#: any frame decides.
LOADING = ("importlib._bootstrap", "/generators/loading", "/generators/weights_io", "/torch/serialization")
CONCERNS = {
    "/hybridcsp/retraining/": "retraining",
    "/hybridcsp/search/screening": "screening",
    "/hybridcsp/similarity/": "screening",
    "/hybridcsp/sources/": "sampling",
    "/hybridcsp/search/allocation": "allocation",
    "/hybridcsp/archive/credit": "allocation",
    "/hybridcsp/archive/": "recording",
}

#: Relaxations between two looks at whether the crystal itself has been found, once it has been solved.
LOOK_EVERY = 5


class Finished(Exception):
    """The crystal is solved and found."""


class ProcessorTime:
    """Sample what this process spends its processor time on, by concern."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.own = 0.0  # of this script
        self._last = time.process_time()

    def start(self) -> None:
        self._last = time.process_time()
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        self._sample(0, None)

    def _sample(self, _: int, frame: FrameType | None) -> None:
        now = time.process_time()
        self.seconds[concern(frame)] += now - self._last
        self._last = now


def concern(frame: FrameType | None) -> str:
    """Return the concern that the code of a frame, and of those that called it, belongs to."""
    paths = []
    while frame is not None:
        paths.append(frame.f_code.co_filename)
        frame = frame.f_back
    if any(part in path for path in paths for part in LOADING):
        return "loading"
    for path in reversed(paths):
        for part, name in CONCERNS.items():
            if part in path:
                return name
    return "other"


class Watcher:
    """Follow a search: note processor times, and end it when the crystal is solved and found.

    Parameters
    ----------
    reference
        The known crystal with its energy.
    goal, deepest
        Enthalpies per atom in eV: at most the first is solved, below the second is a hole of the potential.
    """

    def __init__(self, reference: Atoms, goal: float, deepest: float) -> None:
        self.search: Search | None = None
        self.matches = Matches(reference)
        self.goal, self.deepest = goal, deepest
        self.own_seconds = 0.0
        self._relaxations = self._looked = -1
        self._solved = False
        self._workers: dict[int, float] = {}
        self._workers_at_start: dict[int, float] | None = None

    def __call__(self, progress: Any) -> None:
        if progress.relaxations == self._relaxations:
            return
        start = time.process_time()
        self._relaxations = progress.relaxations
        self._note_workers()
        if not self._solved and progress.best is not None and progress.best <= self.goal:
            assert self.search is not None
            self._solved = solved_at(history(self.search), self.goal, self.deepest) is not None
        done = False
        if self._solved and progress.relaxations >= self._looked + LOOK_EVERY:
            self._looked = progress.relaxations
            done = self.matches.first(self.search) is not None
        self.own_seconds += time.process_time() - start
        if done:
            raise Finished

    def _note_workers(self) -> None:
        for child in psutil.Process().children(recursive=True):
            try:
                times = child.cpu_times()
            except psutil.Error:
                continue
            self._workers[child.pid] = times.user + times.system
        if self._workers_at_start is None and self._relaxations > 0:
            self._workers_at_start = dict(self._workers)

    @property
    def worker_seconds(self) -> float:
        """Processor time of the workers since the first relaxation ended."""
        start = self._workers_at_start or {}
        return sum(self._workers.values()) - sum(start.values())


class Matches:
    """Compare minima with the known crystal, each once."""

    def __init__(self, reference: Atoms) -> None:
        self._matcher, self._wanted = StructureMatcher(), to_pymatgen(reference)
        self._known: dict[tuple[int, float], bool] = {}

    def first(self, search: Search) -> tuple[int, int] | None:
        """Return the relaxations and force calls when the first minimum that is the known crystal was found."""
        found = []
        for minimum in search.minima():
            key = minimum.id, round(minimum.enthalpy_per_atom, 6)
            if key not in self._known:
                self._known[key] = bool(self._matcher.fit(self._wanted, to_pymatgen(minimum.atoms)))
            if self._known[key]:
                found.append((minimum.first_relaxation, minimum.first_force_calls))
        return min(found, default=None)


def history(search: Search) -> list[dict[str, Any]]:
    """Return what every relaxation of the search came to, in order."""
    rows = []
    for event in search.archive.history():
        if not isinstance(event, Relaxed | Failed) or event.level == "refine":
            continue
        energy = None
        if isinstance(event, Relaxed) and event.minimum is not None:
            energy = float(event.enthalpy_per_atom)
        reason = str(event.reason) if isinstance(event, Failed) else None
        candidate = event.candidate
        rows.append(
            {
                "calls": int(event.cost.force_calls),
                "seconds": event.cost.seconds,
                "energy": energy,
                "reason": reason,
                "source": candidate.source,
                "operator": candidate.operator,
                "new": isinstance(event, Relaxed) and bool(event.is_new_minimum),
                "captured": getattr(event, "captured_by", None) is not None,  # not in earlier versions
            }
        )
    return rows


def improvements(rows: list[dict[str, Any]], deepest: float) -> list[tuple[int, int, float, str, str]]:
    """Return when the best fell, and which source and operator made it, holes of the potential aside."""
    found: list[tuple[int, int, float, str, str]] = []
    calls = 0
    for number, row in enumerate(rows, start=1):
        calls += row["calls"]
        energy = row["energy"]
        if energy is not None and energy >= deepest and (not found or energy < found[-1][2] - 1e-6):
            found.append((number, calls, energy, row["source"], row["operator"]))
    return found


def solved_at(rows: list[dict[str, Any]], goal: float, deepest: float) -> tuple[int, int] | None:
    """Return the relaxations and force calls at which the goal was reached."""
    return next(((n, calls) for n, calls, energy, *_ in improvements(rows, deepest) if energy <= goal), None)


def hide(formulas: frozenset[str], benchmarks: Path, *, nine_tenths: bool) -> None:
    """Leave what is sought out of the prototypes that are shipped, wherever the package looks at them.

    With ``nine_tenths`` all formulas that no generator was trained on are left out too, by the functions of
    ``hard_cells`` in the folder of the benchmarks.
    """
    from hybridcsp.prototypes import library, table

    shipped_table, aflow = table.shipped_table, library.aflow
    hidden_library = aflow().without(formulas)
    hidden_table = shipped_table()
    if nine_tenths:
        sys.path.append(str(benchmarks))
        cells = import_module("hard_cells")
        hidden_table, hidden_library = cells.table_of_nine_tenths(), cells.library_of_nine_tenths().without(formulas)
    for what, listed in (("table", hidden_table.formulas), ("library", hidden_library.formulas)):
        seen = formulas & set(listed)
        assert not seen, f"the {what} of prototypes rests on {sorted(seen)}"
        assert not (nine_tenths and any(map(is_held_out, listed))), f"the {what} rests on formulas that are held out"
    replace_prototypes(hidden_table, hidden_library)
    for generator in GENERATORS.entries():
        if (weights := shipped(generator)).is_dir():  # generators of other packages have none
            seen = overlap(read_card(weights), formulas)
            assert not seen, f"{generator} was trained on {sorted(seen)}"


def replace_prototypes(table: Any, library: Any) -> None:
    """Replace the table and the library of prototypes that are shipped, wherever the package looks at them."""
    from hybridcsp.prototypes import library as libraries
    from hybridcsp.prototypes import table as tables

    replaced = [(tables.shipped_table, lambda: table), (libraries.aflow, lambda: library)]
    for module in [module for name, module in sys.modules.items() if name.split(".")[0] == "hybridcsp"]:
        for name, value in list(vars(module).items()):
            for original, replacement in replaced:
                if value is original:
                    setattr(module, name, replacement)


def leave_out(constants: Mapping[str, Any]) -> None:
    """Set constants of the package in this process and in its workers, to leave out a part of it."""
    from hybridcsp.search import search

    set_constants(constants)
    search.Relaxer = lambda **fields: partial(make_runner, dict(constants), Relaxer(**fields))


def make_runner(constants: Mapping[str, Any], relaxer: Relaxer) -> Any:
    """Set the constants, and return the function that relaxes; it is called in a worker."""
    set_constants(constants)
    return relaxer()


def set_constants(constants: Mapping[str, Any]) -> None:
    """Set constants of the package by their full names."""
    for name, value in constants.items():
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute), f"there is no {name} in {import_module(module).__file__}"
        setattr(import_module(module), attribute, value)


def run(task: Mapping[str, Any], reference: Atoms) -> dict[str, Any]:
    """Search the contents of the crystal until it is solved and found, or out of relaxations."""
    import hybridcsp

    root = Path(hybridcsp.__file__).resolve().parents[1]
    assert root == Path(task["package"]).resolve(), f"{root} is measured, instead of {task['package']}"
    if task["constants"]:
        leave_out(task["constants"])
    hide(frozenset(task["formulas"]), root / "benchmarks", nine_tenths=task["nine_tenths"])
    per_atom = float(reference.get_potential_energy()) / len(reference)
    goal, deepest = per_atom + task["solved"], per_atom - task["hole"]
    problem = Problem(reference.get_chemical_formula(mode="hill"), formula_units=1, max_atoms=max(20, len(reference)))
    settings = {name: NESTED[name](**value) if name in NESTED else value for name, value in task["settings"].items()}
    folder = Path(task["folder"])
    directory = folder / "search"
    watcher, profile = Watcher(reference, goal, deepest), ProcessorTime()
    resumed = (directory / "search.db").exists()
    start = time.perf_counter()
    stopped = "relaxations used up"
    with Search(
        problem,
        sources=task["sources"] or DEFAULT_SOURCES,
        calculator=task["calculator"],
        seed=task["seed"],
        workers=1,
        directory=directory,
        **({} if task["python"] is None else {"python": task["python"]}),
        **settings,
    ) as search:
        watcher.search = search
        profile.start()
        try:
            summary = search.run(relaxations=task["relaxations"], refine=0, on_progress=watcher)
            stopped = summary.stopped
        except Finished:
            stopped = "solved and found"
        finally:
            profile.stop()
        rows = history(search)[: task["relaxations"]]
        state = search.archive.state
        found_at = watcher.matches.first(search)
        seconds = dict(profile.seconds)
        seconds["other"] = max(0.0, seconds.get("other", 0.0) - watcher.own_seconds)
        return {
            "stopped": stopped,
            "resumed": resumed,
            "relaxations": len(rows),
            "force_calls": sum(row["calls"] for row in rows),
            "calls": [row["calls"] for row in rows],
            "solved_at": solved_at(rows, goal, deepest),
            "found_at": found_at if found_at is None or found_at[0] <= len(rows) else None,
            "improvements": improvements(rows, deepest),
            "holes": sum(row["new"] and row["energy"] is not None and row["energy"] < deepest for row in rows),
            "new_minima": sum(row["new"] for row in rows),
            "captured": sum(row["captured"] for row in rows),
            "failed": dict(Counter(row["reason"] for row in rows if row["reason"])),
            "tallies": [_tally(*key, tally) for key, tally in state.tallies.items()],
            "processor": {name: round(value, 2) for name, value in sorted(seconds.items())},
            "worker_processor_seconds": round(watcher.worker_seconds, 2),
            "calculator_seconds": round(sum(row["seconds"] for row in rows), 2),
            "first_calculator_seconds": round(sum(row["seconds"] for row in rows[:1]), 2),
            "proposing_seconds": round(state.proposing.seconds, 2),
            "seconds": round(time.perf_counter() - start, 2),
            "calculator_label": state.calculator,
            "load": round(os.getloadavg()[0], 1),
        }


def _tally(source: str, operator: str, tally: Any) -> dict[str, Any]:
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


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(task["folder"])
    if task["anew"] and (folder / "search").exists():
        shutil.rmtree(folder / "search")
    result = run(task, ase.io.read(task["reference"]))
    temporary = folder / "result.json.tmp"
    temporary.write_text(json.dumps(result))
    temporary.replace(folder / "result.json")


if __name__ == "__main__":
    main()
