"""Our relaxation against CHGNet's own calculator with FIRE and FrechetCellFilter (fmax 0.05 eV/Å, 300 steps).

Every random start is relaxed both ways, one after the other in the same process, and both ends are judged by one
unfiltered evaluation with the baseline's calculator: largest force at most 0.05 eV/Å, |stress| at most 0.3 GPa. Each
finished run is a line of results/relaxation_runs.jsonl: run it again and only what is missing is done.

    python benchmarks/relaxation.py                                  # everything
    python benchmarks/relaxation.py --systems TiO2-6 --starts 5      # a taste
    python benchmarks/relaxation.py --workers-efficiency             # also two workers against one
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import warnings
import zlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.data import atomic_numbers, covalent_radii
from ase.filters import FrechetCellFilter
from ase.formula import Formula
from ase.optimize import FIRE

from hybridcsp.core.outcomes import Failed
from hybridcsp.core.records import Candidate, Job, Limits, Proposal
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.calculators.registry import build_calculator
from hybridcsp.relaxation.minimum_images import minimum_image_distances
from hybridcsp.relaxation.relax import Relaxer, run_job
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.utils.quiet import quiet

RESULTS = Path(__file__).parent / "results"
MAX_FORCE, MAX_STRESS_GPA, SAME_ENERGY, SANE_DISTANCE = 0.05, 0.3, 0.005, 0.5


@dataclass(frozen=True)
class System:
    formula: str
    formula_units: int
    calculator: str = "chgnet"
    seconds_per_call: float = 0.1  # of the baseline, only to plan


SYSTEMS = {
    "TiO2-6": System("TiO2", 2, seconds_per_call=0.055),
    "TiO2-12": System("TiO2", 4, seconds_per_call=0.1),
    "SrTiO3-5": System("SrTiO3", 1, seconds_per_call=0.05),
    "NaCl-8": System("NaCl", 4, seconds_per_call=0.05),
    "Al2O3-10": System("Al2O3", 2, seconds_per_call=0.1),
    "CuAl-8": System("CuAl", 4, "emt", seconds_per_call=0.01),
    "NaCl-4": System("NaCl", 2, seconds_per_call=0.03),  # only to see what four atoms cost outside the calculator
}


def make_starts(name: str, n: int, seed: int) -> list[Atoms]:
    """Random symmetric crystals whose primitive cell has the wanted contents, the same for the same seed."""
    import spglib
    from pyxtal import pyxtal

    system = SYSTEMS[name]
    counts = {element: k * system.formula_units for element, k in Formula(system.formula).count().items()}
    wanted = sorted(atomic_numbers[element] for element, k in counts.items() for _ in range(k))
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    starts: list[Atoms] = []
    while len(starts) < n:
        spacegroup, draw = int(rng.integers(2, 231)), int(rng.integers(2**31))
        crystal = pyxtal()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                crystal.from_random(
                    3, spacegroup, list(counts), list(counts.values()), conventional=False, random_state=draw
                )
            except Exception:  # noqa: BLE001 - PyXtal has no class for "these contents do not fit this group"
                continue
            if not crystal.valid:
                continue
            atoms = crystal.to_ase()
            found = spglib.find_primitive((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), 1e-3)
        if found is None or sorted(found[2]) != wanted:
            continue
        order = np.argsort(found[2], kind="stable")
        start = Atoms(numbers=found[2][order], scaled_positions=found[1][order], cell=found[0], pbc=True)
        start.info["spacegroup"] = spacegroup
        starts.append(start)
    return starts


class Stopwatch:
    """A calculator that is timed; what the relaxation needs of an ASE calculator, handed on."""

    def __init__(self, calculator):
        self.calculator, self.seconds = calculator, 0.0
        self.implemented_properties = calculator.implemented_properties

    @property
    def results(self):
        return self.calculator.results

    def get_property(self, name, atoms=None, allow_calculation=True):
        before = time.process_time()
        try:
            return self.calculator.get_property(name, atoms, allow_calculation)
        finally:
            self.seconds += time.process_time() - before


class CountedCalls:
    """Counts the calculations of a calculator that others use."""

    def __init__(self, calculator):
        self.n, inner = 0, calculator.calculate

        def calculate(*args, **kwargs):
            self.n += 1
            return inner(*args, **kwargs)

        calculator.calculate = calculate


class Contest:
    """Both ways to relax, and the judge, for one kind of calculator."""

    def __init__(self, calculator: str):
        if calculator == "chgnet":
            with quiet():
                from chgnet.model.dynamics import CHGNetCalculator

                self.theirs = CHGNetCalculator(use_device="cpu", on_isolated_atoms="ignore")
        else:
            self.theirs = EMT()
        self.calls = CountedCalls(self.theirs)
        ours, self.label = build_calculator(calculator)
        self.ours = Stopwatch(ours)

    def baseline(self, start: Atoms) -> dict:
        atoms, detail = start.copy(), ""
        atoms.calc = self.theirs
        calls, wall, cpu = self.calls.n, time.perf_counter(), time.process_time()
        try:
            FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=MAX_FORCE, steps=300)
        except Exception as error:  # noqa: BLE001 - whatever breaks the baseline is counted, as it is for us
            detail = f"{type(error).__name__}: {error}"
        spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "calls": self.calls.n - calls}
        return spent | self._judge(atoms, failed="error" if detail else "", detail=detail)

    def ours_(self, start: Atoms) -> dict:
        candidate = Candidate(proposal=Proposal(atoms=start, operator="random"), id=1, source="benchmark")
        job = Job(candidate=candidate, atoms=start, limits=Limits(force_calls=500, seconds=3600.0))
        self.ours.seconds, wall, cpu = 0.0, time.perf_counter(), time.process_time()
        outcome = run_job(job, self.ours, self.label, RelaxationSettings())
        spent = {
            "wall": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
            "in_calculator": self.ours.seconds,
        }
        spent["calls"] = outcome.cost.force_calls
        if isinstance(outcome, Failed):
            return spent | self._judge(outcome.atoms, failed=str(outcome.reason), detail=outcome.detail)
        return spent | self._judge(outcome.atoms, failed="", detail=outcome.detail)

    def _judge(self, atoms: Atoms, failed: str, detail: str) -> dict:
        """One unfiltered evaluation by the baseline's calculator; a structure with overlapping atoms is no minimum."""
        end = atoms.copy()
        end.calc = self.theirs
        sane = bool(np.isfinite(end.positions).all() and np.isfinite(end.cell.array).all() and end.get_volume() > 1)
        verdict = {"failed": failed, "detail": detail, "converged": False, "energy": None, "sane": False}
        if not sane:
            return verdict
        try:
            force = float(np.linalg.norm(end.get_forces(), axis=1).max())
            stress = float(np.abs(end.get_stress()).max() / units.GPa)
            energy = float(end.get_potential_energy()) / len(end)
        except Exception as error:  # noqa: BLE001 - what cannot be evaluated is no minimum
            return verdict | {"detail": f"{detail} judge: {error}"}
        radii = covalent_radii[end.numbers]
        fractions = minimum_image_distances(end.cell.array, end.positions) / (radii[:, None] + radii)
        verdict["sane"] = bool(fractions.min() > SANE_DISTANCE)
        converged = not failed and force <= MAX_FORCE and stress <= MAX_STRESS_GPA
        return verdict | {
            "energy": energy, "force": force, "stress": stress, "converged": converged,
            "volume": end.get_volume() / len(end), "cell": end.cell.tolist(), "positions": end.positions.tolist(),
        }  # fmt: skip


def interval(values: np.ndarray, statistic, n: int = 4000) -> list[float]:
    """95 % bootstrap interval over the starts (first axis), with a fixed seed."""
    rng = np.random.default_rng(0)
    draws = [statistic(values[rng.integers(len(values), size=len(values))]) for _ in range(n)]
    return [float(x) for x in np.percentile(draws, [2.5, 97.5])]


def summary(runs: list[dict]) -> dict:
    """One row of the table: all starts of one system that were relaxed both ways."""
    theirs, ours = [r["baseline"] for r in runs], [r["ours"] for r in runs]
    minima = [x["energy"] for x in theirs + ours if x["converged"] and x["sane"]]
    lowest = min(minima, default=float("nan"))

    def column(which, key):
        return np.array([float(x[key]) for x in which])

    def is_low(which):
        # whether it converged does not matter here: the baseline often stops close to a minimum, with too much stress
        return np.array([float(x["sane"] and not x["failed"] and x["energy"] < lowest + SAME_ENERGY) for x in which])

    ratios = {}
    for clock in ("cpu", "wall"):
        pairs = np.stack([column(ours, clock), column(theirs, clock)], axis=1)
        ratio = lambda x: x[:, 0].sum() / x[:, 1].sum()  # noqa: E731
        ratios[f"{clock}_ratio"] = [float(ratio(pairs)), *interval(pairs, ratio)]
    row = {
        "starts": len(runs),
        "calls": [float(column(theirs, "calls").mean()), float(column(ours, "calls").mean())],
        "cpu_seconds": [float(column(theirs, "cpu").mean()), float(column(ours, "cpu").mean())],
        **ratios,
        "outside_calculator": 1 - float(column(ours, "in_calculator").sum() / column(ours, "cpu").sum()),
        "lowest_energy_per_atom": lowest,
        "failures": [
            {
                reason: sum(x["failed"] == reason for x in which)
                for reason in sorted({x["failed"] for x in which} - {""})
            }
            for which in (theirs, ours)
        ],
        "given_up_although_baseline_converged": sum(
            bool(o["failed"]) and t["converged"] and t["sane"] for t, o in zip(theirs, ours, strict=True)
        ),
    }
    for name, values in (
        ("converged", (column(theirs, "converged"), column(ours, "converged"))),
        ("low", (is_low(theirs), is_low(ours))),
    ):
        difference = values[1] - values[0]
        row[name] = [float(v.mean()) for v in values]
        row[f"{name}_difference"] = [float(difference.mean()), *interval(difference, np.mean)]
    return row


def worker_efficiency(seed: int, n: int = 24) -> dict:
    """Jobs per second of two workers over twice those of one, start-up of the workers aside."""
    starts = make_starts("TiO2-6", n, seed)
    seconds = {}
    for workers in (1, 2):
        with WorkerPool(Relaxer(), workers=workers) as pool:
            pool.wait_ready()
            _run_all(pool, starts[:2])  # torch's first call is slow
            before = time.perf_counter()
            _run_all(pool, starts)
            seconds[workers] = time.perf_counter() - before
    load = os.getloadavg()
    return {"seconds": seconds, "efficiency": seconds[1] / (2 * seconds[2]), "starts": n, "load": load}


def _run_all(pool: WorkerPool, starts: list[Atoms]) -> None:
    for index, atoms in enumerate(starts):
        candidate = Candidate(proposal=Proposal(atoms=atoms, operator="random"), id=index + 1, source="benchmark")
        pool.submit(Job(candidate=candidate, atoms=atoms, limits=Limits(seconds=3600.0)))
    missing = len(starts)
    while missing:
        missing -= len(pool.completed(None))


def show(table: dict[str, dict]) -> None:
    def spread(values: list[float], form: str = "+.2f") -> str:
        return f"{values[0]:{form}} [{values[1]:{form}}, {values[2]:{form}}]"

    titles = ("system", "starts", "force calls", "CPU seconds", "ratio [95 %]", "outside calc.")
    head = "{:9s} {:>6s} {:>14s} {:>15s} {:>22s} {:>13s}  {:34s} {}"
    print("two numbers: baseline, ours; differences are ours minus baseline, paired, with 95 % intervals")
    print(head.format(*titles, "converged", "lowest minimum reached"))
    for name, row in table.items():
        shares = [
            f"{row[key][0]:.2f} {row[key][1]:.2f} {spread(row[f'{key}_difference'])}" for key in ("converged", "low")
        ]
        calls, seconds = ("{:.1f} {:.1f}".format(*row[key]) for key in ("calls", "cpu_seconds"))
        ratio = spread(row["cpu_ratio"], ".3f")
        print(head.format(name, str(row["starts"]), calls, seconds, ratio, f"{row['outside_calculator']:.1%}", *shares))
        print(
            f"          failures {row['failures'][0] or 'none'}, {row['failures'][1] or 'none'}; given up although the "
            f"baseline converged: {row['given_up_although_baseline_converged']}; "
            f"lowest minimum {row['lowest_energy_per_atom']:.4f} eV/atom; ratio of wall {row['wall_ratio'][0]:.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=60)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--workers-efficiency", action="store_true")
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # numpy's threads cost both methods time; set before it is imported
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | threads)
    traces = arguments.results / "relaxation_runs.jsonl"
    done = {}
    if traces.exists():
        for line in traces.read_text().splitlines():
            run = json.loads(line)
            done[run["system"], run["seed"], run["index"]] = run
    wanted = {name: min(arguments.starts, 20) if name == "NaCl-4" else arguments.starts for name in arguments.systems}
    missing = [(name, i) for name, n in wanted.items() for i in range(n) if (name, arguments.seed, i) not in done]
    hours = sum(SYSTEMS[name].seconds_per_call * 200 * 1.25 for name, _ in missing) / 3600
    print(f"{len(missing)} of {sum(wanted.values())} starts to do, both ways: about {hours:.1f} core-hours", flush=True)
    contests: dict[str, Contest] = {}
    starts: dict[str, list[Atoms]] = {}
    with traces.open("a") as file:
        for name, index in missing:
            kind = SYSTEMS[name].calculator
            if kind not in contests:
                contests[kind] = Contest(kind)
            if name not in starts:
                starts[name] = make_starts(name, wanted[name], arguments.seed)
            contest, start = contests[kind], starts[name][index]
            run = {"system": name, "seed": arguments.seed, "index": index, "label": contest.label}
            with quiet():
                run |= {"baseline": contest.baseline(start), "ours": contest.ours_(start)}
            run["load"] = os.getloadavg()[0]
            done[name, arguments.seed, index] = run
            file.write(json.dumps(run) + "\n")
            file.flush()
    table = {name: summary([done[name, arguments.seed, i] for i in range(n)]) for name, n in wanted.items() if n}
    show(table)
    result = {
        "seed": arguments.seed,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one torch thread",
        "mean_load": float(np.mean([r["load"] for key, r in done.items() if key[1] == arguments.seed])),
        "versions": {package: version(package) for package in ("ase", "chgnet", "torch", "pyxtal", "numpy")},
        "systems": table,
    }
    output = arguments.results / "relaxation.json"
    if output.exists() and not arguments.workers_efficiency:
        result["workers"] = json.loads(output.read_text()).get("workers")
    if arguments.workers_efficiency:
        result["workers"] = worker_efficiency(arguments.seed)
        print("two workers against one:", result["workers"])
    output.with_suffix(".tmp").write_text(json.dumps(result, indent=1) + "\n")
    output.with_suffix(".tmp").replace(output)


if __name__ == "__main__":
    main()
