"""Replay relaxations of a generator's samples at all compositions of a system in orders that learn across compositions.

    python benchmarks/systems_replay.py record [--systems lj-1]    # relax samples at each composition, resumable
    python benchmarks/systems_replay.py replay [--seeds 6]         # what is missing of the plan, resumable
    python benchmarks/systems_replay.py report

``record`` draws two batches of ``wyckoff`` for each composition of a system of ``systems.py`` (one for elements) and
relaxes each sample once, which takes two minutes for a Lennard-Jones mixture; it repeats bit for bit, so that its files
are not kept in the repository. ``replay`` divides 130 relaxations between the compositions by the expected improvement
of the hull, as a search does, and lets the queue of samples of a search
(:class:`hybridcsp.sources.batch_queue.BatchQueue`) propose jobs of twelve, whose samples compete. Each seed keeps
another 70 % of the samples; the phases to be found are those of the hull of what it keeps. The posterior of arms learns
from all compositions of both elements:

- ``frozen``: the order of the generator;
- ``composition``: the posterior of heights of each composition by itself, as in the default search;
- ``system``: the logarithm of the place in the order of the generator, plus the standardised prediction of a ridge
  regression of exp(-height / 50 meV) on symmetry and fingerprint, of which only differences within a composition
  teach; samples that jobs have evaluated are sorted in the same way by the logarithm of their estimated height;
- ``near``: the same, with weights that decrease by a factor of e for each 30 % of the atoms that differ;
- ``weak``, ``strong``: ``system`` with half and twice the weight of the prediction;
- ``exchanged``: the logarithm of the place in the order of the generator, minus half of the standardised evidence for
  prototypes: the sum of exp(-height / 50 meV) of samples of the same prototype, with the elements exchanged, at another
  composition;
- ``both``: ``system`` and ``exchanged``;
- ``shuffled``: a random order; ``oracle``: the order of the heights in which the samples end.

``report`` gives the expected running time to four fifths of the phases (force calls of all replays up to their success
or end, over the number of successes) and the mean force calls to a phase, relative to ``frozen``, with 95 % bootstrap
intervals over systems.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from ase.calculators.emt import EMT
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from learning_replay import Batches, Recorded, outcome_of, record
from run_lines import append_line, read_lines
from systems import ENOUGH, FOUND, RELAXATIONS, hull_of, problem_of

from hybridcsp import System
from hybridcsp.core.hull import Hull
from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate
from hybridcsp.errors import GeneratorError
from hybridcsp.search.composition_allocation import CompositionAllocation
from hybridcsp.sources.batch_queue import BatchQueue
from hybridcsp.sources.height_posterior import HeightPosterior
from hybridcsp.sources.registry import ONE_SHOT

RESULTS = Path(__file__).parent / "results"
RUNS, SUMMARY = RESULTS / "systems_replay_runs.jsonl", RESULTS / "systems_replay.json"
SAMPLES = Path(__file__).parent / ".searches" / "systems_replay"

SYSTEMS = ("lj-1", "lj-3", "lj-5", "lj-7", "lj-9")

#: Batches of a composition, and fraction of the samples that a seed keeps.
BATCHES, KEPT = 2, 0.7

#: Relaxations of the system from which a posterior is used.
FEWEST = 12

#: Height in eV/atom over which a sample teaches less by a factor of e, smallest estimated height that is
#: distinguished, and the strength of the prior of the regression.
WINDOW, LEAST_ESTIMATE, RIDGE = 0.05, 0.05, 10.0

BASELINE, DRAWS = "frozen", 4000


@dataclass(kw_only=True)
class Arm:
    """The order in which an arm relaxes samples, and what it has learned.

    Attributes
    ----------
    weight
        Weight of the standardised prediction.
    distance
        Fraction of the atoms that differ over which the weight of another composition decreases by a factor of e.
    prototypes
        Weight of the standardised evidence for prototypes.
    """

    weight: float = 0.0
    distance: float = math.inf
    prototypes: float = 0.0
    tries: list[tuple[str, Recorded, float, float]] = field(default_factory=list)  # with enthalpy and estimate
    lowest: dict[str, float] = field(default_factory=dict)

    def observe(self, formula: str, sample: Recorded, outcome: Relaxed | Failed) -> None:
        """Learn from a relaxation."""
        enthalpy = outcome.enthalpy_per_atom if isinstance(outcome, Relaxed) else math.inf
        self.lowest[formula] = min(enthalpy, self.lowest.get(formula, math.inf))
        estimate = outcome.candidate.proposal.tag.get("estimate")
        if outcome.chosen is not None and outcome.start_estimates:
            estimate = outcome.start_estimates[outcome.chosen]
        self.tries.append((formula, sample, enthalpy, math.nan if estimate is None else float(estimate)))

    def order(
        self, formula: str, samples: Sequence[tuple[Recorded, int]], estimates: Sequence[float], rng: Any
    ) -> Any | None:
        """Return the keys by which samples with their places in the order of the generator are sorted, if any."""
        asked = [one for one, _ in samples]
        learned = self._predict(formula, asked, estimates) if self.weight else None
        evidence = self._evidence(formula, asked) if self.prototypes and not len(estimates) else None
        if learned is None and evidence is None:
            return None
        keys = np.log([1.0 + place for _, place in samples])
        if len(estimates):
            keys = _standardised(np.log(self._heights(formula, estimates)))
        if learned is not None:
            keys = keys + self.weight * _standardised(learned)
        return keys if evidence is None else keys - self.prototypes * _standardised(evidence)

    def _evidence(self, formula: str, samples: Sequence[Recorded]) -> Any | None:
        """Return the evidence for the prototypes of samples from other compositions; ``None`` without any."""
        shares: dict[Any, float] = {}
        for name, one, enthalpy, _ in self.tries:
            if name != formula and math.isfinite(self.lowest[name]) and one.label is not None:
                height = math.exp(-(enthalpy - self.lowest[name]) / WINDOW)
                shares[one.label] = shares.get(one.label, 0.0) + height
        found = np.array([shares.get(one.label, 0.0) for one in samples])
        return found if found.any() else None

    def _heights(self, formula: str, estimates: Sequence[float]) -> Any:
        """Return estimated heights above the lowest end of a composition, or above the lowest estimate without one."""
        lowest = self.lowest.get(formula, math.inf)
        return np.maximum(np.array(estimates) - (lowest if math.isfinite(lowest) else min(estimates)), LEAST_ESTIMATE)

    def _predict(self, formula: str, samples: Sequence[Recorded], estimates: Sequence[float]) -> Any | None:
        """Return predictions from all compositions of both elements; ``None`` if there is too little evidence."""
        known = [
            one for one in self.tries if len(set(one[1].row["numbers"])) > 1 and math.isfinite(self.lowest[one[0]])
        ]
        if len(known) < FEWEST or len(set(samples[0].row["numbers"])) == 1:
            return None
        names = np.array([name for name, *_ in known])
        target = np.array([-math.exp(-(enthalpy - self.lowest[name]) / WINDOW) for name, _, enthalpy, _ in known])
        pairs = [
            (np.array([one.features for _, one, *_ in known]), np.array([one.features for one in samples])),
            (np.array([_print(one) for _, one, *_ in known]), np.array([_print(one) for one in samples])),
        ]
        if len(estimates):
            logarithms = np.log([self._heights(name, [estimate])[0] for name, *_, estimate in known])
            pairs.append((logarithms[:, None], np.log(self._heights(formula, estimates))[:, None]))
        nearness = np.exp([-_distance(name, formula) / (2 * self.distance) for name in names.tolist()])
        target = _centred(target, names) * nearness
        columns, asked = [], []
        for features, wanted in pairs:
            features, wanted = _centred(np.nan_to_num(features), names), wanted - wanted.mean(axis=0)
            scale = np.sqrt(np.concatenate([features, wanted]).var(axis=0))
            scale[scale < 1e-9] = np.inf
            scale *= math.sqrt(max(1, np.isfinite(scale).sum()))
            columns.append(features / scale * nearness[:, None])
            asked.append(wanted / scale)
        x, z = np.hstack(columns), np.hstack(asked)
        if target.std() < 1e-6:
            return None
        kernel = x @ x.T
        scale = len(x) / np.trace(kernel)
        return z @ x.T @ np.linalg.solve(scale * kernel + RIDGE * np.eye(len(x)), target) * scale


class Composition(Arm):
    """The posterior of each composition by itself."""

    def __init__(self) -> None:
        super().__init__()
        self._posteriors: dict[str, HeightPosterior] = {}

    def observe(self, formula: str, sample: Recorded, outcome: Relaxed | Failed) -> None:
        """Learn from a relaxation."""
        self._posteriors.setdefault(formula, HeightPosterior()).observe(outcome)

    def order(
        self, formula: str, samples: Sequence[tuple[Recorded, int]], estimates: Sequence[float], rng: Any
    ) -> Any | None:
        """Return drawn heights."""
        posterior = self._posteriors.setdefault(formula, HeightPosterior())
        return posterior.draw([one.features for one, _ in samples], rng, estimates)


class Shuffled(Arm):
    """A random order of the samples of a batch."""

    def order(
        self, formula: str, samples: Sequence[tuple[Recorded, int]], estimates: Sequence[float], rng: Any
    ) -> Any | None:
        """Return random numbers for samples without estimates."""
        return None if len(estimates) else rng.random(len(samples))


class Oracle(Arm):
    """The order of what the samples relax to."""

    def order(
        self, formula: str, samples: Sequence[tuple[Recorded, int]], estimates: Sequence[float], rng: Any
    ) -> Any | None:
        """Return the enthalpies of the ends."""
        return np.array([_end(one) for one, _ in samples])


ARMS = {
    BASELINE: Arm,
    "composition": Composition,
    "system": lambda: Arm(weight=1.0),
    "near": lambda: Arm(weight=1.0, distance=0.3),
    "weak": lambda: Arm(weight=0.5),
    "strong": lambda: Arm(weight=2.0),
    "exchanged": lambda: Arm(prototypes=0.5),
    "both": lambda: Arm(weight=1.0, prototypes=0.5),
    "shuffled": Shuffled,
    "oracle": Oracle,
}


def _standardised(values: Any) -> Any:
    return (values - values.mean()) / max(float(values.std()), 1e-9)


def _centred(values: Any, names: Any) -> Any:
    """Return values without the mean of each composition."""
    found = np.array(values, dtype=float)
    for name in set(names.tolist()):
        found[names == name] -= found[names == name].mean(axis=0)
    return found


def _print(sample: Recorded) -> Any:
    return sample.sample.described.fingerprint


def _end(sample: Recorded) -> float:
    enthalpy = sample.row["enthalpy"]
    return math.inf if enthalpy is None else float(enthalpy)


@cache
def _distance(first: str, second: str) -> float:
    """Return the fraction of the atoms in which two compositions differ."""
    contents = [Problem(formula).composition for formula in (first, second)]
    shares = [{symbol: n / sum(one.values()) for symbol, n in one.items()} for one in contents]
    return sum(abs(shares[0].get(s, 0.0) - shares[1].get(s, 0.0)) for s in {*shares[0], *shares[1]}) / 2


class ReplayQueue(BatchQueue):
    """Queue of a composition, whose order an arm decides."""

    def __init__(self, batches: Batches, arm: Arm, formula: str) -> None:
        unseen = _NoneKnown()  # the samples hold no duplicates
        super().__init__(batches, 0, "wyckoff", unseen, ONE_SHOT, None)  # type: ignore[arg-type]
        self._recorded, self._arm, self._formula = batches, arm, formula

    def _in_order(self, selection: Any, batch: Any, rng: Any) -> list[int]:
        left = super()._in_order(selection, batch, rng)
        samples = [(self._recorded[{"batch": batch.seed, "position": place}], place) for place in left]
        keys = self._arm.order(self._formula, samples, [], rng) if left else None
        return left if keys is None else [left[i] for i in np.argsort(keys, kind="stable").tolist()]

    def _ranked_leftovers(self, rng: Any) -> list[Any]:
        ranked = super()._ranked_leftovers(rng)
        samples = [(self._recorded[one.tag], one.tag["position"]) for one in ranked]
        estimates = [one.estimate for one in ranked if one.estimate is not None]
        keys = self._arm.order(self._formula, samples, estimates, rng) if ranked else None
        return ranked if keys is None else [ranked[i] for i in np.argsort(keys, kind="stable").tolist()]


class _NoneKnown:
    """Index that counts structures, and finds none."""

    def __init__(self) -> None:
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def add(self, *_: object) -> None:
        self._n += 1

    def find(self, *_: object) -> None:
        return None


@dataclass(eq=False)
class _Part:
    """What :class:`CompositionAllocation` reads of the state of a composition."""

    formula: str
    lowest: float = math.inf
    number_of_minima: int = 0
    candidates: list[int] = field(default_factory=list)
    tallies: dict[Any, Any] = field(default_factory=dict)
    basins: tuple[int, ...] = ()

    def ranked(self, n: int) -> list[Any]:
        return [SimpleNamespace(suspect=False, part=self)] if self.number_of_minima else []


@dataclass(eq=False)
class _State:
    """What :class:`CompositionAllocation` reads of the state of a system."""

    system: System
    hull: Hull
    parts: dict[str, _Part] = field(default_factory=dict)
    references: frozenset[int] = frozenset()
    decreases: list[float] = field(default_factory=list)

    def height(self, basin: Any) -> float:
        energy = self.hull.energy(basin.part.formula)
        return 0.0 if energy is None else float(basin.part.lowest - energy)

    def add(self, formula: str, enthalpy: float) -> None:
        part = self.parts[formula]
        part.number_of_minima += 1
        if enthalpy < part.lowest:
            if part.number_of_minima > 1:
                self.decreases.append(part.number_of_minima * (part.lowest - enthalpy))
            part.lowest = enthalpy
            self.hull.put(formula, enthalpy)


def replay(system: System, samples: Mapping[str, Sequence[Recorded]], arm: Arm, seed: int) -> dict[str, Any]:
    """Return the force calls to four fifths of the phases, and the mean of those to a phase."""
    rng = np.random.default_rng(seed)
    kept = {formula: [one for one in own if rng.random() < KEPT] for formula, own in samples.items()}
    lowest = {formula: min(map(_end, own)) for formula, own in kept.items()}
    phases = hull_of(system, lowest).stable
    state = _State(system, Hull(system.elements))
    allocation = CompositionAllocation(state)  # type: ignore[arg-type]
    queues: dict[str, tuple[ReplayQueue, Batches]] = {}
    context = SimpleNamespace(archive=SimpleNamespace(directory=Path()))
    dry: set[str] = set()
    found_at: dict[str, int] = {}
    calls = relaxations = 0
    while relaxations < RELAXATIONS and (formula := allocation.choose(dry)) is not None:
        if formula not in queues:
            batches = Batches(kept[formula], sorted({one.row["batch"] for one in kept[formula]}))
            queues[formula] = ReplayQueue(batches, arm, formula), batches
            state.parts[formula] = _Part(formula)
        queue, batches = queues[formula]
        context.rng = np.random.default_rng([seed, relaxations])
        try:
            proposal = queue.propose(context)  # type: ignore[arg-type]
        except GeneratorError:  # all are used
            dry.add(formula)
            continue
        relaxations += 1
        candidate = Candidate(proposal=proposal, id=relaxations, source="wyckoff")
        queue.proposed(candidate)
        state.parts[formula].candidates.append(relaxations)
        outcome, row = outcome_of(candidate, batches)
        queue.observe(outcome)
        calls += outcome.cost.force_calls
        if isinstance(outcome, Relaxed) and row["minimum"] is not None:
            state.add(formula, row["enthalpy"])
            if formula in phases and row["enthalpy"] <= lowest[formula] + FOUND:
                found_at.setdefault(formula, calls)
        sample = next((one for one in kept[formula] if one.row is row), None)
        if sample is not None:
            arm.observe(formula, sample, outcome)
    needed, order = math.ceil(ENOUGH * len(phases)), sorted(found_at.values())
    return {
        "phases": len(phases),
        "found": len(order),
        "solved": int(len(order) >= needed),
        "force_calls": order[needed - 1] if len(order) >= needed else calls,
        "mean_calls": float(np.mean([found_at.get(formula, calls) for formula in phases])),
    }


def file_of(name: str, formula: str) -> Path:
    """Return the file of the samples of a composition."""
    return SAMPLES / name / f"{formula}.json"


def command_record(options: argparse.Namespace) -> None:
    todo = [
        (name, formula)
        for name in options.systems
        for formula in problem_of(name)[0].compositions
        if not file_of(name, formula).exists()
    ]
    print(f"{len(todo)} compositions to do, about {len(todo) * 8 / 3600:.2f} core-hours", flush=True)
    for name, formula in todo:
        system, calculator = problem_of(name)
        start = time.process_time()
        batches = 1 if formula in system.elements else BATCHES
        potential = EMT() if calculator == "emt" else calculator
        record(system.problem(formula), potential, sum(map(ord, name)), batches, file_of(name, formula))
        print(name, formula, f"{time.process_time() - start:.0f} s", flush=True)


def command_replay(options: argparse.Namespace) -> None:
    finished = {(line["system"], line["arm"], line["seed"]) for line in read_lines(options.runs)}
    for name in options.systems:
        todo = [
            (arm, seed) for seed in range(options.seeds) for arm in options.arms if (name, arm, seed) not in finished
        ]
        system = problem_of(name)[0]
        if not todo or not all(file_of(name, formula).exists() for formula in system.compositions):
            continue
        samples = {
            formula: [Recorded(row, system.problem(formula)) for row in json.loads(file_of(name, formula).read_text())]
            for formula in system.compositions
        }
        features = {one.sample.atoms.positions.tobytes(): one.features for own in samples.values() for one in own}
        queue, posterior = "hybridcsp.sources.batch_queue", "hybridcsp.sources.height_posterior"
        with (  # each sample is described once, not in each replay
            patch(f"{queue}.compute_descriptors", lambda atoms: None),
            patch(f"{posterior}.structure_features", lambda atoms, known=features: known[atoms.positions.tobytes()]),
        ):
            for arm, seed in todo:
                line = {"system": name, "arm": arm, "seed": seed, **replay(system, samples, ARMS[arm](), seed)}
                append_line(options.runs, line)
                print(*line.values(), flush=True)


def command_report(options: argparse.Namespace) -> None:
    lines = {(line["system"], line["seed"], line["arm"]): line for line in read_lines(options.runs)}
    table = Table(title="orders of samples that learn across compositions")
    for heading in ("arm", "replays", "phases found", "4/5 found", "force calls", "mean force calls to a phase"):
        table.add_column(heading, justify="right")
    summary: dict[str, Any] = {}
    for arm in ARMS:
        both = sorted(key[:2] for key in lines if key[2] == arm and (*key[:2], BASELINE) in lines)
        if not both:
            continue
        measures = ("force_calls", "solved", "mean_calls")
        values = np.array(
            [[lines[*key, which][measure] for which in (arm, BASELINE) for measure in measures] for key in both]
        )
        names = np.array([name for name, _ in both])
        sums = np.array([values[names == name].sum(axis=0) for name in np.unique(names)])
        drawn = sums[np.random.default_rng(0).integers(len(sums), size=(DRAWS, len(sums)))].sum(axis=1)
        ratios = {}
        for title, ratio in (
            ("force_calls", lambda one: one[0] * one[4] / (one[1] * one[3])),
            ("mean_calls", lambda one: one[2] / one[5]),
        ):
            with np.errstate(divide="ignore", invalid="ignore"):
                interval = np.nanquantile(ratio(drawn.T), [0.025, 0.975], method="inverted_cdf")
                ratios[title] = [round(float(value), 3) for value in (ratio(sums.sum(axis=0)), *interval)]
        own = [lines[*key, arm] for key in both]
        found, phases, solved = (sum(line[name] for line in own) for name in ("found", "phases", "solved"))
        summary[arm] = {"replays": len(own), "found": found, "phases": phases, "solved": solved, **ratios}
        texts = ("{:.2f} ({:.2f}-{:.2f})".format(*ratio) for ratio in ratios.values())
        table.add_row(arm, str(len(own)), f"{found} of {phases}", str(solved), *texts)
    Console(width=120).print(table)
    SUMMARY.write_text(json.dumps(summary, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=RUNS, help="file of the replays")
    commands = parser.add_subparsers(required=True)
    for name, function in (("record", command_record), ("replay", command_replay), ("report", command_report)):
        command = commands.add_parser(name)
        command.set_defaults(command=function)
        if name != "report":
            command.add_argument("--systems", nargs="+", default=list(SYSTEMS))
        if name == "replay":
            command.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
            command.add_argument("--seeds", type=int, default=6, help="number of seeds")
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
