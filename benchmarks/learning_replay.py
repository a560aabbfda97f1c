"""Replay recorded relaxations of a generator's samples in the order that the search's learning gives them.

    python benchmarks/learning_replay.py record [--reported]      # relax the samples of each problem, resumable
    python benchmarks/learning_replay.py replay [--reported]      # what is missing of the whole plan, resumable
    python benchmarks/learning_replay.py report

``record`` draws five batches of ``wyckoff`` for each model potential (``model_potentials.py``; even seeds of the models
are for reports, odd ones for development), drops duplicates, relaxes each sample once, and keeps all energies on the
way. It takes about half a minute a problem and repeats bit for bit, so that its files are not kept in the repository.

``replay`` lets the queue of samples of a search (:class:`hybridcsp.sources.batch_queue.BatchQueue`) propose jobs from
these batches, in several orders of the last four, and answers each from the recording: successive halving among the
samples of a job included. Relaxations are not ended in known basins. Arms are the number of samples of a job (``12`` in
the default search), and what decides the order:

- ``frozen``: the generator, and estimates of the enthalpy where they are known;
- ``posterior``: the posterior of the heights (:mod:`hybridcsp.sources.height_posterior`), as in the default search;
- ``batches``: the same among samples that no job has evaluated; among the others, the estimates alone.

``report`` gives force calls and relaxations until the lowest minimum of all samples is reached within 2 meV/atom, and
niches of minima within 50 meV/atom of it after 2,000 force calls, relative to ``frozen-12`` on the same problems and
orders, with 95 % bootstrap intervals over problems.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from ase import Atoms
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from model_potentials import FAMILIES, make
from racing import Recorder
from run_lines import append_line, read_lines

from hybridcsp import Problem
from hybridcsp.core.outcomes import Evaluation, Failed, FailureReason, Relaxed
from hybridcsp.core.records import Candidate, Cost, Job, Proposal
from hybridcsp.errors import GeneratorError
from hybridcsp.generators.loading import shared_generator
from hybridcsp.generators.selection import SelectedSample, Selection
from hybridcsp.prototypes.labels import Label, identify
from hybridcsp.relaxation.calculators.registry import CalculatorLike
from hybridcsp.relaxation.preselection import FALL_PER_FORCE, LARGEST_FORCE, ROUNDS
from hybridcsp.relaxation.relax import run_job
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.similarity import ENERGY_WINDOW, STARTS, StructureIndex, compute_descriptors
from hybridcsp.similarity.niches import NicheIndex
from hybridcsp.sources.batch_queue import BatchQueue
from hybridcsp.sources.batch_sampler import Batch, BatchSampler
from hybridcsp.sources.height_posterior import HeightPosterior, structure_features
from hybridcsp.sources.model_versions import ModelVersions
from hybridcsp.sources.preselection import alternatives_of

RESULTS = Path(__file__).parent / "results"
RUNS, SUMMARY = RESULTS / "learning_replay_runs.jsonl", RESULTS / "learning_replay.json"
SAMPLES = Path(__file__).parent / ".searches" / "learning_replay"

#: Seeds of the models, and largest numbers of atoms.
DEVELOPMENT, REPORTED = (3, 5, 7, 9, 11, 13), (0, 2, 4, 6, 8, 10)
SIZES = (12, 18)

BATCHES = 5

#: Orders of the batches: the first one, which is smaller, remains the first.
ORDERS = [(0, *rest) for rest in itertools.permutations(range(1, BATCHES))][::3]

FOUND, WINDOW = 0.002, 0.05  # eV/atom

#: Force calls after which low niches are counted.
CALLS = 2000

#: Relaxations that the baseline needs on average for a problem that counts as harder.
HARDER = 12

BASELINE = "frozen-12"
ARMS = (BASELINE, "posterior-12", "batches-12", "frozen-6", "posterior-6", "frozen-1", "posterior-1")

DRAWS = 4000


class BatchesOnly(HeightPosterior):
    """A posterior that leaves the order of evaluated samples to their estimates."""

    def draw(self, structures: Any, rng: Any, estimates: Any = ()) -> Any:
        """Return the heights of samples without estimates, and ``None`` for others."""
        return None if len(estimates) else super().draw(structures, rng)


POSTERIORS = {"frozen": lambda: None, "posterior": HeightPosterior, "batches": BatchesOnly}


def record(problem: Problem, calculator: CalculatorLike, seed: int, batches: int, file: Path) -> None:
    """Relax the samples of some batches for a problem, and write them."""
    import hybridcsp.relaxation.relax as module

    sampler = BatchSampler(problem, ModelVersions(shared_generator("wyckoff")))
    rng = np.random.default_rng(seed)
    known = StructureIndex(energy_window=None, tolerances=STARTS)
    minima, niches = StructureIndex(energy_window=ENERGY_WINDOW), NicheIndex()
    rows: list[dict[str, Any]] = []
    for number in range(batches):
        batch = sampler.new_batch(rng, first=number == 0)
        for sample in sampler.select(0, batch, file.parent).chosen:
            if known.find(sample.described) is not None:
                continue
            known.add(len(known), sample.described)
            candidate = Candidate(
                proposal=Proposal(atoms=sample.atoms, operator="wyckoff"), id=len(rows) + 1, source="wyckoff"
            )
            Recorder.traces.clear()
            with patch.object(module, "GuardedCalculator", Recorder):
                outcome = run_job(Job(candidate=candidate, atoms=sample.atoms), calculator, "", RelaxationSettings())
            row = {
                "batch": number,
                "cell": sample.atoms.cell.array.tolist(),
                "positions": sample.atoms.positions.tolist(),
                "numbers": sample.atoms.numbers.tolist(),
                "likelihood": sample.log_likelihood,
                "points": [list(point[:2]) for trace in Recorder.traces[:1] for point in trace[: ROUNDS[-1]]],
                "force_calls": outcome.cost.force_calls,
                "enthalpy": None,
            }
            if isinstance(outcome, Relaxed):
                row |= {"enthalpy": outcome.enthalpy_per_atom, "minimum": None, "niche": None}
                if outcome.converged:
                    described, height = compute_descriptors(outcome.atoms), outcome.enthalpy_per_atom
                    row["minimum"] = minimum = minima.find(described, height)
                    if minimum is None:
                        row["minimum"] = len(rows) + 1
                        minima.add(len(rows) + 1, described, height)
                    row["niche"] = niche = niches.find(described, height)
                    if niche is None:
                        row["niche"] = len(rows) + 1
                        niches.add(len(rows) + 1, described, height)
            rows.append(row)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows))


@dataclass(eq=False)
class Recorded:
    """A sample, and its recorded relaxation."""

    row: Mapping[str, Any]
    problem: Any

    @cached_property
    def sample(self) -> SelectedSample:
        atoms = Atoms(self.row["numbers"], cell=self.row["cell"], positions=self.row["positions"], pbc=True)
        return SelectedSample(
            atoms=atoms,
            units=self.problem.units_of(atoms.numbers),
            spacegroup=0,  # the batches are already in order
            described=compute_descriptors(atoms),
            log_likelihood=self.row["likelihood"],
        )

    @cached_property
    def features(self) -> Any:
        return structure_features(self.sample.atoms)

    @cached_property
    def label(self) -> Label | None:
        """Prototype before the relaxation, with elements in any order; ``None`` without a consistent symmetry."""
        found = identify(self.sample.atoms)
        return None if found is None else found[0]

    def estimate(self, calls: int) -> float | None:
        """Return the estimate of the enthalpy after a number of force calls; ``None`` if it has failed by then."""
        points = self.row["points"]
        if not points or (self.row["enthalpy"] is None and len(points) < calls):
            return None
        enthalpy, force = points[min(calls, len(points)) - 1]
        return float(enthalpy - FALL_PER_FORCE * min(force, LARGEST_FORCE))

    def calls(self, calls: int) -> int:
        """Return how many of a number of force calls it needs at most."""
        return min(calls, max(1, len(self.row["points"])))


class Batches:
    """Recorded batches in some order, in place of a sampler."""

    def __init__(self, samples: Sequence[Recorded], order: Sequence[int]) -> None:
        self._batches = {number: [one for one in samples if one.row["batch"] == number] for number in order}
        self._left = list(order)

    def new_batch(self, rng: np.random.Generator, *, first: bool) -> Batch:
        """Return the next batch; an empty one after the last."""
        seed = self._left.pop(0) if self._left else -1
        # Of single samples, a queue uses the first third of what was requested.
        return Batch(seed=seed, samples=3 * len(self._batches.get(seed, ())))

    def select(self, version: int, batch: Batch, directory: Path) -> Selection:
        """Return the samples of a batch."""
        return Selection(chosen=tuple(one.sample for one in self._batches.get(batch.seed, ())))

    def __getitem__(self, tag: Mapping[str, Any]) -> Recorded:
        return self._batches[tag["batch"]][tag["position"]]


def race(starts: Sequence[Recorded]) -> tuple[list[float | None], int | None, int]:
    """Return the estimates of the samples of a job, the chosen one, and the force calls of the others.

    It follows :func:`hybridcsp.relaxation.preselection.start_from_most_promising`.
    """
    estimates: list[float | None] = [None] * len(starts)
    used = [0] * len(starts)
    alive, dropped = list(range(len(starts))), []
    for calls in ROUNDS:
        for number in alive:
            estimates[number], used[number] = starts[number].estimate(calls), starts[number].calls(calls)
        alive = sorted((n for n in alive if estimates[n] is not None), key=lambda n: estimates[n])  # type: ignore[arg-type, return-value]
        while not alive and dropped:
            alive = dropped.pop()
        if not alive:
            return estimates, None, sum(used)
        keep = -(-len(alive) // 2) if calls != ROUNDS[-1] else 1
        dropped.append(alive[keep:])
        alive = alive[:keep]
    floor = estimates[alive[0]]
    for group in reversed(dropped):
        for number in group:
            estimates[number] = max(estimates[number], floor)  # type: ignore[type-var]
        floor = max([floor, *(estimates[number] for number in group)])  # type: ignore[type-var]
    return estimates, alive[0], sum(used) - used[alive[0]]


def outcome_of(candidate: Candidate, batches: Batches) -> tuple[Relaxed | Failed, Mapping[str, Any]]:
    """Return the outcome of a job, and the row of the sample that was relaxed, if any was."""
    starts = [batches[one.tag] for one in alternatives_of(candidate)]
    estimates, chosen, others = race(starts) if len(starts) > 1 else ([], 0, 0)
    known = {"candidate": candidate, "start_enthalpies": tuple(estimates), "start_estimates": tuple(estimates)}
    row = {} if chosen is None else starts[chosen].row
    cost = Cost(force_calls=others + row.get("force_calls", 0))
    if row.get("enthalpy") is None:
        return Failed(reason=FailureReason.REPORTED, cost=cost, **known), row
    atoms = starts[chosen or 0].sample.atoms
    enthalpy = row["enthalpy"] * len(atoms)
    evaluation = Evaluation(
        level="relax", calculator="", energy=enthalpy, enthalpy=enthalpy, max_force=None, max_stress_residual=None
    )
    converged = row["minimum"] is not None
    return (
        Relaxed(atoms=atoms, evaluation=evaluation, converged=converged, minimum=row["minimum"], cost=cost, **known),
        row,
    )


def replay(samples: Sequence[Recorded], arm: str, order: Sequence[int]) -> dict[str, float]:
    """Return force calls and relaxations to the lowest minimum, and low niches after some force calls."""
    name, _, per_job = arm.partition("-")
    posterior = POSTERIORS[name]()
    batches = Batches(samples, order)
    unseen = StructureIndex(energy_window=None, tolerances=STARTS)  # the samples hold no duplicates
    queue = BatchQueue(batches, 0, "wyckoff", unseen, int(per_job), posterior)  # type: ignore[arg-type]
    lowest = min(one.row["enthalpy"] for one in samples if one.row["enthalpy"] is not None)
    context = SimpleNamespace(archive=SimpleNamespace(directory=Path()))
    force_calls, relaxations, low, found = 0, 0, set(), None
    while found is None or force_calls < CALLS:
        context.rng = np.random.default_rng([ORDERS.index(tuple(order)), relaxations])
        try:
            proposal = queue.propose(context)  # type: ignore[arg-type]
        except GeneratorError:  # all are used
            break
        relaxations += 1
        candidate = Candidate(proposal=proposal, id=relaxations, source="wyckoff")
        queue.proposed(candidate)
        outcome, row = outcome_of(candidate, batches)
        if posterior is not None:
            posterior.observe(outcome)
        queue.observe(outcome)
        force_calls += outcome.cost.force_calls
        if not isinstance(outcome, Relaxed):
            continue
        if force_calls <= CALLS and row["niche"] is not None and row["enthalpy"] <= lowest + WINDOW:
            low.add(row["niche"])
        if found is None and row["enthalpy"] <= lowest + FOUND:
            found = force_calls, relaxations
    assert found is not None
    return {"force_calls": found[0], "relaxations": found[1], "low": len(low)}


def problems(options: argparse.Namespace) -> list[tuple[str, int, int]]:
    """Return family, seed and largest number of atoms of each problem."""
    models = options.models or (REPORTED if options.reported else DEVELOPMENT)
    return [(family, seed, atoms) for atoms in options.atoms for seed in models for family in options.families]


def file_of(family: str, seed: int, atoms: int) -> Path:
    """Return the file of the samples of a problem."""
    return SAMPLES / f"{family}-{seed}-{atoms}.json"


def command_record(options: argparse.Namespace) -> None:
    todo = [one for one in problems(options) if not file_of(*one).exists()]
    print(f"{len(todo)} problems to do, about {len(todo) * 40 / 3600:.2f} core-hours", flush=True)
    for one in todo:
        start = time.process_time()
        model = make(*one)
        record(model.problem, model.calculator, one[1], BATCHES, file_of(*one))
        print(*one, f"{time.process_time() - start:.0f} s", flush=True)


def read_runs() -> list[dict[str, Any]]:
    """Return the lines of the file of replays."""
    return read_lines(RUNS)


def command_replay(options: argparse.Namespace) -> None:
    finished = {(run["problem"], run["arm"]) for run in read_runs()}
    for family, seed, atoms in problems(options):
        file = file_of(family, seed, atoms)
        arms = [arm for arm in options.arms if (file.stem, arm) not in finished]
        if not arms or not file.exists():
            continue
        problem = make(family, seed, atoms).problem
        samples = [Recorded(row, problem) for row in json.loads(file.read_text())]
        features = {one.sample.atoms.positions.tobytes(): one.features for one in samples}
        described = {one.sample.atoms.positions.tobytes(): one.sample.described for one in samples}
        queue = "hybridcsp.sources.batch_queue"
        with (  # each sample is described once, not in each replay
            patch(f"{queue}.structure_features", lambda atoms, known=features: known[atoms.positions.tobytes()]),
            patch(f"{queue}.compute_descriptors", lambda atoms, known=described: known[atoms.positions.tobytes()]),
            patch(
                "hybridcsp.sources.height_posterior.structure_features",
                lambda atoms, known=features: known[atoms.positions.tobytes()],
            ),
            patch.object(StructureIndex, "find", lambda *_: None),
        ):
            for arm in arms:
                results = [replay(samples, arm, order) for order in ORDERS]
                run = {"problem": file.stem, "family": family, "model": seed, "samples": len(samples), "arm": arm}
                run |= {key: [result[key] for result in results] for key in results[0]}
                RUNS.parent.mkdir(exist_ok=True)
                append_line(RUNS, run)
                print(file.stem, arm, *(f"{key} {np.mean(run[key]):.1f}" for key in results[0]), flush=True)


def compare(runs: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return ratios of sums over problems, with intervals."""
    found = {}
    for key in ("force_calls", "relaxations", "low"):
        both = np.array([[np.sum(run[key]), np.sum(base[key])] for run, base in zip(runs, baseline, strict=True)])
        picks = np.random.default_rng(0).integers(len(both), size=(DRAWS, len(both)))
        sums, drawn = both.sum(axis=0), both[picks].sum(axis=1)
        interval = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
        found[key] = [round(float(value), 3) for value in (sums[0] / sums[1], *interval)]
    return found


def command_report(options: argparse.Namespace) -> None:
    runs = {(run["problem"], run["arm"]): run for run in read_runs()}
    summary: dict[str, Any] = {}
    console = Console(width=120)
    for kind, models in (("reported models", REPORTED), ("development models", DEVELOPMENT)):
        base = {name: run for (name, arm), run in runs.items() if arm == BASELINE and run["model"] in models}
        groups = {
            "all": list(base),
            **{family: [name for name in base if base[name]["family"] == family] for family in FAMILIES},
            "harder": [name for name in base if np.mean(base[name]["relaxations"]) > HARDER],
        }
        for title, names in groups.items():
            if not names:
                continue
            heading = f"{title}, {kind}"
            table = Table(title=heading)
            for column in ("arm", "problems", "force calls", "relaxations", "low niches"):
                table.add_column(column, justify="right")
            for arm in sorted({arm for _, arm in runs}, key=[*ARMS].index):
                own = [name for name in names if (name, arm) in runs]
                if not own:
                    continue
                ratios = compare([runs[name, arm] for name in own], [base[name] for name in own])
                summary.setdefault(heading, {})[arm] = {"problems": len(own), **ratios}
                texts = ("{:.2f} ({:.2f}-{:.2f})".format(*ratio) for ratio in ratios.values())
                table.add_row(arm, str(len(own)), *texts)
            console.print(table)
    SUMMARY.write_text(json.dumps(summary, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("record", "replay", "report"):
        command = commands.add_parser(name)
        if name == "report":
            continue
        command.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
        command.add_argument("--models", nargs="+", type=int, help="seeds of the models")
        command.add_argument("--reported", action="store_true", help="the models that are reported")
        command.add_argument("--atoms", nargs="+", type=int, default=list(SIZES))
        if name == "replay":
            command.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    options = parser.parse_args()
    {"record": command_record, "replay": command_replay, "report": command_report}[options.command](options)


if __name__ == "__main__":
    main()
