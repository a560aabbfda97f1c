"""How many workers can one search serve, and what does the search process do for each outcome?

``python benchmarks/scale.py outcomes --sizes 1000 10000`` runs searches with a synthetic backend, which relaxes nothing
and answers at once, and lists the processor time of the search process for each outcome, by the number of outcomes
before. The candidates are made at nearly no cost, so that this is the cost of screening, recording, comparing and
ranking; ``--profile FILE`` writes a profile of the last outcomes.

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
from collections import deque
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from hybridcsp import Search
from hybridcsp.core.outcomes import Evaluation, Relaxed
from hybridcsp.core.records import Cost, Proposal
from hybridcsp.relaxation.backends import Backend
from hybridcsp.relaxation.backends.executors.dask import DaskExecutor
from hybridcsp.sources.base import BaseSource

RESULTS = Path(__file__).parent / "results" / "scale.json"

#: Share of the relaxations that end in a new minimum; the others end in one of those before.
NEW = 0.5

#: Relaxations of each worker after which the simulation begins and ends to count.
ROUNDS = 5, 25


def crystal(rng):
    """Return a random crystal of 4 to 8 atoms, which no screening rejects."""
    units = int(rng.integers(2, 5))
    lengths = (36 * units) ** (1 / 3) * rng.uniform(0.9, 1.1, 3)
    atoms = Atoms(f"Cu{units}Au{units}", cell=lengths, pbc=True)
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3)
    atoms.set_scaled_positions((rng.permutation(grid)[: 2 * units] + rng.uniform(-0.12, 0.12, (2 * units, 3))) / 2)
    return atoms


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
            final, n = atoms.copy(), len(atoms)
            final.calc = SinglePointCalculator(final, energy=energy * n, forces=np.zeros((n, 3)), stress=np.zeros(6))
            evaluation = Evaluation(
                level=job.level,
                calculator="synthetic 1",
                energy=energy * n,
                enthalpy=energy * n,
                max_force=0.01,
                max_stress_residual=0.0,
            )
            cost = Cost(force_calls=50, seconds=self.seconds)
            return Relaxed(candidate=job.candidate, atoms=final, evaluation=evaluation, converged=True, cost=cost)

        return run


class AtOnce(Backend):
    """A backend that answers at once, in this process."""

    capacity = 64

    def __init__(self):
        self.run, self.jobs = Relaxing()(), deque()

    def submit(self, job):
        self.jobs.append(job)

    def completed(self, timeout):
        return [self.run(self.jobs.popleft())] if self.jobs else []


def a_search(directory, backend):
    return Search(
        "CuAu",
        formula_units=(2, 4),
        sources=[RandomCrystals()],
        backend=backend,
        calculator="emt",
        directory=directory,
    )


def outcomes(arguments):
    """Return rows of the processor time for each outcome, by the number of outcomes before."""
    rows, sizes = [], sorted(arguments.sizes)
    with tempfile.TemporaryDirectory() as folder, a_search(Path(folder) / "run", AtOnce()) as search:
        done = 0
        for size in sizes:
            search.run(relaxations=size - arguments.block, refine=0) if size > arguments.block + done else None
            profile = cProfile.Profile() if arguments.profile and size == sizes[-1] else None
            begun, done = time.process_time(), search.archive.state.relaxations
            if profile:
                profile.enable()
            search.run(relaxations=size, refine=0)
            if profile:
                profile.disable()
                profile.dump_stats(arguments.profile)
            milliseconds = 1000 * (time.process_time() - begun) / (size - done)
            rows.append(
                {
                    "outcomes": size,
                    "minima": search.archive.number_of_minima,
                    "ms_per_outcome": round(milliseconds, 3),
                    "per_second": round(1000 / milliseconds, 1),
                }
            )
            done = size
            print(json.dumps(rows[-1]), flush=True)
    return rows


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
    one.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000])
    one.add_argument("--block", type=int, default=500, help="outcomes that are timed at the end of each size")
    one.add_argument("--profile", help="file of a profile of the last block")
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
