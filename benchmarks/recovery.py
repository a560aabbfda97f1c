"""Which method finds the known structure of a cell, and at what cost?

    python benchmarks/recovery.py CRYSTALS.extxyz                            # what is missing of the core set
    python benchmarks/recovery.py CRYSTALS.extxyz --methods random default --seeds 1 --cells 3 5 7
    python benchmarks/recovery.py CRYSTALS.extxyz --methods random default --all      # every crystal of the file
    python benchmarks/recovery.py CRYSTALS.extxyz --methods ase-ga cryspy    # other codes: see peers/README.md
    python benchmarks/recovery_report.py                                     # only the tables

For each crystal the contents of its primitive cell are searched with CHGNet, 60 relaxations at most, one worker. The
reference is the crystal itself, relaxed to 0.01 eV/Å. *Matched*: a minimum that pymatgen's StructureMatcher (default
tolerances) fits to the reference. *Recovered*: lowest enthalpy no more than 2 meV/atom above the reference's. *Solved*:
no more than that above the best minimum known, the reference or any of any run; this goal falls with every better run.
Minima more than 150 meV/atom below the reference are holes of the potential: they are counted and left out.

A run stops when it is solved as far as is known at that time. Where another run then finds something lower, it is taken
up again: its run directory is kept under ``--searches``, or else it is done anew, which gives the same (runs repeat bit
for bit). A run of another code is always done anew.

Each run is a line of results/recovery_runs.jsonl (energies and costs, no structures), the last line of a run counts,
and what is finished is not run twice. No table shipped with the sources may rest on a formula of the benchmark: that is
asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.formula import Formula
from peers import PEERS, run_peer
from peers.record import tally_line
from pymatgen.analysis.structure_matcher import StructureMatcher
from recovery_report import HOLE, ORDER, REFERENCES, RELAXATIONS, RUNS, SMALL, SOLVED, best_known, past_runs, report
from rich.console import Console

from hybridcsp import Problem, Retraining, Search
from hybridcsp.core.records import REFINE, Candidate, Failed, Job, Limits, Proposal, Relaxed
from hybridcsp.generators.loading import read_card
from hybridcsp.generators.registry import GENERATORS
from hybridcsp.generators.weights_io import overlap, shipped
from hybridcsp.prototypes import aflow, training_formulas
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.search.stopping import UNCHANGED
from hybridcsp.sources.base import SourceStatus
from hybridcsp.sources.generative import GenerativeSource
from hybridcsp.sources.prototypes import PrototypesSource
from hybridcsp.sources.registry import DEFAULT_SOURCES, ONE_SHOT
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.structure.symmetry import primitive

SECONDS_PER_RELAXATION = 1.5  # only to plan

METHODS = {
    "random": ["random"],
    "evolution": ["evolution"],
    "swarm": ["swarm"],
    "prototypes": ["prototypes", "random"],
    "basin-hopping": ["basin-hopping"],
    "random+shake": ["random", "shake"],
    "optimisers": ["random", "prototypes", "evolution", "swarm", "basin-hopping", "shake"],
    "wyckoff": ["wyckoff"],
    "wyckoff+energies": ["wyckoff"],
    "flow": ["flow"],
    "evolution+seeds": ["generated-seeds", "evolution"],
    "frozen": list(DEFAULT_SOURCES),
    "default": list(DEFAULT_SOURCES),
}

#: Methods in which energies choose what of a generator is relaxed: of so many structures.
ENERGIES = {"wyckoff+energies": ONE_SHOT, "frozen": ONE_SHOT, "default": ONE_SHOT}

#: How generators learn, where it is not as by default: the control arm is the same search up to the first training.
LEARNING = {"frozen": Retraining(new_minima=0)}

#: Crystals of the transformer that evolution is seeded with, once.
GENERATED_SEEDS = 12


def refined(crystal: Atoms, pool: WorkerPool) -> Relaxed | Failed:
    """Relax a known crystal to 0.01 eV/Å."""
    candidate = Candidate(proposal=Proposal(atoms=crystal, operator="reference"), id=1, source="reference")
    pool.submit(Job(candidate=candidate, atoms=crystal, level=REFINE, limits=Limits(force_calls=1000)))
    (outcome,) = pool.completed(None)
    return outcome


def core_set(crystals: Sequence[Atoms]) -> list[int]:
    """Twelve cells of at most ten atoms and six larger ones, drawn once without looking at anything but their size."""
    rng = np.random.default_rng(0)
    small = [i for i, atoms in enumerate(crystals) if len(atoms) <= SMALL]
    large = [i for i, atoms in enumerate(crystals) if len(atoms) > SMALL]
    return sorted([*rng.choice(small, 12, replace=False).tolist(), *rng.choice(large, 6, replace=False).tolist()])


class References:
    """The crystals themselves, relaxed to 0.01 eV/Å: once a process, because structures are not kept in files."""

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.relaxed: dict[str, Atoms] = {}

    def __call__(self, name: str, atoms: Atoms) -> Atoms:
        if name not in self.relaxed:
            outcome = refined(atoms, self.pool)
            assert isinstance(outcome, Relaxed), f"the reference {name} cannot be relaxed: {outcome}"
            self.relaxed[name] = outcome.atoms
            self._note(name, outcome, atoms)
        return self.relaxed[name]

    @staticmethod
    def _note(name: str, outcome: Relaxed, atoms: Atoms) -> None:
        known = json.loads(REFERENCES.read_text()) if REFERENCES.exists() else {}
        known[name] = known.get(name, {}) | {
            "energy_per_atom": outcome.enthalpy_per_atom,
            "converged": outcome.converged,
            "still_matches_the_crystal": bool(StructureMatcher().fit(to_pymatgen(outcome.atoms), to_pymatgen(atoms))),
            "calculator": outcome.evaluation.calculator,
        }
        temporary = REFERENCES.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(known, indent=1) + "\n")
        temporary.replace(REFERENCES)


class Prototypes(PrototypesSource):
    """The source as it ships, but for the library structures of the benchmark's own compounds (AFLOW has SnS)."""

    name = "prototypes"

    def __init__(self, problem: Problem, formulas: set[str]) -> None:
        library = aflow().without(formulas)
        for what, listed in (("the table", training_formulas()), ("the library", library.formulas)):
            assert not formulas & set(listed), f"{what} of prototypes rests on {sorted(formulas & set(listed))}"
        super().__init__(problem, libraries=[library])


class GeneratedSeeds(GenerativeSource):
    """The first crystals of the transformer, and no more: what a search is seeded with that does not learn."""

    name = "generated-seeds"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem, "wyckoff")
        self.name = "generated-seeds"
        self._given = 0

    def status(self) -> SourceStatus:
        return SourceStatus.EXHAUSTED if self._given >= GENERATED_SEEDS else super().status()

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        super().proposed(candidates)
        self._given += len(candidates)


def source(name: str, problem: Problem, formulas: set[str]) -> Any:
    """Make a source that knows nothing of the benchmark's compounds."""
    if name == "prototypes":
        return Prototypes(problem, formulas)
    generator = "wyckoff" if name == "generated-seeds" else name
    if generator in GENERATORS.entries():
        seen = overlap(read_card(shipped(generator)), formulas)
        assert not seen, f"{generator} was trained on {sorted(seen)}"
    return GeneratedSeeds(problem) if name == "generated-seeds" else name


def run(
    atoms: Atoms,
    method: str,
    seed: int,
    goal: float,
    *,
    formulas: set[str],
    pool: WorkerPool,
    directory: Path,
    earlier: dict[str, Any] | None,
) -> dict[str, Any]:
    """Search the contents of a relaxed crystal with one method until it is solved, or out of relaxations."""
    problem = Problem(atoms.get_chemical_formula(mode="hill"), formula_units=1, max_atoms=max(20, len(atoms)))
    one_shot = ENERGIES.get(method, 1)
    sources = [source(name, problem, formulas) for name in METHODS[method]]
    before = earlier["seconds"] if earlier and directory.exists() else 0.0
    start = time.perf_counter()
    with Search(
        problem,
        sources=sources,
        seed=seed,
        directory=directory,
        backend=pool,
        workers=1,
        one_shot=one_shot,
        retraining=LEARNING.get(method),
    ) as search:
        search.run(relaxations=RELAXATIONS, refine=0, stop_at=goal + SOLVED - UNCHANGED)
        found = history(search, atoms, goal)
        while not found["solved"] and search.archive.state.relaxations < RELAXATIONS:  # it stopped at a hole
            search.run(relaxations=search.archive.state.relaxations + 1, refine=0)
            found = history(search, atoms, goal)
        seconds = before + time.perf_counter() - start
        state = search.archive.state
        return {
            "stopped": "solved" if found.pop("solved") else "relaxations used up",
            "relaxations": state.relaxations,
            "force_calls": state.cost.force_calls,
            "calculator_seconds": round(state.cost.seconds - state.proposing.seconds, 2),
            "proposing_seconds": round(state.proposing.seconds, 2),
            "seconds": round(seconds, 2),
            **found,
            "matched_at": matched_at(search, atoms),
            "tallies": [tally_line(*key, tally) for key, tally in state.tallies.items()],
            "calculator": state.calculator,
        }


def history(search: Search, reference: Atoms, goal: float) -> dict[str, Any]:
    """Read from the record when the best fell, how many minima are holes, and whether the best meets the goal."""
    deepest = reference.get_potential_energy() / len(reference) - HOLE
    improvements: list[tuple[int, int, float]] = []
    holes: set[int] = set()
    relaxations = force_calls = 0
    for event in search.archive.history():
        if not isinstance(event, Relaxed | Failed):
            continue
        relaxations += 1
        force_calls += event.cost.force_calls
        if isinstance(event, Failed) or event.minimum is None:
            continue
        if event.enthalpy_per_atom < deepest:
            holes.add(event.minimum)
        elif not improvements or event.enthalpy_per_atom < improvements[-1][2] - 1e-6:
            improvements.append((relaxations, force_calls, event.enthalpy_per_atom))
    solved = bool(improvements) and improvements[-1][2] <= goal + SOLVED
    return {"solved": solved, "improvements": improvements, "holes": len(holes)}


def matched_at(search: Search, reference: Atoms) -> tuple[int, int] | None:
    """Relaxations and force calls when the reference itself was found."""
    matcher, wanted = StructureMatcher(), to_pymatgen(reference)
    for minimum in sorted(search.minima(), key=lambda minimum: minimum.first_relaxation):
        if matcher.fit(wanted, to_pymatgen(minimum.atoms)):
            return minimum.first_relaxation, minimum.first_force_calls
    return None


def reduced_formulas(crystals: Sequence[Atoms]) -> set[str]:
    return {Formula(str(atoms.symbols)).reduce()[0].format("hill") for atoms in crystals}


def commit() -> str:
    """What this was measured with."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


Key = tuple[str, str, int]


def unfinished(keys: Sequence[Key]) -> list[Key]:
    """Those that were never run, or stopped at what was the lowest at that time and is not any more."""
    best, past = best_known(), past_runs()
    return [key for key in keys if key not in past or not is_finished(past[key], best[key[0]])]


def is_finished(one: dict[str, Any], best: float) -> bool:
    if one["stopped"] != "solved":
        return True
    return bool(one["improvements"][-1][2] <= best + SOLVED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crystals", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, *PEERS])
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--cells", type=int, nargs="+", help="numbers of crystals in the file; by default the core set")
    chosen.add_argument("--all", action="store_true", help="every crystal in the file")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th run from the i-th, to use several cores")
    parser.add_argument("--hours", type=float, help="begin no further run after this time")
    parser.add_argument("--searches", type=Path, default=Path(__file__).parent / ".searches" / "recovery")
    arguments = parser.parse_args()
    console = Console()
    assert {*METHODS, *PEERS} == set(ORDER), "what is run is what is reported"

    crystals = [primitive(atoms) for atoms in ase.io.read(arguments.crystals, ":")]
    formulas = reduced_formulas(crystals)
    numbers = range(len(crystals)) if arguments.all else arguments.cells or core_set(crystals)
    cells = {f"{i}-{crystals[i].get_chemical_formula()}": i for i in numbers}
    index, parts = map(int, arguments.part.split("/"))
    keys = [(name, method, seed) for seed in range(arguments.seeds) for name in cells for method in arguments.methods]
    keys = keys[index::parts]
    hours = len(unfinished(keys)) * RELAXATIONS * SECONDS_PER_RELAXATION / 3600
    console.print(f"{len(unfinished(keys))} of {len(keys)} runs to do, at most about {hours:.1f} core-hours")
    start = time.monotonic()
    RUNS.parent.mkdir(parents=True, exist_ok=True)
    with WorkerPool(Relaxer(), workers=1) as pool:
        references = References(pool)
        while left := unfinished(keys):
            if arguments.hours and time.monotonic() - start > 3600 * arguments.hours:
                console.print(f"time used up with {len(left)} runs to do; run again to go on")
                break
            name, method, seed = left[0]
            reference = references(name, crystals[cells[name]])
            goal = best_known()[name]
            if method in PEERS:
                budget = {"relaxations": RELAXATIONS, "solved": SOLVED, "hole": HOLE}
                found = run_peer(method, reference, {"cell": name, "seed": seed, "goal": goal, **budget})
            else:
                directory = arguments.searches / method / f"{name}-{seed}"
                found = run(
                    reference,
                    method,
                    seed,
                    goal,
                    formulas=formulas,
                    pool=pool,
                    directory=directory,
                    earlier=past_runs().get((name, method, seed)),
                )
            one = {
                "cell": name,
                "atoms": len(reference),
                "elements": len(set(reference.symbols)),
                "method": method,
                "seed": seed,
                "reference": reference.get_potential_energy() / len(reference),
                "goal": goal,
                **found,
                "code": commit(),
                "load": round(os.getloadavg()[0], 1),
                "machine": platform.machine(),
            }
            with RUNS.open("a") as lines:
                lines.write(json.dumps(one) + "\n")
            console.print(
                f"{name} {method} seed {seed}: {one['stopped']} after {one['relaxations']} relaxations, "
                f"{one['force_calls']} force calls, {one['seconds']:.0f} s",
                highlight=False,
            )
    report(console)


if __name__ == "__main__":
    main()
