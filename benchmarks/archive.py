"""Measure how long it takes to import structures into an archive and to open one.

``python benchmarks/archive.py 1000 10000``

For each number N, an extended XYZ file of N random crystals of 4 to 10 atoms is imported by ``hybridcsp import``, and
the archive is shown, opened and exported. Processor times include child processes; wall times are listed next to them.
The cost is linear where the ratio of time to size is constant. ``start_up`` holds the times of commands on a search of
one relaxation. Results are written to ``benchmarks/results/archive.json``.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

RESULTS = Path(__file__).parent / "results" / "archive.json"


def crystals(n):
    rng = np.random.default_rng(0)
    for number in range(n):
        units = int(rng.integers(2, 6))
        lengths = (28 * units) ** (1 / 3) * rng.uniform(0.85, 1.15, 3)
        atoms = Atoms(f"Cu{units}Au{units}", cell=lengths, pbc=True)
        grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3)
        chosen = rng.permutation(grid)[: 2 * units] + rng.uniform(-0.15, 0.15, (2 * units, 3))
        atoms.set_scaled_positions(chosen / 3)
        energy = -6.0 * units + 0.001 * number
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((2 * units, 3)), stress=np.zeros(6))
        yield atoms


def timed(*arguments):
    return timed_command(sys.executable, "-W", "ignore", "-m", "hybridcsp", *map(str, arguments))


def timed_command(*command):
    def spent():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before, start = spent(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {"processor_s": round(spent() - before, 2), "wall_s": round(time.perf_counter() - start, 2)}


def measure(n):
    """Yield what is known so far, since the largest take minutes."""
    with tempfile.TemporaryDirectory() as folder:
        file, run = Path(folder) / "crystals.extxyz", Path(folder) / "run"
        ase.io.write(file, list(crystals(n)))
        found = {"structures": n, "import": timed("import", file, "--formula", "CuAu", "--directory", run)}
        found["import"]["peak_memory_mb"] = peak_memory()
        found["database_mb"] = round((run / "search.db").stat().st_size / 1e6, 1)
        yield found
        found["show"] = timed("show", run)
        code = f"from hybridcsp.archive import Archive; Archive({str(run)!r}, write=True)"
        found["open_to_write"] = timed_command(sys.executable, "-c", code)
        yield found
        found["export"] = timed("export", run, "--output", Path(folder) / "all.extxyz")
        found["peak_memory_mb"] = peak_memory()
        yield found


def start_up():
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        budget = "--workers", 1, "--relaxations", 1, "--refine", 0
        return {
            "help": timed("--help"),
            "search_with_one_relaxation": timed("search", "Cu", "--calculator", "emt", "--directory", run, *budget),
            "show": timed("show", run),
            "resume_with_one_relaxation": timed("resume", run, "--relaxations", 1),
        }


def peak_memory():
    return round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="*", default=[1000, 10000], help="numbers of structures")
    sizes = parser.parse_args().sizes
    results = {"processors": os.cpu_count(), "load": os.getloadavg()[0], "start_up": start_up(), "rows": []}
    for n in sizes:
        results["rows"].append({})
        for found in measure(n):
            results["rows"][-1] = found
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
