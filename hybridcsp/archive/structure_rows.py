"""Structures as rows of an ASE SQLite database, written many at a time and read without running code from the file.

ASE's own database classes take about a millisecond to write a row, and build the constraints, calculator parameters and
data objects that a row names. Here one statement writes the rows of a whole transaction, and only numbers are read.
The tables are those of ASE, so that ``ase db`` and ``ase gui`` show them.
"""

from __future__ import annotations

import json
import numbers
import os
import sqlite3
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_masses
from ase.db import sqlite as schema
from ase.db.core import check, now, object_to_bytes
from numpy.typing import NDArray

#: Version of ASE's tables that is written and read here.
VERSION = 9

#: Key, with the value 1, of the row that holds the best relaxation of a minimum.
BEST = "best"

_INDEX_OF_BEST = "hybridcsp_best"

_WRITTEN = (
    "id",
    "unique_id",
    "ctime",
    "mtime",
    "username",
    "numbers",
    "positions",
    "cell",
    "pbc",
    "initial_magmoms",
    "initial_charges",
    "masses",
    "tags",
    "momenta",
    "constraints",
    "calculator",
    "calculator_parameters",
    "energy",
    "free_energy",
    "forces",
    "stress",
    "dipole",
    "magmoms",
    "magmom",
    "charges",
    "key_value_pairs",
    "data",
    "natoms",
    "fmax",
    "smax",
    "volume",
    "mass",
    "charge",
)

# ASE's names of arrays with one entry per atom, and of the results of a calculator.
_OF_ATOMS = ("initial_magmoms", "initial_charges", "masses", "tags", "momenta")
_RESULTS = ("energy", "free_energy", "forces", "stress", "dipole", "magmoms", "magmom", "charges")

_READ = ("numbers", "positions", "cell", "pbc", *_OF_ATOMS, "calculator", *_RESULTS)

_INSERT = f"INSERT INTO systems ({', '.join(_WRITTEN)}) VALUES ({', '.join('?' * len(_WRITTEN))})"
_SELECT = f"SELECT {', '.join(_READ)} FROM systems WHERE id = ?"

_NO_DATA = object_to_bytes({})


@dataclass(kw_only=True)
class Row:
    """One structure to write.

    Attributes
    ----------
    atoms
        Structure, with its results if it has a calculator.
    keys
        Key-value pairs that ``ase db`` selects by: numbers, and strings that do not look like numbers.
    calculator
        Name of the calculator that the results come from.
    """

    atoms: Atoms
    keys: dict[str, Any] = field(default_factory=dict)
    calculator: str = ""


def create_tables(connection: sqlite3.Connection) -> None:
    """Create ASE's tables, within the open transaction."""
    for statement in (*schema.init_statements, *schema.index_statements):
        connection.execute(statement)


def is_best_marked(connection: sqlite3.Connection) -> bool:
    """Return whether the database was written with the key :data:`BEST`, which earlier versions did not know."""
    query = "SELECT 1 FROM sqlite_master WHERE name = ?"
    return connection.execute(query, (_INDEX_OF_BEST,)).fetchone() is not None


def prepare_best(connection: sqlite3.Connection) -> None:
    """Create indices that find a row with the key :data:`BEST` quickly: ASE's tables have no index by row."""
    for table, name in (("keys", f"{_INDEX_OF_BEST}_keys"), ("number_key_values", _INDEX_OF_BEST)):
        connection.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {table} (id) WHERE key = '{BEST}'")


def put_best(connection: sqlite3.Connection, id_: int) -> None:
    """Give an existing row the key :data:`BEST`, within the open transaction."""
    take_best(connection, id_)
    _change_pairs(connection, id_, lambda pairs: pairs | {BEST: 1})
    connection.execute("INSERT INTO keys VALUES (?, ?)", (BEST, id_))
    connection.execute("INSERT INTO number_key_values VALUES (?, 1.0, ?)", (BEST, id_))


def take_best(connection: sqlite3.Connection, id_: int) -> None:
    """Remove the key :data:`BEST` from a row, within the open transaction."""
    for table in ("keys", "number_key_values"):
        connection.execute(f"DELETE FROM {table} WHERE key = '{BEST}' AND id = ?", (id_,))
    _change_pairs(connection, id_, lambda pairs: {key: value for key, value in pairs.items() if key != BEST})


def _change_pairs(connection: sqlite3.Connection, id_: int, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    (text,) = connection.execute("SELECT key_value_pairs FROM systems WHERE id = ?", (id_,)).fetchone()
    changed = json.dumps(change(json.loads(text)))
    connection.execute("UPDATE systems SET key_value_pairs = ? WHERE id = ?", (changed, id_))


def next_id(connection: sqlite3.Connection) -> int:
    """Return the number of the next row, within the open transaction."""
    (last,) = connection.execute("SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'systems'").fetchone()
    (highest,) = connection.execute("SELECT COALESCE(MAX(id), 0) FROM systems").fetchone()
    return max(int(last), int(highest)) + 1


def insert(connection: sqlite3.Connection, rows: Iterable[tuple[int, Row]]) -> None:
    """Write structures as rows of the given numbers, within the open transaction.

    Raises
    ------
    ValueError
        If ASE's databases cannot hold one of the keys or values.
    """
    systems, species, keys, texts, values = [], [], [], [], []
    time, user = now(), os.getenv("USER")
    for id_, row in rows:
        systems.append(_system(id_, row, time, user))
        species += [(z, n, id_) for z, n in sorted(Counter(row.atoms.numbers.tolist()).items())]
        for key, value in row.keys.items():
            keys.append((key, id_))
            if isinstance(value, str):
                _check(key, value)
                texts.append((key, value, id_))
            elif isinstance(value, numbers.Real | np.bool_):
                _check(key, 0)
                values.append((key, float(value), id_))
            else:
                raise ValueError(f"{key!r} is neither a number nor a string")
    connection.executemany(_INSERT, systems)
    connection.executemany("INSERT INTO species VALUES (?, ?, ?)", species)
    connection.executemany("INSERT INTO keys VALUES (?, ?)", keys)
    connection.executemany("INSERT INTO text_key_values VALUES (?, ?, ?)", texts)
    connection.executemany("INSERT INTO number_key_values VALUES (?, ?, ?)", values)


def read(connection: sqlite3.Connection, id_: int) -> Atoms:
    """Return the structure of one row, its results in a ``SinglePointCalculator``.

    Constraints, calculator parameters and data, which would have to be built from names in the file, are not read.

    Raises
    ------
    LookupError
        If there is no such row.
    ValueError, TypeError
        If the row is damaged.
    """
    found = connection.execute(_SELECT, (id_,)).fetchone()
    if found is None:
        raise LookupError(f"the structure of row {id_} is missing")
    row = dict(zip(_READ, found, strict=True))
    if any(row[name] is None for name in ("numbers", "positions", "cell", "pbc")):
        raise ValueError(f"the structure of row {id_} is incomplete")
    n = len(row["numbers"]) // 4
    atoms = Atoms(
        numbers=_array(row["numbers"], (n,), np.int32),
        positions=_array(row["positions"], (n, 3)),
        cell=_array(row["cell"], (3, 3)),
        pbc=[bool(row["pbc"] & bit) for bit in (1, 2, 4)],
        magmoms=_array(row["initial_magmoms"], (n,)),
        charges=_array(row["initial_charges"], (n,)),
        masses=_array(row["masses"], (n,)),
        tags=_array(row["tags"], (n,), np.int32),
        momenta=_array(row["momenta"], (n, 3)),
    )
    if not ((atoms.numbers >= 0) & (atoms.numbers < len(atomic_masses))).all():
        raise ValueError(f"row {id_} has atomic numbers of no element")
    results = {name: row[name] for name in ("energy", "free_energy", "magmom") if row[name] is not None}
    for name, shape in (("forces", (n, 3)), ("stress", (6,)), ("dipole", (3,)), ("magmoms", (n,)), ("charges", (n,))):
        if row[name] is not None:
            results[name] = _array(row[name], shape)
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.calc.name = str(row["calculator"] or "unknown")
    return atoms


# Cached because every row has the same keys, most of them with the same few strings.
@lru_cache(maxsize=4096)
def _check(key: str, value: str | int) -> None:
    """Raise the error of ASE for a key or value that its databases cannot hold; numbers are checked as 0."""
    check({key: value})


def _system(id_: int, row: Row, time: float, user: str | None) -> tuple[Any, ...]:
    atoms = row.atoms
    results = _results(atoms)
    forces, stress = results.get("forces"), results.get("stress")
    volume = abs(float(np.linalg.det(atoms.cell.array)))
    charges = atoms.arrays.get("initial_charges")
    masses = atoms.arrays.get("masses")
    return (
        id_,
        uuid.uuid4().hex,
        time,
        time,
        user,
        _blob(atoms.numbers),
        _blob(atoms.positions),
        _blob(atoms.cell.array),
        sum(bit for bit, periodic in zip((1, 2, 4), atoms.pbc.tolist(), strict=True) if periodic),
        *(_blob(atoms.arrays.get(name)) for name in _OF_ATOMS),
        None,
        (row.calculator or "unknown") if atoms.calc is not None else None,
        "{}" if atoms.calc is not None else None,
        *(_float(results.get(name)) for name in ("energy", "free_energy")),
        *(_blob(results.get(name)) for name in ("forces", "stress", "dipole", "magmoms")),
        _float(results.get("magmom")),
        _blob(results.get("charges")),
        json.dumps({key: _plain(value) for key, value in row.keys.items()}),
        _NO_DATA,
        len(atoms),
        None if forces is None or len(forces) == 0 else float(np.sqrt((forces**2).sum(axis=1).max())),
        None if stress is None else float(np.abs(stress).max()),
        volume or None,
        float((atomic_masses[atoms.numbers] if masses is None else masses).sum()),
        0.0 if charges is None else float(charges.sum()),
    )


def _results(atoms: Atoms) -> dict[str, Any]:
    """Return the results that a calculator holds, if they belong to the current structure."""
    if atoms.calc is None:
        return {}
    of = getattr(atoms.calc, "atoms", None)
    same = of is None or (
        len(of) == len(atoms)
        and bool((of.numbers == atoms.numbers).all())
        and bool((of.positions == atoms.positions).all())
        and bool((of.cell.array == atoms.cell.array).all())
    )
    held = atoms.calc.results if same else {}
    results = {name: held[name] for name in _RESULTS if held.get(name) is not None}
    for name in results.keys() - {"energy", "free_energy", "magmom"}:
        results[name] = np.asarray(results[name], dtype=float)
    if "stress" in results and results["stress"].shape == (3, 3):
        results["stress"] = results["stress"][[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    return results


def _float(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _blob(array: NDArray[Any] | None) -> bytes | None:
    """Return an array as ASE stores it: little-endian, integers of 32 bits."""
    if array is None:
        return None
    kind = "<i4" if array.dtype.kind in "iu" else "<f8"
    return np.ascontiguousarray(array, dtype=kind).tobytes()


def _array(blob: bytes | None, shape: tuple[int, ...], kind: type = np.float64) -> NDArray[Any] | None:
    if blob is None:
        return None
    little = np.dtype(kind).newbyteorder("<")
    return np.frombuffer(blob, dtype=little).astype(kind).reshape(shape)
