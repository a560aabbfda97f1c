"""How often is the known crystal ranked first, by CHGNet alone and after follow-up relaxations with SevenNet?

    python benchmarks/two_levels_searches.py MP20.extxyz MPTS52.extxyz --recovery RECOVERY.extxyz   # first
    python benchmarks/two_levels.py MP20.extxyz MPTS52.extxyz --recovery RECOVERY.extxyz [--python SEVENNET_PYTHON]
    python benchmarks/two_levels.py --only-table

The arms are the searches with CHGNet themselves, the same searches followed up with SevenNet-0 and with SevenNet-l3i5
(each in a copy of the run directory, the default window: the best 20 minima and all within 100 meV/atom, families
once), and searches wholly with SevenNet-0, of as many cells as were searched.

The known crystal is relaxed to 0.01 eV/Å with the calculator of each level. For each cell and arm:

- *found*: a minimum of the search, before or after the follow-up, matches the known crystal as relaxed with either
  calculator of the arm (pymatgen's StructureMatcher, default tolerances);
- *first*: such a minimum is at most 2 meV/atom above the lowest of the ranking that counts. A minimum that was found,
  but not followed up, is not first;
- *lowest*: independent of what was found, the known crystal is at most 2 meV/atom above the five minima that the search
  ranked best, by the last calculator; also above all minima of the last calculator;
- *tau*: Kendall's τ between the enthalpies of the minima by the search and by the follow-up;
- force calls and seconds, proposing included, of the search and of the follow-up. *Ratio* is that of the seconds. The
  searches and the follow-ups of the table ran under different loads; *by calls* is the ratio of the time in the
  calculators on a machine of constant load: the ratio of the force calls times that of the milliseconds per call
  (results/potentials.json, interpolated in the number of atoms).

Shares have Wilson's 95 % interval; means and ratios one of 10,000 bootstraps over cells. Each cell and arm is a line of
results/two_levels_runs.jsonl (no structures), and what is there is not done again. Nothing is tuned on these cells.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from known_crystals import relaxed
from pymatgen.analysis.structure_matcher import StructureMatcher
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau
from two_levels_searches import RELAXATIONS, Cell, cells, commit, finished, folder_of, make_search

from hybridcsp.archive.archive import Archive
from hybridcsp.core.minimum import Minimum
from hybridcsp.core.outcomes import Relaxed
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.search.follow_up import FollowUp
from hybridcsp.structure.conversion import to_pymatgen

RESULTS = Path(__file__).parent / "results"
RUNS = RESULTS / "two_levels_runs.jsonl"
TABLE = RESULTS / "two_levels.json"

POTENTIALS = RESULTS / "potentials.json"

#: Largest difference in eV/atom at which two crystals count as equally low.
SAME = 0.002

#: A minimum this far (eV/atom) below the known crystal counts as a hole of the potential.
HOLE = 0.150


@dataclass(frozen=True)
class Arm:
    """A search and what follows it.

    Attributes
    ----------
    name
        Name in the table.
    search
        Calculator of the search.
    then
        Follow-up calculator, or ``None``.
    """

    name: str
    search: str
    then: str | None = None

    @property
    def last(self) -> str:
        return self.then or self.search


ARMS = (
    Arm("CHGNet", "chgnet"),
    Arm("CHGNet -> SevenNet-0", "chgnet", "sevennet"),
    Arm("CHGNet -> SevenNet-l3i5", "chgnet", "sevennet:l3i5"),
    Arm("SevenNet-0", "sevennet"),
)


class References:
    """Known crystals relaxed to 0.01 eV/Å with a calculator, kept beside the searches."""

    def __init__(self, searches: Path, python: str | None, stack: ExitStack) -> None:
        self._folder = searches / "references"
        self._python = python
        self._stack = stack
        self._pools: dict[str, WorkerPool] = {}

    def __call__(self, cell: Cell, calculator: str) -> Atoms:
        file = folder_of(self._folder, calculator) / f"{cell.name}.extxyz"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_suffix(".tmp")
            ase.io.write(temporary, self._relaxed(cell.atoms, calculator), format="extxyz")
            temporary.replace(file)
        return ase.io.read(file)

    def _relaxed(self, atoms: Atoms, calculator: str) -> Atoms:
        if calculator not in self._pools:
            pool = WorkerPool(Relaxer(calculator=choice(calculator, self._python)), workers=1)
            self._pools[calculator] = self._stack.enter_context(pool)
        outcome = relaxed(atoms, self._pools[calculator])
        assert isinstance(outcome, Relaxed), f"{atoms.symbols} cannot be relaxed with {calculator}: {outcome}"
        found = Atoms(outcome.atoms.numbers, positions=outcome.atoms.positions, cell=outcome.atoms.cell, pbc=True)
        found.info |= {"enthalpy_per_atom": outcome.enthalpy_per_atom, "converged": outcome.converged}
        found.info["same"] = bool(StructureMatcher().fit(to_pymatgen(found), to_pymatgen(atoms)))
        return found


def choice(calculator: str, python: str | None) -> CalculatorChoice:
    """Return a calculator with its interpreter; CHGNet runs in this one."""
    return CalculatorChoice(calculator=calculator, python=python if calculator.startswith("sevennet") else None)


def followed_up(cell: Cell, arm: Arm, searches: Path, python: str | None) -> Path:
    """Follow up a copy of the search of a cell, or go on with it, and return its run directory."""
    assert arm.then is not None
    source = folder_of(searches, arm.search) / cell.name
    directory = folder_of(searches, f"{arm.search}-then-{arm.then}") / cell.name
    if not directory.exists():
        partial = directory.with_name(f"{directory.name}.tmp")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
        partial.rename(directory)
    then = FollowUp(calculators=(choice(arm.then, python),))
    with make_search(cell.atoms, directory, arm.search, then=then) as search:
        search.run(relaxations=RELAXATIONS)
    return directory


def measure(cell: Cell, arm: Arm, searches: Path, python: str | None, references: References) -> dict[str, Any]:
    """Follow a search up if the arm does, and compare its minima with the known crystal."""
    searched = finished(folder_of(searches, arm.search))[cell.name]
    begin = time.perf_counter()
    directory = folder_of(searches, arm.search) / cell.name
    if arm.then is not None:
        directory = followed_up(cell, arm, searches, python)
    wall = time.perf_counter() - begin
    known = {calculator: references(cell, calculator) for calculator in {arm.search, arm.last}}
    with Archive(directory) as archive:
        minima, by_search = archive.final_minima(), archive.minima()
        levels = archive.state.follow_ups.levels if arm.then is not None else []
        follow_up = {
            f"follow_up_{what}": value
            for level in levels
            for what, value in (
                ("force_calls", level.cost.force_calls),
                ("seconds", round(level.cost.seconds, 2)),
                ("failed", dict(level.failed)),
                ("unconverged", level.unconverged),
                ("wall_seconds", round(wall, 2)),
            )
        }
    return {
        "cell": cell.name,
        "size": cell.size,
        "atoms": len(cell.atoms),
        "arm": arm.name,
        **{key: searched[key] for key in ("relaxations", "failed", "force_calls")},
        "seconds": round(searched["calculator_seconds"] + searched["proposing_seconds"], 2),
        **follow_up,
        **compared(minima, by_search, arm, known),
        "reference_converged": all(bool(atoms.info["converged"]) for atoms in known.values()),
        "reference_same": all(bool(atoms.info["same"]) for atoms in known.values()),
        "searched_with": searched["code"],
        "code": commit(),
        "load": round(os.getloadavg()[0], 1),
    }


def compared(
    minima: Sequence[Minimum], by_search: Sequence[Minimum], arm: Arm, known: dict[str, Atoms]
) -> dict[str, Any]:
    """Return where the known crystal is among the minima, given in the order that counts and in the search's own."""
    matcher = StructureMatcher()
    sought = [to_pymatgen(atoms) for atoms in known.values()]

    def matches(atoms: Atoms) -> bool:
        return any(matcher.fit(one, to_pymatgen(atoms)) for one in sought)

    counted = [minimum for minimum in minima if minimum.follow_ups] if arm.then else list(minima)
    lowest = min((minimum.final.enthalpy_per_atom for minimum in counted), default=math.nan)
    ranks = [rank for rank, minimum in enumerate(counted, start=1) if matches(minimum.final.atoms)]
    search_ranks = [rank for rank, minimum in enumerate(by_search, start=1) if matches(minimum.best.atoms)]
    height = counted[ranks[0] - 1].final.enthalpy_per_atom - lowest if ranks else None
    reference = float(known[arm.last].info["enthalpy_per_atom"])
    best = {minimum.id for minimum in by_search[:5]}
    five = [minimum.final.enthalpy_per_atom for minimum in counted if best.intersection((minimum.id, *minimum.merged))]
    orders = [(minimum.best.enthalpy_per_atom, minimum.final.enthalpy_per_atom) for minimum in counted]
    tau = float(kendalltau(*zip(*orders, strict=True)).statistic) if arm.then and len(orders) > 2 else math.nan
    return {
        "minima": len(by_search),
        "counted": len(counted),
        "found": bool(ranks or search_ranks),
        "search_rank": search_ranks[0] if search_ranks else None,
        "rank": ranks[0] if ranks else None,
        "height": None if height is None else round(height, 5),
        "first": height is not None and bool(height <= SAME),
        "known_above_best_five": round(reference - min(five), 5) if five else None,
        "known_above_all": round(reference - lowest, 5) if counted else None,
        "hole": bool(lowest < reference - HOLE),
        "tau": None if math.isnan(tau) else round(tau, 4),
        "disagreements": sum(minimum.disagrees(FollowUp().disagreement) for minimum in counted),
    }


def past() -> dict[tuple[str, str], dict[str, Any]]:
    """Return the recorded lines by cell and arm; the last of each counts."""
    rows = map(json.loads, RUNS.read_text().splitlines() if RUNS.exists() else ())
    return {(row["cell"], row["arm"]): row for row in rows}


def wilson(successes: int, n: int) -> list[float]:
    """Return Wilson's 95 % interval of a share."""
    if n == 0:
        return [0.0, 1.0]
    z, share = 1.96, successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return [round(centre - half, 4), round(centre + half, 4)]


def bootstrap(statistic: Callable[[np.ndarray[Any, Any]], float], values: np.ndarray[Any, Any]) -> list[float]:
    """Return a statistic of the cells (rows) and its 95 % interval."""
    rng = np.random.default_rng(0)
    draws = [statistic(values[rng.integers(len(values), size=len(values))]) for _ in range(10_000)]
    return [round(float(x), 4) for x in (statistic(values), *np.quantile(draws, (0.025, 0.975)))]


def share(rows: Sequence[dict[str, Any]], holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    n = sum(map(holds, rows))
    return {"n": n, "of": len(rows), "interval": wilson(n, len(rows))}


def ratio(costs: np.ndarray[Any, Any]) -> list[float] | None:
    """Return the cost of the follow-ups (second column) in units of that of the searches, with its interval."""
    if not np.isfinite(costs).all() or not costs[:, 1].any():
        return None
    return bootstrap(lambda drawn: drawn[:, 1].sum() / drawn[:, 0].sum(), costs)


def dearer(arm: str, atoms: int) -> float:
    """Return how much longer a call of the follow-up calculator takes than one of the search's."""
    (then,) = (one.then for one in ARMS if one.name == arm)
    if then is None or not POTENTIALS.exists():
        return math.nan
    ratios = json.loads(POTENTIALS.read_text())["rows"][then]["ratio"]
    return float(np.interp(atoms, [int(n) for n in ratios], list(ratios.values())))


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the numbers of a line of the table."""
    found = [row for row in rows if row["found"]]
    taus = np.array([row["tau"] for row in rows if row["tau"] is not None])
    costs = np.array([[row["seconds"], row.get("follow_up_seconds", 0.0)] for row in rows])
    calls = np.array([[row["force_calls"], row.get("follow_up_force_calls", 0)] for row in rows], dtype=float)
    calls[:, 1] *= [dearer(row["arm"], row["atoms"]) for row in rows]
    return {
        "cells": len(rows),
        "found": share(rows, lambda row: row["found"]),
        "first_of_found": share(found, lambda row: row["first"]),
        "first_of_all": share(rows, lambda row: row["first"]),
        "lowest_of_best_five": share(rows, lambda row: (row["known_above_best_five"] or -1.0) <= SAME),
        "lowest_of_all": share(rows, lambda row: row["known_above_all"] <= SAME),
        "worst_meV": round(1000 * max(row["known_above_all"] for row in rows), 1),
        "holes": sum(row["hole"] for row in rows),
        "tau": bootstrap(np.mean, taus) if len(taus) else None,
        "force_calls": round(float(np.mean([row["force_calls"] for row in rows]))),
        "seconds": round(float(costs[:, 0].mean()), 1),
        "follow_up_force_calls": round(float(np.mean([row.get("follow_up_force_calls", 0) for row in rows]))),
        "follow_up_seconds": round(float(costs[:, 1].mean()), 1),
        "followed_up": round(float(np.mean([row["counted"] for row in rows])), 1),
        "ratio": ratio(costs),
        "ratio_by_calls": ratio(calls),
        "failed_relaxations": sum(sum(row["failed"].values()) for row in rows),
        "failed_follow_ups": sum(sum(row.get("follow_up_failed", {}).values()) for row in rows),
        "unconverged_follow_ups": sum(row.get("follow_up_unconverged", 0) for row in rows),
    }


def report(console: Console) -> None:
    """Print the table and write it as JSON."""
    rows = list(past().values())
    groups = {size: [row for row in rows if row["size"] == size] for size in ("small", "large", "recovery")}
    groups["hard"] = [*groups["small"], *groups["large"]]
    groups["all"] = rows
    alone = {row["cell"] for row in rows if row["arm"] == ARMS[-1].name}
    groups["cells of all arms"] = [row for row in rows if row["cell"] in alone]
    table = Table(title="The known crystal in the ranking of a search", box=SIMPLE_HEAD)
    heads = ("cells", "arm", "n", "found", "first of found", "first of all", "lowest of 5", "lowest", "tau")
    for head in (*heads, "calls", "s", "then calls", "then s", "ratio", "by calls"):
        table.add_column(head, justify="left" if head in ("cells", "arm") else "right", no_wrap=True)
    found: dict[str, Any] = {}
    for group, members in groups.items():
        for arm in ARMS:
            mine = [row for row in members if row["arm"] == arm.name]
            if not mine:
                continue
            one = found.setdefault(group, {})[arm.name] = summary(mine)
            shares = ("found", "first_of_found", "first_of_all", "lowest_of_best_five", "lowest_of_all")
            table.add_row(
                group,
                arm.name,
                str(one["cells"]),
                *(shown(one[name]) for name in shares),
                interval(one["tau"]),
                str(one["force_calls"]),
                f"{one['seconds']:.0f}",
                *((str(one["follow_up_force_calls"]), f"{one['follow_up_seconds']:.0f}") if arm.then else ("", "")),
                interval(one["ratio"]),
                interval(one["ratio_by_calls"]),
            )
    console.print(table)
    temporary = TABLE.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(found, indent=1) + "\n")
    temporary.replace(TABLE)


def shown(one: dict[str, Any]) -> str:
    low, high = one["interval"]
    return f"{one['n']}/{one['of']} ({100 * low:.0f}-{100 * high:.0f} %)"


def interval(values: Sequence[float] | None) -> str:
    return "" if values is None else f"{values[0]:.2f} ({values[1]:.2f}-{values[2]:.2f})"


def follow_up(arguments: argparse.Namespace, references: References, console: Console) -> None:
    """Measure all cells and arms that are wanted and not yet recorded."""
    start = time.monotonic()
    for cell in sorted(cells(arguments.files, arguments.recovery), key=lambda cell: len(cell.atoms)):
        for arm in ARMS:
            wanted = cell.size in arguments.sizes and arm.name in arguments.arms
            searched = finished(folder_of(arguments.searches, arm.search))
            if not wanted or cell.name not in searched or (cell.name, arm.name) in past():
                continue
            if arguments.hours and time.monotonic() - start > 3600 * arguments.hours:
                console.print("time used up; run again to go on")
                return
            one = measure(cell, arm, arguments.searches, arguments.python, references)
            with RUNS.open("a") as lines:
                lines.write(json.dumps(one) + "\n")
            console.print(
                f"{cell.name} {arm.name}: found {one['found']}, rank {one['rank']}, "
                f"{one.get('follow_up_seconds', 0)} s after {one['seconds']} s",
                highlight=False,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="the files that hard_cells.py read")
    parser.add_argument("--recovery", type=Path)
    parser.add_argument("--searches", type=Path, default=Path(__file__).parent / ".searches" / "two_levels")
    parser.add_argument("--python", help="interpreter of SevenNet, by default the environment installed for it")
    parser.add_argument("--arms", nargs="+", default=[arm.name for arm in ARMS])
    parser.add_argument("--sizes", nargs="+", default=["small", "large", "recovery"])
    parser.add_argument("--hours", type=float, help="begin no further cell after this time")
    parser.add_argument("--only-table", action="store_true")
    arguments = parser.parse_args()
    console = Console(width=220)
    if not arguments.only_table:
        with ExitStack() as stack:
            follow_up(arguments, References(arguments.searches, arguments.python, stack), console)
    report(console)


if __name__ == "__main__":
    main()
