"""What does a potential cost, and what does a calculator server add?

    python benchmarks/potentials.py --sevennet-python /path/to/bin/python
    python benchmarks/potentials.py --rows chgnet emt           # a part; the others keep what was measured last
    python benchmarks/potentials.py --only-table

*ms per call*: energy, forces and stress of a strained and rattled rutile crystal of 6, 12, 24 and 48 atoms, another one
in each call, on one thread, the fastest call: others are slower because of the machine's load. TiO2, and CuAg2 for EMT.
Every calculator lives in a process of its own; the processes are asked in turn, so that a change of the load meets all
of them, and only one computes at a time. The ratio to our CHGNet is that of the fastest calls.

*relaxations per minute*: random symmetric crystals of 6 and 12 atoms (TiO2, CuAg2) relaxed by hybridcsp's worker, as in
a search.

*server*: the same calculator in a calculator server. *Parity* is the largest difference to the one in-process, built
and called in the same interpreter without a server, on the same crystals, and *own* that of the one in-process to the
potential's own calculator. *Overhead* is the difference of the fastest calls.

The results are in results/potentials.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from potentials_process import SUPERCELLS
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from hybridcsp.core.outcomes import Relaxed
from hybridcsp.core.problem import plain_problem
from hybridcsp.core.records import Candidate, Job, Limits, Proposal
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.sources.base import Context
from hybridcsp.sources.random import RandomSource

RESULT = Path(__file__).parent / "results" / "potentials.json"

BASELINE = "chgnet"

#: Arguments of potentials_process.py of each row in-process.
IN_PROCESS = {
    "chgnet": "chgnet",
    "CHGNet's own calculator": "chgnet-own",
    "sevennet": "served:sevennet",
    "SevenNet-0's own calculator": "sevenn:7net-0",
    "sevennet:l3i5": "served:sevennet:l3i5",
    "SevenNet-l3i5's own calculator": "sevenn:7net-l3i5",
    "sevennet:mf:pbe": "served:sevennet:mf:pbe",
    "SevenNet-MF-0's own calculator": "sevenn:7net-mf-0:PBE",
    "emt": "emt",
}

#: Rows of the potentials' own calculators, by our rows.
OWN = {
    "chgnet": "CHGNet's own calculator",
    "sevennet": "SevenNet-0's own calculator",
    "sevennet:l3i5": "SevenNet-l3i5's own calculator",
    "sevennet:mf:pbe": "SevenNet-MF-0's own calculator",
}

#: Rows that are also measured in a calculator server: those that a server can build.
SERVED = ("sevennet", "sevennet:l3i5", "sevennet:mf:pbe", "emt")

#: Rows with a name of hybridcsp, whose relaxations are timed.
RELAXED = ("chgnet", *SERVED)

ELEMENTS = {"emt": ("Cu", "Ag")}
OTHERS = ("Ti", "O")

WARM_UP, CALLS = 1, 2  # crystals per process and round; those of the warm-up are not counted
STARTS = 2  # random crystals of each size that are relaxed


class Process:
    """Process with one calculator."""

    def __init__(self, name: str, python: str, served_by: str | None = None) -> None:
        script = str(Path(__file__).with_name("potentials_process.py"))
        arguments = [python, script, name, *([served_by] if served_by else [])]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # it lives as long as the process
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment
        )

    def ask(self, elements: Sequence[str], atoms: int, seeds: Sequence[int]) -> list[dict[str, Any]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"elements": elements, "atoms": atoms, "seeds": list(seeds)}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"the process ended: {self._errors.read()[-2000:]}")
        return json.loads(line)  # type: ignore[no-any-return]

    def close(self) -> None:
        with suppress(BrokenPipeError):
            self._process.communicate()
        self._errors.close()


def time_calls(rows: Sequence[str], sevenn: str, rounds: int, console: Console) -> dict[str, Any]:
    """Return milliseconds per call, overheads and parities of the rows."""
    processes: dict[tuple[str, str], Process] = {}
    for row in rows:
        own = sevenn if IN_PROCESS[row].startswith(("sevenn:", "served:")) else sys.executable
        processes[row, "in-process"] = Process(IN_PROCESS[row], own)
        if row in SERVED:
            processes[row, "server"] = Process(row, sys.executable, own)
    measured: dict[str, Any] = {
        row: {"in-process": {}, "server": {}, "overhead_ms": {}, "parity": {}, "own": {}} for row in rows
    }
    try:
        for atoms in SUPERCELLS:
            times: dict[tuple[str, str], list[float]] = {key: [] for key in processes}
            differences: dict[str, dict[str, float]] = {row: {} for row in rows}
            to_own: dict[str, dict[str, float]] = {row: {} for row in rows}
            for number in range(rounds + 1):  # the first is the warm-up
                seeds = range(100 * number, 100 * number + (CALLS if number else WARM_UP))
                answers = {}
                for key, process in processes.items():
                    answers[key] = process.ask(ELEMENTS.get(key[0], OTHERS), atoms, seeds)
                    if number:
                        times[key] += [one["ms"] for one in answers[key]]
                for row in rows:
                    if (row, "server") in processes:
                        for one, other in zip(answers[row, "in-process"], answers[row, "server"], strict=True):
                            compare(one, other, atoms, differences[row])
                    if (OWN.get(row), "in-process") in processes:
                        pairs = zip(answers[row, "in-process"], answers[OWN[row], "in-process"], strict=True)
                        for one, other in pairs:
                            compare(one, other, atoms, to_own[row])
            fastest = {key: min(found) for key, found in times.items()}
            for (row, where), milliseconds in fastest.items():
                measured[row][where][str(atoms)] = round(milliseconds, 2)
            for row in rows:
                if (row, "server") in processes:
                    overhead = fastest[row, "server"] - fastest[row, "in-process"]
                    measured[row]["overhead_ms"][str(atoms)] = round(overhead, 2)
                    measured[row]["parity"][str(atoms)] = differences[row]
                if to_own[row]:
                    measured[row]["own"][str(atoms)] = to_own[row]
                if (BASELINE, "in-process") in processes:
                    ratios = measured[row].setdefault("ratio", {})
                    ratios[str(atoms)] = round(fastest[row, "in-process"] / fastest[BASELINE, "in-process"], 2)
            console.print(f"{atoms} atoms done", highlight=False)
    finally:
        for process in processes.values():
            process.close()
    return measured


def compare(one: dict[str, Any], other: dict[str, Any], atoms: int, largest: dict[str, float]) -> None:
    """Raise the largest differences to those of two answers."""
    for name, per in (("energy", atoms), ("forces", 1), ("stress", 1)):
        difference = float(np.abs(np.subtract(one[name], other[name])).max()) / per
        largest[name] = max(largest.get(name, 0.0), difference)


def starts(row: str) -> list[Any]:
    """Return the random crystals that are relaxed."""
    first, second = ELEMENTS.get(row, OTHERS)
    found = []
    for units in (2, 4):
        problem = plain_problem({first: units, second: 2 * units})
        for seed in range(STARTS):
            # This source looks at nothing but the random numbers.
            context = Context(problem=problem, archive=None, rng=np.random.default_rng(seed))  # type: ignore[arg-type]
            found += [proposal.atoms for proposal in RandomSource(problem).propose(1, context)]
    return found


def relaxations_per_minute(row: str, sevenn: str) -> dict[str, Any]:
    """Relax the random crystals in a worker, as a search does."""
    choice = CalculatorChoice(calculator=row, python=sevenn) if row.startswith("sevennet") else row
    force_calls, failed, seconds = 0, 0, 0.0
    with WorkerPool(Relaxer(calculator=choice), workers=1) as pool:
        for number, atoms in enumerate([*starts(row)[:1], *starts(row)], start=0):
            candidate = Candidate(proposal=Proposal(atoms=atoms, operator="start"), id=number + 1, source="random")
            begin = time.perf_counter()
            pool.submit(Job(candidate=candidate, atoms=atoms, level="relax", limits=Limits(force_calls=500)))
            (outcome,) = pool.completed(None)
            if number == 0:  # the worker has started, and everything is loaded
                continue
            seconds += time.perf_counter() - begin
            force_calls += outcome.cost.force_calls
            failed += not isinstance(outcome, Relaxed)
    n = len(starts(row))
    return {
        "relaxations_per_minute": round(60 * n / seconds, 2),
        "relaxed": n,
        "failed": failed,
        "force_calls": force_calls,
    }


def show(console: Console, rows: dict[str, Any]) -> None:
    sizes = [str(n) for n in SUPERCELLS]
    table = Table(
        title="ms per energy, forces and stress by number of atoms, one thread; parity in eV/atom", box=SIMPLE_HEAD
    )
    heads = ("calculator", *sizes, *(f"ratio {n}" for n in sizes), "relaxations/min", "overhead ms", "parity", "own")
    for head in heads:
        table.add_column(head, justify="left" if head == "calculator" else "right", no_wrap=True)
    for name in IN_PROCESS:
        one = rows.get(name)
        if one is None:
            continue
        speed = one.get("relaxations", {}).get("relaxations_per_minute")
        table.add_row(
            name,
            *(f"{one['in-process'][n]:.1f}" for n in sizes),
            *(f"{one['ratio'][n]:.2f}" if "ratio" in one else "" for n in sizes),
            "" if speed is None else f"{speed:.1f}",
            f"{max(one['overhead_ms'].values()):.2f}" if one["overhead_ms"] else "",
            *(f"{max(p['energy'] for p in one[key].values()):.1e}" if one[key] else "" for key in ("parity", "own")),
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sevennet-python", default=sys.executable, help="interpreter with sevenn")
    parser.add_argument("--rows", nargs="+", default=list(IN_PROCESS), choices=list(IN_PROCESS))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--only-table", action="store_true")
    arguments = parser.parse_args()
    console = Console(width=180)
    kept = json.loads(RESULT.read_text()) if RESULT.exists() else {"rows": {}}
    if not arguments.only_table:
        console.print("about 10 minutes", highlight=False)
        measured = time_calls(arguments.rows, arguments.sevennet_python, arguments.rounds, console)
        for row in arguments.rows:
            if row in RELAXED:
                measured[row]["relaxations"] = relaxations_per_minute(row, arguments.sevennet_python)
            kept["rows"][row] = measured[row] | {"load": round(os.getloadavg()[0], 1)}
        kept["about"] = {
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread",
            "torch": version("torch"),
            "rounds": arguments.rounds,
        }
        temporary = RESULT.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(kept, indent=1) + "\n")
        temporary.replace(RESULT)
    show(console, kept["rows"])


if __name__ == "__main__":
    main()
