"""Three short searches whose every event is recorded, and what it takes to compare them with their records.

Together they use every kind of source. Each has one worker and a fixed seed, so that it is the same every time, and
each is described by files alone: a configuration and the structures and programs that it names. They are run by the
command line in a process of its own, and their logs are read here with SQLite, JSON and ASE: neither depends on how
the package is laid out inside.

What is recorded leaves out times, paths, versions of packages and hashes. Numbers are compared within a tolerance,
everything else exactly. Results of linear algebra and of torch differ in the last digits between processors and
between versions of their libraries. The tolerance covers that as long as no decision hangs on such a digit; where one
does, a search takes another course from there on. Then the records of the commit before have to be made anew on the
same machine, in order to compare with them.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase
import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk

HERE = Path(__file__).parent

#: A run directory as the release of 0.1.0 wrote it.
OLD_RUN = HERE / "old_run"
OLD_RUN_CONTINUED_BY = 8

#: Two numbers are the same if they differ by less, in whatever unit, or by this fraction.
TOLERANCE = 1e-4
_DECIMALS = 6

#: Times, and what depends on the place, on weights to the last bit, and on versions.
_LEFT_OUT = {"seconds", "digest", "settings"}

_NUMBER = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?")
_FOLDER = re.compile(r"(?<!\w)(?:/[^/\s:'\"]+)+/")
_CALCULATOR_VERSION = re.compile(r" \(ase [^)]*\)")

GENERATE = '''\
"""Writes random crystals as extended XYZ."""

import random
import re
import sys

formula, n, seed, output = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
rng = random.Random(seed)
symbols = [s for s, number in re.findall("([A-Z][a-z]?)([0-9]*)", formula) for _ in range(int(number or 1))]
with open(output, "w") as file:
    for _ in range(n):
        a, b, c = (rng.uniform(0.9, 1.1) * (15 * len(symbols)) ** (1 / 3) for _ in range(3))
        print(len(symbols), file=file)
        print(f'Lattice="{a} 0 0 0 {b} 0 0 0 {c}" Properties=species:S:1:pos:R:3 pbc="T T T"', file=file)
        for i, symbol in enumerate(symbols):
            print(symbol, a * (i % 2 + rng.random()) / 2, b * rng.random(), c * (i + rng.random() / 2), file=file)
'''


@dataclass(frozen=True)
class GoldenSearch:
    """One search: its configuration, the files that it names, and when the test of its resumption interrupts it."""

    configuration: str
    structures: dict[str, list[Atoms]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    interrupted_after: tuple[str, int] = ("relaxed", 30)

    def write(self, folder: Path) -> None:
        """Write the configuration and what it names into an empty folder."""
        (folder / "search.toml").write_text(self.configuration.replace("PYTHON", sys.executable))
        for name, structures in self.structures.items():
            ase.io.write(folder / name, structures)
        for name, text in self.texts.items():
            (folder / name).write_text(text)


def _seeds() -> list[Atoms]:
    """Return crystals to begin with, among them one that is given up and one that is there twice."""
    layered = Atoms(
        "Cu2Au2", positions=[(0, 0, 0), (1.9, 1.9, 0), (0, 1.9, 2), (1.9, 0, 2)], cell=[3.8, 3.8, 4.4], pbc=1
    )
    return [
        bulk("CuAu", "rocksalt", a=5.3),
        layered,
        layered.repeat((2, 1, 1)),
        bulk("CuAu", "zincblende", a=24.0),
    ]


def _templates() -> list[Atoms]:
    squashed = bulk("NaCl", "cesiumchloride", a=3.3)
    squashed.set_cell([3.2, 3.3, 3.6], scale_atoms=True)
    return [squashed, bulk("ZnS", "wurtzite", a=3.8, c=6.3)]


SEARCHES = {
    "populations": GoldenSearch(
        configuration="""\
[problem]
formula = "CuAu"
formula_units = [1, 3]

[search]
calculator = "emt"
sources = [
    "random", "prototypes:templates.extxyz", "seeds:seeds.extxyz", "swarm", "swarm:global",
    "evolution",
    "evolution:calculator-soft-mutation,supercell,formula-units,subgroup-mutation,symmetric-mutation,symmetrisation,rattle",
]
allocation = "equal"
seed = 1
workers = 1
directory = "run"

[budget]
relaxations = 72
refine = 3

[limits]
force_calls = 60
""",
        structures={"seeds.extxyz": _seeds(), "templates.extxyz": _templates()},
    ),
    "hopping": GoldenSearch(
        configuration="""\
[problem]
formula = "CuPd"
formula_units = [1, 3]
pressure_gpa = 5

[search]
calculator = "emt"
sources = ["random", "basin-hopping", "basin-hopping:dynamics", "shake", "external:program"]
seed = 2
workers = 1
directory = "run"

[budget]
relaxations = 40
refine = 2

[external.program]
command = ["PYTHON", "generate.py", "{formula}", "{n}", "{seed}", "{output}"]
samples = 6
""",
        texts={"generate.py": GENERATE},
        interrupted_after=("relaxed", 16),
    ),
    "learning": GoldenSearch(
        configuration="""\
[problem]
formula = "Cu3Au"
formula_units = [1, 2]

[search]
calculator = "emt"
sources = ["random", "wyckoff", "flow"]
allocation = "equal"
seed = 3
workers = 1
directory = "run"

[budget]
relaxations = 30
refine = 2

[retraining]
new_minima = 5
share = 1.0
epochs = 2
trial = 2
""",
        interrupted_after=("adopted", 3),
    ),
}

_OLD_SEARCH = GoldenSearch(
    configuration="""\
[problem]
formula = "CuAu"
formula_units = [1, 2]

[search]
calculator = "emt"
sources = ["random", "prototypes", "swarm", "basin-hopping", "shake", "evolution"]
seed = 4
workers = 1
directory = "run"

[budget]
relaxations = 16
refine = 2
"""
)


# Running


def hybridcsp(*arguments: str, cwd: Path) -> str:
    """Run the command line in a process of its own; return its standard output."""
    done = subprocess.run(
        _command(*arguments), cwd=cwd, env=_environment(cwd), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise AssertionError(
            f"hybridcsp {' '.join(arguments)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "hybridcsp", *arguments]


def _environment(folder: Path) -> dict[str, str]:
    # How a sum is split among threads decides its last digits. The index of templates is kept in the cache.
    return {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}


def run(search: GoldenSearch, folder: Path) -> Path:
    """Run a search in an empty folder; return its run directory."""
    search.write(folder)
    hybridcsp("search", "search.toml", "--trust", cwd=folder)
    return folder / "run"


def run_with_interruption(search: GoldenSearch, folder: Path) -> Path:
    """Run a search that is killed on its way and resumed; return its run directory."""
    search.write(folder)
    directory = folder / "run"
    kind, number = search.interrupted_after
    with subprocess.Popen(
        _command("search", "search.toml", "--trust"),
        cwd=folder,
        env=_environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            while process.poll() is None and _count(directory, kind) < number:
                time.sleep(0.02)
        finally:
            interrupted = process.poll() is None
            if interrupted:
                os.killpg(process.pid, signal.SIGKILL)
    assert interrupted, "the search ended before it was interrupted"
    assert not [event for event in read_log(directory) if event["kind"] == "stopped"]
    hybridcsp("resume", "run", "--trust", cwd=folder)
    return directory


def _count(directory: Path, kind: str) -> int:
    try:
        with closing(_connect(directory)) as connection:
            query = "SELECT COUNT(*) FROM hybridcsp_events WHERE kind = ?"
            return int(connection.execute(query, [kind]).fetchone()[0])
    except sqlite3.OperationalError:  # nothing is there yet
        return 0


def write_old_run(folder: Path) -> None:
    """Make the run directory that later versions have to be able to read."""
    directory = run(_OLD_SEARCH, folder)
    OLD_RUN.mkdir(exist_ok=True)
    shutil.copy(directory / "minima.extxyz", OLD_RUN)
    text = (directory / "config.toml").read_text().replace(str(directory.resolve()), "run")
    (OLD_RUN / "config.toml").write_text(text)
    with gzip.GzipFile(OLD_RUN / "search.db.gz", "wb", mtime=0) as file:
        file.write((directory / "search.db").read_bytes())


def unpack_old_run(folder: Path) -> Path:
    """Return a copy of the old run directory, with the name of this version of ASE in the place of the old one."""
    directory = folder / "run"
    directory.mkdir()
    for name in ("minima.extxyz", "config.toml"):
        shutil.copy(OLD_RUN / name, directory)
    (directory / "search.db").write_bytes(gzip.decompress((OLD_RUN / "search.db.gz").read_bytes()))
    with closing(sqlite3.connect(directory / "search.db")) as connection, connection:
        old = json.loads(
            connection.execute("SELECT data FROM hybridcsp_events WHERE kind = 'relaxed' LIMIT 1").fetchone()[0]
        )["calculator"]
        connection.execute(
            "UPDATE hybridcsp_events SET data = replace(data, ?, ?)", [old, f"emt (ase {ase.__version__})"]
        )
    return directory


def shown(directory: Path) -> dict[str, Any]:
    """Return what ``hybridcsp show`` says of a run directory as a whole, and of its best minimum."""
    told = json.loads(hybridcsp("show", str(directory), "--json", cwd=directory.parent))
    whole = {key: told[key] for key in ("formula", "relaxations", "force_calls", "number_of_minima", "ended")}
    return _plain(whole | {"best": told["minima"][0]})


def continue_old_run(folder: Path) -> dict[str, Any]:
    """Return what is shown of the old run directory, and its log and minima after it was resumed."""
    directory = unpack_old_run(folder)
    told, before = shown(directory), raw_log(directory)
    hybridcsp("resume", str(directory), "--relaxations", str(OLD_RUN_CONTINUED_BY), cwd=folder)
    assert raw_log(directory)[: len(before)] == before, "events of the past were changed"
    return {"shown": told} | read_search(directory)


# Reading


def _connect(directory: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{directory / 'search.db'}?mode=ro", uri=True)


def raw_log(directory: Path) -> list[tuple[Any, ...]]:
    """Return the events of a run directory as they are on disk."""
    with closing(_connect(directory)) as connection:
        query = "SELECT sequence, kind, row, data FROM hybridcsp_events ORDER BY sequence"
        return connection.execute(query).fetchall()


def read_log(directory: Path) -> list[dict[str, Any]]:
    """Return what is to be compared of the events of a run directory."""
    database = ase.db.connect(directory / "search.db")
    events = []
    for _, kind, row, data in raw_log(directory):
        event = {"kind": kind} | _plain(json.loads(data))
        if row is not None:
            event["structure"] = _digest(database.get(id=row).toatoms())
        events.append(event)
    return events


def read_minima(directory: Path) -> list[dict[str, Any]]:
    """Return what is to be compared of the minima that a search has written at its end."""
    minima = ase.io.read(directory / "minima.extxyz", index=":")
    # The calculator was not yet written to structure files when the records were made.
    return [
        {key: value for key, value in _plain(atoms.info).items() if key != "calculator"} | {"structure": _digest(atoms)}
        for atoms in minima
    ]


def read_search(directory: Path) -> dict[str, Any]:
    """Return what is to be compared of a search."""
    return {"events": read_log(directory), "minima": read_minima(directory)}


def without_sessions(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out when a search was opened and stopped."""
    return [event for event in events if event["kind"] not in ("opened", "stopped")]


def _plain(value: Any) -> Any:
    """Return plain JSON without what is left out or empty, with rounded numbers and structures as digests."""
    match value:
        case {"cell": cell, "positions": positions, **rest} if cell is not None:
            n = len(positions)
            atoms = Atoms("X" * n, positions=positions, cell=cell, pbc=True)
            return _digest(atoms) | _plain({k: v for k, v in rest.items() if k != "numbers"})
        case dict():
            plain = {str(key): _plain(item) for key, item in value.items() if key not in _LEFT_OUT}
            return {key: item for key, item in plain.items() if item is not None and item not in ("", [], {})}
        case list() | tuple() | np.ndarray():
            return [_plain(item) for item in value]
        case bool() | np.bool_():
            return bool(value)
        case int() | np.integer():
            return int(value)
        case float() | np.floating():
            return round(float(value), _DECIMALS) + 0.0
        case str():
            return _FOLDER.sub("", _CALCULATOR_VERSION.sub("", value))
        case _:
            return value


def _digest(atoms: Atoms) -> dict[str, Any]:
    """Return formula, cell and the first few distances of a structure."""
    distances = atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)]
    return {
        "formula": str(atoms.symbols),
        "volume": round(atoms.get_volume(), _DECIMALS),
        "cell": [round(float(x), 4) for x in atoms.cell.cellpar()],
        "distances": [round(float(x), 4) for x in sorted(distances)[:4]],
    }


# Comparing


def path_of(name: str) -> Path:
    """Return the file of a record."""
    return HERE / f"{name}.json"


def write_record(name: str, record: dict[str, Any]) -> None:
    """Write a record with one event to a line."""
    parts = []
    for key, value in record.items():
        lines = ",\n".join(f"  {_line(item)}" for item in value) if isinstance(value, list) else ""
        parts.append(f" {json.dumps(key)}: [\n{lines}\n ]" if lines else f" {json.dumps(key)}: {_line(value)}")
    path_of(name).write_text("{\n" + ",\n".join(parts) + "\n}\n")


def read_record(name: str) -> dict[str, Any]:
    """Return a record."""
    record: dict[str, Any] = json.loads(path_of(name).read_text())
    return record


def difference(expected: list[dict[str, Any]], found: list[dict[str, Any]], what: str = "event") -> str:
    """Describe where two lists differ first; empty if they do not."""
    for number, (old, new) in enumerate(zip(expected, found, strict=False)):
        fields = list(_differences(old, new, ""))
        if fields:
            before = "".join(f"\n    {_line(item)[:150]}" for item in expected[max(0, number - 3) : number])
            return (
                f"{what} {number + 1} of {len(expected)} differs:"
                + "".join(f"\n  {where}: {a} in the record, {b} now" for where, a, b in fields)
                + f"\n  record: {_line(old)}\n  now:    {_line(new)}\n  after:{before or ' nothing'}"
            )
    if len(expected) != len(found):
        longer, whose = (expected, "the record") if len(expected) > len(found) else (found, "what is there now")
        n = min(len(expected), len(found))
        return f"{what}s are the same up to {n}, then {whose} goes on with\n  {_line(longer[n])}"
    return ""


def _differences(old: Any, new: Any, where: str) -> list[tuple[str, str, str]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in [*old, *(key for key in new if key not in old)]:
            found += _differences(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        found = []
        for number, (a, b) in enumerate(zip(old, new, strict=True)):
            found += _differences(a, b, f"{where}[{number}]")
        return found
    return [] if _same(old, new) else [(where, _line(old), _line(new))]


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, float) and isinstance(new, float):
        return abs(old - new) <= TOLERANCE * max(1.0, abs(old))
    if isinstance(old, str) and isinstance(new, str) and _NUMBER.sub("#", old) == _NUMBER.sub("#", new):
        pairs = zip(_NUMBER.findall(old), _NUMBER.findall(new), strict=True)
        return all(abs(float(a) - float(b)) <= max(0.011, TOLERANCE * abs(float(a))) for a, b in pairs)
    return type(old) is type(new) and bool(old == new)


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
