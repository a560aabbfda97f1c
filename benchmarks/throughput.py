"""Relaxations per minute: plain ASE, hybridcsp's workers, and workers that relax several structures at the same time.

    python benchmarks/throughput.py                                     # all arms on a processor
    python benchmarks/throughput.py --arms 1x1 1x8 1x16 --sizes small --repeats 3
    python benchmarks/throughput.py --only-table

Random symmetric crystals of MgO, TiO2 and MgSiO3 with 4 to 8 atoms (small) and 12 to 20 (medium) are relaxed with
CHGNet, other ones in each repetition, the same ones in every arm. ``ase`` is CHGNet's own calculator with ASE's BFGS
and FrechetCellFilter in this process. ``WxB`` are W workers that each relax B structures at the same time;
``Wx1-batch`` is the code of batches with a single structure. Compared are seconds and processor seconds of a force
call, because rounding makes some relaxations longer and others shorter, and relaxations per minute. Processor seconds
are what to look at when other processes use the machine; the load is recorded. Each arm is run on all crystals of a
repetition before the next, and is appended to a file, so that an interrupted command continues when it is repeated. The
table is printed and written to results/throughput.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from run_lines import append_line, read_lines

RESULTS = Path(__file__).parent / "results"

#: Formulas and numbers of formula units by size of the cells.
CELLS: Mapping[str, Sequence[tuple[str, int | tuple[int, int]]]] = {
    "small": (("MgO", (2, 4)), ("TiO2", 2), ("MgSiO3", 1)),
    "medium": (("MgO", (6, 10)), ("TiO2", (4, 6)), ("MgSiO3", (3, 4))),
}

ARMS = ("ase", "1x1", "2x1", "1x1-batch", "1x2", "1x4", "1x8", "1x16", "1x32", "2x16")

#: Largest number of force calls of a relaxation, and largest force on an atom (eV/Å) of a converged one.
FORCE_CALLS, MAX_FORCE = 300, 0.05


def random_crystals(size: str, count: int, seed: int) -> list[Any]:
    """Return random symmetric crystals of a size, of each formula in turn."""
    from hybridcsp import Search

    parts = []
    for formula, units in CELLS[size]:
        with (
            tempfile.TemporaryDirectory() as folder,
            Search(
                formula,
                formula_units=units,
                calculator=None,
                sources=["random"],
                seed=seed,
                directory=Path(folder) / "run",
            ) as search,
        ):
            parts.append([candidate.atoms for candidate in search.ask(-(-count // len(CELLS[size])))])
    return [atoms for row in zip(*parts, strict=True) for atoms in row][:count]


def jobs_of(crystals: Iterable[Any]) -> list[Any]:
    """Return a job for the relaxation of each crystal."""
    from hybridcsp.core.records import Candidate, Job, Limits, Proposal

    jobs = []
    for number, atoms in enumerate(crystals, 1):
        candidate = Candidate(proposal=Proposal(atoms=atoms, operator="random"), id=number, source="random")
        jobs.append(Job(candidate=candidate, atoms=atoms, limits=Limits(force_calls=FORCE_CALLS)))
    return jobs


def relax_with_ase(crystals: Sequence[Any]) -> dict[str, Any]:
    """Relax crystals one after the other with ASE's tools and CHGNet's own calculator."""
    import torch
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS
    from chgnet.model.dynamics import CHGNetCalculator

    torch.set_num_threads(1)
    calculator = CHGNetCalculator(use_device="cpu", on_isolated_atoms="error")
    calculator.get_property("energy", crystals[0])
    calls = converged = failed = 0
    begun = _begin()
    for atoms in crystals:
        moved = atoms.copy()
        moved.calc = calculator
        optimizer = BFGS(FrechetCellFilter(moved), logfile=None)
        try:
            converged += bool(optimizer.run(fmax=MAX_FORCE, steps=FORCE_CALLS))
        except Exception:  # noqa: BLE001 - isolated atoms and absurd cells, which hybridcsp counts as failures
            failed += 1
        calls += optimizer.nsteps + 1
    return _ended(begun) | {"force_calls": calls, "converged": converged, "failed": failed}


def relax_with_workers(
    crystals: Sequence[Any], workers: int, size: int, *, in_batches: bool, device: str | None = None
) -> dict[str, Any]:
    """Relax crystals with a pool of workers, each of which relaxes ``size`` structures at the same time."""
    from hybridcsp.core.outcomes import Failed
    from hybridcsp.relaxation.backends import BatchedPool, WorkerPool
    from hybridcsp.relaxation.batch import BatchedRelaxer
    from hybridcsp.relaxation.calculators.choice import CalculatorChoice
    from hybridcsp.relaxation.relax import Relaxer

    relaxer = Relaxer(calculator=CalculatorChoice(calculator="chgnet", device=device))
    pool = (
        BatchedPool(BatchedRelaxer(relaxer=relaxer), workers=workers, size=size)
        if in_batches
        else WorkerPool(relaxer, workers=workers)
    )
    with pool:
        pool.wait_ready()
        begun = _begin()
        waiting, running, outcomes = jobs_of(crystals), 0, []
        while waiting or running:
            while waiting and running < pool.capacity:
                pool.submit(waiting.pop(0))
                running += 1
            ended = pool.completed(None)
            running -= len(ended)
            outcomes += ended
        measured = _ended(begun)
    relaxed = [outcome for outcome in outcomes if not isinstance(outcome, Failed)]
    return measured | {
        "force_calls": sum(outcome.cost.force_calls for outcome in outcomes),
        "converged": sum(outcome.converged for outcome in relaxed),
        "failed": len(outcomes) - len(relaxed),
    }


def _begin() -> tuple[float, float]:
    return time.perf_counter(), _processor_seconds()


def _ended(begun: tuple[float, float]) -> dict[str, Any]:
    return {"seconds": time.perf_counter() - begun[0], "processor_seconds": _processor_seconds() - begun[1]}


def _processor_seconds() -> float:
    """Return the processor time of this process and of those that it has started."""
    import psutil

    own = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (own, *own.children(recursive=True)))


def run_arm(arm: str, crystals: Sequence[Any], device: str | None = None) -> dict[str, Any]:
    """Relax crystals as the name of an arm says."""
    if arm == "ase":
        return relax_with_ase(crystals)
    workers, size = arm.removesuffix("-batch").split("x")
    in_batches = arm.endswith("-batch") or size != "1"
    return relax_with_workers(crystals, int(workers), int(size), in_batches=in_batches, device=device)


def measure(
    arms: Sequence[str], sizes: Sequence[str], count: int, seeds: Iterable[int], file: Path, device: str | None = None
) -> None:
    """Run the arms that a file of runs lacks, and add their lines to it."""
    known = {line["id"] for line in read_lines(file)}
    for seed in seeds:
        for size in sizes:
            crystals = random_crystals(size, count, seed)
            for arm in arms:
                name = f"{device or 'cpu'} {size} {count} {arm} {seed}"
                if name in known:
                    continue
                line = run_arm(arm, crystals, device)
                atoms = sum(map(len, crystals)) / len(crystals)
                about = {"id": name, "device": device or "cpu", "size": size, "arm": arm, "seed": seed, "n": count}
                append_line(file, about | {"atoms": atoms, "load": os.getloadavg()[0]} | line)
                print(name, json.dumps({key: round(value, 2) for key, value in line.items()}), flush=True)


def table(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return medians over the repetitions by device, size and arm, with ratios to the first arm of hybridcsp."""
    groups: dict[tuple[str, str], dict[str, dict[int, Mapping[str, Any]]]] = {}
    for line in lines:
        groups.setdefault((line["device"], line["size"]), {}).setdefault(line["arm"], {})[line["seed"]] = line
    rows = []
    for (device, size), arms in sorted(groups.items()):
        base = arms.get("1x1", {})
        for arm, runs in arms.items():
            per_call = {seed: _per_call(line) for seed, line in runs.items()}
            ratios = [_per_call(base[seed]) / value for seed, value in per_call.items() if seed in base]
            speedups = [_pace(line) / _pace(base[seed]) for seed, line in runs.items() if seed in base]
            rows.append(
                {
                    "device": device,
                    "cells": size,
                    "arm": arm,
                    "repetitions": len(runs),
                    "relaxations_per_minute": _median(60 * one["n"] / one["seconds"] for one in runs.values()),
                    "ms_per_call": _median(1e3 * one["seconds"] / one["force_calls"] for one in runs.values()),
                    "processor_ms_per_call": 1e3 * _median(per_call.values()),
                    "calls_per_relaxation": _median(one["force_calls"] / one["n"] for one in runs.values()),
                    "pace_ratio_to_1x1": _median(speedups) if speedups else None,
                    "processor_ratio_to_1x1": _median(ratios) if ratios else None,
                    "lowest_ratio": min(ratios, default=None),
                    "highest_ratio": max(ratios, default=None),
                    "failed": _median(one["failed"] / one["n"] for one in runs.values()),
                    "load": _median(one["load"] for one in runs.values()),
                }
            )
    return rows


def _per_call(line: Mapping[str, Any]) -> float:
    return float(line["processor_seconds"] / line["force_calls"])


def _pace(line: Mapping[str, Any]) -> float:
    """Return the force calls in a second, in which a GPU is compared."""
    return float(line["force_calls"] / line["seconds"])


def _median(values: Iterable[float]) -> float:
    return float(statistics.median(values))


def report(file: Path, output: Path) -> None:
    """Print the table and write it as JSON."""
    rows = table(read_lines(file))
    output.write_text(json.dumps(rows, indent=1) + "\n")
    head = f"{'device':8s}{'cells':8s}{'arm':>10s}{'per min':>9s}{'ms/call':>9s}{'CPU ms':>8s}{'calls':>7s}{'pace':>7s}"
    print(f"{head}  CPU ratio")
    for row in rows:
        ratio = row["processor_ratio_to_1x1"]
        shown = "" if ratio is None else f"{ratio:.2f} ({row['lowest_ratio']:.2f} to {row['highest_ratio']:.2f})"
        numbers = (row["relaxations_per_minute"], row["ms_per_call"], row["processor_ms_per_call"])
        print(
            f"{row['device']:8s}{row['cells']:8s}{row['arm']:>10s}{numbers[0]:9.1f}{numbers[1]:9.1f}{numbers[2]:8.1f}"
            f"{row['calls_per_relaxation']:7.0f}{row['pace_ratio_to_1x1'] or 0.0:7.2f}  {shown}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--sizes", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--count", type=int, default=32, help="crystals in each repetition")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", help="device of CHGNet, such as cuda")
    parser.add_argument("--runs", type=Path, default=RESULTS / "throughput_runs.jsonl")
    parser.add_argument("--only-table", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if not given.only_table:
        measure(given.arms, given.sizes, given.count, range(given.repeats), given.runs, given.device)
    report(given.runs, given.runs.parent / "throughput.json")


if __name__ == "__main__":
    main()
