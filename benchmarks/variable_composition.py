"""Compare children of other compositions with random symmetric crystals of the same composition.

    python benchmarks/variable_composition.py run                # development systems
    python benchmarks/variable_composition.py run --reported     # the systems that are reported
    python benchmarks/variable_composition.py report [--json FILE]

Each composition of a binary system is held out in turn. The minima of the others come from random symmetric crystals, a
fixed number of relaxations for each, and are the same for all arms. Then the held-out composition is searched by one
source alone: ``random``, or ``variable-composition`` with those minima as parents; its operators and their weights
follow the outcomes of the search itself. A search has one seed and one worker in this process. Lines are added to the
file of results, so that an interrupted command continues when it is repeated.

Systems are Cu-Au and Ni-Al with ASE's EMT, and binary Lennard-Jones systems of ``model_potentials.py``, whose odd seeds
are for development and whose even seeds are reported with the metals. The hull is that of the lowest minima of all
searches of a system.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.data import chemical_symbols

sys.path.insert(0, str(Path(__file__).parent))

from model_potentials import InProcess, make
from run_lines import append_line, read_lines, searched_by_all

from hybridcsp import Problem, Search
from hybridcsp.archive.archive import Archive
from hybridcsp.archive.preferred import PreferredMinimum
from hybridcsp.core.hull import Hull
from hybridcsp.core.records import Proposal
from hybridcsp.sources.base import BaseSource, Context
from hybridcsp.sources.random import RandomSource
from hybridcsp.sources.variable_composition import VariableCompositionSource

RESULTS = Path(__file__).parent / "results" / "variable_composition.jsonl"

#: Where the searches for the known minima are kept, so that a run that is repeated need not make them again.
SEARCHES = Path(__file__).parent / ".searches" / "variable_composition"

#: Numbers of atoms of both elements in the formula units of a system.
COMPOSITIONS = ((1, 0), (3, 1), (2, 1), (1, 1), (1, 2), (1, 3), (0, 1))

METALS = ("Cu-Au", "Ni-Al")
DEVELOPMENT, REPORTED = ("lj-1", "lj-3", "lj-5"), (*METALS, "lj-0", "lj-2", "lj-4")

ARMS = ("random", "variable-composition")

#: Largest number of atoms in a cell, relaxations of each composition that is known, and of a search.
ATOMS, KNOWN, RELAXATIONS = 12, 25, 30

#: Height in eV/atom above the hull up to which a phase counts as on it, and as near it.
ON, NEAR = 0.002, 0.05

#: Seconds of one search with its part of the known minima, for the planned time.
SECONDS = 25


def system(name: str) -> tuple[tuple[str, str], Calculator]:
    """Return the elements and the calculator of a system."""
    if name in METALS:
        first, second = name.split("-")
        return (first, second), EMT()
    model = make("binary-lj", int(name.removeprefix("lj-")))
    first, second = (chemical_symbols[number] for number in model.calculator.numbers)
    return (first, second), model.calculator


def problem_of(elements: Sequence[str], counts: Sequence[int]) -> Problem:
    """Return the problem of one composition."""
    formula = "".join(f"{e}{n if n > 1 else ''}" for e, n in zip(elements, counts, strict=True) if n)
    return Problem(formula, formula_units=(1, ATOMS // sum(counts)), max_atoms=ATOMS)


class WithParents(BaseSource):
    """The source of variable composition on given minima of other compositions."""

    name = VariableCompositionSource.name

    def __init__(self, problem: Problem, parents: Sequence[PreferredMinimum]) -> None:
        self._source = VariableCompositionSource(problem)
        self._random = RandomSource(problem)
        self._parents = parents

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Return children, or a random crystal in place of one that cannot be made."""
        whole = SimpleNamespace(state=context.archive.state, preferred_minima=lambda n=None: list(self._parents[:n]))
        part = cast(Archive, SimpleNamespace(state=context.archive.state, whole=whole))
        own = Context(problem=context.problem, archive=part, rng=context.rng)
        return self._source.propose(n, own) or self._random.propose(n, context)


def searched(
    problem: Problem, sources: Sequence[Any], calculator: Calculator, seed: int, n: int, folder: Path | None = None
) -> dict[str, Any]:
    """Run a search and return its line of results with its minima; one that is kept in a folder continues there."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as temporary:
        search = Search(
            problem, directory=folder or Path(temporary) / "run", sources=sources, seed=seed, calculator=None,
            backend=InProcess(calculator),
        )  # fmt: skip
        search.run(relaxations=n, refine=0)
        state = search.archive.state
        minima = search.archive.minima()
        found = {basin.id: state.candidates[basin.found_by].operator for basin in state.basins.values()}
        line = {
            "formula": problem.formula,
            "seed": seed,
            "relaxations": state.relaxations,
            "force_calls": state.cost.force_calls,
            "seconds": round(time.process_time() - start, 1),
            "proposing_seconds": round(state.proposing.seconds, 1),
            "minima": [
                [m.first_relaxation, m.first_force_calls, round(m.enthalpy_per_atom, 5), found[m.id], m.multiplicity]
                for m in minima
            ],
            "operators": {
                operator: [tally.relaxed, tally.cost.force_calls] for (_, operator), tally in state.tallies.items()
            },
        }
        search.close()
    return {"line": line, "minima": minima}


def command_run(options: argparse.Namespace) -> None:
    names = options.systems or (REPORTED if options.reported else DEVELOPMENT)
    arms = options.arms
    searches = len(names) * len(options.seeds) * len(COMPOSITIONS) * (len(arms) + 1)
    print(f"at most {searches} searches, about {searches * SECONDS / 3600:.1f} core hours", flush=True)
    until = time.monotonic() + options.minutes * 60
    for seed in options.seeds:
        for name in names:
            done = {(r["system"], r["seed"], r["formula"], r["arm"]) for r in read_lines(options.output)}
            elements, calculator = system(name)
            problems = [problem_of(elements, counts) for counts in COMPOSITIONS]
            if all((name, seed, problem.formula, arm) in done for problem in problems for arm in arms):
                continue
            known = {
                problem.formula: searched(
                    problem,
                    ["random"],
                    calculator,
                    1000 + seed,
                    KNOWN,
                    SEARCHES / f"{name}-{seed}" / problem.formula,
                )
                for problem in problems
            }
            for problem in problems:
                if (name, seed, problem.formula, "known") not in done:
                    append_line(options.output, {"system": name, "arm": "known", **known[problem.formula]["line"]})
            for problem in problems:
                others = {formula: one["minima"] for formula, one in known.items() if formula != problem.formula}
                parents = above_hull(elements, others)
                for arm in arms:
                    if (name, seed, problem.formula, arm) in done:
                        continue
                    if time.monotonic() > until:
                        print("stopped; repeat the command to continue")
                        return
                    sources = ["random"] if arm == "random" else [WithParents(problem, parents)]
                    line = searched(problem, sources, calculator, seed, RELAXATIONS)["line"]
                    append_line(options.output, {"system": name, "arm": arm, **line})
                    lowest = line["minima"][0][2] if line["minima"] else None
                    print(name, seed, problem.formula, arm, line["force_calls"], line["seconds"], lowest, flush=True)


def above_hull(elements: Sequence[str], minima: dict[str, list[Any]]) -> list[PreferredMinimum]:
    """Return minima of several compositions by their heights above their hull, or above the best of an element."""
    hull = Hull(elements)
    for formula, own in minima.items():
        if own:
            hull.put(formula, own[0].enthalpy_per_atom)
    ids = 0
    found: list[PreferredMinimum] = []
    for formula, own in minima.items():
        for one in own:
            ids += 1  # ids of different searches must differ
            height = hull.height(formula, one.enthalpy_per_atom)
            if height is None:  # an element is held out
                height = one.enthalpy_per_atom - own[0].enthalpy_per_atom
            shown = SimpleNamespace(id=10**6 + ids, niche=10**6 + ids, found_by=SimpleNamespace(id=10**6 + ids))
            found.append(PreferredMinimum(minimum=cast(Any, shown), height=height, end=one.best))
    return sorted(found, key=lambda one: one.height)


def hulls(runs: list[dict[str, Any]]) -> dict[str, Hull]:
    """Return the hull of each system by all its searches."""
    lowest: dict[tuple[str, str], float] = {}
    for run in runs:
        if run["minima"]:
            key = run["system"], run["formula"]
            lowest[key] = min(lowest.get(key, math.inf), run["minima"][0][2])
    result: dict[str, Hull] = {}
    for (name, formula), enthalpy in lowest.items():
        if name not in result:
            result[name] = Hull(system(name)[0])
        result[name].put(formula, enthalpy)
    return result


def command_report(options: argparse.Namespace) -> None:
    runs = read_lines(options.output)
    wanted = set(options.systems or (REPORTED if options.reported else DEVELOPMENT))
    runs = [run for run in runs if run["system"] in wanted]
    of_systems = hulls(runs)
    lowest: dict[tuple[str, str], float] = defaultdict(lambda: math.inf)
    for run in runs:
        key = run["system"], run["formula"]
        lowest[key] = min([lowest[key], *(one[2] for one in run["minima"][:1])])
    # Only searches that every arm has made are compared.
    paired = searched_by_all(((run["arm"], run["system"], run["formula"], run["seed"]) for run in runs), ARMS)
    runs = [run for run in runs if (run["system"], run["formula"], run["seed"]) in paired]
    table = []
    for arm in ARMS:
        own = [run for run in runs if run["arm"] == arm]
        rows: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
        for run in own:
            key = run["system"], run["formula"]
            rows[key].append(counted(run, of_systems[run["system"]], lowest[key]))
        sums = np.array([np.sum(rows[key], axis=0) for key in sorted(rows)])
        table.append((arm, len(own), sums))
    found: dict[str, Any] = {"systems": sorted(wanted), "arms": {}}
    baseline = rates(table[0][2].sum(axis=0))
    for arm, number, sums in table:
        rng = np.random.default_rng(0)
        picks = rng.integers(len(sums), size=(2000, len(sums)))
        drawn = [rates(sums[pick].sum(axis=0)) for pick in picks]
        reference = [rates(table[0][2][pick].sum(axis=0)) for pick in picks]
        print(f"{arm}: {number} searches, {sums[:, 1].sum() / sums[:, 0].sum():.0f} calls per relaxation")
        found["arms"][arm] = {"searches": number}
        for name, value in rates(sums.sum(axis=0)).items():
            ratios = [one[name] / max(other[name], 1e-12) for one, other in zip(drawn, reference, strict=True)]
            low, high = np.quantile(ratios, (0.025, 0.975))
            ratio = value / max(baseline[name], 1e-12)
            print(f"    {name:58} {value:10.3f}   ratio {ratio:.2f} ({low:.2f} to {high:.2f})")
            found["arms"][arm][name] = {"value": value, "ratio": ratio, "interval": [low, high]}
    print_operators([run for run in runs if run["arm"] == ARMS[1]], of_systems)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def counted(run: dict[str, Any], hull: Hull, lowest: float) -> list[float]:
    """Return numbers of relaxations, force calls, hits and new minima of one search, and its cost to the lowest."""
    on = near = new_near = 0
    for _, _, enthalpy, _, multiplicity in run["minima"]:
        height = max(0.0, hull.height(run["formula"], enthalpy) or 0.0)
        on += multiplicity * (height <= ON)
        near += multiplicity * (height <= NEAR)
        new_near += height <= NEAR
    reached = [one[:2] for one in run["minima"] if one[2] <= lowest + ON]
    cost = min(reached, default=[run["relaxations"], run["force_calls"]])
    return [run["relaxations"], run["force_calls"], on, near, new_near, bool(reached), *cost]


def rates(sums: np.ndarray) -> dict[str, float]:
    """Return rates of summed counts."""
    relaxations, calls, on, near, new_near, reached, to_lowest, calls_to_lowest = sums.tolist()
    return {
        "relaxations that end on the hull, %": 100 * on / relaxations,
        "relaxations that end within 50 meV/atom of it, %": 100 * near / relaxations,
        "different minima within 50 meV/atom per 1000 calls": 1000 * new_near / calls,
        "ends on the hull per 1000 calls": 1000 * on / calls,
        "relaxations to the lowest of the composition": to_lowest / max(reached, 0.5),
        "force calls to the lowest of the composition": calls_to_lowest / max(reached, 0.5),
    }


def print_operators(runs: list[dict[str, Any]], of_systems: dict[str, Hull]) -> None:
    """Print what the children of each operator have led to."""
    totals: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(4))
    for run in runs:
        for operator, counts in run["operators"].items():
            totals[operator][:2] += counts
        for _, _, enthalpy, operator, _ in run["minima"]:
            height = of_systems[run["system"]].height(run["formula"], enthalpy) or 0.0
            totals[operator][2:] += height <= NEAR, height <= ON
    print("    operator                  relaxed  calls each   first within 50 meV/atom, on the hull per 1000 calls")
    for operator, (relaxed, calls, near, on) in sorted(totals.items(), key=lambda item: -item[1][1]):
        print(f"    {operator:24} {relaxed:8.0f} {calls / max(relaxed, 1):10.0f}"
              f" {1000 * near / max(calls, 1):20.2f} {1000 * on / max(calls, 1):10.2f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="run searches")
    run.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    run.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    run.add_argument("--minutes", type=float, default=math.inf, help="begin no search after this time")
    run.set_defaults(function=command_run)
    report = commands.add_parser("report", help="print the table")
    report.add_argument("--json", type=Path)
    report.set_defaults(function=command_report)
    for command in (run, report):
        command.add_argument("--systems", nargs="+")
        command.add_argument("--reported", action="store_true", help="the systems that are not for development")
        command.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.function(options)


if __name__ == "__main__":
    main()
