"""Does a search with two objectives find a better Pareto front than random crystals, or than one for low enthalpies?

    python benchmarks/objectives.py run                       # what is missing of the plan, resumable
    python benchmarks/objectives.py run --development         # other problems, for development
    python benchmarks/objectives.py report

The objectives are a low enthalpy (in a chemical system a low height above the hull) and a small or large bulk modulus,
which ``hybridcsp.objectives.elastic`` computes for every minimum. Problems: alloys with the EMT potential, one of them
a chemical system, and model potentials (``model_potentials.py``). Arms, all with the same number of relaxations:

- ``objectives``: the optimisers of the default and prototypes, which follow the front;
- ``enthalpy``: the same sources, which only look for low enthalpies; the modulus is computed and reported;
- ``random``: random crystals alone;
- ``evolution``: evolution and random crystals, with the selection of NSGA-II;
- ``evolution-lowest``: the same without it: parents are the first by their fronts, with Boltzmann weights;
- ``evolution-enthalpy``: the same for low enthalpies.

The measure is the hypervolume: the share of the plane of height and modulus that the front of a run dominates, between
the ideal point (no height, the best modulus of all runs up to 0.2 eV/atom) and the worst one (0.2 eV/atom, the worst
modulus of the front of all runs; both times 1.1), relative to that of all runs of the problem together. It is compared
at the end, and on average over the force calls of the shortest run of the problem. Values of the modulus cost force
calls too; all arms compute them. Intervals are 95 % bootstrap intervals over problems and seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from model_potentials import FAMILIES, InProcess, make
from run_lines import execute_missing, read_lines

from hybridcsp import Problem, Search, System
from hybridcsp.core.hull import Hull
from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.records import REFINE
from hybridcsp.objectives import ObjectiveChoice
from hybridcsp.objectives.fronts import hypervolume, is_on_front
from hybridcsp.relaxation.calculators.registry import CalculatorLike
from hybridcsp.sources import population
from hybridcsp.sources.survivors import LowestSurvive
from hybridcsp.utils.formulas import elements_of_system

RESULTS = Path(__file__).parent / "results"
RUNS, SUMMARY = RESULTS / "objectives_runs.jsonl", RESULTS / "objectives.json"

OPTIMISERS = ("random", "prototypes", "evolution", "swarm", "basin-hopping")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to search.

    Attributes
    ----------
    sources
        Names of the sources.
    pursued
        Whether the modulus has a goal; otherwise it is only reported.
    lowest
        Whether parents of evolution are chosen without NSGA-II.
    """

    sources: Sequence[str]
    pursued: bool = True
    lowest: bool = False


ARMS = {
    "objectives": Arm(sources=OPTIMISERS),
    "enthalpy": Arm(sources=OPTIMISERS, pursued=False),
    "random": Arm(sources=("random",), pursued=False),
    "evolution": Arm(sources=("random", "evolution")),
    "evolution-lowest": Arm(sources=("random", "evolution"), lowest=True),
    "evolution-enthalpy": Arm(sources=("random", "evolution"), pursued=False),
}

MAIN = ("objectives", "enthalpy", "random")

#: Pairs of an arm and its baseline.
COMPARED = (
    ("objectives", "random"),
    ("objectives", "enthalpy"),
    ("enthalpy", "random"),
    ("evolution", "evolution-lowest"),
    ("evolution", "evolution-enthalpy"),
    ("evolution", "random"),
)

#: Problems with the goal of the modulus.
REPORTED = ("Cu3Au:min", "Cu-Al:max", "binary-lj-0:min", "AlNi:min", "binary-lj-2:max")
DEVELOPMENT = ("AgPd3:min", "binary-lj-1:min", "binary-lj-3:max")

ATOMS, GRID, RELAXATIONS = 6, 3, 40

#: Height in eV/atom at which the plane ends.
HIGHEST = 0.2

#: Processor seconds of one relaxation with its modulus and of what belongs to it, for the planned time.
SECONDS_PER_RELAXATION = 0.3

SAMPLES, POINTS = 4000, 30

Floats = NDArray[np.float64]


def problem_of(name: str) -> tuple[Problem | System, CalculatorLike]:
    """Return a problem and its calculator."""
    contents = name.partition(":")[0]
    if contents.startswith(FAMILIES):
        family, _, seed = contents.rpartition("-")
        model = make(family, int(seed), ATOMS)
        return model.problem, model.calculator
    if elements_of_system(contents):
        return System(contents, composition_grid=GRID, max_atoms=ATOMS), "emt"
    return Problem(contents, max_atoms=ATOMS), "emt"


def execute(run: Mapping[str, Any]) -> dict[str, Any]:
    """Run one search, and return its line: force calls, composition, enthalpy and modulus of every minimum reached."""
    problem, calculator = problem_of(run["problem"])
    arm = ARMS[run["arm"]]
    goal = run["problem"].partition(":")[2] if arm.pursued else "report"
    objectives = (ObjectiveChoice(objective="bulk_modulus", goal=goal),)
    rule = (lambda _: LowestSurvive()) if arm.lowest else population.survival
    start = time.process_time()
    minima: list[tuple[int, str, float, float]] = []
    calls = failed = 0
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(population, "survival", rule):
        backend = InProcess(calculator, objectives)
        settings: dict[str, Any] = {"calculator": None, "backend": backend, "sources": list(arm.sources)}
        with Search(
            problem, directory=Path(folder) / "run", objectives=objectives, seed=run["seed"], **settings
        ) as one:
            one.run(relaxations=run["relaxations"], refine=0)
            for past in one.archive.history():
                if isinstance(past, Relaxed | Failed) and past.level != REFINE:
                    calls += past.cost.force_calls
                if isinstance(past, Relaxed) and past.minimum is not None and not past.suspect:
                    modulus = past.objectives.get("bulk_modulus")
                    failed += "bulk_modulus" in past.objective_failures
                    if modulus is not None:
                        formula = Problem(past.atoms.get_chemical_formula()).formula
                        minima.append((calls, formula, round(past.enthalpy_per_atom, 6), round(modulus, 3)))
    return {
        "id": name_of(run),
        **run,
        "force_calls": calls,
        "failed_moduli": failed,
        "processor_seconds": round(time.process_time() - start, 1),
        "minima": minima,
    }


def name_of(run: Mapping[str, Any]) -> str:
    """Return the name by which a run is recognised."""
    return "{problem}/{arm}/{seed}/{relaxations}".format(**run)


def command_run(options: argparse.Namespace) -> None:
    problems = options.problems or (DEVELOPMENT if options.development else REPORTED)
    plan = [
        {"problem": problem, "arm": arm, "seed": seed, "relaxations": options.relaxations}
        for seed in options.seeds
        for problem in problems
        for arm in options.arms
    ]
    execute_missing(plan, options.runs, name_of, execute, SECONDS_PER_RELAXATION)


def curves(lines: Sequence[Mapping[str, Any]]) -> list[Floats]:
    """Return the hypervolumes of the runs of one problem on their way, shape ``(POINTS,)``, relative to that of all."""
    sign = -1.0 if lines[0]["problem"].endswith("max") else 1.0
    hull = hull_of(lines)
    runs = [
        np.array(
            [
                (calls, enthalpy - (hull.energy(formula) or 0.0), sign * modulus)
                for calls, formula, enthalpy, modulus in one
            ]
        ).reshape(-1, 3)
        for one in (line["minima"] for line in lines)
    ]
    everything = np.concatenate(runs)[:, 1:]
    near = everything[everything[:, 0] <= HIGHEST]
    front = near[is_on_front(near)]
    ideal, worst = np.array([0.0, front[:, 1].min()]), np.array([HIGHEST / 1.1, front[:, 1].max()])
    whole = hypervolume(front, ideal, worst)
    ends = np.linspace(0, min(line["force_calls"] for line in lines), POINTS + 1)[1:]
    return [
        np.array([hypervolume(run[run[:, 0] <= end][:, 1:], ideal, worst) / whole for end in [*ends[:-1], np.inf]])
        for run in runs
    ]


def hull_of(lines: Sequence[Mapping[str, Any]]) -> Hull:
    """Return the hull of the lowest minima of some runs, that of a single formula if they have only one."""
    lowest: dict[str, float] = {}
    for line in lines:
        for _, formula, enthalpy, _ in line["minima"]:
            lowest[formula] = min(enthalpy, lowest.get(formula, np.inf))
    problem = problem_of(lines[0]["problem"])[0]
    if not isinstance(problem, System):
        return _SingleFormula(min(lowest.values()))
    hull = Hull(problem.elements)
    for formula, enthalpy in lowest.items():
        hull.put(formula, enthalpy)
    return hull


class _SingleFormula(Hull):
    """The lowest enthalpy of one formula in the place of a hull."""

    def __init__(self, lowest: float) -> None:
        self._lowest = lowest

    def energy(self, formula: str) -> float:
        """Return the lowest enthalpy per atom in eV."""
        return self._lowest


def compare(rows: Mapping[tuple[str, int, str], Floats], arm: str, baseline: str) -> dict[str, Any]:
    """Compare an arm with a baseline on the problems and seeds that both have."""
    both = sorted(key[:2] for key in rows if key[2] == arm and (*key[:2], baseline) in rows)
    rng = np.random.default_rng(0)
    groups = {problem: [seed for name, seed in both if name == problem] for problem, _ in both}

    result: dict[str, Any] = {"arm": arm, "baseline": baseline, "runs": len(both)}
    for when, measure in (("end", lambda curve: float(curve[-1])), ("mean", lambda curve: float(curve[:-1].mean()))):
        own = float(np.mean([measure(rows[*key, arm]) for key in both]))
        values = [
            np.array([measure(rows[name, seed, arm]) - measure(rows[name, seed, baseline]) for seed in seeds])
            for name, seeds in groups.items()
        ]
        drawn = [
            np.mean([rng.choice(values[k], len(values[k])).mean() for k in rng.integers(len(values), size=len(values))])
            for _ in range(SAMPLES)
        ]
        low, high = np.quantile(drawn, [0.025, 0.975])
        result[when] = {
            "hypervolume": own,
            "difference": [float(np.mean([one.mean() for one in values])), float(low), float(high)],
        }
    return result


def command_report(options: argparse.Namespace) -> None:
    console = Console(width=130)
    summary: dict[str, Any] = {}
    for title in ("reported", "development"):
        lines = [
            line for line in read_lines(options.runs) if (line["problem"] in DEVELOPMENT) == (title == "development")
        ]
        if not lines:
            continue
        rows: dict[tuple[str, int, str], Floats] = {}
        for problem in dict.fromkeys(line["problem"] for line in lines):
            own = [line for line in lines if line["problem"] == problem]
            for line, curve in zip(own, curves(own), strict=True):
                rows[problem, line["seed"], line["arm"]] = curve
        table = Table(title=f"{title} problems: {', '.join(dict.fromkeys(line['problem'] for line in lines))}")
        for heading in ("arm", "baseline", "runs", "hypervolume", "difference", "on the way", "difference"):
            table.add_column(heading, justify="right")
        present = {key[2] for key in rows}
        for arm, baseline in COMPARED:
            if not {arm, baseline} <= present:
                continue
            one = compare(rows, arm, baseline)
            summary.setdefault(title, []).append(one)
            cells = [f"{one[name]['hypervolume']:.3f}" for name in ("end", "mean")]
            signed = ["{:+.3f} ({:+.3f} to {:+.3f})".format(*one[name]["difference"]) for name in ("end", "mean")]
            table.add_row(arm, baseline, str(one["runs"]), cells[0], signed[0], cells[1], signed[1])
        console.print(table)
        by_problem = Table(title="hypervolume at the end, by problem")
        arms = [arm for arm in ARMS if arm in present]
        for heading in ("problem", *arms):
            by_problem.add_column(heading, justify="right")
        for problem in dict.fromkeys(key[0] for key in rows):
            means = [
                np.mean([curve[-1] for key, curve in rows.items() if (key[0], key[2]) == (problem, arm)])
                for arm in arms
            ]
            by_problem.add_row(problem, *(f"{mean:.3f}" for mean in means))
        console.print(by_problem)
    SUMMARY.write_text(json.dumps(summary, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=RUNS, help="file of the runs")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run")
    run.add_argument("--arms", nargs="+", choices=ARMS, default=list(MAIN))
    run.add_argument("--problems", nargs="+")
    run.add_argument("--development", action="store_true", help="the problems for development")
    run.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    run.add_argument("--relaxations", type=int, default=RELAXATIONS)
    run.set_defaults(command=command_run)
    commands.add_parser("report").set_defaults(command=command_report)
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
