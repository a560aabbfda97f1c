"""The journal of a job: every calculation that has ended, with its structure and its results.

A relaxation that was interrupted is repeated from the journal. ASE's optimisers are deterministic, so that they ask for
the same structures again and get the same results, bit for bit, until the first calculation that had not ended.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

#: Name of the journal in the folder of a job.
FILE = "calculations.jsonl"


def key_of(atoms: Atoms, settings: str) -> str:
    """Return a hash of a structure, bit for bit, and of a text that stands for the settings."""
    found = sha256(settings.encode())
    for array in (atoms.numbers, atoms.cell.array, atoms.positions, atoms.get_initial_magnetic_moments()):
        found.update(np.ascontiguousarray(array).tobytes() + b"\0")
    return found.hexdigest()


class Journal:
    """Results by key, kept in a file to which they are appended.

    Parameters
    ----------
    folder
        The folder of the job.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._known: dict[str, Any] = {}
        with suppress(FileNotFoundError):
            for line in self._file.read_bytes().splitlines(keepends=True):
                with suppress(ValueError, KeyError, TypeError):  # the last line may be incomplete
                    entry = json.loads(line)
                    self._known[entry["key"]] = entry["value"]

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Any:
        """Return what was added under a key; ``None`` for nothing."""
        return self._known.get(key)

    def add(self, key: str, value: Any) -> None:
        """Add plain JSON, and write it to the disk before anything else happens."""
        self._known[key] = value
        with self._file.open("ab") as stream:
            # A line break first ends a line that was cut off.
            stream.write(b"\n" + json.dumps({"key": key, "value": value}).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())


def plain(results: dict[str, Any]) -> dict[str, Any]:
    """Return results as plain JSON, which holds every number exactly."""
    return {name: value.tolist() if isinstance(value, np.ndarray) else float(value) for name, value in results.items()}


def arrays(value: dict[str, Any]) -> dict[str, Any]:
    """Return the results that :func:`plain` has converted."""
    return {name: np.array(item) if isinstance(item, list) else item for name, item in value.items()}
