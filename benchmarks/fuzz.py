"""Damaged files of every kind that is read: no crash, no hang, no flood of memory.

    python benchmarks/fuzz.py                        # 30,000 files, about ten minutes on one core
    python benchmarks/fuzz.py --cases 2000 --only cif,poscar --keep /tmp/failing

Small crystals are written in each format; each case damages one of these files (bytes, numbers, lines, nesting,
lengths, cuts, splices; inside a compression or of the compressed bytes; values, pages and tables of databases) and
reads it the way that ``import`` and ``seeds:`` read it, every fifth into an archive. A case is right if it yields
structures and complaints, or raises an error of hybridcsp's with a sentence. It fails if it raises anything else or
ends its process (crash), takes more than 5 s (hang), or its process more than 1 GiB of resident memory (memory).

Cases run in a process of their own that is begun anew after a hang, a crash or a flood. Case number and seed decide
everything, so that a case can be repeated: ``--first NUMBER --cases 1 --keep FOLDER``. What was done is kept in the
results file, and a run that was stopped goes on. Results: benchmarks/results/fuzz.json.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import hashlib
import json
import lzma
import os
import re
import resource
import select
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "fuzz.json"

LONGEST_SECONDS = 5.0
MOST_MIB = 1024

#: What is kept of each class.
COUNTED = ("files", "read", "refused", "failed", "slowest_s", "peak_mib")

#: Seconds a case takes on one core, for the plan.
USUAL_SECONDS = 0.02

#: What is put into texts.
TOKENS = [
    b"\n", b" ", b"x", b"-", b"1e999", b"nan", b"-inf", b"1e30", b"1e-30", b"0", b"999999999", b"\xff\xfe", b"\x00",
    b"7" * 5000, b"[" * 3000, b"{" * 3000, b'{"a":' * 300, b"a." * 3000, b"%", b"#", b"=", b"|", b"'", b'"', b"\n\n\n",
    b"loop_\n", b"data_\n", b"END\n", b"TITL\n", b"\r", b"\x1b[31m", b"_cell_length_a 1e6\n", b"?", b"(", b"1.0D+00",
    b'{"@module": "os", "@class": "system"}', b"Lattice=", b"10000000\n", "²é".encode(), b"0.5", b"y" * 2_000_000,
]  # fmt: skip

# ---------------------------------------------------------------------------------------------------------------- files


def crystals() -> list[Any]:
    """Return small crystals of different kinds, all of them TiO2."""
    from ase.spacegroup import crystal

    rutile = crystal(["Ti", "O"], [(0, 0, 0), (0.3, 0.3, 0)], spacegroup=136, cellpar=[4.6, 4.6, 2.95, 90, 90, 90])
    fluorite = crystal(
        ["Ti", "O"], [(0, 0, 0), (0.25, 0.25, 0.25)], spacegroup=225, cellpar=[4.8, 4.8, 4.8, 90, 90, 90],
        primitive_cell=True,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    rattled = rutile.copy()
    rattled.positions += rng.normal(0, 0.05, rattled.positions.shape)
    found = []
    for number, atoms in enumerate((rutile, fluorite, rattled)):
        bare = atoms.copy()
        bare.info, bare.arrays = {}, {key: atoms.arrays[key] for key in ("numbers", "positions")}
        from ase.calculators.singlepoint import SinglePointCalculator

        bare.calc = SinglePointCalculator(bare, energy=-25.0 - number)
        found.append(bare)
    return found


def write_originals(home: Path, classes: list[str]) -> None:
    """Write a folder for each class of files; every file in it may be damaged."""
    import ase.db
    import ase.io
    from monty.json import MontyEncoder
    from pymatgen.entries.computed_entries import ComputedStructureEntry
    from pymatgen.io.cif import CifWriter

    from hybridcsp.io import formats
    from hybridcsp.io.poscar import write_poscar
    from hybridcsp.structure.conversion import to_pymatgen

    atoms = crystals()

    def folder(name: str) -> Path:
        made = home / name
        made.mkdir(parents=True)
        return made

    cifs = [str(CifWriter(to_pymatgen(one), symprec=0.01)) for one in atoms[:2]]
    ase.io.write(folder("cif") / "a.cif", atoms[0])
    (home / "cif" / "b.cif").write_text("".join(cifs))
    ase.io.write(folder("extxyz") / "a.extxyz", atoms)
    (folder("poscar") / "POSCAR").write_text("".join(write_poscar(one, f"TiO2 {n}") for n, one in enumerate(atoms)))
    formats.write(atoms, folder("res"), "airss")
    table = ["id,cif", *(f'{n},"{text.replace(chr(34), chr(34) * 2)}"' for n, text in enumerate(cifs))]
    (folder("csv") / "a.csv").write_text("\n".join(table))
    entries = [ComputedStructureEntry(to_pymatgen(atoms[0]), -5.0, entry_id="mp-1"), to_pymatgen(atoms[1])]
    (folder("json") / "a.json").write_text(json.dumps(entries, cls=MontyEncoder))
    ase.io.write(home / "json" / "b.json", atoms)
    ase.io.write(folder("traj") / "a.traj", atoms)
    ase.io.write(folder("xsf") / "a.xsf", atoms[0])
    ase.io.write(home / "xsf" / "a.gen", atoms[0])
    plain = (home / "extxyz" / "a.extxyz").read_bytes()
    for suffix, pack in ((".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)):
        (folder(suffix[1:]) / f"a.extxyz{suffix}").write_bytes(pack(plain))
    with zipfile.ZipFile(folder("zip") / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.cif", cifs[0])
        archive.writestr("b.extxyz", plain)
        archive.writestr("c.json", (home / "json" / "a.json").read_bytes())
    with ase.db.connect(folder("database") / "a.db") as database:
        for one in atoms * 5:
            database.write(one, origin="somebody")
    with closing(sqlite3.connect(folder("foreign") / "a.db")) as theirs:
        theirs.execute("CREATE TABLE mine (a, b)")
        theirs.executemany("INSERT INTO mine VALUES (?, ?)", [(n, "text" * 50) for n in range(100)])
        theirs.commit()
    write_codes(home, atoms)
    (folder("toml") / "a.toml").write_text(
        '[problem]\nformula = "TiO2"\nformula_units = [1, 4]\npressure_gpa = 10.0\nmin_distances = { Ti-O = 1.6 }\n'
        '[search]\ncalculator = "emt"\nsources = ["random", "evolution"]\nworkers = 1\n[budget]\nrelaxations = 10\n'
        '[external.mine]\ncommand = ["python", "mine.py", "{output}"]\n'
    )
    write_run(folder("archive"), atoms)
    if "weights" in classes:
        write_weights(folder("weights"), atoms)


def write_weights(folder: Path, atoms: list[Any]) -> None:
    """Write the weights of a small generator and their card."""
    from hybridcsp.generators.base import Example
    from hybridcsp.generators.loading import new_generator

    generator = new_generator("flow")
    generator.fit([Example(atoms=one) for one in atoms], epochs=1)
    generator.save(folder)


def write_codes(home: Path, atoms: list[Any]) -> None:
    """Write folders as other codes leave them."""
    from hybridcsp.io.poscar import write_poscar

    uspex = home / "uspex"
    (uspex / "results1").mkdir(parents=True)
    (uspex / "INPUT.txt").write_text("% atomType\nTi O\n% EndAtomType\n10 : ExternalPressure\n1 : abinitioCode\n")
    rows = ["Gen   ID    Origin   Composition    Enthalpy   Volume  Density   Fitness   KPOINTS  SYMM", "  (eV)"]
    blocks = ""
    for number, one in enumerate(atoms, start=1):
        units = len(one) // 3
        blocks += write_poscar(one, f"EA{number:<4d} 4.6 4.6 2.9 90 90 90 Sym.group: 1")
        rows.append(f"  1 {number:4d}  Random [ {units} {2 * units} ] -25.000 62.0 4.2 -25.0 [ 4 4 6 ] 1")
    (uspex / "results1" / "gatheredPOSCARS").write_text(blocks)
    (uspex / "results1" / "Individuals").write_text("\n".join(rows) + "\n")
    calypso = home / "calypso"
    (calypso / "results").mkdir(parents=True)
    (calypso / "input.dat").write_text("NameOfAtoms = Ti O\nICode = 1\nPopSize = 3\n")
    (calypso / "INCAR_1").write_text("PSTRESS = 100\n")
    (calypso / "results" / "pso_opt_1").write_text("".join(f" -8.5\n{write_poscar(one, 'C')}" for one in atoms))
    (calypso / "results" / "pso_ini_1").write_text("".join(write_poscar(one, "C") for one in atoms))
    cryspy = home / "cryspy"
    (cryspy / "data").mkdir(parents=True)
    (cryspy / "cryspy.in").write_text("[basic]\ncalc_code = VASP\n[structure]\natype = Ti O\nnat = 2 4\n")
    (cryspy / "cryspy.stat").write_text("[status]\ngeneration = 2\n")
    for name in ("opt_POSCARS", "init_POSCARS"):
        (cryspy / "data" / name).write_text("".join(write_poscar(one, f"ID_{n}") for n, one in enumerate(atoms)))
    table = "   Gen  Spg_num  E_eV_atom  Opt\n" + "".join(f"{n}  1  136  -8.{n}  done\n" for n in range(3))
    (cryspy / "data" / "cryspy_rslt").write_text(table)
    state = home / "xtalopt" / "00001x00001"
    state.mkdir(parents=True)
    one = atoms[1]
    lines = ["[structure]", "version=5", "generation=1", "id=1", "status=0", r"current\energy=-25"]
    lines += [rf"current\atomicNums\size={len(one)}", rf"current\coords\size={len(one)}"]
    lines += [rf"current\atomicNums\{i + 1}\value={z}" for i, z in enumerate(one.numbers)]
    lines += [
        rf"current\coords\{i + 1}\{x}={v}" for i, p in enumerate(one.positions) for x, v in zip("xyz", p, strict=True)
    ]
    lines += [rf"current\cell\{i}{j}={one.cell.array[i, j]}" for i in range(3) for j in range(3)]
    (state / "structure.state").write_text("\n".join(lines) + "\n")


def write_run(folder: Path, atoms: list[Any]) -> None:
    """Write a run directory with a few minima."""
    from hybridcsp.archive.archive import Archive
    from hybridcsp.core.problem import Problem
    from hybridcsp.io.formats import Record
    from hybridcsp.workflows.import_results import import_records, open_for_import

    problem = Problem("TiO2", formula_units=(1, 2))
    records = [
        Record(atoms=one.copy(), energy=-25.0 - n, id=str(n), file=Path("a"), line=n) for n, one in enumerate(atoms)
    ]
    with Archive(folder, write=True) as archive:
        open_for_import(archive, problem, "plain", Path("a"), "emt")
        import_records(archive, records, source="plain", problem=problem, calculator="emt")
    for lock in folder.glob("*.lock"):
        lock.unlink()


# --------------------------------------------------------------------------------------------------------------- damage


def damage(file: Path, rng: np.random.Generator, others: list[Path]) -> None:
    """Damage a file in one to four places."""
    suffix = file.suffix
    data = file.read_bytes()
    inside = {".gz": (gzip.compress, gzip.decompress), ".bz2": (bz2.compress, bz2.decompress),
              ".xz": (lzma.compress, lzma.decompress)}  # fmt: skip
    if suffix in inside and rng.random() < 0.4:
        pack, unpack = inside[suffix]
        file.write_bytes(pack(_changed(unpack(data), rng, others)))
    elif suffix == ".zip" and rng.random() < 0.4:
        _damage_member(file, rng, others)
    elif suffix == ".db" and rng.random() < 0.5:
        _damage_rows(file, rng)
    else:
        file.write_bytes(_changed(data, rng, others))


def _changed(data: bytes, rng: np.random.Generator, others: list[Path]) -> bytes:
    for _ in range(int(rng.integers(1, 5))):
        n = len(data)
        at = int(rng.integers(0, n + 1))
        end = min(n, at + int(rng.geometric(0.02)))
        how = int(rng.integers(0, 9))
        if how == 0:
            data = data[:at]
        elif how == 1:
            data = data[:at] + data[end:]
        elif how == 2:
            data = data[:end] + data[at:]
        elif how == 3 and n:
            flipped = bytearray(data)
            for where in rng.integers(0, n, int(rng.integers(1, 9))):
                flipped[where] ^= int(rng.integers(1, 256))
            data = bytes(flipped)
        elif how == 4:
            other = others[int(rng.integers(0, len(others)))].read_bytes()
            data = data[:at] + other[int(rng.integers(0, len(other) + 1)) :]
        elif how == 5:
            lines = data.split(b"\n")
            i, j = rng.integers(0, len(lines), 2)
            lines[i], lines[j] = lines[j], lines[i]
            data = b"\n".join(lines)
        elif how == 6:
            data = _with_another_number(data, rng)
        elif how == 7:
            data = data[:at] + rng.bytes(int(rng.integers(1, 300))) + data[end:]
        else:
            data = data[:at] + TOKENS[int(rng.integers(0, len(TOKENS)))] + data[at:]
    return data


def _with_another_number(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace a number by another, where the file has some: most of what formats say is numbers."""
    found = list(re.finditer(rb"-?\d+\.?\d*(?:[eE][-+]?\d+)?", data[:200_000]))
    if not found:
        return data
    where = found[int(rng.integers(0, len(found)))]
    new = [b"0", b"-1", b"1e6", b"1e30", b"1e-30", b"nan", b"1e400", b"2147483648", b"9" * 20, b"0.5", b""]
    return data[: where.start()] + new[int(rng.integers(0, len(new)))] + data[where.end() :]


def _damage_member(file: Path, rng: np.random.Generator, others: list[Path]) -> None:
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = sorted(members)[int(rng.integers(0, len(members)))]
    members[name] = _changed(members[name], rng, others)
    methods = [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    with zipfile.ZipFile(file, "w", methods[int(rng.integers(0, 4))]) as archive:
        for member, content in members.items():
            archive.writestr(member, content)


def _damage_rows(file: Path, rng: np.random.Generator) -> None:
    """Change values, columns or tables of a database with SQLite itself."""
    values: list[Any] = [
        None, 0, -1, 2**62, 1.5, float("inf"), b"", b"x", rng.bytes(40), rng.bytes(800), "text", "[" * 5000, "{}",
        '{"a": NaN}', '[{"name": "FixAtoms", "kwargs": {"indices": "x"}}]', np.full(18, 1e30).tobytes(),
        np.full(9, np.nan).tobytes(), np.zeros(9).tobytes(), "é" * 3000, bytes(1_000_000),
    ]  # fmt: skip
    with closing(sqlite3.connect(file)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables = [name for name in tables if not name.startswith("sqlite_")]
        for _ in range(int(rng.integers(1, 4))):
            table = "systems" if "systems" in tables and rng.random() < 0.7 else tables[int(rng.integers(len(tables)))]
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            column = columns[int(rng.integers(0, len(columns)))]
            value = values[int(rng.integers(0, len(values)))]
            what = int(rng.integers(0, 10))
            try:
                if what == 0:
                    database.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO other")
                elif what == 1:
                    database.execute(f"ALTER TABLE {table} RENAME TO other{int(rng.integers(1000))}")
                    break
                elif what == 2:
                    database.execute(f"DELETE FROM {table} WHERE rowid % 2")
                elif what == 3:
                    database.execute(f"UPDATE {table} SET {column} = ?", (value,))
                else:
                    one = f"SELECT rowid FROM {table} LIMIT 1 OFFSET ?"
                    offset = int(rng.integers(0, 5))
                    database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ({one})", (value, offset))
            except (sqlite3.Error, OverflowError):
                continue
        if rng.random() < 0.1:
            database.commit()
            database.execute("PRAGMA journal_mode = WAL")
        database.commit()


def _sign(folder: Path) -> None:
    """Let a card that can be read tell the hash of damaged weights, so that these are looked at."""
    card = folder / "card.json"
    text = card.read_text(encoding="utf-8", errors="surrogateescape")
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    text = re.sub(r'("weights_sha256": ")[0-9a-f]{64}', rf"\g<1>{digest}", text)
    card.write_text(text, encoding="utf-8", errors="surrogateescape")


# -------------------------------------------------------------------------------------------------------------- reading


def read_structures(folder: Path, file: Path, number: int) -> tuple[int, int]:
    """Read as ``seeds:`` does, or into an archive as ``import`` does; return how many structures and complaints."""
    from hybridcsp.archive.archive import Archive
    from hybridcsp.core.problem import Problem
    from hybridcsp.io import formats
    from hybridcsp.io.formats import Record
    from hybridcsp.io.frames import ReadFailure
    from hybridcsp.workflows.import_results import import_records, open_for_import
    from hybridcsp.workflows.survey import calculator_label, survey_results

    codes = ("uspex", "calypso", "cryspy", "xtalopt")
    path = folder if folder.name in codes or (number % 2 and file.suffix != ".res") else file
    known = formats.load(folder.name if folder.name in codes else "airss" if file.suffix == ".res" else "plain")
    code = formats.recognise(path) if number % 10 == 0 else known
    if number % 5 == 0:
        with tempfile.TemporaryDirectory() as made, Archive(Path(made) / "run", write=True) as archive:
            found = survey_results(code.read(path))
            problem = Problem("TiO2", formula_units=(1, 8), max_atoms=24)
            chosen = calculator_label(code.name, found.calculators)
            open_for_import(archive, problem, code.name, path, chosen)
            report = import_records(archive, code.read(path), source=code.name, problem=problem, calculator=chosen)
            assert len(archive.minima()) <= report.relaxed
            return report.seen - report.unreadable, report.unreadable
    kinds = Counter(type(record) for record in code.read(path))
    if hasattr(code, "finished"):
        code.finished(folder)
    assert set(kinds) <= {Record, ReadFailure}
    return kinds[Record], kinds[ReadFailure]


def read_toml(folder: Path, file: Path, number: int) -> tuple[int, int]:
    """Read a configuration."""
    from hybridcsp import config

    config.parse(config.read(file), str(file))
    return 1, 0


def read_archive(folder: Path, file: Path, number: int) -> tuple[int, int]:
    """Open a run directory, and look at what it found."""
    from hybridcsp import config
    from hybridcsp.archive.archive import Archive

    with Archive(folder) as archive:
        minima = archive.minima()
        pending = archive.pending("user") if number % 2 else []
    if number % 3 == 0:
        config.of_directory(folder)
    return len(minima) + len(pending), 0


def read_weights(folder: Path, file: Path, number: int) -> tuple[int, int]:
    """Open a generator, and let it draw a crystal if it opens."""
    from hybridcsp.generators.base import Request
    from hybridcsp.generators.loading import open_generator

    generator = open_generator(str(folder))
    if number % 20:
        return 1, 0
    generator.sample([Request(contents={"Ti": 1, "O": 2})], np.random.default_rng(0))
    return 1, 0


READERS: dict[str, Callable[[Path, Path, int], tuple[int, int]]] = {
    **dict.fromkeys(
        ["cif", "extxyz", "poscar", "res", "csv", "json", "traj", "xsf", "gz", "bz2", "xz", "zip", "database",
         "foreign", "uspex", "calypso", "cryspy", "xtalopt"], read_structures
    ),
    "toml": read_toml,
    "archive": read_archive,
    "weights": read_weights,
}  # fmt: skip


def case(number: int, seed: int, home: Path, classes: list[str], scratch: Path) -> tuple[str, str]:
    """Make one case and run it; return its class and what came of it: "read", "refused" or the trace of a crash."""
    from hybridcsp.errors import HybridCSPError

    rng = np.random.default_rng([seed, number])
    kind = classes[number % len(classes)]
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(home / kind, scratch / kind)
    files = sorted(entry for entry in (scratch / kind).rglob("*") if entry.is_file())
    others = sorted(entry for entry in home.rglob("*") if entry.is_file() and entry.stat().st_size < 100_000)
    file = files[int(rng.integers(0, len(files)))]
    damage(file, rng, others)
    if kind == "weights" and rng.random() < 0.7:
        _sign(scratch / kind)
    try:
        READERS[kind](scratch / kind, file, number)
    except HybridCSPError:
        return kind, "refused"
    except Exception:  # noqa: BLE001  # this is what is looked for
        return kind, traceback.format_exc(limit=-4)
    return kind, "read"


def serve(seed: int, home: Path, classes: list[str], scratch: Path) -> None:
    """Run the cases whose numbers come in, and answer each with a line."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers, sys.stdout = sys.stdout, sys.stderr
    import warnings

    warnings.simplefilter("ignore")
    import torch  # noqa: F401  # which takes seconds on a busy machine: no case's fault

    for line in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
        kind, outcome = case(int(line), seed, home, classes, scratch)
        print(json.dumps([kind, outcome, peak_mib("self")]), file=answers, flush=True)


def peak_mib(process: int | str) -> int:
    """Return the peak of a process's resident memory."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in text.splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) // 1024 if lines else 0


# ----------------------------------------------------------------------------------------------------------------- runs


class Server:
    """A process that runs cases, watched from here."""

    def __init__(self, options: argparse.Namespace, home: Path, classes: list[str], scratch: Path) -> None:
        command = [sys.executable, __file__, "--serve", str(home), "--seed", str(options.seed)]
        self.process = subprocess.Popen(
            [*command, "--only", ",".join(classes), "--scratch", str(scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.fresh = True

    def run(self, number: int) -> tuple[str, str, float, int]:
        """Return class, outcome ("read", "refused", "hang", "crash: …"), seconds, and the peak of memory in MiB."""
        assert self.process.stdin is not None and self.process.stdout is not None
        begun = time.monotonic()
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        # A fresh process imports everything with its first case.
        end = begun + LONGEST_SECONDS + (60.0 if self.fresh else 0.0)
        while time.monotonic() < end:
            if select.select([self.process.stdout], [], [], 0.2)[0]:
                line = self.process.stdout.readline()
                if not line:
                    return "", f"crash: the process ended with {self.process.wait()}", time.monotonic() - begun, 0
                kind, outcome, mib = json.loads(line)
                seconds = 0.0 if self.fresh else time.monotonic() - begun
                self.fresh = False
                return kind, outcome if outcome in ("read", "refused") else f"crash: {outcome}", seconds, mib
            if (mib := peak_mib(self.process.pid)) > MOST_MIB:
                return "", "memory", time.monotonic() - begun, mib
        return "", "hang", time.monotonic() - begun, peak_mib(self.process.pid)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


def run_all(options: argparse.Namespace, classes: list[str], results: dict[str, Any], home: Path) -> None:
    """Run the cases that are not done yet, and keep what came of them."""
    scratch = home.parent / "scratch"
    server = None
    saved = time.monotonic()
    for number in range(options.first + results["done"], options.first + options.cases):
        server = server or Server(options, home, classes, scratch)
        kind, outcome, seconds, mib = server.run(number)
        kind = kind or classes[number % len(classes)]
        if outcome in ("read", "refused") and mib > MOST_MIB:
            outcome = "memory"
        row = results["classes"].setdefault(kind, dict.fromkeys(COUNTED, 0))
        row["files"] += 1
        row[outcome if outcome in ("read", "refused") else "failed"] += 1
        row["slowest_s"] = round(max(row["slowest_s"], seconds), 2)
        row["peak_mib"] = max(row["peak_mib"], mib)
        results["done"] += 1
        if outcome not in ("read", "refused"):
            results["failures"].append({"case": number, "class": kind, "outcome": outcome[-1500:]})
            print(f"case {number} ({kind}): {outcome[-600:]}", flush=True)
            if options.keep:
                shutil.copytree(scratch, options.keep / str(number), dirs_exist_ok=True)
            if not outcome.startswith("crash: Traceback"):
                server.close()
                server = None
        if time.monotonic() - saved > 20:
            save(options.output, results)
            saved = time.monotonic()
    if server is not None:
        server.close()
    save(options.output, results)


def save(file: Path, results: dict[str, Any]) -> None:
    """Write the results."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(json.dumps(results, indent=1) + "\n")
    temporary.replace(file)


def show(results: dict[str, Any]) -> None:
    """Print a table."""
    print(f"{'class':10} {'files':>6} {'read':>6} {'refused':>8} {'failed':>7} {'slowest/s':>10} {'peak/MiB':>9}")
    for kind, row in sorted(results["classes"].items()):
        print(
            f"{kind:10} {row['files']:6} {row['read']:6} {row['refused']:8} {row['failed']:7} {row['slowest_s']:10.2f} "
            f"{row['peak_mib']:9}"
        )
    kinds = Counter(failure["outcome"].split(":")[0] for failure in results["failures"])
    print(f"{results['done']} files; " + (", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "no failure"))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=30_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(READERS), help="classes, separated by commas")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--keep", type=Path, help="where files that fail are copied to")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run the benchmark; return how many cases failed, 1 at most."""
    options = arguments()
    classes = options.only.split(",")
    if options.serve:
        serve(options.seed, options.serve, classes, options.scratch)
        return 0
    identity = {"cases": options.cases, "first": options.first, "seed": options.seed, "only": options.only}
    results: dict[str, Any] = {**identity, "done": 0, "classes": {}, "failures": []}
    if options.output.exists():
        before = json.loads(options.output.read_text())
        if {key: before.get(key) for key in identity} == identity and before["done"] < options.cases:
            results = before
            print(f"{results['done']} cases are done already.")
    left = options.cases - results["done"]
    print(f"{left} cases, about {left * USUAL_SECONDS / 60:.0f} minutes.", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "originals"
        home.mkdir()
        write_originals(home, classes)
        run_all(options, classes, results, home)
    show(results)
    return 1 if results["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
