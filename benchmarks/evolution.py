"""Measure evolution alone against random search on model potentials, and the yield of each operator.

    python benchmarks/evolution.py run --arms evolution random --seeds 1 2     # development problems
    python benchmarks/evolution.py run --reported                              # the problems that are reported
    python benchmarks/evolution.py report

The problems are those of ``model_potentials.py``: odd seeds of it are for development, even ones are reported. Each
search is alone with one source, one seed and one worker in this process, and ends when it reaches the lowest enthalpy
that any search of the problem has found (to 1 meV/atom), or after a number of relaxations. An arm is the name of a
source with its argument; ``--label`` marks the arms of another version of the package, which PYTHONPATH chooses.
Searches that ended at an enthalpy that is no longer the lowest are run again. Lines are added to the file of results,
so that an interrupted command continues when it is repeated.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from model_potentials import FAMILIES, InProcess, Model, make
from run_lines import append_line, read_lines, searched_by_all

from hybridcsp import Search

RESULTS = Path(__file__).parent / "results" / "evolution_runs.jsonl"

#: Seeds of the model potentials, and numbers of atoms of the cells.
DEVELOPMENT, REPORTED = (1, 3, 5), (0, 2, 4, 6)
SIZES = (8, 12, 16, 20)

RELAXATIONS = 250

#: Enthalpy in eV/atom above the lowest known one up to which it counts as found; at which a minimum counts as low.
FOUND, LOW = 0.002, 0.05

#: Hours of one search, for the planned time.
HOURS_PER_SEARCH = 0.01


def search(model: Model, arm: str, seed: int, relaxations: int, lowest: float | None) -> dict[str, Any]:
    """Run one search and return its line of results."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        backend = InProcess(model.calculator)
        one = Search(
            model.problem, directory=Path(folder) / "run", sources=(arm,), seed=seed, backend=backend, calculator=None
        )
        limits: dict[str, Any] = {} if lowest is None else {"stop_at": lowest}
        one.run(relaxations=relaxations, refine=0, **limits)
        state = one.archive.state
        minima = [
            [
                basin.first_relaxation,
                basin.first_force_calls,
                round(basin.enthalpy_per_atom, 5),
                state.candidates[basin.found_by].operator,
            ]
            for basin in state.basins.values()
        ]
        operators = {
            operator: [tally.proposed, tally.relaxed, tally.cost.force_calls, tally.first_reached]
            for (_, operator), tally in state.tallies.items()
        }
        line = {
            "seed": seed,
            "relaxations": state.relaxations,
            "force_calls": state.cost.force_calls,
            "seconds": round(time.process_time() - start, 1),
            "proposing_seconds": round(state.proposing.seconds, 1),
            "improvements": [[*improvement[:2], round(improvement[2], 5)] for improvement in state.improvements],
            "minima": minima,
            "operators": operators,
        }
        one.close()
    return line


def lowest_known(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Return the lowest enthalpy in eV/atom of any search of each problem."""
    lowest: dict[str, float] = {}
    for run in runs:
        if run["improvements"]:
            lowest[run["problem"]] = min(run["improvements"][-1][2], lowest.get(run["problem"], math.inf))
    return lowest


def is_complete(run: dict[str, Any], lowest: dict[str, float]) -> bool:
    """Return whether a search reached its number of relaxations or what is now the lowest enthalpy."""
    found = bool(run["improvements"]) and run["improvements"][-1][2] <= lowest[run["problem"]] + FOUND
    return found or run["relaxations"] >= run["planned"]


def command_run(options: argparse.Namespace) -> None:
    seeds = REPORTED if options.reported else DEVELOPMENT
    jobs = [
        (family, number, size, arm, seed)
        for seed in options.seeds
        for number in options.models or seeds
        for size in options.sizes
        for family in FAMILIES
        for arm in options.arms
    ]
    print(f"{len(jobs)} searches, about {HOURS_PER_SEARCH * len(jobs):.1f} core hours", flush=True)
    for family, number, size, arm, seed in jobs:
        model = make(family, number, size)
        runs, label = read_lines(options.output), f"{options.label}{arm}"
        lowest = lowest_known(runs)
        key = (label, model.name, seed)
        done = [run for run in runs if (run["arm"], run["problem"], run["seed"]) == key]
        if done and is_complete(done[-1], lowest) and done[-1]["planned"] >= options.relaxations:
            continue
        line = search(model, arm, seed, options.relaxations, lowest.get(model.name))
        line = {"arm": label, "problem": model.name, "planned": options.relaxations, **line}
        append_line(options.output, line)
        best = line["improvements"][-1] if line["improvements"] else None
        print(label, model.name, seed, line["relaxations"], line["force_calls"], line["seconds"], best, flush=True)


def command_report(options: argparse.Namespace) -> None:
    runs = read_lines(options.output)
    lowest = lowest_known(runs)
    latest = {(run["arm"], run["problem"], run["seed"]): run for run in runs if is_complete(run, lowest)}
    arms = options.arms or sorted({arm for arm, _, _ in latest})
    wanted = [key for key in latest if int(key[1].split("-")[-2]) % 2 != options.reported]
    if options.sizes:
        wanted = [key for key in wanted if int(key[1].split("-")[-1]) in options.sizes]
    keys = searched_by_all(wanted, arms)
    problems = sorted({problem for problem, _ in keys})
    print(f"{len(problems)} problems, {len(keys)} searches for each arm")
    baseline, reference = None, math.nan
    for arm in arms:
        costs: dict[str, list[tuple[int, int, bool]]] = defaultdict(list)
        for problem, seed in keys:
            costs[problem].append(reached(latest[arm, problem, seed], lowest[problem]))
        table = np.array([np.sum(costs[problem], axis=0) for problem in problems], dtype=float)
        ert = table.sum(axis=0)
        rng = np.random.default_rng(0)
        picks = rng.integers(len(problems), size=(2000, len(problems)))
        sums = table[picks].sum(axis=1)
        running = sums[:, 1] / np.maximum(sums[:, 2], 0.5)
        baseline = baseline if baseline is not None else running
        own = ert[1] / max(ert[2], 0.5)
        reference = own if arm == arms[0] else reference
        ratio = running / baseline
        low, high = np.quantile(ratio, (0.025, 0.975))
        low_ert, high_ert = np.quantile(running, (0.025, 0.975))
        seconds = sum(latest[arm, *key]["proposing_seconds"] for key in keys) / sum(
            latest[arm, *key]["relaxations"] for key in keys
        )
        print(
            f"{arm:24} found {int(ert[2]):3}/{len(keys)}; expected running time {own:.0f} calls ({low_ert:.0f}-"
            f"{high_ert:.0f}), {ert[0] / max(ert[2], 0.5):.0f} relaxations, ratio {own / reference:.2f} ({low:.2f}-"
            f"{high:.2f}); {ert[1] / ert[0]:.0f} calls per relaxation, {1000 * seconds:.0f} ms per proposal"
        )
        if options.operators:
            print_operators([latest[arm, *key] for key in keys], lowest)
    if options.each:
        for problem in problems:
            shown = []
            for arm in arms:
                own_runs = [reached(latest[arm, p, seed], lowest[p]) for p, seed in sorted(keys) if p == problem]
                shown.append(" ".join(f"{r}{'' if ok else '-'}" for r, _, ok in own_runs))
            print(f"  {problem:18} {lowest[problem]:.4f} ", " | ".join(shown))


def reached(run: dict[str, Any], lowest: float) -> tuple[int, int, bool]:
    """Return relaxations and force calls until the lowest enthalpy, or of all, and whether it was found."""
    for relaxation, calls, enthalpy in run["improvements"]:
        if enthalpy <= lowest + FOUND:
            return relaxation, calls, True
    return run["relaxations"], run["force_calls"], False


def print_operators(runs: list[dict[str, Any]], lowest: dict[str, float]) -> None:
    """Print what the candidates of each operator have led to."""
    totals: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(6))
    for run in runs:
        for operator, counts in run["operators"].items():
            totals[operator][:4] += counts
        steps = {step[0] for step in run["improvements"]}
        for relaxation, _, enthalpy, operator in run["minima"]:
            totals[operator][4] += enthalpy <= lowest[run["problem"]] + LOW
            totals[operator][5] += relaxation in steps and relaxation > 20
    print("    operator              relaxed  calls each  new %  low/1000 calls  improvements/100k calls, after 20")
    for operator, (_, relaxed, calls, new, low, better) in sorted(totals.items(), key=lambda item: -item[1][1]):
        relaxed, calls = max(relaxed, 1), max(calls, 1)
        rates = f"{100 * new / relaxed:9.0f} {1000 * low / calls:10.2f} {1e5 * better / calls:12.1f}"
        print(f"    {operator:24} {relaxed:8.0f} {calls / relaxed:8.0f} {rates}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="run searches")
    run.add_argument("--arms", nargs="+", default=["evolution", "random"])
    run.add_argument("--label", default="")
    run.add_argument("--seeds", nargs="+", type=int, default=[1])
    run.add_argument("--models", nargs="+", type=int)
    run.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    run.add_argument("--relaxations", type=int, default=RELAXATIONS)
    run.set_defaults(function=command_run)
    report = commands.add_parser("report", help="print the tables")
    report.add_argument("--arms", nargs="+", help="the first is the baseline")
    report.add_argument("--sizes", nargs="+", type=int)
    report.add_argument("--operators", action="store_true")
    report.add_argument("--each", action="store_true")
    report.set_defaults(function=command_report)
    for command in (run, report):
        command.add_argument("--reported", action="store_true", help="the problems that are not for development")
        command.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.function(options)


if __name__ == "__main__":
    main()
