"""Which method finds the known structure of a cell, and at what cost?

    python benchmarks/recovery.py DATA                                       # what is missing of the hard set
    python benchmarks/recovery.py DATA --sets hard large easy --arms random default evolution --relaxations 300
    python benchmarks/recovery.py DATA --arms default default@before --package before=/path/to/another/checkout
    python benchmarks/recovery.py DATA --arms ase-ga cryspy --groups small   # other codes: see peers/README.md
    python benchmarks/recovery.py --only-table                               # print what is recorded

DATA is a folder with recovery_public.extxyz (set *easy*), mp20_train.extxyz and mpts52_train.extxyz (sets *hard*, cells
of 5 to 10 and of 12 to 20 atoms, and *large*, cells of 21 to 40 atoms, all of them chosen by `hard_cells.py`).

The contents of the primitive cell of each crystal are searched, one worker. The crystal itself is relaxed with the same
calculator to 0.01 eV/Å. *Solved*: a minimum at most 2 meV/atom above it, or below it. *Found*: the crystal itself is
among the minima (StructureMatcher of pymatgen with its default tolerances). A search ends when it has done both, or
when its relaxations are used up. Minima more than 150 meV/atom below the crystal are holes of the potential: they are
counted and left out.

No source knows what is sought, which is asserted in every search: the cards of the generators' weights do not name the
formulas, and they are not in the table and the library of prototypes; for *hard* and *large* these are those of the
nine tenths of formulas that generators learn from. See `recovery_run.py`.

An arm ``NAME@PACKAGE`` is run with another checkout of the package, which ``--package`` names; ``before`` is the
version before the searches that need no known prototype (a git worktree of commit 62f3aec). Arms with a part of the
default left out are in `recovery_arms.py`; ``--arm NAME=JSON`` adds one.

Each run is a line of results/recovery_sets_runs.jsonl (energies and costs, no structures); the last line of a run
counts, and what is finished is not run again, unless ``--anew`` and the code has changed. Runs are ordered by seed,
then cell, then arm, so that what is recorded is always balanced. A run with more relaxations continues an earlier one,
if its run directory is still there and was made by the same version of the code.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from known_crystals import relaxed
from peers import PEERS, run_peer
from pymatgen.analysis.structure_matcher import StructureMatcher
from recovery_arms import ARMS, PRESENT, Arm, Target, targets
from recovery_table import HOLE, REFERENCES, RUNS, SOLVED, past_runs, report
from rich.console import Console

from hybridcsp.core.outcomes import Relaxed
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.relaxation.calculators.registry import prepare_calculator
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.structure.conversion import to_pymatgen

HERE = Path(__file__).resolve().parent

#: Only to plan: seconds of a relaxation for each atom, and how much longer other calculators take.
SECONDS_PER_ATOM = 0.35
SLOWER = {"chgnet": 1.0, "sevennet": 4.4, "sevennet:l3i5": 12.0}

#: Share of the largest number of relaxations that runs do on average before they are finished; only to plan.
USED = 0.8


@dataclass(frozen=True, kw_only=True, eq=False)
class Planned:
    """One run.

    Attributes
    ----------
    target
        The crystal that is searched for.
    arm
        Name of the arm, with ``@`` and the name of its package if that is not the present one.
    calculator, seed
        Name of the calculator, and random seed.
    """

    target: Target
    arm: str
    calculator: str
    seed: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What the lines of the results are told apart by."""
        return self.target.name, self.arm, self.calculator, self.seed

    @property
    def folder(self) -> Path:
        """Folder of the run within that of all searches."""
        return Path(self.calculator.replace(":", "-"), self.arm, f"{self.target.name}-{self.seed}")


class BrokenRun(Exception):
    """The process of a run ended with an error."""


class References:
    """The crystals, relaxed to 0.01 eV/Å with a calculator; they are kept beside the searches.

    Parameters
    ----------
    folder
        Where the relaxed crystals are kept.
    python
        Interpreter of the calculator, by default its own.
    """

    def __init__(self, folder: Path, python: str | None) -> None:
        self._folder, self._python = folder, python

    def __call__(self, target: Target, calculator: str) -> Path:
        """Return the file of the relaxed crystal."""
        file = self._folder / calculator.replace(":", "-") / f"{target.name}.extxyz"
        if not file.exists():
            outcome = self._relaxed(target.atoms, calculator)
            assert isinstance(outcome, Relaxed), f"{target.name} cannot be relaxed with {calculator}: {outcome}"
            self._note(target, calculator, outcome)
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(f"{target.name}.{os.getpid()}.tmp.extxyz")
            ase.io.write(temporary, outcome.atoms)
            temporary.replace(file)
        return file

    def _relaxed(self, atoms: Atoms, calculator: str) -> Any:
        choice = CalculatorChoice(calculator=calculator, **({} if self._python is None else {"python": self._python}))
        prepare_calculator(choice)
        with WorkerPool(Relaxer(calculator=choice), workers=1) as pool:
            return relaxed(atoms, pool)

    @staticmethod
    def _note(target: Target, calculator: str, outcome: Relaxed) -> None:
        known = json.loads(REFERENCES.read_text()) if REFERENCES.exists() else {}
        known.setdefault(calculator, {})[target.name] = {
            "energy_per_atom": outcome.enthalpy_per_atom,
            "converged": outcome.converged,
            "still_matches_the_crystal": bool(
                StructureMatcher().fit(to_pymatgen(outcome.atoms), to_pymatgen(target.atoms))
            ),
            "calculator": outcome.evaluation.calculator,
        }
        temporary = REFERENCES.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        temporary.replace(REFERENCES)


def run(
    planned: Planned,
    arm: Arm,
    reference: Path,
    folder: Path,
    *,
    package: Path,
    relaxations: int,
    python: str | None,
    anew: bool,
    earlier: dict[str, Any] | None,
) -> dict[str, Any]:
    """Run the search of an arm in its own process, and return its line."""
    folder.mkdir(parents=True, exist_ok=True)
    code, version = commit(package), folder / "version"
    anew = anew or not version.exists() or version.read_text() != code
    version.write_text(code)
    target = planned.target
    task = {
        "package": str(package),
        "folder": str(folder),
        "reference": str(reference),
        "formulas": sorted(target.hidden),
        "nine_tenths": target.nine_tenths,
        "sources": list(arm.sources),
        "settings": arm.settings,
        "constants": arm.constants,
        "seed": planned.seed,
        "calculator": planned.calculator,
        "python": python,
        "relaxations": relaxations,
        "solved": SOLVED,
        "hole": HOLE,
        "anew": anew,
    }
    (folder / "task.json").write_text(json.dumps(task, indent=1))
    (folder / "result.json").unlink(missing_ok=True)
    with (folder / "log.txt").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-P", str(HERE / "recovery_run.py"), str(folder / "task.json")],
            env={**os.environ, "PYTHONPATH": str(package), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    if done.returncode:
        end = (folder / "log.txt").read_text()[-3000:]
        raise BrokenRun(f"{planned.key} ended with {done.returncode}; {folder / 'log.txt'} ends with:\n{end}")
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    resumed = found.pop("resumed")
    if resumed and earlier is not None:
        _add_times(found, earlier)
    # The processor time of a session that was killed is not known.
    return {**found, "partial": resumed and earlier is None, "code": code}


def _add_times(found: dict[str, Any], earlier: dict[str, Any]) -> None:
    """Add what the earlier sessions of the same search took."""
    for name in ("seconds", "worker_processor_seconds"):
        found[name] = round(found[name] + earlier[name], 2)
    for name, seconds in earlier["processor"].items():
        found["processor"][name] = round(found["processor"].get(name, 0.0) + seconds, 2)


def run_other(planned: Planned, reference: Path, relaxations: int) -> dict[str, Any]:
    """Run another code, and return its line."""
    atoms = ase.io.read(reference)
    goal = atoms.get_potential_energy() / len(atoms) + SOLVED
    task = {"seed": planned.seed, "goal": goal, "relaxations": relaxations, "hole": HOLE}
    task["calculator"] = planned.calculator
    return {**run_peer(planned.arm, atoms, task), "code": commit(HERE.parent)}


def commit(package: Path) -> str:
    """Return the version of the code in a checkout."""
    command = ["git", "-C", str(package), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def unfinished(plan: Sequence[Planned], relaxations: int, packages: dict[str, Path], *, anew: bool) -> list[Planned]:
    """Return the runs that have no line yet, or one of fewer relaxations, or with ``anew`` one of another version."""
    past, codes = past_runs(), {name: commit(path) for name, path in packages.items()}
    left = []
    for planned in plan:
        line = past.get(planned.key)
        code = codes[package_of(planned.arm)]
        if line is None or (anew and line["code"] != code) or not is_finished(line, relaxations):
            left.append(planned)
    return left


def is_finished(line: dict[str, Any], relaxations: int) -> bool:
    """Return whether more relaxations than a run has done would not belong to it."""
    return line["relaxations"] >= relaxations or line["stopped"] != "relaxations used up"


def raise_budgets(plan: Sequence[Planned], relaxations: int) -> None:
    """Note of the finished runs of smaller budgets that they would not have used a larger one."""
    past = past_runs()
    lines = [past[planned.key] for planned in plan if planned.key in past]
    for line in lines:
        if line["budget"] < relaxations and is_finished(line, relaxations):
            record({**line, "budget": relaxations})


def record(line: dict[str, Any]) -> None:
    """Append a line to the results."""
    RUNS.parent.mkdir(parents=True, exist_ok=True)
    with RUNS.open("a") as lines:
        lines.write(json.dumps(line) + "\n")


def package_of(arm: str) -> str:
    """Return the name of the package of an arm."""
    return arm.partition("@")[2] or PRESENT


def hours(left: Sequence[Planned], relaxations: int) -> float:
    """Return about how many core-hours the runs take."""
    past = past_runs()
    return sum(
        USED
        * (relaxations - (past[planned.key]["relaxations"] if planned.key in past else 0))
        * len(planned.target.atoms)
        * SECONDS_PER_ATOM
        * SLOWER.get(planned.calculator, 1.0)
        / 3600
        for planned in left
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of the crystals")
    parser.add_argument("--sets", nargs="+", default=["hard"], choices=["easy", "hard", "large"])
    parser.add_argument("--groups", nargs="+", help="words of the size groups, in place of all: 'small' is '5 to 10'")
    parser.add_argument("--cells", nargs="+", help="names of cells, in place of all")
    parser.add_argument("--all", action="store_true", help="every crystal of the easy set, in place of its core")
    parser.add_argument("--arms", nargs="+", default=["random", "default"])
    parser.add_argument("--arm", action="append", default=[], metavar="NAME=JSON", help="a further arm")
    parser.add_argument("--package", action="append", default=[], metavar="NAME=PATH", help="another checkout")
    parser.add_argument("--calculators", nargs="+", default=["chgnet"])
    parser.add_argument("--python", help="interpreter of the calculator, by default the environment installed for it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--relaxations", type=int, default=60)
    parser.add_argument("--part", default="0/1", help="i/n: every n-th run from the i-th, to use several cores")
    parser.add_argument("--hours", type=float, help="begin no further run after this time")
    parser.add_argument("--anew", action="store_true", help="repeat runs of another version of the code")
    parser.add_argument("--plan", action="store_true", help="print the planned runs, and run nothing")
    parser.add_argument("--only-table", action="store_true")
    parser.add_argument("--searches", type=Path, default=HERE / ".searches" / "recovery")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.only_table:
        parser.error("the folder of the crystals is missing")
    arguments.searches = arguments.searches.resolve()
    arguments.packages = {PRESENT: HERE.parent} | {
        name: Path(path).resolve() for name, _, path in (text.partition("=") for text in arguments.package)
    }
    arguments.known = ARMS | {
        name: Arm(**json.loads(fields)) for name, _, fields in (text.partition("=") for text in arguments.arm)
    }
    for arm in arguments.arms:
        name = arm.partition("@")[0]
        if name not in arguments.known and name not in PEERS:
            parser.error(f"there is no arm {name!r}, only {', '.join([*arguments.known, *PEERS])}")
        if package_of(arm) not in arguments.packages:
            parser.error(f"{arm} needs --package {package_of(arm)}=PATH")
    return arguments


GROUPS = {"small": "5 to 10 atoms", "large": "12 to 20 atoms", "larger": "21 to 40 atoms"}


def planned_runs(arguments: argparse.Namespace) -> Iterator[Planned]:
    """Yield the runs, by seed, calculator, cell and arm; small and large cells of a set take turns."""
    found = targets(arguments.data, arguments.sets, every=arguments.all)
    groups = [GROUPS.get(name, name) for name in arguments.groups or ()]
    found = [target for target in found if not groups or any(group in target.group for group in groups)]
    found = [target for target in found if not arguments.cells or target.name in arguments.cells]
    places: dict[str, int] = {}
    turns = []
    for target in found:
        places[target.group] = place = places.get(target.group, -1) + 1
        turns.append((arguments.sets.index(target.set), place, target))
    turns.sort(key=lambda turn: turn[:2])
    for seed in arguments.seeds:
        for calculator in arguments.calculators:
            for *_, target in turns:
                for arm in arguments.arms:
                    yield Planned(target=target, arm=arm, calculator=calculator, seed=seed)


def main() -> None:
    arguments = parse()
    console = Console(width=160)
    if arguments.only_table:
        report(console)
        return
    index, parts = map(int, arguments.part.split("/"))
    plan = list(planned_runs(arguments))[index::parts]

    def missing() -> list[Planned]:
        return unfinished(plan, arguments.relaxations, arguments.packages, anew=arguments.anew)

    left = missing()
    expected = hours(left, arguments.relaxations)
    console.print(f"{len(left)} of {len(plan)} runs to do, about {expected:.1f} core-hours", highlight=False)
    if arguments.plan:
        for planned in left:
            console.print("  ".join(map(str, planned.key)), highlight=False)
        return
    raise_budgets(plan, arguments.relaxations)
    references = References(arguments.searches / "references", arguments.python)
    start = time.monotonic()
    broken: dict[tuple[str, str, str, int], str] = {}
    while left := [planned for planned in missing() if planned.key not in broken]:
        if arguments.hours is not None and time.monotonic() - start > 3600 * arguments.hours:
            console.print(f"time used up with {len(left)} runs to do; run again to go on")
            break
        planned = left[0]
        reference = references(planned.target, planned.calculator)
        name = planned.arm.partition("@")[0]
        if name in PEERS:
            found = run_other(planned, reference, arguments.relaxations)
        else:
            try:
                found = run(
                    planned,
                    arguments.known[name],
                    reference,
                    arguments.searches / planned.folder,
                    package=arguments.packages[package_of(planned.arm)],
                    relaxations=arguments.relaxations,
                    python=arguments.python,
                    anew=arguments.anew,
                    earlier=past_runs().get(planned.key),
                )
            except BrokenRun as error:
                broken[planned.key] = str(error)
                console.print(str(error), highlight=False, markup=False)
                continue
        relaxed = ase.io.read(reference)
        line = {
            "set": planned.target.set,
            "group": planned.target.group,
            "cell": planned.target.name,
            "atoms": len(relaxed),
            "elements": len(set(relaxed.symbols)),
            "arm": planned.arm,
            "calculator": planned.calculator,
            "seed": planned.seed,
            "budget": arguments.relaxations,
            "reference": float(relaxed.get_potential_energy()) / len(relaxed),
            **found,
            "machine": platform.machine(),
        }
        record(line)
        console.print(
            f"{planned.target.name} {planned.arm} {planned.calculator} seed {planned.seed}: {line['stopped']}; solved "
            f"{line['solved_at']}, found {line['found_at']}, {line['relaxations']} relaxations, "
            f"{line['force_calls']} force calls, {line['seconds']:.0f} s",
            highlight=False,
        )
    report(console)
    if broken:
        raise SystemExit(f"{len(broken)} runs ended with an error and are not recorded: {', '.join(map(str, broken))}")


if __name__ == "__main__":
    main()
