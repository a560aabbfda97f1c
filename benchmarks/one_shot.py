"""Do energies before relaxations lead a generator to the right structure sooner, and at what cost?

    python benchmarks/one_shot.py CRYSTALS.extxyz [MORE.extxyz ...] [--n 40] [--seed 7] [--part 0/2] [--sources wyckoff]
    python benchmarks/one_shot.py                                          # only the tables

For crystals of formulas that no generator learns from, half of them of 3 to 11 atoms and half of 12 to 20, each source
alone searches the contents of the primitive cell with CHGNet and one worker, at most 20 relaxations: once with every
structure a job, once with twelve together, of which energies choose one. A search has *recovered* the crystal when its
best lies no more than 2 meV/atom above the crystal itself, relaxed to 0.01 eV/Å; it ends there. Force calls count all,
energies included; those of a search that did not recover it as far as it went. Each search is a line of
results/one_shot_runs.jsonl; nothing is run twice, and what other weights have found is kept and not shown.

The lines of ``prototypes`` are of a source that is not there any more: it let energies choose among known prototypes in
the same way. Coordinates that are drawn on the Wyckoff positions of the right prototype have energies that tell little.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from known_crystals import relaxed
from retraining_once import weights_of
from run_lines import append_line, read_lines

from hybridcsp import Problem, Retraining, Search
from hybridcsp.core.outcomes import Relaxed
from hybridcsp.generators.datasets import formula_of, is_held_out
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.sources.registry import ONE_SHOT
from hybridcsp.structure.symmetry import primitive

RUNS = Path(__file__).parent / "results" / "one_shot_runs.jsonl"
SOURCES = ("wyckoff", "flow")
SHOWN_SOURCES = ("prototypes", *SOURCES)
SIZES = ((3, 11), (12, 20))
RELAXATIONS, RECOVERED = 20, 0.002
SECONDS_PER_SEARCH = 15.0  # only to plan
SHOWN = (1, 3, 5, 10, 20)


def chosen_crystals(files: Sequence[Path], n: int, seed: int) -> list[Atoms]:
    """Return ``n`` crystals of each size, each of another formula held out."""
    rng = np.random.default_rng(seed)
    crystals = [primitive(atoms) for file in files for atoms in ase.io.iread(file) if is_held_out(formula_of(atoms))]
    chosen = []
    for low, high in SIZES:
        fitting: dict[str, Atoms] = {}
        for atoms in crystals:
            if low <= len(atoms) <= high:
                fitting.setdefault(formula_of(atoms), atoms)
        names = sorted(fitting)
        chosen += [fitting[names[i]] for i in rng.permutation(len(names))[:n]]
    return chosen


def relaxed_energy(crystal: Atoms, pool: WorkerPool) -> float | None:
    """Enthalpy per atom of the crystal itself in eV, relaxed; ``None`` where that fails."""
    outcome = relaxed(crystal, pool)
    return outcome.enthalpy_per_atom if isinstance(outcome, Relaxed) and outcome.converged else None


def measure(problem: Problem, name: str, one_shot: int, goal: float, pool: WorkerPool) -> dict[str, Any]:
    """Search with one source until the goal (eV/atom) is reached, or out of relaxations or of structures."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Search(
            problem,
            sources=[name],
            directory=Path(folder) / "search",
            backend=pool,
            workers=1,
            one_shot=one_shot,
            retraining=Retraining(new_minima=0),
        ) as search,
    ):
        search.run(relaxations=RELAXATIONS, refine=0, stop_at=goal)
        state = search.archive.state
        lowest = state.lowest()
        return {
            "recovered": lowest is not None and lowest <= goal,
            "relaxations": state.relaxations,
            "force_calls": state.cost.force_calls,
        }


def report(runs: Sequence[dict[str, Any]]) -> None:
    rng = np.random.default_rng(0)
    for low, high in SIZES:
        print(f"\n{low} to {high} atoms: recovered within so many relaxations; force calls")
        head = f"{'source':12s} {'energies':>8s} {'crystals':>8s} "
        print(head + " ".join(f"{k:>5d}" for k in SHOWN) + "   calls  ratio (95 %)")
        for name in SHOWN_SOURCES:
            own = {k: {} for k in (1, ONE_SHOT)}
            for run in runs:
                if run["source"] == name and low <= run["atoms"] <= high:
                    own[run["one_shot"]][run["formula"], run["seed"]] = run
            both = sorted(set(own[1]) & set(own[ONE_SHOT]))
            calls = {k: np.array([own[k][key]["force_calls"] for key in both]) for k in own}
            for one_shot, found in own.items() if both else ():
                solved = [found[key]["relaxations"] for key in both if found[key]["recovered"]]
                line = f"{name:12s} {one_shot if one_shot > 1 else 'none':>8} {len(both):8d} "
                line += "".join(f"{sum(n <= k for n in solved):5d} " for k in SHOWN)
                line += f" {calls[one_shot].mean():6.0f}"
                if one_shot > 1:
                    picks = rng.integers(len(both), size=(2000, len(both)))
                    ratios = calls[one_shot][picks].mean(axis=1) / calls[1][picks].mean(axis=1)
                    ratio = calls[one_shot].mean() / calls[1].mean()
                    line += f"  {ratio:.2f} ({np.quantile(ratios, 0.025):.2f}-{np.quantile(ratios, 0.975):.2f})"
                print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--n", type=int, default=40, help="crystals of each size")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--part", default="0/1", help="i/n: every n-th crystal from the i-th, to use several cores")
    arguments = parser.parse_args()
    runs = read_lines(RUNS)
    weights = {name: weights_of(name) for name in SOURCES}
    runs = [run for run in runs if run["weights"] == weights.get(run["source"], run["weights"])]
    done = {(run["formula"], run["seed"], run["source"], run["one_shot"]) for run in runs}
    part, parts = map(int, arguments.part.split("/"))
    crystals = chosen_crystals(arguments.files, arguments.n, arguments.seed) if arguments.files else []
    every = [(name, one_shot) for name in arguments.sources for one_shot in (1, ONE_SHOT)]
    planned = [
        (crystal, [arm for arm in every if (formula_of(crystal), arguments.seed, *arm) not in done])
        for crystal in crystals[part::parts]
    ]
    searches = sum(len(arms) for _, arms in planned)
    if searches:
        print(f"{searches} searches to do, about {searches * SECONDS_PER_SEARCH / 3600:.1f} core-hours", flush=True)
    with WorkerPool(Relaxer(), workers=1) as pool:
        for crystal, arms in planned:
            reference = relaxed_energy(crystal, pool) if arms else None
            if arms and reference is None:
                print(f"{formula_of(crystal)}: the crystal itself cannot be relaxed, left out", flush=True)
            for name, one_shot in arms if reference is not None else ():
                start = time.perf_counter()
                problem = Problem(crystal.get_chemical_formula(mode="hill"), formula_units=1)
                run = {"formula": formula_of(crystal), "atoms": len(crystal), "seed": arguments.seed}
                run |= {"weights": weights[name], "source": name, "one_shot": one_shot}
                run |= measure(problem, name, one_shot, reference + RECOVERED, pool)
                run |= {"seconds": round(time.perf_counter() - start, 1), "load": round(os.getloadavg()[0], 1)}
                runs.append(run)
                append_line(RUNS, run)
    report(runs)


if __name__ == "__main__":
    main()
