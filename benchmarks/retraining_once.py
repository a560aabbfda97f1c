"""What does one retraining change? The same minima taught in several ways, and what each then makes of them.

    python benchmarks/retraining_once.py                       # what is missing
    python benchmarks/retraining_once.py --generator flow --problems TiO2 --seeds 3
    python benchmarks/retraining_once.py --only-table

For each problem (2 to 4 formula units, CHGNet) and seed one search of 100 relaxations with the transformer left as it
is, evolution, random crystals and shaking gives the minima. From these the generator is retrained once in each of its
ways (``WAYS``); *frozen* is left as it is. Each way then samples with the same random numbers, and its first 20
crystals that are none of the starts and minima of the search are relaxed. Counted are minima that the search did not
have within 50 meV/atom of the best of all, by how much the best fell, samples that were known already, and force calls.

Beside ``retraining_gain.py``, which compares whole searches, this is cheap, and all ways face the same state: pairs
differ by the retraining alone. Each line of results/retraining_once_runs.jsonl is one way for one search; what is
there for the shipped weights is not done again, and is what the table shows.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from run_lines import read_lines

from hybridcsp import Problem, Search
from hybridcsp.archive.archive import Archive
from hybridcsp.core.outcomes import Relaxed
from hybridcsp.core.records import Candidate, Job, Proposal
from hybridcsp.generators.base import Generator
from hybridcsp.generators.loading import one_thread, open_generator, read_card
from hybridcsp.generators.selection import requests_for, select
from hybridcsp.generators.weights_io import shipped
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.retraining import Retraining
from hybridcsp.retraining.training_set import examples_from_minima, replay_examples
from hybridcsp.similarity import ENERGY_WINDOW, STARTS, StructureIndex, compute_descriptors
from hybridcsp.structure.symmetry import spacegroup

RUNS = Path(__file__).parent / "results" / "retraining_once_runs.jsonl"
SEARCHES = Path(__file__).parent / ".searches" / "retraining_once"

PROBLEMS = ("TiO2", "SiO2", "Al2O3", "MgSiO3")
FORMULA_UNITS = (2, 4)
WINDOW = 0.05  # eV/atom

SOURCES = ("wyckoff", "evolution", "random", "shake")
BEFORE, AFTER, ASKED = 100, 20, 144
EPOCHS = 30
SECONDS_PER_RELAXATION = 3.0  # only to plan


@dataclass(frozen=True)
class Way:
    """What is changed of the default settings, of the arguments of ``fit``, and from which minima it learns."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)
    least_spacegroup: int = 1


TRANSFORMER: dict[str, Way | None] = {
    "frozen": None,
    "default": Way(),
    "best quarter": Way(settings={"weighting": "best"}),
    "harder": Way(fit={"learning_rate": 1e-3, "anchor": 0.0}),
    "no replay": Way(settings={"replay": 0.0}),
    "remembering": Way(fit={"remember": True}),
    "gentle": Way(fit={"learning_rate": 5e-5, "epochs": 8}),
    "cold": Way(settings={"temperature": 0.02}),
    "symmetric": Way(least_spacegroup=3),
    "symmetric, remembering": Way(fit={"remember": True}, least_spacegroup=3),
}
WAYS: dict[str, dict[str, Way | None]] = {
    "wyckoff": TRANSFORMER,
    "flow": {way: TRANSFORMER[way] for way in ("frozen", "default", "best quarter", "harder", "no replay")},
}


@cache
def searched(name: str, seed: int) -> Archive:
    """Return the record of the search that gives the minima, done if it is not there yet."""
    directory = SEARCHES / f"{name}-{seed}"
    with Search(
        name,
        formula_units=FORMULA_UNITS,
        sources=SOURCES,
        seed=seed,
        directory=directory,
        workers=1,
        retraining=Retraining(new_minima=0),
    ) as search:
        search.run(relaxations=BEFORE, refine=0)
    return Archive(directory)


def taught(pupil: str, way: str, archive: Archive, problem: Problem, seed: int) -> tuple[Generator, float]:
    """Return the generator after its retraining, and the seconds that this took."""
    generator = open_generator(pupil)
    changes = WAYS[pupil][way]
    if changes is None:
        return generator, 0.0
    start = time.perf_counter()
    settings = replace(Retraining(), **changes.settings)
    fit = {"epochs": EPOCHS, "learning_rate": settings.learning_rate, "anchor": settings.anchor}
    fit |= {**generator.fine_tuning, **changes.fit}
    rng = np.random.default_rng([seed, 1])
    own = examples_from_minima(archive.minima(), pupil, problem, settings)
    own = [lesson for lesson in own if spacegroup(lesson.atoms) >= changes.least_spacegroup]
    examples = [*own, *replay_examples(generator, len(own), problem, settings, rng)]
    learner = copy.deepcopy(generator)
    learner.fit(examples, seed=seed, **fit)
    return learner, time.perf_counter() - start


def measure(pupil: str, way: str, name: str, seed: int, pool: WorkerPool) -> dict[str, Any]:
    problem = Problem(name, formula_units=FORMULA_UNITS)
    archive = searched(name, seed)
    minima = archive.minima()
    known = StructureIndex(energy_window=None, tolerances=STARTS)
    for number in range(1, archive.candidates + 1):
        known.add(number, compute_descriptors(archive.candidate(number).atoms))
    for minimum in minima:
        known.add(-minimum.id, compute_descriptors(minimum.atoms))
    ends = StructureIndex(energy_window=ENERGY_WINDOW)
    for minimum in minima:
        ends.add(minimum.id, minimum.atoms, minimum.enthalpy_per_atom)
    with one_thread():
        generator, seconds = taught(pupil, way, archive, problem, seed)
        rng = np.random.default_rng([seed, 2])
        requests = requests_for(problem, generator.conditions, ASKED, rng)
        chosen = select(generator.sample(requests, rng), problem, generator.conditions, ASKED, best_first=True).chosen
    new = [one for one in chosen if known.find(one.described) is None]
    opened, force_calls, failed = [], 0, 0
    for number, one in enumerate(new[:AFTER]):
        candidate = Candidate(proposal=Proposal(atoms=one.atoms, operator="sampled"), id=number + 1, source="x")
        pool.submit(Job(candidate=candidate, atoms=one.atoms))
        (outcome,) = pool.completed(None)
        force_calls += outcome.cost.force_calls
        if not isinstance(outcome, Relaxed) or not outcome.converged:
            failed += 1
        elif ends.find(outcome.atoms, outcome.enthalpy_per_atom) is None:
            ends.add(-number - 1, outcome.atoms, outcome.enthalpy_per_atom)
            opened.append(round(outcome.enthalpy_per_atom, 5))
    return {
        "problem": name,
        "seed": seed,
        "generator": pupil,
        "way": way,
        "minima": len(minima),
        "best": round(minima[0].enthalpy_per_atom, 5),
        "known": len(chosen) - len(new),
        "chosen": len(chosen),
        "relaxed": min(len(new), AFTER),
        "failed": failed,
        "opened": opened,
        "force_calls": force_calls,
        "retraining_seconds": round(seconds, 1),
        "weights": weights_of(pupil),
        "machine": platform.machine(),
    }


def weights_of(pupil: str) -> str:
    """Return the beginning of the hash of the shipped weights."""
    return str(read_card(shipped(pupil)).get("weights_sha256", ""))[:16]


def report(generator: str, lines: Sequence[dict[str, Any]], console: Console) -> None:
    """Print what each way of a generator gained over the frozen one, from its lines."""
    ways_of = WAYS[generator]
    searches: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for line in lines:
        searches.setdefault((line["problem"], line["seed"]), {})[line["way"]] = line
    complete = [ways for ways in searches.values() if set(ways_of) <= set(ways)]
    table = Table(title=f"One retraining of {generator} from the minima of one search; {len(complete)} searches")
    for heading in ("way", "new low minima", "against frozen (95 %)", "best fell, meV", "known", "f.calls", "s"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for way in ways_of:
        low, difference, fell = [], [], []
        for ways in complete:
            lowest = min(min([one["best"], *one["opened"]]) for one in ways.values())
            counts = {w: sum(e <= lowest + WINDOW for e in one["opened"]) for w, one in ways.items()}
            low.append(counts[way])
            difference.append(counts[way] - counts["frozen"])
            fell.append(1000 * max(0.0, ways[way]["best"] - min(ways[way]["opened"], default=0.0)))
        own = [ways[way] for ways in complete]
        gain = ""
        if way != "frozen" and len(own) > 1:
            gain = "{:+.1f} ({:+.1f} to {:+.1f})".format(*interval(difference))
        table.add_row(
            way,
            " ".join(map(str, low)),
            gain,
            " ".join(f"{value:.0f}" for value in fell),
            f"{sum(one['known'] for one in own)}/{sum(one['chosen'] for one in own)}",
            f"{np.mean([one['force_calls'] for one in own]):.0f}" if own else "",
            f"{np.mean([one['retraining_seconds'] for one in own]):.0f}" if own else "",
        )
    console.print(table)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of values and its 95 % bootstrap interval."""
    draws = np.random.default_rng(0).choice(np.array(values), (5000, len(values))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(np.mean(values)), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default="wyckoff", choices=WAYS)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only-table", action="store_true")
    arguments = parser.parse_args()
    console = Console(width=130)
    past = read_lines(RUNS)
    present = arguments.generator, weights_of(arguments.generator)
    lines = [line for line in past if (line["generator"], line["weights"]) == present]
    done = {(line["problem"], line["seed"], line["way"]) for line in lines}
    todo = [
        (name, seed, way)
        for seed in range(arguments.seeds)
        for name in arguments.problems
        for way in WAYS[arguments.generator]
        if (name, seed, way) not in done
    ]
    if not arguments.only_table and todo:
        searches = len({(name, seed) for name, seed, _ in todo})
        hours = (searches * BEFORE + len(todo) * AFTER) * SECONDS_PER_RELAXATION / 3600
        console.print(f"{len(todo)} measurements to do, about {hours:.1f} core-hours")
        with WorkerPool(Relaxer(), workers=1) as pool:
            for name, seed, way in todo:
                lines.append(measure(arguments.generator, way, name, seed, pool))
                with RUNS.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
                console.print(f"{name} seed {seed} {way}: {len(lines[-1]['opened'])} minima opened", highlight=False)
    report(arguments.generator, lines, console)


if __name__ == "__main__":
    main()
