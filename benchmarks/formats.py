"""How fast other codes' files are read and written, and whether CrySPY relaxes exactly what it was seeded with.

    python benchmarks/formats.py rates              # 100,000 structures of 12 atoms as text, 10,000 of the rest
    python benchmarks/formats.py rates --structures 2000
    python benchmarks/formats.py cryspy             # needs: python benchmarks/peers/setup.py cryspy

Rates are structures per second of processor time. Each measurement runs in a process of its own, whose peak of resident
memory is told beside that of a process that has only imported what is needed, and grows with nothing but the reader. An
archive is measured with fewer structures: each is compared with all others there.

``cryspy`` writes structures with ``hybridcsp export --format cryspy``, lets CrySPY's own command start from them and
relax every one with ASE's EMT (its ASE interface: POSCAR in, CONTCAR and log.tote out), and asserts that the structures
which CrySPY handed out are ours, all of them and no others. Then it reads CrySPY's results back with ``hybridcsp
import``. Results: benchmarks/results/formats-*.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"

ATOMS = "Ti4O8"
DIFFERENT = 200

#: Of what is not one stream of text: a file or a pickle for each, or ASE in between.
FEWER = 10_000
IN_ARCHIVE = 1_000


def structures() -> list[Atoms]:
    """Return random crystals, all of the same composition."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(DIFFERENT):
        cell = np.eye(3) + rng.normal(0, 0.15, (3, 3))
        cell *= (12 * 12.0 / abs(np.linalg.det(cell))) ** (1 / 3)
        found.append(Atoms(ATOMS, cell=cell, scaled_positions=rng.random((12, 3)), pbc=True))
    return found


def write_uspex_results(folder: Path, n: int) -> None:
    """Write a results folder of USPEX with everything that is read of it."""
    results = folder / "results1"
    results.mkdir(parents=True)
    (folder / "INPUT.txt").write_text("% atomType\nTi O\n% EndAtomType\n10 : ExternalPressure\n")
    blocks = [_block(atoms) for atoms in structures()]
    with (
        (results / "gatheredPOSCARS").open("w") as relaxed,
        (results / "gatheredPOSCARS_unrelaxed").open("w") as unrelaxed,
        (results / "Individuals").open("w") as individuals,
    ):
        individuals.write("Gen   ID    Origin   Composition    Enthalpy   Volume  Density   Fitness   KPOINTS  SYMM\n")
        for number in range(1, n + 1):
            title = f"EA{number:<4d} 5.000 5.000 5.000 90.00 90.00 90.00 Sym.group:    1\n"
            relaxed.write(title + blocks[number % DIFFERENT])
            unrelaxed.write(title + blocks[number % DIFFERENT])
            enthalpy = -100 + (number * 7919 % 10007) / 1000
            individuals.write(
                f"{1 + number // 60:4d} {number:5d}   Heredity [ 4  8 ] {enthalpy:9.3f} 144.0 4.2 {enthalpy:9.3f} "
                "[ 2  2  2]  1\n"
            )


def _block(atoms: Atoms) -> str:
    lines = ["1.0"] + ["".join(f"{x:12.6f}" for x in vector) for vector in atoms.cell.array]
    lines += ["  Ti   O", "   4   8", "Direct"]
    lines += ["".join(f"{x:12.6f}" for x in place) for place in atoms.get_scaled_positions()]
    return "\n".join(lines) + "\n"


def measured(task: Callable[[], int]) -> dict[str, float]:
    """Run a task in a process of its own and return its rate and memory."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def work() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cpu, wall = time.process_time(), time.perf_counter()
        n = task()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        send.send(
            {
                "structures": n,
                "per_cpu_second": n / cpu,
                "per_wall_second": n / wall,
                "peak_mib": peak / 1024,
                "grown_by_mib": (peak - before) / 1024,
            }
        )

    process = context.Process(target=work)
    process.start()
    result: dict[str, float] = receive.recv()
    process.join()
    return {name: round(value, 1) for name, value in result.items()}


def rates(n: int, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Measure reading and writing of every format; ``save`` is given what there is after each."""
    from hybridcsp.io import formats
    from hybridcsp.io.element_symbols import by_electronegativity
    from hybridcsp.io.formats import Record
    from hybridcsp.io.frames import ReadFailure
    from hybridcsp.io.poscar import read_poscars
    from hybridcsp.structure.symmetry import spacegroup

    made = structures()
    by_electronegativity(["Ti", "O"])  # imports pymatgen before memory is measured
    spacegroup(made[0])
    for name in formats.FORMATS.entries():
        formats.load(name)

    def records(many: int) -> Any:
        for number in range(many):
            yield Record(
                atoms=made[number % DIFFERENT], energy=-100.0, enthalpy=-99.0, pressure_gpa=10.0, id=str(number)
            )

    def read(name: str, path: Path) -> int:
        found = 0
        for record in formats.load(name).read(path):
            assert not isinstance(record, ReadFailure), record
            found += 1
        return found

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)

        def say(name: str, task: Callable[[], int]) -> None:
            results[name] = measured(task)
            print(f"{name:42} {results[name]}", flush=True)
            save(results)

        write_uspex_results(home / "uspex", n)
        gathered = home / "uspex" / "results1" / "gatheredPOSCARS"
        say("read POSCARs", lambda: sum(1 for _ in read_poscars(gathered)))
        say("read USPEX (3 files in step)", lambda: read("uspex", home / "uspex"))
        say("read USPEX (3 files), a tenth", lambda: _tenth(home, n, read))
        for name, target in (
            ("uspex", home / "seeds"),
            ("calypso", home / "calypso"),
            ("airss", home / "airss"),
            ("xtalopt", home / "xtalopt"),
            ("cryspy", home / "cryspy"),
            ("plain", home / "all.extxyz"),
        ):
            many = n if name == "uspex" else min(n, FEWER)
            say(
                f"write {name}", lambda name=name, target=target, many=many: _written(name, records(many), target, many)
            )
        packed = home / "packed.res"
        with packed.open("w") as stream:
            files = sorted((home / "airss" / "hopper").iterdir())
            for number in range(min(n, FEWER)):
                stream.write(files[number % len(files)].read_text())
        say("read AIRSS, packed", lambda: read("airss", packed))
        say("read AIRSS, a file each", lambda: read("airss", home / "airss" / "hopper"))
        say("read CrySPY init_POSCARS", lambda: read("cryspy", home / "cryspy" / "data" / "init_POSCARS"))
        say("read extxyz", lambda: read("plain", home / "all.extxyz"))
        say("USPEX into extxyz", lambda: _stream(home / "tenth", home / "out.extxyz"))
        write_uspex_results(home / "few", min(n, IN_ARCHIVE))
        say("USPEX into an archive", lambda: _archive(home / "few", home / "archive"))
    return results


def _tenth(home: Path, n: int, read: Callable[[str, Path], int]) -> int:
    if not (home / "tenth").exists():
        write_uspex_results(home / "tenth", n // 10)
    return read("uspex", home / "tenth")


def _written(name: str, records: Any, target: Path, many: int) -> int:
    from hybridcsp.io import formats

    formats.write(records, target, name)
    return many


def _stream(path: Path, output: Path) -> int:
    from hybridcsp.io import formats
    from hybridcsp.io.formats import Record

    n = 0

    def good() -> Any:
        nonlocal n
        for record in formats.load("uspex").read(path):
            if isinstance(record, Record):
                n += 1
                yield record

    formats.write(good(), output, "plain")
    return n


def _archive(path: Path, directory: Path) -> int:
    from hybridcsp.archive.archive import Archive
    from hybridcsp.io import formats
    from hybridcsp.workflows.import_results import import_records, open_for_import
    from hybridcsp.workflows.survey import survey_results

    code = formats.load("uspex")
    problem = survey_results(code.read(path)).problem(None, None)
    with Archive(directory, write=True) as archive:
        open_for_import(archive, problem, "uspex", path, "uspex")
        return import_records(archive, code.read(path), source="uspex", problem=problem, calculator="uspex").relaxed


# A real CrySPY run

ASE_IN = """\
import ase.io
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

atoms = ase.io.read("POSCAR", format="vasp")
atoms.calc = EMT()
converged = BFGS(FrechetCellFilter(atoms), logfile="log.bfgs").run(fmax=0.05, steps=200)
ase.io.write("CONTCAR", atoms, format="vasp", direct=True)
with open("log.tote", "w") as file:
    file.write(f"{float(atoms.get_potential_energy())!r}\\n")
with open("out_check_opt", "w") as file:
    file.write("done\\n" if converged else "not_yet\\n")
"""

JOB = """\
#!/bin/sh
{python} ase_in.py > log.out 2> log.err
sed -i '3s/.*/done/' stat_job
"""

INPUT = """\
[basic]
algo = RS
calc_code = ASE
tot_struc = {n}
nstage = 1
njob = 2
jobcmd = sh
jobfile = job_cryspy

[structure]
atype = Cu Au
nat = 2 2

[ASE]
ase_python = ase_in.py

[option]
load_struc_flag = True
seed = 1
"""


def cryspy(n: int, keep: Path | None) -> dict[str, Any]:
    """Seed a CrySPY run by our export, let it run, and compare."""
    import ase.io

    from hybridcsp.io.poscar import Block, read_poscars
    from hybridcsp.similarity import same_structure

    python = HERE / "peers" / ".venv-cryspy" / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"{python} is missing: python benchmarks/peers/setup.py cryspy")
    command = python.with_name("cryspy")
    with tempfile.TemporaryDirectory() if keep is None else nullcontext(keep) as folder:
        home = Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        search = [
            sys.executable, "-m", "hybridcsp", "search", "CuAu", "--formula-units", "2", "--calculator", "emt",
            "--source", "random", "--relaxations", str(4 * n), "--workers", "1", "--directory", "ours",
        ]  # fmt: skip
        subprocess.run(search, cwd=home, check=True, stdout=subprocess.DEVNULL)
        run = home / "cryspy"
        (run / "calc_in").mkdir(parents=True)
        (run / "calc_in" / "ase_in.py").write_text(ASE_IN)
        (run / "calc_in" / "job_cryspy").write_text(JOB.format(python=python))
        export = [sys.executable, "-m", "hybridcsp", "export", "ours", "--format", "cryspy", "--output", "cryspy"]
        note = subprocess.run([*export, "--top", str(n)], cwd=home, check=True, capture_output=True, text=True).stdout
        written = [block.atoms for block in read_poscars(run / "data" / "init_POSCARS") if isinstance(block, Block)]
        n = len(written)
        (run / "cryspy.in").write_text(INPUT.format(n=n))
        began = time.perf_counter()
        for _ in range(40):
            done = subprocess.run([command, "-n"], cwd=run, check=False, capture_output=True, text=True)
            if "Done all structures" in (run / "log_cryspy").read_text():
                break
            time.sleep(2)
        else:
            raise SystemExit(f"CrySPY did not come to its end: {done.stdout}{done.stderr}")
        relaxed_in = sorted(int(path.name) for path in _work(run))
        assert relaxed_in == list(range(n)), relaxed_in
        for path in _work(run):
            handed_out = ase.io.read(path / "POSCAR", format="vasp")
            ours = written[int(path.name)]
            assert sorted(handed_out.symbols) == sorted(ours.symbols)
            assert np.allclose(handed_out.cell.cellpar(), ours.cell.cellpar(), atol=1e-5)
            assert same_structure(handed_out, ours), path
        back = [sys.executable, "-m", "hybridcsp", "import", "cryspy", "--directory", "theirs"]
        imported = subprocess.run(back, cwd=home, check=True, capture_output=True, text=True).stdout
        from hybridcsp.archive.archive import Archive

        with Archive(home / "theirs") as archive, Archive(home / "ours") as before:
            assert archive.state.relaxations == n, imported
            theirs, ours_best = archive.minima(1)[0], before.minima(1)[0]
            difference = theirs.enthalpy_per_atom - ours_best.enthalpy_per_atom
            assert abs(difference) < 0.002, difference
            same = same_structure(theirs.atoms, ours_best.atoms)
        return {
            "structures": n,
            "seconds": round(time.perf_counter() - began, 1),
            "note": " ".join(note.split()),
            "imported": imported.strip().splitlines()[-1],
            "best_difference_ev_per_atom": difference,
            "best_is_the_same_structure": bool(same),
        }


def _work(run: Path) -> list[Path]:
    """CrySPY moves the folders of what is done into work/fin."""
    return [
        path for folder in ("work", "work/fin") for path in (run / folder).glob("[0-9]*") if (path / "POSCAR").exists()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rates", "cryspy"))
    parser.add_argument("--structures", type=int, help="how many; by default 100,000 for rates, 8 for cryspy")
    parser.add_argument("--keep", type=Path, help="a new folder for CrySPY's run, to look at; by default it is removed")
    given = parser.parse_args()
    about = {"machine": platform.machine(), "cores": os.cpu_count(), "load_before": os.getloadavg()[0]}
    target = RESULTS / f"formats-{given.what}.json"

    def save(results: dict[str, Any]) -> None:
        RESULTS.mkdir(exist_ok=True)
        target.write_text(json.dumps({"about": about, "results": results}, indent=1) + "\n")

    if given.what == "rates":
        results = rates(given.structures or 100_000, save)
    else:
        results = cryspy(given.structures or 8, given.keep)
    save(results)
    print(json.dumps(results, indent=1))
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
