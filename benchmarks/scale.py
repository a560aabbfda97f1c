"""How many workers can one search serve, and what does the search process do for each outcome?

``python benchmarks/scale.py outcomes --sizes 1000 10000 100000`` fills the archive of a search with as many minima,
lets the search go on with a synthetic backend, which relaxes nothing and answers at once, and lists the processor time
of the search process for each outcome. The candidates are made at nearly no cost, so that this is the cost of
screening, recording, comparing and ranking. The fastest of some blocks counts, because other programs on the machine
slow down the rest; ``--profile NAME`` writes profiles.

``python benchmarks/scale.py dask --workers 2 8 32 64 --seconds 2`` runs searches whose relaxations sleep on the workers
of a Dask cluster on this machine, and lists outcomes per second and the share of time in which workers relax.

``python benchmarks/scale.py simulate`` simulates searches with up to 10,000 workers from these measurements: one
process serves all outcomes in the order of their arrival, and each worker waits for its next job meanwhile.

Results are added to ``benchmarks/results/scale.json``.
"""

import argparse
import cProfile
import heapq
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from hybridcsp import Search
from hybridcsp.archive.history import SourceCall
from hybridcsp.archive.placement import KnownMinima, MinimaMatcher, Placement
from hybridcsp.core.outcomes import Evaluation, Relaxed
from hybridcsp.core.records import RELAX, WORKERS, Candidate, Cost, Proposal
from hybridcsp.relaxation.backends import Backend
from hybridcsp.relaxation.backends.executors.dask import DaskExecutor
from hybridcsp.similarity import compute_descriptors
from hybridcsp.similarity.niches import NICHE_WINDOW, NicheIndex
from hybridcsp.sources.base import BaseSource

RESULTS = Path(__file__).parent / "results" / "scale.json"

#: Share of the relaxations that end in a new minimum; the others end in one of those before.
NEW = 0.5

#: Corners of a cube, around which the atoms of the crystals are.
GRID = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3)

#: Minima that are recorded at once while an archive is filled.
BATCH = 500

#: Relaxations of each worker after which the simulation begins and ends to count.
ROUNDS = 5, 25


def crystal(rng):
    """Return a random triclinic crystal of 4 to 8 atoms, which hardly any screening rejects.

    The cells are so different that few of 100,000 crystals are near-copies, as the minima of most searches are not:
    comparing these exactly would take most of the time.
    """
    units = int(rng.integers(2, 5))
    cell = np.diag(rng.uniform(0.75, 1.3, 3)) @ (np.eye(3) + np.tril(rng.uniform(-0.4, 0.4, (3, 3)), -1))
    cell *= (56 * units * rng.uniform(0.9, 1.1) / np.prod(np.diag(cell))) ** (1 / 3)
    positions = (rng.permutation(GRID)[: 2 * units] + rng.uniform(-0.2, 0.2, (2 * units, 3))) / 2
    return Atoms(f"Cu{units}Au{units}", cell=cell, positions=positions @ cell, pbc=True)


class RandomCrystals(BaseSource):
    """Random crystals, which cost nearly nothing to make."""

    name = "crystals"

    def propose(self, n, context):
        return [Proposal(atoms=crystal(context.rng), operator="made") for _ in range(n)]


class Relaxing:
    """A runner that relaxes nothing: it ends in a known or a new minimum, after a time of sleep."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def __call__(self):
        rng, known = np.random.default_rng(os.getpid() if self.seconds else 0), []

        def run(job):
            if self.seconds:
                time.sleep(self.seconds * rng.uniform(0.5, 1.5))
            if known and rng.random() > NEW:
                atoms, energy = known[rng.integers(len(known))]
            else:
                atoms, energy = crystal(rng), rng.normal(-6.0, 0.3)
                known.append((atoms, energy))
            return relaxed(job.candidate, job.level, atoms, energy, self.seconds)

        return run


def relaxed(candidate, level, atoms, energy, seconds=0.0):
    """Return a relaxation that ended in a structure with an energy in eV/atom."""
    final, n = atoms.copy(), len(atoms)
    final.calc = SinglePointCalculator(final, energy=energy * n, forces=np.zeros((n, 3)), stress=np.zeros(6))
    evaluation = Evaluation(
        level=level,
        calculator="synthetic 1",
        energy=energy * n,
        enthalpy=energy * n,
        max_force=0.01,
        max_stress_residual=0.0,
    )
    cost = Cost(force_calls=50, seconds=seconds)
    return Relaxed(candidate=candidate, atoms=final, evaluation=evaluation, converged=True, cost=cost)


class AtOnce(Backend):
    """A backend that answers at once, in this process, with some outcomes together.

    Many wait together for a search process that is slower than its workers, and each comes alone to a faster one.
    """

    capacity = 64

    def __init__(self):
        self.run, self.jobs = Relaxing()(), []
        self.together = self.capacity  # outcomes
        self.used = 0.0  # processor time

    def submit(self, job):
        self.jobs.append(job)

    def completed(self, timeout):
        begun = time.process_time()
        ended = [self.run(job) for job in self.jobs[: self.together]]
        del self.jobs[: self.together]
        self.used += time.process_time() - begun
        return ended


def a_search(directory, backend):
    return Search(
        "CuAu",
        formula_units=(2, 4),
        sources=[RandomCrystals()],
        backend=backend,
        calculator="emt",
        directory=directory,
    )


def fill(search, minima):
    """Add minima to a search until it has as many, each of a niche of its own that one relaxation has reached.

    Everything in the search process takes note of them as of those of an ordinary search. They are only not compared
    with the others, and no space groups are determined.
    """
    proposer, archive = search._proposer, search.archive
    while archive.number_of_minima < minima:
        call = archive.state.calls["crystals"]
        rng, number = np.random.default_rng([1, call]), min(BATCH, minima - archive.number_of_minima)
        proposals = [Proposal(atoms=crystal(rng), operator="made") for _ in range(number)]
        first = archive.candidates + 1
        candidates = tuple(Candidate(proposal=p, id=n, source="crystals") for n, p in enumerate(proposals, first))
        called = SourceCall(
            source="crystals", call=call, requested=number, owner=WORKERS, candidates=candidates, cost=Cost()
        )
        proposer.announce(called)
        # Each ends where it began, so that its descriptors are computed once.
        ends = [relaxed(candidate, RELAX, candidate.atoms, rng.normal(-6.0, 0.3)) for candidate in candidates]
        with mock.patch.object(MinimaMatcher, "place", place_apart):
            recorded = archive.record_outcomes(ends, find_symmetry=False)
        proposer._notify_outcomes(recorded)


def place_apart(matcher, outcome, descriptors=None):
    """Place a relaxation in a new minimum of a new niche."""
    state, calculator = matcher._state, outcome.evaluation.calculator
    if calculator not in matcher._known:
        matcher._known[calculator] = KnownMinima([], matcher._structure_of)
        matcher._niches[calculator] = KnownMinima([], matcher._structure_of, NicheIndex(), NICHE_WINDOW)
    minimum, descriptors = state.last_minimum + 1, compute_descriptors(outcome.atoms)
    for known in (matcher._known, matcher._niches):
        known[calculator].put(minimum, descriptors, outcome.enthalpy_per_atom)
    return Placement(minimum=minimum, is_new=True, absorbed=None, niche=minimum)


def outcomes(arguments):
    """Return rows of the processor time for each outcome, by the number of minima before."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, a_search(Path(folder) / "run", AtOnce()) as search:
        for size in sorted(arguments.sizes):
            fill(search, size)
            for together in arguments.together:
                search._backend.together = together
                rows.append({"minima": size, "together": together, **timed(search, arguments)})
                print(json.dumps(rows[-1]), flush=True)
    return rows


def timed(search, arguments):
    """Return the processor time of a search for each of some outcomes, after others that fill its caches."""
    state, backend = search.archive.state, search._backend
    search.run(relaxations=state.relaxations + arguments.before, refine=0)
    profile = cProfile.Profile(time.process_time) if arguments.profile else None
    times, of_backend = [], []
    for _ in range(arguments.blocks):
        begun, backend.used = time.process_time(), 0.0
        if profile:
            profile.enable()
        search.run(relaxations=state.relaxations + arguments.block, refine=0)
        if profile:
            profile.disable()
            profile.dump_stats(f"{arguments.profile}_{state.relaxations}")
        times.append(1000 * (time.process_time() - begun) / arguments.block)
        of_backend.append(1000 * backend.used / arguments.block)
    milliseconds = min(times)
    return {
        "ms_per_outcome": round(milliseconds, 2),
        "ms_of_blocks": [round(one, 2) for one in times],
        "ms_of_backend": round(min(of_backend), 2),
        "per_second": round(1000 / milliseconds),
    }


def on_dask(arguments):
    """Return rows of the throughput of searches on a Dask cluster of this machine, by the number of workers."""
    rows = []
    for workers in arguments.workers:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "scheduler.json"
            processes = [
                dask("scheduler", "--scheduler-file", file, "--port", "0", "--host", "127.0.0.1", "--no-show"),
                # Threads of one process, each with a calculator process of its own: 64 processes of Dask need too much.
                dask("worker", "--scheduler-file", file, "--nthreads", workers, "--no-nanny"),
            ]
            try:
                rows.append(measured(DaskExecutor(f"{file}"), workers, arguments.seconds, arguments.per_worker, folder))
            finally:
                for process in reversed(processes):
                    process.terminate()
                    process.wait()
        print(json.dumps(rows[-1]), flush=True)
    return rows


def dask(what, *options):
    command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *map(str, options), "--no-dashboard"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def measured(executor, workers, seconds, per_worker, folder):
    while not Path(executor._address).exists():
        time.sleep(0.2)
    with executor.open(Relaxing(seconds), workers=None, log_directory=None) as backend:
        while backend.capacity < workers:
            time.sleep(0.2)
        with a_search(Path(folder) / "run", backend) as search:
            search.run(relaxations=2 * workers, refine=0)  # every worker has built its runner
            count = per_worker * workers
            begun, used = time.perf_counter(), time.process_time()
            search.run(relaxations=2 * workers + count, refine=0)
            wall, used = time.perf_counter() - begun, time.process_time() - used
    return {
        "workers": workers,
        "seconds": seconds,
        "outcomes_per_second": round(count / wall, 2),
        "utilisation": round(count * seconds / (workers * wall), 4),
        "search_ms_per_outcome": round(1000 * used / count, 2),
        "load": round(os.getloadavg()[0], 1),
    }


def simulate(workers, seconds, service, latency):
    """Return the utilisation and the outcomes per second of a search with one process and many workers.

    Each relaxation takes 0.5 to 1.5 times ``seconds``, its outcome reaches the search after half the ``latency``, is
    served in the order of arrival in ``service`` s, and the next job reaches the worker after the other half. The
    first jobs are served one after the other, too.
    """
    rng = np.random.default_rng(0)
    arrivals, free, begun = [], 0.0, 0.0
    for _ in range(workers):
        free += service
        heapq.heappush(arrivals, free + latency + seconds * rng.uniform(0.5, 1.5))
    first, last = ROUNDS[0] * workers, ROUNDS[1] * workers
    for ended in range(1, last + 1):
        free = max(free, heapq.heappop(arrivals)) + service
        heapq.heappush(arrivals, free + latency + seconds * rng.uniform(0.5, 1.5))
        if ended == first:
            begun = free
    rate = (last - first) / (free - begun)
    return {
        "workers": workers,
        "seconds": seconds,
        "outcomes_per_second": round(rate, 1),
        "utilisation": round(rate * seconds / workers, 4),
        "filling_s": round(workers * service, 1),
    }


def simulated(arguments):
    rows = []
    for service in arguments.service:
        for workers in (10, 100, 1000, 3000, 10000):
            row = simulate(workers, arguments.seconds, service / 1000, arguments.latency / 1000)
            rows.append({"service_ms": service, **row})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    one = commands.add_parser("outcomes")
    one.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000, 100000], help="minima of the archive")
    one.add_argument("--together", type=int, nargs="+", default=[1, 64], help="outcomes that arrive together")
    one.add_argument("--before", type=int, default=128, help="outcomes before those that are timed")
    one.add_argument("--block", type=int, default=256, help="outcomes that are timed together")
    one.add_argument("--blocks", type=int, default=5, help="number of blocks, of which the fastest counts")
    one.add_argument("--profile", help="beginning of the names of files with profiles of the blocks")
    two = commands.add_parser("dask")
    two.add_argument("--workers", type=int, nargs="+", default=[2, 8, 32, 64])
    two.add_argument("--seconds", type=float, default=2.0, help="mean time of a relaxation")
    two.add_argument("--per-worker", type=int, default=10, help="relaxations for each worker")
    three = commands.add_parser("simulate")
    three.add_argument("--service", type=float, nargs="+", default=[3.0, 20.0], help="ms of the search per outcome")
    three.add_argument("--latency", type=float, default=20.0, help="ms between the search and a worker, both ways")
    three.add_argument("--seconds", type=float, default=60.0, help="mean time of a relaxation")
    arguments = parser.parse_args()
    rows = {"outcomes": outcomes, "dask": on_dask, "simulate": simulated}[arguments.command](arguments)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results[arguments.command] = {"load": round(os.getloadavg()[0], 1), "rows": rows}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
