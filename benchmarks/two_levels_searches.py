"""Run the searches that `two_levels.py` follows up: 60 relaxations of every cell with the sources of the default.

    python benchmarks/two_levels_searches.py HARD.extxyz ... --recovery RECOVERY.extxyz --searches FOLDER

The cells are the hard ones (`hard_cells.py`) and those of at most 12 atoms of the recovery benchmark (`recovery.py`).
The contents of the primitive cell are searched with CHGNet, or with ``--calculator``, seed 1, one worker, and the best
minima are refined, all as by default; a search goes on where it has been stopped, and does not stop when it is solved.
No source knows a formula of the cells: the table and the library of prototypes are those of the nine tenths that
generators learn from, and hold no formula of the recovery benchmark; both are asserted.

Each search is a line of FOLDER/CALCULATOR/searches.jsonl. Run directories are kept in the same folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from hard_cells import Cell, hard_cells, library_of_nine_tenths, table_of_nine_tenths
from rich.console import Console

from hybridcsp import Problem, Search
from hybridcsp.core.outcomes import Failed
from hybridcsp.generators.datasets import formula_of, is_held_out
from hybridcsp.generators.loading import read_card
from hybridcsp.generators.registry import GENERATORS
from hybridcsp.generators.weights_io import overlap, shipped
from hybridcsp.prototypes import Options
from hybridcsp.sources.prototypes import PrototypesSource
from hybridcsp.sources.registry import DEFAULT_SOURCES
from hybridcsp.structure.symmetry import primitive

RELAXATIONS = 60
SEED = 1

#: Largest cells of the recovery benchmark that are searched.
RECOVERY_ATOMS = 12

#: Only to plan: seconds per relaxation and atom with CHGNet, and how much longer the other calculators take.
SECONDS_PER_ATOM = 0.35
SLOWER = {"chgnet": 1.0, "sevennet": 4.4, "sevennet:l3i5": 12.0}


class Prototypes(PrototypesSource):
    """Known prototypes of the nine tenths, without those of formulas that are sought."""

    name = "prototypes"
    __module__ = "__main__"  # recorded by a search, and the same whichever script resumes it

    def __init__(self, problem: Problem, formula: str) -> None:
        table, library = table_of_nine_tenths(), library_of_nine_tenths().without([formula])
        known = {*table.formulas, *library.formulas}
        assert formula not in known, f"the prototypes rest on {formula}, which is sought"
        super().__init__(problem, libraries=[library])
        self._options = Options(problem, table, [library])


def cells(files: Sequence[Path], recovery: Path | None) -> list[Cell]:
    """Return the hard cells and those of the recovery benchmark, in the order in which they are searched."""
    hard = hard_cells(files)
    crystals = [] if recovery is None else [primitive(atoms) for atoms in ase.io.read(recovery, ":")]
    others = [
        Cell(name=f"recovery-{number}-{atoms.get_chemical_formula()}", size="recovery", atoms=atoms)
        for number, atoms in enumerate(crystals)
        if len(atoms) <= RECOVERY_ATOMS
    ]
    assert all(is_held_out(formula_of(cell.atoms)) for cell in hard)
    return [*hard, *others]


def make_search(atoms: Atoms, directory: Path, calculator: str, **more: Any) -> Search:
    """Return the search of a cell, new or with what is in its run directory."""
    formula = formula_of(atoms)
    problem = Problem(atoms.get_chemical_formula(mode="hill"), formula_units=1, max_atoms=max(20, len(atoms)))
    for generator in GENERATORS.entries():
        if generator in DEFAULT_SOURCES:
            seen = overlap(read_card(shipped(generator)), [formula])
            assert not seen, f"{generator} was trained on {formula}"
    sources = [Prototypes(problem, formula) if name == "prototypes" else name for name in DEFAULT_SOURCES]
    return Search(problem, sources=sources, calculator=calculator, seed=SEED, workers=1, directory=directory, **more)


def folder_of(searches: Path, calculator: str) -> Path:
    """Return the folder of the searches with a calculator."""
    return searches / calculator.replace(":", "-")


def finished(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of the finished searches of a folder by cell."""
    lines = folder / "searches.jsonl"
    rows = map(json.loads, lines.read_text().splitlines() if lines.exists() else ())
    return {row["cell"]: row for row in rows}


def commit() -> str:
    """Return the version of the package that is measured."""
    import hybridcsp

    command = ["git", "-C", str(Path(hybridcsp.__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def run(cell: Cell, calculator: str, python: str | None, directory: Path) -> dict[str, Any]:
    start = time.perf_counter()
    chosen = {} if python is None else {"python": python}
    with make_search(cell.atoms, directory, calculator, **chosen) as search:
        search.run(relaxations=RELAXATIONS)
        state = search.archive.state
        failed = [event.reason for event in search.archive.history() if isinstance(event, Failed)]
        return {
            "cell": cell.name,
            "size": cell.size,
            "atoms": len(cell.atoms),
            "calculator": calculator,
            "label": state.calculator,
            "relaxations": state.relaxations,
            "failed": {str(reason): failed.count(reason) for reason in sorted(set(failed), key=str)},
            "force_calls": state.cost.force_calls,
            "calculator_seconds": round(state.cost.seconds - state.proposing.seconds, 2),
            "proposing_seconds": round(state.proposing.seconds, 2),
            "seconds_of_this_run": round(time.perf_counter() - start, 2),
            "minima": len(search.minima()),
            "code": commit(),
            "load": round(os.getloadavg()[0], 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="the files that hard_cells.py read")
    parser.add_argument("--recovery", type=Path)
    parser.add_argument("--searches", type=Path, default=Path(__file__).parent / ".searches" / "two_levels")
    parser.add_argument("--calculator", default="chgnet", choices=list(SLOWER))
    parser.add_argument("--python", help="interpreter of that calculator, by default the environment installed for it")
    parser.add_argument("--sizes", nargs="+", default=["small", "large", "recovery"])
    parser.add_argument("--cells", nargs="+", help="names of cells, in place of all")
    parser.add_argument("--hours", type=float, help="begin no further search after this time")
    arguments = parser.parse_args()
    console = Console()
    folder = folder_of(arguments.searches, arguments.calculator)
    folder.mkdir(parents=True, exist_ok=True)
    done = finished(folder)
    left = [cell for cell in cells(arguments.files, arguments.recovery) if cell.name not in done]
    left = [cell for cell in left if cell.size in arguments.sizes and cell.name in (arguments.cells or [cell.name])]
    seconds = sum(RELAXATIONS * SECONDS_PER_ATOM * len(cell.atoms) for cell in left) * SLOWER[arguments.calculator]
    console.print(f"{len(left)} searches to do, about {seconds / 3600:.1f} core-hours", highlight=False)
    start = time.monotonic()
    for cell in left:
        if arguments.hours and time.monotonic() - start > 3600 * arguments.hours:
            console.print("time used up; run again to go on")
            break
        one = run(cell, arguments.calculator, arguments.python, folder / cell.name)
        with (folder / "searches.jsonl").open("a") as stream:
            stream.write(json.dumps(one) + "\n")
        console.print(
            f"{cell.name}: {one['relaxations']} relaxations, {one['force_calls']} force calls, "
            f"{one['calculator_seconds']:.0f} + {one['proposing_seconds']:.0f} s, {one['minima']} minima",
            highlight=False,
        )


if __name__ == "__main__":
    main()
