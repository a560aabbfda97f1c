"""Do searches gain where several structures are evaluated and the most promising is relaxed? How do sources compare?

    python benchmarks/racing.py record [--systems 0/2]        # relaxations of random starts, all of their energies
    python benchmarks/racing.py replay                        # what rules of choice would have gained on these
    python benchmarks/racing.py run --arms random@1 random@6 --seeds 1 2 [--sizes 8 12] [--reported]
    python benchmarks/racing.py report [--arms random@1 random@6]

``record`` relaxes random starts of development systems (EMT and the model potentials of ``model_potentials.py``, odd
seeds) and keeps enthalpy, largest force and stress of every force call. ``replay`` draws jobs from them: a rule takes
a number of starts, evaluates each once, may relax the best of them for some steps, and relaxes one or more to the end.
A job is successful if it reaches one of the lowest 3, 5 or 8 % of all ends; printed are force calls per success,
divided by those of single starts.

``run`` searches model potentials with one source alone, one worker, in this process, up to a number of force calls. An
arm is ``SOURCE@N``, N being the number of structures per job (``one_shot``, or that of random crystals); ``--label``
marks the arms of another version of the package, which PYTHONPATH chooses. ``report`` counts a search as successful
when it came within 2 meV/atom of the lowest minimum of any arm, and prints the expected running time (force calls of
all searches up to their success, divided by the number of successes) with a 95 % bootstrap interval over problems. Runs
are appended to a file, and an interrupted command continues when it is repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT

sys.path.insert(0, str(Path(__file__).parent))

from model_potentials import FAMILIES, InProcess, make
from run_lines import append_line, read_lines, searched_by_all

from hybridcsp import Problem, Search
from hybridcsp.core.outcomes import Relaxed
from hybridcsp.core.records import Candidate, Job, Proposal
from hybridcsp.relaxation.guards import GuardedCalculator
from hybridcsp.relaxation.relax import run_job
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.sources.base import BaseSource, Context
from hybridcsp.sources.preselection import Alternative, make_proposal
from hybridcsp.sources.random import RandomSource

RESULTS = Path(__file__).parent / "results"
RUNS, TRACES = RESULTS / "racing_runs.jsonl", RESULTS / "racing_traces"

#: Systems of ``record``: formula and formula units for EMT, or family, seed and atoms of a model potential.
SYSTEMS: Sequence[tuple[Any, ...]] = (
    *(("NiAl3", 2), ("CuAu", 6), ("PdCu3", 3), ("AgAu2", 4), ("Pd2Al", 4)),
    *(("binary-lj", seed, atoms) for seed, atoms in ((1, 12), (3, 16), (5, 8), (7, 12), (9, 16), (11, 10), (15, 12))),
    *(("ionic", seed, atoms) for seed, atoms in ((1, 12), (3, 10), (5, 16), (7, 12), (9, 10), (13, 12))),
)
STARTS = 130

#: Seeds of the model potentials of ``run``, and force calls of a search.
DEVELOPMENT, REPORTED = (1, 3, 5), (0, 2, 4, 6)
FORCE_CALLS = 1500

#: Height in eV/atom above the lowest known minimum up to which it counts as found.
FOUND = 0.002

#: Hours of one search, for the planned time.
HOURS_PER_SEARCH = 0.008


class Recorder(GuardedCalculator):
    """Guarded calculator that keeps enthalpy per atom, largest force and stress residual of every force call."""

    traces: list[list[tuple[float, float, float]]] = []  # noqa: RUF012  # of all relaxations; one process, one thread

    def calculate(
        self, atoms: Atoms, properties: list[str] | None = None, system_changes: list[str] | None = None
    ) -> None:
        """Calculate, and add a line to the trace."""
        super().calculate(atoms, properties, system_changes)
        if self.force_calls == 1:
            self.traces.append([])
        enthalpy = (self.results["energy"] + self.pressure * atoms.get_volume()) / len(atoms)
        line = enthalpy, self.max_force or 0.0, self.max_stress_residual or 0.0
        self.traces[-1].append(tuple(round(value, 5) for value in line))  # type: ignore[arg-type]


def system(entry: Sequence[Any]) -> tuple[str, Problem, Calculator]:
    """Return name, problem and calculator of a system."""
    if len(entry) == 2:
        formula, units = entry
        return f"emt-{formula}-{units}", Problem(formula, formula_units=units), EMT()
    model = make(*entry)
    return model.name, model.problem, model.calculator


def command_record(options: argparse.Namespace) -> None:
    import hybridcsp.relaxation.relax as module

    module.GuardedCalculator = Recorder  # type: ignore[misc]
    part, parts = map(int, options.systems.split("/"))
    TRACES.mkdir(parents=True, exist_ok=True)
    for entry in SYSTEMS[part::parts]:
        name, problem, calculator = system(entry)
        file = TRACES / f"{name}.json"
        if file.exists():
            continue
        context = SimpleNamespace(rng=np.random.default_rng(7))
        Recorder.traces.clear()
        runs = []
        for number, proposal in enumerate(RandomSource(problem).propose(STARTS, context), 1):  # type: ignore[arg-type]
            candidate = Candidate(proposal=proposal, id=number, source="random")
            job = Job(candidate=candidate, atoms=proposal.atoms)
            before = len(Recorder.traces)
            outcome = run_job(job, calculator, "", RelaxationSettings())
            if len(Recorder.traces) > before:
                converged = isinstance(outcome, Relaxed) and outcome.converged
                runs.append({"converged": converged, "trace": Recorder.traces[-1]})
        file.write_text(json.dumps(runs))
        print(name, len(runs), np.mean([len(run["trace"]) for run in runs]), flush=True)


Traces = tuple[list[np.ndarray], np.ndarray, np.ndarray]


def force_calls_per_success(traces: Traces, rule: Rule, quantile: float, jobs: int = 1000) -> float:
    """Return force calls per success of a rule divided by those of single starts."""
    steps, ends, lengths = traces
    highest = np.sort(ends)[max(1, round(quantile * len(ends))) - 1] + 1e-3
    hit = ends <= highest
    rng = np.random.default_rng(0)
    starts = np.argsort(rng.random((jobs, len(ends))), axis=1)[:, : rule.starts]
    cost, done, alive = np.zeros(jobs), np.zeros(starts.shape, int), np.ones(starts.shape, bool)
    order = np.full(starts.shape, np.inf)
    for number, (step, keep) in enumerate(((1, rule.starts), *rule.rounds)):
        reached = np.minimum(step, lengths[starts])
        cost += np.where(alive, reached - done, 0).sum(axis=1)
        done = np.where(alive, reached, done)
        estimates = np.array([rule.estimate(trace[min(step, len(trace)) - 1]) for trace in steps])
        values = np.where(alive, estimates[starts], np.inf)
        order = np.where(alive, values - 1e6 * number, order)
        alive &= values.argsort(axis=1).argsort(axis=1) < keep
    ranked = order.argsort(axis=1)
    successful = np.zeros(jobs, bool)
    rows = np.arange(jobs)
    for place in range(rule.relaxed):
        chosen = starts[rows, ranked[:, place]]
        cost += np.where(successful, 0, lengths[chosen] - done[rows, ranked[:, place]])
        successful |= hit[chosen]
    return float(cost.sum() / max(successful.sum(), 0.5) / (lengths.mean() / hit.mean()))


class Rule(SimpleNamespace):
    """Number of starts of a job, rounds (steps and number of those that stay), number that are relaxed, estimate."""

    starts: int
    relaxed: int
    rounds: tuple[tuple[int, int], ...]
    estimate: Callable[[np.ndarray], float]


def energy(point: np.ndarray) -> float:
    """Return the enthalpy."""
    return float(point[0])


def looking_ahead(point: np.ndarray) -> float:
    """Return the enthalpy less what the largest force promises."""
    from hybridcsp.relaxation.preselection import FALL_PER_FORCE, LARGEST_FORCE

    return float(point[0] - FALL_PER_FORCE * min(point[1], LARGEST_FORCE))


RULES: Mapping[str, Rule] = {
    **{
        f"{k} starts, {n} relaxed, energies": Rule(starts=k, relaxed=n, rounds=(), estimate=energy)
        for k, n in ((6, 2), (12, 3))
    },
    **{
        f"{k} starts, {n} relaxed": Rule(starts=k, relaxed=n, rounds=(), estimate=looking_ahead)
        for k, n in ((4, 2), (6, 1), (6, 2), (8, 3), (12, 1), (12, 3), (12, 4), (24, 4))
    },
    **{
        f"{k} starts, {text}, {n} relaxed": Rule(starts=k, relaxed=n, rounds=rounds, estimate=looking_ahead)
        for k, n, text, rounds in (
            (8, 2, "4 for 6 steps", ((1, 4), (6, 2))),
            (8, 1, "4 for 6, 2 for 12 steps", ((1, 4), (6, 2), (12, 1))),
            (12, 1, "6 for 6, 3 for 12 steps", ((1, 6), (6, 3), (12, 1))),
            (6, 1, "3 for 10 steps", ((1, 3), (10, 1))),
        )
    },
}


def command_replay(options: argparse.Namespace) -> None:
    systems: dict[str, Traces] = {}
    for file in sorted(TRACES.glob("*.json")):
        runs = json.loads(file.read_text())
        traces = [np.array(run["trace"]) for run in runs]
        ends = np.array([trace[-1, 0] if run["converged"] else np.inf for trace, run in zip(traces, runs, strict=True)])
        systems[file.stem] = traces, ends, np.array([len(trace) for trace in traces])
    if not systems:
        raise SystemExit("No relaxations of random starts have been recorded: python benchmarks/racing.py record")
    print(f"{sum(len(one[1]) for one in systems.values())} relaxations of {len(systems)} systems: {', '.join(systems)}")
    for text, rule in RULES.items():
        logs = np.array(
            [
                np.mean([np.log(force_calls_per_success(one, rule, quantile)) for quantile in (0.03, 0.05, 0.08)])
                for one in systems.values()
            ]
        )
        each = " ".join(f"{value:.2f}" for value in np.exp(logs))
        print(f"{text:44} geometric mean {np.exp(logs.mean()):.2f}, largest {np.exp(logs.max()):.2f} | {each}")


def read() -> list[dict[str, Any]]:
    """Return all searches of the file of results."""
    return read_lines(RUNS)


def command_run(options: argparse.Namespace) -> None:
    planned = [
        (family, number, size, arm, seed)
        for seed in options.seeds
        for number in (options.models or (REPORTED if options.reported else DEVELOPMENT))
        for size in options.sizes
        for family in options.families
        for arm in options.arms
    ]
    done = {(run["arm"], run["problem"], run["seed"]) for run in read()}
    print(f"{len(planned)} searches, about {HOURS_PER_SEARCH * len(planned):.1f} core-hours", flush=True)
    for family, number, size, arm, seed in planned:
        model = make(family, number, size)
        label = f"{options.label}{arm}"
        if (label, model.name, seed) in done:
            continue
        source, _, several = arm.partition("@")
        start = time.process_time()
        with (
            tempfile.TemporaryDirectory() as folder,
            Search(
                model.problem,
                directory=Path(folder) / "run",
                sources=(source_of(source, int(several or 1), model.problem),),
                seed=seed,
                backend=InProcess(model.calculator),
                calculator=None,
                one_shot=int(several or 1),
            ) as search,
        ):
            search.run(force_calls=options.force_calls, refine=0)
            state = search.archive.state
            run = {
                "arm": label,
                "problem": model.name,
                "seed": seed,
                "relaxations": state.relaxations,
                "force_calls": state.cost.force_calls,
                "minima": len(state.basins),
                "improvements": [[*one[:2], round(one[2], 5)] for one in state.improvements],
                "seconds": round(time.process_time() - start, 1),
                "proposing": round(state.proposing.seconds, 1),
            }
        append_line(RUNS, run)
        print(label, model.name, seed, run["relaxations"], run["seconds"], run["improvements"][-1:], flush=True)


class RacingRandomSource(BaseSource):
    """Propose jobs of several random crystals with the same contents, of which each relaxes the most promising."""

    name = "random"

    def __init__(self, problem: Problem, structures: int) -> None:
        self._structures = structures
        self._sources = [RandomSource(replace(problem, formula_units=units)) for units in problem.units]

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Return one job."""
        source = self._sources[context.rng.integers(len(self._sources))]
        drawn = source.propose(self._structures, context)
        if not drawn:
            return []
        seconds = sum(one.cost.seconds for one in drawn)
        return [make_proposal("random", [Alternative(one.atoms, one.tag) for one in drawn], {}, seconds)]


def source_of(name: str, structures: int, problem: Problem) -> str | BaseSource:
    """Return a source of which a number of structures form one job, as generators' do in a search."""
    return RacingRandomSource(problem, structures) if name == "random" and structures > 1 else name


def command_report(options: argparse.Namespace) -> None:
    runs = read()
    latest = {(run["arm"], run["problem"], run["seed"]): run for run in runs}
    arms = options.arms or sorted({run["arm"] for run in runs})
    lowest: dict[str, float] = {}
    for run in runs:
        if run["improvements"]:
            lowest[run["problem"]] = min(run["improvements"][-1][2], lowest.get(run["problem"], np.inf))
    keys = sorted(searched_by_all((key for key in latest if key[1].rsplit("-", 2)[0] in options.families), arms))
    problems = sorted({problem for problem, _ in keys})
    print(f"{len(problems)} problems, {len(keys)} searches of each arm")
    picks = np.random.default_rng(0).integers(len(problems), size=(2000, len(problems)))
    baseline: tuple[float, np.ndarray] | None = None
    for arm in arms:
        table = np.zeros((len(problems), 3))  # force calls, relaxations, successes
        for problem, seed in keys:
            run = latest[arm, problem, seed]
            hits = [one for one in run["improvements"] if one[2] <= lowest[problem] + FOUND]
            calls, relaxations = (hits[0][1], hits[0][0]) if hits else (run["force_calls"], run["relaxations"])
            table[problems.index(problem)] += calls, relaxations, bool(hits)
        total, sums = table.sum(axis=0), table[picks].sum(axis=1)
        own, samples = total[0] / max(total[2], 0.5), sums[:, 0] / np.maximum(sums[:, 2], 0.5)
        baseline = baseline or (own, samples)
        low, high = np.quantile(samples / baseline[1], (0.025, 0.975))
        each = " ".join(f"{problem}:{row[2]:.0f}" for problem, row in zip(problems, table, strict=True))
        print(
            f"{arm:28} found {total[2]:.0f}/{len(keys)}, expected running time {own:6.0f} force calls, "
            f"ratio {own / baseline[0]:.2f} ({low:.2f}-{high:.2f}), {total[1] / max(total[2], 0.5):.0f} relaxations"
            + (f" | {each}" if options.each else "")
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("record")
    record.add_argument("--systems", default="0/1", help="i/n: every n-th system from the i-th, to use several cores")
    commands.add_parser("replay")
    run = commands.add_parser("run")
    run.add_argument("--seeds", nargs="+", type=int, default=[1])
    run.add_argument("--models", nargs="+", type=int, default=[])
    run.add_argument("--sizes", nargs="+", type=int, default=[8, 12, 16])
    run.add_argument("--reported", action="store_true", help="the problems with even seeds")
    run.add_argument("--force-calls", type=int, default=FORCE_CALLS)
    run.add_argument("--label", default="")
    report = commands.add_parser("report")
    report.add_argument("--each", action="store_true", help="successes on each problem")
    for command in (run, report):
        command.add_argument("--arms", nargs="+", default=[], required=command is run)
        command.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    options = parser.parse_args()
    {"record": command_record, "replay": command_replay, "run": command_run, "report": command_report}[options.command](
        options
    )


if __name__ == "__main__":
    main()
