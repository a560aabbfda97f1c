"""Does a search gain from retraining its generator on the minima that it finds?

    python benchmarks/retraining_gain.py                                   # what is missing of the whole plan
    python benchmarks/retraining_gain.py --problems TiO2 --seeds 2 --relaxations 100
    python benchmarks/retraining_gain.py --pressure 100                    # where the shipped weights know little
    python benchmarks/retraining_gain.py --sources wyckoff:scratch prototypes evolution random
    python benchmarks/retraining_gain.py --only-table

TiO2, SiO2, Al2O3 and MgSiO3 at 2 to 4 formula units, CHGNet, one worker, 300 relaxations, 5 seeds, two arms:
*retrained* as a search does by default, and *frozen*, the same with ``new_minima = 0``. With one worker and one seed
the two are the same, bit for bit, up to the first training; that is asserted, so that the control is frozen at
the very event at which the other's is trained. Seconds of retraining are charged to their arm. A generator that begins
from scratch proposes nothing before it is trained, so that frozen it is as if it were not there.

For each pair the difference (retrained minus frozen) is taken of

- *low minima*: distinct minima within 50 meV/atom of the best that either arm found, after equal relaxations;
- *force calls and seconds to the best*: until an arm is within 1 meV/atom of that best, as a ratio; an arm that does
  not get there counts with all that it used.

Intervals are bootstrapped over pairs, within problems. Each run is a line of results/retraining_gain_runs.jsonl, and
what is there is not run again; a run that was stopped goes on from its directory under ``--searches``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from hybridcsp import Problem, Search
from hybridcsp.archive.archive import Archive
from hybridcsp.archive.history import ModelUpdate
from hybridcsp.core.records import REFINE, Failed, Relaxed
from hybridcsp.retraining import Retraining
from hybridcsp.sources.generative import SCRATCH, GenerativeSource

RUNS = Path(__file__).parent / "results" / "retraining_gain_runs.jsonl"

PROBLEMS = ("TiO2", "SiO2", "Al2O3", "MgSiO3")
FORMULA_UNITS = (2, 4)
ARMS = {"retrained": Retraining(), "frozen": Retraining(new_minima=0)}

#: A search refuses a generator that begins from scratch and is never to learn; this one never comes to it.
NEVER = Retraining(new_minima=10**6)

WINDOW, SAME = 0.05, 0.001  # eV/atom
SECONDS_PER_RELAXATION = 6.0  # only to plan
SAMPLES = 5000


def plan(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return every run, seed by seed, both arms of a pair one after the other."""
    common = {"sources": options.sources, "relaxations": options.relaxations, "calculator": options.calculator}
    from_scratch = any(source.endswith(f":{SCRATCH}") for source in options.sources)
    arms = ARMS | {"frozen": NEVER} if from_scratch else ARMS
    if options.pressure:  # the lines of runs without any do not name it
        common["pressure_gpa"] = options.pressure
    return [
        {"problem": problem, "seed": seed, "arm": arm, "retraining": asdict(settings), **common}
        for seed in range(options.seeds)
        for problem in options.problems
        for arm, settings in arms.items()
    ]


def name_of(run: dict[str, Any]) -> str:
    """Tell runs apart by all that makes them."""
    return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:16]


def execute(run: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Do one run, or what is left of it, and return its line."""
    problem = Problem(run["problem"], formula_units=FORMULA_UNITS, pressure_gpa=run.get("pressure_gpa", 0.0))
    with Search(
        problem,
        calculator=run["calculator"],
        sources=run["sources"],
        seed=run["seed"],
        directory=directory,
        workers=1,
        retraining=Retraining(**run["retraining"]),
    ) as search:
        search.run(relaxations=run["relaxations"], refine=0)
        weights = {
            name: str(source.generator(0).card.get("weights_sha256", ""))[:16]
            for name, source in search.sources.items()
            if isinstance(source, GenerativeSource)
        }
        return {"id": name_of(run), **run, **trace(search.archive), "weights": weights} | {
            "machine": platform.processor() or platform.machine(),
            "finished": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        }


def trace(archive: Archive) -> dict[str, Any]:
    """Return what a run found, when, and what its generator did; no structures."""
    relaxations, force_calls, seconds, training = 0, 0, 0.0, 0.0
    minima: list[list[float]] = []
    shares: dict[str, int] = {}
    adoptions: list[dict[str, Any]] = []
    before = hashlib.sha256()
    prefix: list[str] = []  # hash of everything up to and including each relaxation
    for past in archive.history():
        seconds += past.cost.seconds
        if isinstance(past, ModelUpdate):
            training += past.cost.seconds
            adoptions.append({"relaxation": relaxations, "versions": past.versions, "detail": past.detail})
            continue
        force_calls += past.cost.force_calls
        if not isinstance(past, Relaxed | Failed) or past.level == REFINE:
            continue
        relaxations += 1
        shares[past.candidate.source] = shares.get(past.candidate.source, 0) + 1
        if isinstance(past, Relaxed):
            before.update(past.atoms.positions.tobytes() + past.atoms.cell.array.tobytes())
            if past.is_new_minimum:
                minima.append([relaxations, force_calls, round(seconds, 2), round(past.enthalpy_per_atom, 5)])
        prefix.append(before.hexdigest()[:12])
    first = adoptions[0]["relaxation"] if adoptions else None
    return {
        "relaxed": relaxations,
        "force_calls": force_calls,
        "seconds": round(seconds, 1),
        "retraining_seconds": round(training, 1),
        "by_source": shares,
        "first_training": first,
        "prefix": prefix,
        "adoptions": adoptions,
        "minima": minima,
    }


def pairs(lines: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the runs of both arms for every problem and seed where both are done, the last line of each counting."""
    latest = {}
    for line in lines:
        latest[line["arm"], json.dumps([scenario_of(line), line["problem"], line["seed"]])] = line
    keys = sorted({key for _, key in latest})
    return [
        (latest["retrained", key], latest["frozen", key])
        for key in keys
        if ("retrained", key) in latest and ("frozen", key) in latest
    ]


def scenario_of(line: dict[str, Any]) -> str:
    """Return what runs must have in common to be in one table."""
    pressure = f"{line['pressure_gpa']:g} GPa, " if "pressure_gpa" in line else ""
    weights = ", ".join(f"{name} {weights or 'without any'}" for name, weights in line["weights"].items())
    sources = ", ".join(line["sources"])
    return f"{pressure}{sources}; {line['relaxations']} relaxations, {line['calculator']}; weights: {weights}"


def check_shared(retrained: dict[str, Any], frozen: dict[str, Any]) -> None:
    """Assert that both arms are the same up to the first training."""
    if retrained["first_training"] is not None:
        n = retrained["first_training"]
        same = retrained["prefix"][:n] == frozen["prefix"][:n]
        assert same, f"{retrained['problem']}, seed {retrained['seed']}: the arms part before the first training"


def differences(retrained: dict[str, Any], frozen: dict[str, Any]) -> dict[str, float]:
    """Compare the two runs of a pair."""
    best = min(row[3] for run in (retrained, frozen) for row in run["minima"])
    low = [sum(row[3] <= best + WINDOW for row in run["minima"]) for run in (retrained, frozen)]
    until = []
    for run in (retrained, frozen):
        reached = next((row for row in run["minima"] if row[3] <= best + SAME), None)
        until.append((run["force_calls"], run["seconds"]) if reached is None else (reached[1], reached[2]))
    return {
        "low minima": low[0] - low[1],
        "log force calls to the best": math.log(max(until[0][0], 1) / max(until[1][0], 1)),
        "log seconds to the best": math.log(max(until[0][1], 0.01) / max(until[1][1], 0.01)),
        "best": min(row[3] for row in retrained["minima"]) - min(row[3] for row in frozen["minima"]),
        "low retrained": low[0],
        "low frozen": low[1],
    }


def interval(values: Sequence[float], groups: Sequence[str]) -> tuple[float, float, float]:
    """Mean, and its 95 % bootstrap interval over values within groups."""
    rng = np.random.default_rng(0)
    by_group = [np.array([v for v, g in zip(values, groups, strict=True) if g == name]) for name in sorted(set(groups))]
    draws = sum(rng.choice(part, (SAMPLES, len(part))).sum(axis=1) for part in by_group) / len(values)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(np.mean(values)), float(low), float(high)


def report(lines: Sequence[dict[str, Any]], console: Console) -> None:
    """Print pairs and what they add up to, scenario by scenario."""
    done = pairs(lines)
    if not done:
        console.print("no pair is complete yet")
    for scenario in dict.fromkeys(scenario_of(retrained) for retrained, _ in done):
        console.print(f"\nretrained against frozen: {scenario}", highlight=False)
        _report_one([pair for pair in done if scenario_of(pair[0]) == scenario], console)


def _report_one(done: Sequence[tuple[dict[str, Any], dict[str, Any]]], console: Console) -> None:
    table = Table()
    headings = (
        "problem",
        "seed",
        "low minima",
        "best, meV/atom",
        "f.calls to best",
        "s to best",
        "trainings",
        "s",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    found = []
    for retrained, frozen in done:
        check_shared(retrained, frozen)
        one = differences(retrained, frozen)
        found.append(one)
        table.add_row(
            retrained["problem"],
            str(retrained["seed"]),
            f"{one['low retrained']:.0f} : {one['low frozen']:.0f}",
            f"{1000 * one['best']:+.1f}",
            f"x {math.exp(one['log force calls to the best']):.2f}",
            f"x {math.exp(one['log seconds to the best']):.2f}",
            str(sum("from" in a["detail"] for a in retrained["adoptions"])),
            f"{retrained['retraining_seconds']:.0f} of {retrained['seconds']:.0f}",
        )
    console.print(table)
    groups = [retrained["problem"] for retrained, _ in done]
    mean, low, high = interval([one["low minima"] for one in found], groups)
    console.print(f"low minima: {mean:+.2f} a pair, 95 % interval {low:+.2f} to {high:+.2f} ({len(found)} pairs)")
    for name in ("force calls", "seconds"):
        mean, low, high = (math.exp(v) for v in interval([one[f"log {name} to the best"] for one in found], groups))
        console.print(f"{name} to the best: x {mean:.2f}, 95 % interval {low:.2f} to {high:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--relaxations", type=int, default=300)
    parser.add_argument("--pressure", type=float, default=0.0, help="in GPa")
    parser.add_argument("--sources", nargs="+", default=["wyckoff", "evolution", "random"])
    parser.add_argument("--calculator", default="chgnet")
    parser.add_argument("--searches", type=Path, default=Path("retraining_gain"), help="where run directories are")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the lines are")
    parser.add_argument("--only-table", action="store_true")
    options = parser.parse_args()
    console = Console()
    lines = [json.loads(line) for line in options.runs.read_text().splitlines()] if options.runs.exists() else []
    if not options.only_table:
        finished = {line["id"] for line in lines}
        todo = [run for run in plan(options) if name_of(run) not in finished]
        hours = sum(run["relaxations"] for run in todo) * SECONDS_PER_RELAXATION / 3600
        console.print(f"{len(todo)} runs to do, about {hours:.1f} core-hours")
        with Progress(console=console) as progress:
            for run in progress.track(todo, description="runs"):
                line = execute(run, options.searches / name_of(run))
                lines.append(line)
                options.runs.parent.mkdir(exist_ok=True)
                with options.runs.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    report(lines, console)


if __name__ == "__main__":
    main()
