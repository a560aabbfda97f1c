"""Which way to search a chemical system finds the phases on its convex hull, and at what cost?

    python benchmarks/systems.py run                            # what is missing of the plan, resumable
    python benchmarks/systems.py run --systems Cu-Au lj-0 --arms default random-equal --seeds 0 1 2
    python benchmarks/systems.py run --development              # other systems, for development
    python benchmarks/systems.py report

Systems: binary alloys with the EMT potential, and ``lj-SEED``, two kinds of atoms with Lennard-Jones potentials
(``model_potentials.py``), about which known crystals say little. Arms, all with the same number of relaxations:

- ``default``: the optimisers of the default and prototypes, compositions by the expected improvement of the hull;
- ``default-equal``: the same sources, the same number of relaxations for each composition;
- ``random``, ``random-equal``: random crystals alone, with both divisions;
- ``no-transfer``: the default without the source that makes children from minima of other compositions;
- ``separate``: a search of one formula for each composition, with an equal share of the relaxations;
- ``generator``, ``frozen``: the generator ``wyckoff`` beside random crystals, whose samples are put in order by what
  was learned at the same composition, or not at all. (Recorded runs of an arm ``shared``, in which all compositions
  learned together, are of a version that did not stay.);
- ``ase-ga``: ase-ga's own example of variable composition, on metals (``ase_ga_hull.py`` says what it can find).

The hull that counts is that of all minima of all runs of a system. A phase on it is found when a minimum of its
composition lies within 2 meV/atom of the lowest that any run has found there. The report gives the phases found, the
mean height of the found hull above the one that counts at all compositions, at the end and on average over the force
calls of the budget, and the expected running time to four fifths of the phases (force calls of all runs up to their
success or end, over the number of successes), relative to ``random-equal``, or to ``frozen`` for the arms about
learning, with 95 % bootstrap intervals over systems.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

import ase_ga_hull
from model_potentials import InProcess, make
from run_lines import execute_missing, read_lines

from hybridcsp import Archive, Search, System
from hybridcsp.core.hull import Hull
from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.records import REFINE
from hybridcsp.relaxation.calculators.registry import CalculatorLike
from hybridcsp.retraining import Retraining
from hybridcsp.search.composition_allocation import CompositionAllocation
from hybridcsp.sources.registry import ONE_SHOT

RESULTS = Path(__file__).parent / "results"
RUNS, SUMMARY = RESULTS / "systems_runs.jsonl", RESULTS / "systems.json"

OPTIMISERS = ["random", "prototypes", "evolution", "swarm", "basin-hopping"]
TRANSFER = "variable-composition"
GENERATOR = ["random", "wyckoff"]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to search a system.

    Attributes
    ----------
    sources
        Names of the sources.
    equal
        Whether all compositions get the same number of relaxations.
    separate
        Whether each composition has a search of its own.
    posterior
        Whether samples of generators are put in order by what the search has learned.
    peer
        Whether it is ase-ga.
    """

    sources: Sequence[str] = ()
    equal: bool = False
    separate: bool = False
    posterior: bool = True
    peer: bool = False


ARMS = {
    "default": Arm(sources=[*OPTIMISERS, TRANSFER]),
    "default-equal": Arm(sources=[*OPTIMISERS, TRANSFER], equal=True),
    "no-transfer": Arm(sources=OPTIMISERS),
    "random": Arm(sources=["random"]),
    "random-equal": Arm(sources=["random"], equal=True),
    "separate": Arm(sources=OPTIMISERS, separate=True),
    "generator": Arm(sources=GENERATOR),
    "frozen": Arm(sources=GENERATOR, posterior=False),
    "ase-ga": Arm(peer=True),
}

#: The arms that run by default, and those about learning with the arm that they are compared with.
MAIN = ("default", "default-equal", "no-transfer", "random", "random-equal", "separate")
LEARNING = ("generator", "frozen")
BASELINES = dict.fromkeys((*MAIN, "ase-ga"), "random-equal") | dict.fromkeys(LEARNING, "frozen")

REPORTED = ("Cu-Au", "Ni-Al", "Cu-Al", "lj-0", "lj-2", "lj-4", "lj-6")
DEVELOPMENT = ("Ag-Pd", "Pt-Al", "lj-1", "lj-3", "lj-5")

GRID, MAX_ATOMS, RELAXATIONS = 6, 8, 130

FOUND, ENOUGH = 0.002, 0.8  # eV/atom; fraction of the phases

#: Processor seconds of one relaxation and of what belongs to it, for the planned time.
SECONDS_PER_RELAXATION = 0.35

SAMPLES = 4000

#: Number of points at which the hull is compared on its way.
POINTS = 40


class EqualCompositions(CompositionAllocation):
    """Give every composition the same number of relaxations."""

    def choose(self, without: Collection[str] = ()) -> str | None:
        """Return the composition with the fewest relaxations."""
        left = [formula for formula in self._state.system.compositions if formula not in without]
        return min(left, key=self._tried, default=None)


def problem_of(name: str) -> tuple[System, CalculatorLike]:
    """Return a system and its calculator."""
    limits: dict[str, Any] = {"composition_grid": GRID, "max_atoms": MAX_ATOMS}
    if not name.startswith("lj-"):
        return System(name, **limits), "emt"
    model = make("binary-lj", int(name.removeprefix("lj-")))
    return System(tuple(model.problem.composition), **limits), model.calculator


def execute(run: Mapping[str, Any]) -> dict[str, Any]:
    """Run one search, and return its line: every minimum with its composition and the force calls until then."""
    system, calculator = problem_of(run["system"])
    arm = ARMS[run["arm"]]
    start = time.process_time()
    minima: list[tuple[int, str, float]] = []
    calls = 0
    if arm.peer:
        found = ase_ga_hull.search(system, calculator, run["relaxations"], run["seed"])
        minima, calls = found.minima, found.force_calls
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {
            "calculator": None,
            "backend": InProcess(calculator),
            "sources": arm.sources,
            "seed": run["seed"],
            "one_shot": ONE_SHOT,
            "retraining": Retraining(new_minima=0, posterior=arm.posterior),
        }
        if arm.separate:
            for formula, share in _shares(system, run["relaxations"], run["seed"]).items():
                with Search(system.problem(formula), directory=Path(folder) / formula, **settings) as search:
                    search.run(relaxations=share, refine=0)
                    calls = collect(search.archive, system, minima, calls)
        elif not arm.peer:
            with Search(system, directory=Path(folder) / "run", **settings) as search:
                if arm.equal:
                    search._proposer.allocation = EqualCompositions(search.archive.state)
                search.run(relaxations=run["relaxations"], refine=0)
                calls = collect(search.archive, system, minima, calls)
    return {
        "id": name_of(run),
        **run,
        "force_calls": calls,
        "processor_seconds": round(time.process_time() - start, 1),
        "minima": minima,
    }


def _shares(system: System, relaxations: int, seed: int) -> dict[str, int]:
    """Return equal numbers of relaxations; those that are left over go to compositions drawn at random."""
    each, rest = divmod(relaxations, len(system.compositions))
    drawn = np.random.default_rng(seed).permutation(len(system.compositions))[:rest]
    return {formula: each + (i in drawn) for i, formula in enumerate(system.compositions)}


def collect(archive: Archive, system: System, minima: list[tuple[int, str, float]], calls: int) -> int:
    """Add the minima that lowered the best of their compositions, and return the force calls so far."""
    lowest: dict[str, float] = {}
    for past in archive.history():
        if isinstance(past, Relaxed | Failed) and past.level != REFINE:
            calls += past.cost.force_calls
        if isinstance(past, Relaxed) and past.minimum is not None and not past.suspect:
            formula = system.formula_of(past.atoms.numbers)
            assert formula is not None
            if past.enthalpy_per_atom < lowest.get(formula, np.inf) - 1e-6:
                lowest[formula] = past.enthalpy_per_atom
                minima.append((calls, formula, round(past.enthalpy_per_atom, 6)))
    return calls


def name_of(run: Mapping[str, Any]) -> str:
    """Return the name by which a run is recognised."""
    return "{system}/{arm}/{seed}/{relaxations}".format(**run)


def command_run(options: argparse.Namespace) -> None:
    systems = options.systems or (DEVELOPMENT if options.development else REPORTED)
    plan = [
        {"system": system, "arm": arm, "seed": seed, "relaxations": options.relaxations}
        for seed in options.seeds
        for system in systems
        for arm in options.arms
        if not ARMS[arm].peer or ase_ga_hull.runs_on(system)
    ]
    execute_missing(plan, options.runs, name_of, execute, SECONDS_PER_RELAXATION)


def lowest_of(lines: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the lowest enthalpy of each composition in some runs, in eV/atom."""
    lowest: dict[str, float] = {}
    for line in lines:
        for _, formula, enthalpy in line["minima"]:
            lowest[formula] = min(enthalpy, lowest.get(formula, np.inf))
    return lowest


def hull_of(system: System, lowest: Mapping[str, float]) -> Hull:
    """Return the hull of the lowest enthalpies of some compositions."""
    hull = Hull(system.elements)
    for formula, enthalpy in lowest.items():
        hull.put(formula, enthalpy)
    return hull


def outcome(line: Mapping[str, Any], system: System, lowest: Mapping[str, float]) -> dict[str, float]:
    """Return what a run has found of the hull that counts."""
    hull = hull_of(system, lowest)
    phases = hull.stable
    found_at: dict[str, int] = {}
    for calls, formula, enthalpy in line["minima"]:
        if formula in phases and enthalpy <= lowest[formula] + FOUND:
            found_at.setdefault(formula, calls)
    needed = int(np.ceil(ENOUGH * len(phases)))
    order = sorted(found_at.values())
    solved = len(order) >= needed
    ends = np.linspace(0, line["force_calls"], POINTS + 1)[1:]
    heights = [excess(line, system, hull, end) for end in ends]
    return {
        "phases": len(phases),
        "found": len(order),
        "calls": float(order[needed - 1]) if solved else float(line["force_calls"]),
        "solved": float(solved),
        "excess": heights[-1],
        "mean_excess": float(np.mean(heights)),
    }


def excess(line: Mapping[str, Any], system: System, hull: Hull, end: float) -> float:
    """Return the mean height of the hull found within some force calls above the one that counts, in eV/atom.

    Before all elements have a minimum it is that of a hull at a formation enthalpy of zero.
    """
    own: dict[str, float] = {}
    for calls, formula, enthalpy in line["minima"]:
        if calls <= end:
            own[formula] = min(enthalpy, own.get(formula, np.inf))
    for element in system.elements:
        own.setdefault(element, hull.energy(element) or 0.0)
    found = hull_of(system, own)
    return float(np.mean([found.energy(one) - hull.energy(one) for one in system.compositions]))


def compare(rows: Sequence[Mapping[str, Any]], arm: str) -> dict[str, Any]:
    """Compare an arm with the baseline on the systems and seeds that both have."""
    by_key = {(row["system"], row["seed"], row["arm"]): row for row in rows}
    baseline = BASELINES[arm]
    both = sorted(key[:2] for key in by_key if key[2] == arm and (*key[:2], baseline) in by_key)
    names = np.array([key[0] for key in both])
    measures = ("calls", "solved", "mean_excess", "excess", "found", "phases")
    values = np.array(
        [[by_key[*key, which][measure] for which in (arm, baseline) for measure in measures] for key in both]
    )
    sums = np.array([values[names == name].sum(axis=0) for name in np.unique(names)])
    drawn = sums[np.random.default_rng(0).integers(len(sums), size=(SAMPLES, len(sums)))].sum(axis=1)
    total, n = sums.sum(axis=0), len(measures)

    def with_interval(ratio: Any) -> list[float]:
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = np.nanquantile(ratio(drawn.T), [0.025, 0.975], method="inverted_cdf")
            return [float(ratio(total)), float(low), float(high)]

    return {
        "runs": len(both),
        "found": int(total[4]),
        "phases": int(total[5]),
        "solved": int(total[1]),
        "expected_force_calls": float(total[0] / total[1]) if total[1] else None,
        "ratio": with_interval(lambda one: one[0] * one[n + 1] / (one[1] * one[n])),
        "mean_excess_mev": 1000 * float(total[2]) / len(both),
        "mean_excess_ratio": with_interval(lambda one: one[2] / one[n + 2]),
        "excess_mev": 1000 * float(total[3]) / len(both),
    }


def command_report(options: argparse.Namespace) -> None:
    console = Console(width=130)
    summary: dict[str, Any] = {}
    for title in ("reported", "development"):
        lines = [
            line for line in read_lines(options.runs) if (line["system"] in DEVELOPMENT) == (title == "development")
        ]
        if not lines:
            continue
        rows = []
        for name in dict.fromkeys(line["system"] for line in lines):
            own = [line for line in lines if line["system"] == name]
            system, lowest = problem_of(name)[0], lowest_of(own)
            rows += [{**line, **outcome(line, system, lowest)} for line in own]
        counts = Counter(line["system"] for line in lines)
        table = Table(title=f"{title} systems, {RELAXATIONS} relaxations: {', '.join(counts)}")
        headings = (
            "arm",
            "runs",
            "phases found",
            "4/5 found",
            "force calls",
            "ratio",
            "mean excess",
            "ratio",
            "at the end",
        )
        for heading in headings:
            table.add_column(heading, justify="right")
        for arm in ARMS:
            if not {arm, BASELINES[arm]} <= {row["arm"] for row in rows}:
                continue
            row = summary.setdefault(title, {})[arm] = compare(rows, arm)
            expected = row["expected_force_calls"]
            table.add_row(
                arm,
                str(row["runs"]),
                f"{row['found']} of {row['phases']}",
                str(row["solved"]),
                "" if expected is None else f"{expected:.0f}",
                "{:.2f} ({:.2f}-{:.2f})".format(*row["ratio"]),
                f"{row['mean_excess_mev']:.1f} meV",
                "{:.2f} ({:.2f}-{:.2f})".format(*row["mean_excess_ratio"]),
                f"{row['excess_mev']:.1f} meV",
            )
        console.print(table)
    for row in (row for rows in summary.values() for row in rows.values()):
        row["ratio"] = [value if np.isfinite(value) else None for value in row["ratio"]]  # of an arm without success
    SUMMARY.write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=RUNS, help="file of the runs")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run")
    run.add_argument("--arms", nargs="+", choices=ARMS, default=list(MAIN))
    run.add_argument("--systems", nargs="+")
    run.add_argument("--development", action="store_true", help="the systems for development")
    run.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    run.add_argument("--relaxations", type=int, default=RELAXATIONS)
    run.set_defaults(command=command_run)
    commands.add_parser("report").set_defaults(command=command_report)
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
