"""Record searches of development systems with equal shares for all sources, to study the allocation between them.

    python benchmarks/allocation_runs.py                          # model potentials and EMT: a minute a search
    python benchmarks/allocation_runs.py --minutes 10             # begin no further search after this time
    python benchmarks/allocation_runs.py --families chgnet        # crystals with CHGNet: prints the core-hours first

Each system is searched by all default sources with the allocation ``equal``, one worker, frozen generators, jobs of one
sample and 12 relaxations for each source on average. A source works in the company of the others, because it depends on
it: evolution breeds what others have found. There are three families of systems. ``model``: the model potentials of
:mod:`model_potentials` with odd seeds, which no prior of the package knows. ``emt``: intermetallics, whose prototypes
are known or not. ``chgnet``: the contents of primitive cells of crystals, drawn once without looking at anything but
their size from those whose formulas no generator learns from, searched with a table of prototypes without these
formulas. No crystal of a benchmark is among them (:func:`is_of_benchmark`).

A line of results/allocation_runs.jsonl is one search; ``relaxations`` holds, for each relaxation in order, its source,
its operator, the candidates that are its parents (numbers of earlier relaxations from 0), its force calls, and its
enthalpy in eV/atom and the numbers of its minimum and niche, which are ``null`` if it did not converge. Runs with
CHGNet of an earlier version, 10 relaxations for each source, are lines of results/allocation_priors_runs.jsonl, which
hold the enthalpies of new minima only.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zlib import crc32

from ase.formula import Formula
from hard_cells import table_of_nine_tenths
from model_potentials import FAMILIES, make

from hybridcsp import Problem, Retraining, Search
from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.records import REFINE
from hybridcsp.generators.datasets import is_held_out
from hybridcsp.prototypes import CountTable
from hybridcsp.relaxation.calculators.registry import CalculatorLike
from hybridcsp.search.success_priors import Difficulty
from hybridcsp.sources.registry import DEFAULT_SOURCES

RESULTS = Path(__file__).parent / "results"
RUNS = RESULTS / "allocation_runs.jsonl"
EARLIER_RUNS = RESULTS / "allocation_priors_runs.jsonl"
SEARCHES = Path(__file__).parent / ".searches" / "allocation"  # kept, so that they can be looked at
RELAXATIONS = 12 * len(DEFAULT_SOURCES)
SECONDS_PER_RELAXATION = {"chgnet": 2.0, "emt": 0.5, "model": 0.5}  # only to plan

#: Contents of cells that are searched with CHGNet.
CRYSTALS = (
    *("As2K2Li4", "H4F2N2Sn", "CrS4V2", "H4N2Rb2", "F6NaRb2Ti", "Ru3Ta", "Cl4Nb2O2", "Cs2F6Ni"),
    *("H4Li2O4P2", "Nd4Sn4Zn4", "Cl4N4Zn8", "Au14BiCa3", "Pt4Yb10", "Ba2Ce4Mn2S10", "O12P4SrTl2"),
    *("Cu4Pr4S8", "Ni4Si4Y4"),
)

#: Contents of cells that are searched with EMT.
INTERMETALLICS = (
    *("Cu3Au", "Al2Cu4", "Ni4Al4", "PdAg5", "Al8Cu4", "Au6Cu2", "Pt2Ni6", "Al3Ni5", "Cu5Pd7", "Al9Ni4"),
    *("AlCuNi2", "Ag2AuPd3", "Al4Cu3Ni5", "Al2Pd3Cu5", "Ag4Pt8", "Al6Pd8"),
)

#: Seeds of the model potentials, odd ones as they are for development, and numbers of atoms.
SEEDS, SIZES = (1, 3, 5, 7), (8, 12, 16)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One relaxation of a recorded search.

    Attributes
    ----------
    source
        Name of the source.
    parents
        Numbers of the relaxations from 0 that its candidate was made from.
    force_calls
        Force calls, at least 1.
    enthalpy
        Enthalpy in eV/atom; ``None`` if it did not converge or was not recorded.
    """

    source: str
    parents: tuple[int, ...]
    force_calls: int
    enthalpy: float | None


@dataclass(frozen=True, kw_only=True)
class RecordedSearch:
    """A recorded search: its system, what is known about it beforehand, and its relaxations in order."""

    system: str
    seed: int
    difficulty: Difficulty
    steps: tuple[Step, ...]


def is_of_benchmark(formula: str) -> bool:
    """Return whether a formula belongs to a crystal on which the package is measured."""
    return _reduced(formula) in _benchmark_formulas()


@cache
def _benchmark_formulas() -> frozenset[str]:
    cells = json.loads((RESULTS / "hard_cells.json").read_text())["cells"]
    recovery = [json.loads(line)["cell"].partition("-")[2] for line in _lines(RESULTS / "recovery_runs.jsonl")]
    return frozenset(_reduced(formula) for formula in {*(cell["formula"] for cell in cells), *recovery})


def _reduced(formula: str) -> str:
    return str(Formula(formula).reduce()[0].format("hill"))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@cache
def known_prototypes() -> CountTable:
    """Return the table of prototypes without the formulas that generators do not learn from."""
    return table_of_nine_tenths()


def difficulty_of(contents: str) -> Difficulty:
    """Return the difficulty of the contents of a cell, prototypes of held-out formulas left out."""
    atoms = sum(Formula(contents).count().values())
    return Difficulty.of(Problem(contents, formula_units=1, max_atoms=max(20, atoms)), known_prototypes())


def systems(families: Sequence[str]) -> Iterator[tuple[str, Problem, CalculatorLike]]:
    """Yield name, problem and calculator of each development system."""
    if "chgnet" in families:
        for contents in CRYSTALS:
            assert is_held_out(_reduced(contents)), contents
            assert not is_of_benchmark(contents), contents
            yield f"chgnet-{contents}", Problem(contents, formula_units=1), "chgnet"
    if "emt" in families:
        for contents in INTERMETALLICS:
            yield f"emt-{contents}", Problem(contents, formula_units=1), "emt"
    if "model" in families:
        for seed in SEEDS:
            for family in FAMILIES:
                for atoms in SIZES:
                    model = make(family, seed, atoms)
                    yield model.name, model.problem, model.calculator


def record(name: str, problem: Problem, calculator: CalculatorLike, seed: int) -> dict[str, Any]:
    """Search a system and return what each relaxation cost and brought."""
    start = time.perf_counter()
    with ExitStack() as stack:
        if calculator == "chgnet":
            stack.enter_context(patch("hybridcsp.sources.prototypes.shipped_table", known_prototypes))
        search = stack.enter_context(
            Search(
                problem,
                calculator=calculator,
                sources=DEFAULT_SOURCES,
                seed=seed,
                allocation="equal",
                directory=SEARCHES / f"{name}-{seed}",
                workers=1,
                one_shot=1,
                retraining=Retraining(new_minima=0),
            )
        )
        search.run(relaxations=RELAXATIONS, refine=0)
        outcomes = [
            outcome
            for outcome in search.archive.history()
            if isinstance(outcome, Relaxed | Failed) and outcome.level != REFINE
        ]
    numbers = {outcome.candidate.id: number for number, outcome in enumerate(outcomes)}
    return {
        "system": name,
        "seed": seed,
        "contents": "".join(f"{symbol}{count}" for symbol, count in problem.composition.items()),
        "relaxations": [
            [
                outcome.candidate.source,
                outcome.candidate.operator,
                [numbers[id_] for id_ in outcome.candidate.proposal.parents if id_ in numbers],
                outcome.cost.force_calls,
                *result(outcome),
            ]
            for outcome in outcomes
        ],
        "seconds": round(time.perf_counter() - start, 1),
    }


def result(outcome: Relaxed | Failed) -> tuple[float | None, int | None, int | None]:
    """Return enthalpy per atom, minimum and niche of a relaxation."""
    if isinstance(outcome, Failed) or outcome.minimum is None:
        return None, None, None
    return round(outcome.enthalpy_per_atom, 6), outcome.minimum, outcome.niche


def recorded_searches() -> list[RecordedSearch]:
    """Return all recorded searches, those of an earlier version included."""
    found = []
    for line in _lines(EARLIER_RUNS):
        run = json.loads(line)
        if is_of_benchmark(run["system"]):
            continue
        steps = [
            Step(source=source, parents=(), force_calls=max(1, calls), enthalpy=enthalpy)
            for source, _, _, calls, enthalpy in run["relaxations"]
        ]
        found.append(_recorded(f"chgnet-{run['system']}", run["seed"], run["system"], steps))
    for line in _lines(RUNS):
        run = json.loads(line)
        steps = [
            Step(source=source, parents=tuple(parents), force_calls=max(1, calls), enthalpy=enthalpy)
            for source, _, parents, calls, enthalpy, *_ in run["relaxations"]
        ]
        found.append(_recorded(run["system"], run["seed"], run["contents"], steps))
    return found


def _recorded(system: str, seed: int, contents: str, steps: Sequence[Step]) -> RecordedSearch:
    return RecordedSearch(system=system, seed=seed, difficulty=difficulty_of(contents), steps=tuple(steps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=["model", "emt"], choices=["model", "emt", "chgnet"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float, help="begin no further search after this time")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th search from the i-th, to use several cores")
    arguments = parser.parse_args()
    done = {(run["system"], run["seed"]) for run in map(json.loads, _lines(RUNS))}
    part, parts = map(int, arguments.part.split("/"))
    mixed = sorted(systems(arguments.families), key=lambda system: crc32(system[0].encode()))
    planned = [(seed, *system) for seed in range(arguments.seeds) for system in mixed][part::parts]
    planned = [one for one in planned if (one[1], one[0]) not in done]
    prices = [SECONDS_PER_RELAXATION.get(name.partition("-")[0], 0.5) for _, name, *_ in planned]
    print(f"{len(planned)} searches, about {RELAXATIONS * sum(prices) / 3600:.1f} core-hours", flush=True)
    start = time.monotonic()
    for seed, name, problem, calculator in planned:
        if arguments.minutes and time.monotonic() - start > 60 * arguments.minutes:
            break
        run = record(name, problem, calculator, seed)
        with RUNS.open("a") as lines:
            lines.write(json.dumps(run) + "\n")
        print(name, seed, f"{run['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
