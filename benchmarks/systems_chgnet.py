"""How many of the phases on CHGNet's hull of V-O and of Mg-Mn-O does a search of the chemical system find?

    python benchmarks/systems_chgnet.py DATA run                  # what is missing of the plan, resumable
    python benchmarks/systems_chgnet.py DATA run --hours 2        # begin no further piece after two hours
    python benchmarks/systems_chgnet.py report

DATA is a folder with mp20_train.extxyz and mpts52_train.extxyz. *Known phases* are their crystals of the system with at
most 12 atoms in the primitive cell, relaxed with CHGNet to 0.01 eV/Å. These files hold no crystal of V or Mn, and the
known crystals of Mn are larger; for such an element the lowest of bcc, fcc and hcp stands for it. A known phase on the
hull of these is *reached* when a minimum of its composition lies at most 2 meV/atom above it, and *found* when a
minimum within 2 meV/atom of it also is the same crystal to pymatgen's StructureMatcher (default tolerances). The report
also lists what lies below the known hull. It gives the phases reached of those on the hull of all known and found
phases, and the mean height of the hull of a search above that one, at the compositions searched.

Arms, both with compositions by the expected improvement of the hull: ``random``, random crystals alone; ``default``,
the optimisers and prototypes of the default. The generators that learn are left out: their shipped weights were
trained on formulas of the same systems. For the same reason the table and the library of prototypes are used without
any formula of the two systems, their elements included. Statistics of elements (volumes, distances, equations of
state) are those that are shipped.

Each search goes on in pieces of 50 relaxations, both arms of a system and seed in turn, so that what is recorded is
balanced whenever it ends. After each piece a line is added to results/systems_chgnet_runs.jsonl; the last line of a
run counts. The searches themselves are in benchmarks/.searches; where one is missing it begins again and comes to the
same. Results hold energies and labels, no structures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii
from ase.formula import Formula
from pymatgen.analysis.structure_matcher import StructureMatcher
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from hard_cells import table_without
from recovery_arms import TRAINING
from recovery_run import replace_prototypes
from run_lines import append_line, read_lines
from systems import FOUND, OPTIMISERS, TRANSFER, collect, excess, hull_of, lowest_of

from hybridcsp import Search, System, prototypes
from hybridcsp.core.hull import Hull
from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.records import REFINE, Candidate, Job, Limits, Proposal
from hybridcsp.prototypes import aflow, identify, shipped_table
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.relaxation.calculators.registry import prepare_calculator
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.retraining import Retraining
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.structure.symmetry import primitive

HERE = Path(__file__).resolve().parent
RUNS, KNOWN = HERE / "results" / "systems_chgnet_runs.jsonl", HERE / "results" / "systems_chgnet_references.json"

#: Largest number of atoms in the formula units of the compositions by system, and in the cells.
GRIDS, MAX_ATOMS = {"V-O": 7, "Mg-Mn-O": 5}, 12

ARMS = {"default": [*OPTIMISERS, TRANSFER], "random": ["random"]}

RELAXATIONS, PIECE = 400, 50

#: Height in eV/atom above the hull of the known phases up to which one counts as on it.
ON_HULL = 1e-6

#: Processor seconds of a relaxation, for the planned time.
SECONDS_PER_RELAXATION = 4.0

#: Numbers of relaxations at which the report shows what was found.
SHOWN = (100, 200, 300, 400)


def known_crystals(data: Path, system: System) -> dict[str, Atoms]:
    """Return the crystals of a system in the files, and lattices of elements that are not in them, by their labels."""
    found = {}
    for file in TRAINING:
        for atoms in ase.io.iread(data / file, ":"):
            if set(atoms.symbols) <= set(system.elements) and len(cell := primitive(atoms)) <= MAX_ATOMS:
                found[f"{atoms.info['material_id']}-{cell.get_chemical_formula()}"] = cell
    for element in system.elements:
        if not any(set(atoms.symbols) == {element} for atoms in found.values()):
            distance = 2 * covalent_radii[atomic_numbers[element]]
            for lattice, ratio in {"bcc": 2 / np.sqrt(3), "fcc": np.sqrt(2), "hcp": 1.0}.items():
                found[f"{lattice}-{element}"] = bulk(element, lattice, a=ratio * distance)
    return found


def relax_known(data: Path, name: str, system: System, folder: Path) -> dict[str, Atoms]:
    """Return the known phases, relaxed with CHGNet; their energies and prototypes are noted in the results."""
    noted = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    found = {}
    choice = CalculatorChoice(calculator="chgnet")
    prepare_calculator(choice)
    with ExitStack() as stack:
        pool: WorkerPool | None = None
        for label, atoms in known_crystals(data, system).items():
            file = folder / name / f"{label}.extxyz"
            if not file.exists():
                pool = pool or stack.enter_context(WorkerPool(Relaxer(calculator=choice), workers=1))
                candidate = Candidate(proposal=Proposal(atoms=atoms, operator="reference"), id=1, source="reference")
                pool.submit(Job(candidate=candidate, atoms=atoms, level=REFINE, limits=Limits(force_calls=1000)))
                (outcome,) = pool.completed(None)
                if isinstance(outcome, Failed):
                    print(f"{name}: {label} cannot be relaxed ({outcome.reason})", flush=True)
                    continue
                file.parent.mkdir(parents=True, exist_ok=True)
                ase.io.write(file, outcome.atoms)
            found[label] = ase.io.read(file)
    energies = {label: found[label].get_potential_energy() / len(found[label]) for label in found}
    hull = hull_of_known(system, [(system.formula_of(found[label].numbers), energies[label]) for label in found])
    noted[name] = {
        label: {
            "formula": (formula := system.formula_of(atoms.numbers)),
            "atoms": len(atoms),
            "energy_per_atom": round(float(energies[label]), 6),
            "height": round(hull.height(formula, energies[label]), 6),
            "prototype": str(prototype[0]) if (prototype := identify(atoms)) else None,
        }
        for label, atoms in found.items()
    }
    KNOWN.write_text(json.dumps(noted, indent=1) + "\n")
    return {label: atoms for label, atoms in found.items() if noted[name][label]["height"] < ON_HULL}


def hull_of_known(system: System, phases: Iterable[tuple[str, float]]) -> Hull:
    """Return the hull of phases, given by their formulas and energies per atom."""
    lowest: dict[str, float] = {}
    for formula, energy in phases:
        lowest[formula] = min(float(energy), lowest.get(formula, np.inf))
    return hull_of(system, lowest)


def execute(run: Mapping[str, Any], system: System, known: Mapping[str, Atoms], folder: Path) -> dict[str, Any]:
    """Continue a search up to a number of relaxations, and return its line."""
    minima: list[tuple[int, str, float]] = []
    start = time.perf_counter()
    with Search(
        system,
        directory=folder / run["system"] / f"{run['arm']}-{run['seed']}",
        calculator="chgnet",
        workers=1,
        sources=ARMS[run["arm"]],
        seed=run["seed"],
        retraining=Retraining(new_minima=0),
    ) as search:
        search.run(relaxations=run["relaxations"], refine=0)
        collect(search.archive, system, minima, 0)
        costs = [
            past.cost.force_calls for past in search.archive.history() if isinstance(past, Relaxed | Failed)
        ]  # nothing is refined
        reasons = Counter(str(past.reason) for past in search.archive.history() if isinstance(past, Failed))
        matched = {label: where for label, atoms in known.items() if (where := first_match(search, system, atoms))}
    return {
        **run,
        "force_calls": sum(costs),
        "calls": costs,
        "seconds_of_piece": round(time.perf_counter() - start, 1),
        "failed": dict(reasons),
        "minima": minima,
        "matched": matched,
        "load": round(os.getloadavg()[0], 1),
    }


def first_match(search: Search, system: System, known: Atoms) -> tuple[int, int] | None:
    """Return the relaxations and force calls when a known phase was found."""
    matcher, wanted = StructureMatcher(), to_pymatgen(known)
    formula, energy = system.formula_of(known.numbers), known.get_potential_energy() / len(known)
    found = [
        (one.first_relaxation, one.first_force_calls)
        for one in search.minima()
        if one.composition == formula
        and abs(one.enthalpy_per_atom - energy) <= FOUND
        and matcher.fit(wanted, to_pymatgen(one.atoms))
    ]
    return min(found, default=None)


def pieces(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the pieces of the searches in their order."""
    for seed in options.seeds:
        for system in options.systems:
            for relaxations in range(PIECE, RELAXATIONS + 1, PIECE):
                for arm in options.arms:
                    yield {"system": system, "arm": arm, "seed": seed, "relaxations": relaxations}


def last_lines() -> dict[tuple[str, str, int], dict[str, Any]]:
    """Return the last line of each run."""
    return {key_of(line): line for line in read_lines(RUNS)}


def key_of(run: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return what a run is told apart by."""
    return run["system"], run["arm"], run["seed"]


def command_run(options: argparse.Namespace) -> None:
    done = {key: line["relaxations"] for key, line in last_lines().items()}
    todo = [one for one in pieces(options) if one["relaxations"] > done.get(key_of(one), 0)]
    hours = len(todo) * PIECE * SECONDS_PER_RELAXATION / 3600
    print(f"{len(todo)} pieces to do, about {hours:.1f} core-hours", flush=True)
    # No source knows a formula of these systems.
    hidden = {formula for formula in {*shipped_table().formulas, *aflow().formulas} if of_systems(formula)}
    replace_prototypes(table_without(hidden.__contains__), aflow().without(hidden))
    assert not any(map(of_systems, prototypes.training_formulas()))
    print(f"{len(hidden)} formulas are left out of the prototypes: {', '.join(sorted(hidden))}", flush=True)
    start = time.monotonic()
    known: dict[str, Any] = {}
    for one in todo:
        if options.hours is not None and time.monotonic() - start > 3600 * options.hours:
            print("time used up; repeat the command to continue")
            return
        name = one["system"]
        system = system_of(name)
        if name not in known:
            known[name] = relax_known(options.data, name, system, options.searches / "known")
            print(f"{name}: on the hull of the known phases: {', '.join(known[name])}", flush=True)
        line = execute(one, system, known[name], options.searches)
        append_line(RUNS, line)
        print(*one.values(), line["force_calls"], "force calls,", line["seconds_of_piece"], "s,", len(line["matched"]),
              "of", len(known[name]), "known phases found", flush=True)  # fmt: skip


def of_systems(formula: str) -> bool:
    """Return whether a formula has only elements of one of the systems."""
    return any(set(Formula(formula).count()) <= set(name.split("-")) for name in GRIDS)


def system_of(name: str) -> System:
    """Return a system."""
    return System(name, composition_grid=GRIDS[name], max_atoms=MAX_ATOMS)


def command_report(_: argparse.Namespace) -> None:
    console = Console(width=150)
    noted = json.loads(KNOWN.read_text())
    lines = sorted(last_lines().values(), key=lambda line: (line["arm"], line["seed"]))
    for name in GRIDS:
        system, own = system_of(name), [line for line in lines if line["system"] == name]
        if not own:
            continue
        known = hull_of_known(system, [(one["formula"], one["energy_per_atom"]) for one in noted[name].values()])
        whole = hull_of_known(system, [*known.enthalpies.items(), *lowest_of(own).items()])
        wanted = {label: one for label, one in noted[name].items() if one["height"] < ON_HULL}
        table = Table(title=f"{name}, {len(wanted)} known phases on the hull")
        headings = (
            "arm",
            "seed",
            "relaxations",
            "force calls",
            "found",
            "reached",
            "of all phases",
            "excess, meV/atom",
        )
        for heading in headings:
            table.add_column(heading, justify="right")
        for line in own:
            for relaxations in [*(n for n in SHOWN if n < line["relaxations"]), line["relaxations"]]:
                at = found_within(line, system, whole, wanted, relaxations)
                values = (at["calls"], at["found"], at["reached"], at["of_all"], f"{at['excess_mev']:.1f}")
                table.add_row(line["arm"], *map(str, (line["seed"], relaxations, *values)))
        console.print(table)
        for line in own:
            heights = {formula: known.height(formula, energy) for formula, energy in lowest_of([line]).items()}
            lower = [f"{formula} {1000 * height:.0f}" for formula, height in heights.items() if height < -FOUND]
            print(f"{line['arm']}, seed {line['seed']}:")
            print("    heights below the known hull in meV/atom:", ", ".join(lower) or "none")
            print("    known phases not found:", ", ".join(sorted(set(wanted) - set(line["matched"]))) or "none")
            print("    failures:", line["failed"] or "none")


def found_within(
    line: Mapping[str, Any], system: System, whole: Hull, wanted: Mapping[str, Any], relaxations: int
) -> dict[str, Any]:
    """Return the force calls of the first relaxations of a search, and what it found of the known phases by then."""
    calls = sum(line["calls"][:relaxations])
    lowest = lowest_of([{"minima": [one for one in line["minima"] if one[0] <= calls]}])
    energies = [(one["energy_per_atom"], lowest.get(one["formula"], np.inf)) for one in wanted.values()]
    stable = [(whole.enthalpies[formula], lowest.get(formula, np.inf)) for formula in whole.stable]
    return {
        "calls": calls,
        "found": sum(where[1] <= calls for where in line["matched"].values()),
        "reached": sum(own <= energy + FOUND for energy, own in energies),
        "of_all": f"{sum(own <= energy + FOUND for energy, own in stable)} of {len(stable)}",
        "excess_mev": 1000 * excess(line, system, whole, calls),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of the crystals")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run")
    run.add_argument("--systems", nargs="+", choices=GRIDS, default=list(GRIDS))
    run.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    run.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    run.add_argument("--hours", type=float, help="begin no further piece after this time")
    run.add_argument("--searches", type=Path, default=HERE / ".searches" / "systems_chgnet")
    run.set_defaults(command=command_run)
    commands.add_parser("report").set_defaults(command=command_report)
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
