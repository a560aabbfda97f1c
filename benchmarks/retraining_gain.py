"""Does a search gain from what its generators learn during it?

    python benchmarks/retraining_gain.py run [--reported]      # what is missing of the whole plan, resumable
    python benchmarks/retraining_gain.py run --arms frozen posterior --atoms 18 --seeds 1 2 --sources wyckoff
    python benchmarks/retraining_gain.py report

Searches of model potentials (``model_potentials.py``), about which known crystals say little, in this process, with
one worker and a number of relaxations. Arms:

- ``frozen``: nothing is learned;
- ``posterior``: samples are put in order by the posterior of their heights (``retraining.posterior``);
- ``networks``: the networks are retrained on the minima (``retraining.new_minima``);
- ``all``: both.

Even seeds of the models are for reports, odd ones for development. A search is successful when it has come within 2
meV/atom of the lowest minimum of any arm on the same problem. The report gives the expected running time (force calls
of all searches up to their success or end, over the number of successes) and the number of niches of minima within 50
meV/atom of this lowest minimum, both also relative to ``frozen`` on the same problems and seeds with a 95 % bootstrap
interval over problems, and the share of the processor time that the search takes beside the relaxations (of runs whose
lines have both; the first ones counted relaxations in wall time on a busy machine).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from model_potentials import FAMILIES, InProcess, make
from run_lines import append_line, read_lines

from hybridcsp import Search
from hybridcsp.archive.history import ModelUpdate
from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.records import REFINE
from hybridcsp.retraining import Retraining
from hybridcsp.sources.registry import ONE_SHOT

RESULTS = Path(__file__).parent / "results"
RUNS, SUMMARY = RESULTS / "retraining_gain_runs.jsonl", RESULTS / "retraining_gain.json"

ARMS = {
    "frozen": Retraining(new_minima=0, posterior=False),
    "posterior": Retraining(new_minima=0),
    "networks": Retraining(posterior=False),
    "all": Retraining(),
}
BASELINE = "frozen"

#: Seeds of the models.
DEVELOPMENT, REPORTED = (5, 9, 11, 13), (0, 2, 4, 6, 8, 10)

FOUND, WINDOW = 0.002, 0.05  # eV/atom

#: Processor seconds of one relaxation and of what belongs to it, for the planned time.
SECONDS_PER_RELAXATION = 0.35

SAMPLES = 4000


def plan(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return every run, seed by seed, all arms of a problem one after the other."""
    models = options.models or (REPORTED if options.reported else DEVELOPMENT)
    return [
        {
            "family": family,
            "model": model,
            "atoms": options.atoms,
            "sources": options.sources,
            "relaxations": options.relaxations,
            "seed": seed,
            "arm": arm,
            "settings": asdict(ARMS[arm]),
        }
        for seed in options.seeds
        for model in models
        for family in options.families
        for arm in options.arms
    ]


def name_of(run: Mapping[str, Any]) -> str:
    """Return the identity of a run: a hash of all that makes it."""
    return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:16]


def execute(run: Mapping[str, Any]) -> dict[str, Any]:
    """Do one run and return its line, without structures."""
    model = make(run["family"], run["model"], run["atoms"])
    backend = InProcess(model.calculator)
    start = time.process_time()
    with (
        tempfile.TemporaryDirectory() as folder,
        Search(
            model.problem,
            calculator=None,
            backend=backend,
            sources=run["sources"],
            seed=run["seed"],
            directory=Path(folder) / "run",
            one_shot=ONE_SHOT,
            retraining=Retraining(**run["settings"]),
        ) as search,
    ):
        search.run(relaxations=run["relaxations"], refine=0)
        force_calls = trainings = 0.0
        minima: list[list[Any]] = []
        for past in search.archive.history():
            if isinstance(past, ModelUpdate):
                trainings += past.cost.seconds
            elif isinstance(past, Relaxed | Failed) and past.level != REFINE:
                force_calls += past.cost.force_calls
                if isinstance(past, Relaxed) and past.is_new_minimum and not past.suspect:
                    minima.append([int(force_calls), round(past.enthalpy_per_atom, 5), past.niche])
    return {
        "id": name_of(run),
        **run,
        "problem": model.name,
        "force_calls": int(force_calls),
        "processor_seconds": round(time.process_time() - start, 1),
        "relaxing_processor_seconds": round(backend.processor_seconds, 1),
        "training_seconds": round(trainings, 1),
        "minima": minima,
    }


def command_run(options: argparse.Namespace) -> None:
    finished = {line["id"] for line in read_lines(options.runs)}
    todo = [run for run in plan(options) if name_of(run) not in finished]
    hours = sum(run["relaxations"] for run in todo) * SECONDS_PER_RELAXATION / 3600
    print(f"{len(todo)} runs to do, about {hours:.2f} core-hours", flush=True)
    for run in todo:
        line = execute(run)
        append_line(options.runs, line)
        best = min(minimum[1] for minimum in line["minima"])
        print(line["problem"], run["arm"], run["seed"], best, line["force_calls"], flush=True)


def outcomes(lines: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int, str], tuple[float, float, float]]:
    """Return force calls, success and low niches of each run by problem, seed and arm."""
    lowest: dict[str, float] = {}
    for line in lines:
        own = [enthalpy for _, enthalpy, _ in line["minima"]]
        lowest[line["problem"]] = min([*own, lowest.get(line["problem"], math.inf)])
    found = {}
    for line in lines:
        best = lowest[line["problem"]]
        reached = [calls for calls, enthalpy, _ in line["minima"] if enthalpy <= best + FOUND]
        low = {niche for _, enthalpy, niche in line["minima"] if enthalpy <= best + WINDOW}
        found[line["problem"], line["seed"], line["arm"]] = (
            float(reached[0] if reached else line["force_calls"]),
            float(bool(reached)),
            float(len(low)),
        )
    return found


def compare(found: Mapping[tuple[str, int, str], tuple[float, float, float]], arm: str) -> dict[str, Any]:
    """Compare an arm with the baseline on the problems and seeds that both have."""
    both = sorted({key[:2] for key in found if key[2] == arm} & {key[:2] for key in found if key[2] == BASELINE})
    rows = np.array([[*found[*key, arm], *found[*key, BASELINE]] for key in both])
    problems = np.array([key[0] for key in both])
    sums = np.array([rows[problems == name].sum(axis=0) for name in np.unique(problems)])
    drawn = sums[np.random.default_rng(0).integers(len(sums), size=(SAMPLES, len(sums)))].sum(axis=1)
    total = sums.sum(axis=0)

    def running_time(one: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return one[..., 0] * one[..., 4] / (one[..., 1] * one[..., 3])

    def low_minima(one: Any) -> Any:
        return one[..., 2] / one[..., 5]

    def with_interval(ratio: Any) -> list[float]:
        return [float(ratio(total)), *np.nanquantile(ratio(drawn), [0.025, 0.975], method="inverted_cdf").tolist()]

    return {
        "runs": len(both),
        "successes": int(total[1]),
        "expected_force_calls": float(total[0] / total[1]) if total[1] else None,
        "ratio": with_interval(running_time),
        "low_niches": float(total[2] / len(both)),
        "low_ratio": with_interval(low_minima),
    }


def command_report(options: argparse.Namespace) -> None:
    lines = read_lines(options.runs)
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        kind = "reported" if line["model"] in REPORTED else "development"
        setting = f"{'+'.join(line['sources'])}, {line['relaxations']} relaxations, {kind} models"
        for family in (line["family"], "both families"):
            groups.setdefault(f"{family}, at most {line['atoms']} atoms, {setting}", []).append(line)
    summary: dict[str, Any] = {}
    console = Console(width=130)
    for title, group in sorted(groups.items()):
        found = outcomes(group)
        table = Table(title=title)
        for heading in ("arm", "runs", "solved", "force calls", "ratio", "low niches", "ratio", "search, % of time"):
            table.add_column(heading, justify="right")
        for arm in ARMS:
            own = [line for line in group if line["arm"] == arm]
            if not own or not any(key[2] == BASELINE for key in found):
                continue
            row = compare(found, arm)
            timed = [line for line in own if "relaxing_processor_seconds" in line]
            seconds = sum(line["processor_seconds"] for line in timed)
            relaxing = sum(line["relaxing_processor_seconds"] for line in timed)
            row["share"] = 1 - relaxing / seconds if timed else None
            summary.setdefault(title, {})[arm] = row
            expected = row["expected_force_calls"]
            table.add_row(
                arm,
                str(row["runs"]),
                str(row["successes"]),
                "" if expected is None else f"{expected:.0f}",
                "{:.2f} ({:.2f}-{:.2f})".format(*row["ratio"]),
                f"{row['low_niches']:.1f}",
                "{:.2f} ({:.2f}-{:.2f})".format(*row["low_ratio"]),
                "" if row["share"] is None else f"{100 * row['share']:.0f}",
            )
        console.print(table)
    SUMMARY.write_text(json.dumps(summary, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=RUNS, help="file of the runs")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run")
    run.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    run.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    run.add_argument("--models", nargs="+", type=int, help="seeds of the models")
    run.add_argument("--reported", action="store_true", help="the models that are reported")
    run.add_argument("--atoms", type=int, default=18)
    run.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    run.add_argument("--sources", nargs="+", default=["wyckoff"])
    run.add_argument("--relaxations", type=int, default=100)
    run.set_defaults(command=command_run)
    commands.add_parser("report").set_defaults(command=command_report)
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
