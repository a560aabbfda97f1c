"""User-supplied structures as templates, indexed once and cached."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hybridcsp.errors import InputError, UnreadableError
from hybridcsp.io.frames import ReadFailure
from hybridcsp.io.structure_files import read_structures, structure_files
from hybridcsp.prototypes.labels import Label
from hybridcsp.prototypes.library import TEMPLATE, Template, as_template
from hybridcsp.utils.files import atomic_write, make_folder
from hybridcsp.utils.paths import expanded
from hybridcsp.utils.reading import sha256_of

log = logging.getLogger(__name__)

# To be increased when labels or the layout of the file change: older indices are rebuilt.
_VERSION = 2

# A message is logged before more structures than this are indexed, which takes long.
_MANY = 1000


class TemplateLibrary:
    """Structures from files, indexed by stoichiometry and label.

    Finding the symmetry takes some milliseconds for each structure, so the index is cached in
    ``$XDG_CACHE_HOME/hybridcsp`` (``~/.cache/hybridcsp``) under a hash of the contents of the files: a NumPy archive of
    numbers and JSON.

    Parameters
    ----------
    path
        Structure file, of which all frames are used, or folder, of which all files are used. Pickles are never read.

    Attributes
    ----------
    skipped
        Number of unusable structures by reason.

    Raises
    ------
    InputError
        If the path does not exist or has no usable structure.
    """

    def __init__(self, path: str | Path) -> None:
        place = expanded(path)
        if not place.exists():
            raise InputError("templates", path, reason="there is no such file or folder")
        sources = structure_files(place)
        cached = _cache_folder() / f"templates-{_hash(sources)}.npz"
        arrays = _load(cached)
        if arrays is None:
            arrays = _index(sources)
            _save(cached, arrays)
        about = json.loads(arrays["about"].tobytes())
        self.skipped: Mapping[str, int] = about["skipped"]
        self._names: list[str] = about["names"]
        self._labels = [
            (Label(tuple(stoichiometry), number, tuple(letters)), tuple(elements))
            for stoichiometry, number, letters, elements in about["labels"]
        ]
        if not self._labels:
            reasons = "; ".join(f"{n} times: {reason}" for reason, n in self.skipped.items())
            raise InputError("templates", path, reason=f"there is no usable structure ({reasons or 'no files'})")
        self._numbers, self._positions, self._cells = arrays["numbers"], arrays["positions"], arrays["cells"]
        self._ends = np.cumsum([0, *arrays["lengths"].tolist()])
        self._rows: dict[tuple[int, ...], list[int]] = {}
        for row, (label, _) in enumerate(self._labels):
            self._rows.setdefault(label.stoichiometry, []).append(row)

    def __len__(self) -> int:
        """Return how many templates there are."""
        return len(self._labels)

    def matching(self, stoichiometry: tuple[int, ...]) -> Sequence[Template]:
        """Return the templates of a stoichiometry (reduced, ascending) in the order of reading."""
        return [self._template(row) for row in self._rows.get(stoichiometry, [])]

    def with_label(self, label: Label) -> Sequence[Template]:
        """Return the templates of one prototype in the order of reading."""
        return [self._template(row) for row in self._rows.get(label.stoichiometry, []) if self._labels[row][0] == label]

    def _template(self, row: int) -> Template:
        label, elements = self._labels[row]
        atoms = slice(self._ends[row], self._ends[row + 1])
        return Template(
            name=self._names[row],
            kind=TEMPLATE,
            label=label,
            elements=elements,
            atoms=Atoms(self._numbers[atoms], scaled_positions=self._positions[atoms], cell=self._cells[row], pbc=True),
        )


def _index(sources: Sequence[Path]) -> dict[str, np.ndarray[Any, Any]]:
    skipped: Counter[str] = Counter()
    found = []
    for file in sources:
        for number, structure in enumerate(read_structures(file), start=1):
            if number == _MANY:
                log.warning(
                    "indexing more than %d structures of %s, which takes some time and is done once", _MANY, file
                )
            if isinstance(structure, ReadFailure):
                log.warning("%s", structure)
                skipped[structure.reason.partition(":")[0]] += 1
                continue
            template = as_template(f"{file.name}, frame {structure.number}", TEMPLATE, structure.atoms)
            if template is None:
                skipped["no symmetry found"] += 1
            else:
                found.append(template)
    about = {
        "skipped": dict(skipped),
        "names": [template.name for template in found],
        "labels": [
            (template.label.stoichiometry, template.label.spacegroup, template.label.letters, template.elements)
            for template in found
        ],
    }
    structures = [template.atoms for template in found]
    return {
        "about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
        "lengths": np.array([len(atoms) for atoms in structures], dtype=int),
        "numbers": np.concatenate([np.empty(0, dtype=int), *(atoms.numbers for atoms in structures)]),
        "positions": np.concatenate([np.empty((0, 3)), *(atoms.get_scaled_positions() for atoms in structures)]),
        "cells": np.array([atoms.cell.array for atoms in structures]).reshape(-1, 3, 3),
    }


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hybridcsp"


def _hash(sources: Sequence[Path]) -> str:
    digest = hashlib.sha256(str(_VERSION).encode())
    for file in sources:
        digest.update(f"\0{file.name}\0".encode())
        with suppress(UnreadableError):  # reported when the file is read
            digest.update(sha256_of(file).encode())
    return digest.hexdigest()[:32]


def _load(cached: Path) -> dict[str, np.ndarray[Any, Any]] | None:
    try:
        with np.load(cached, allow_pickle=False) as archive:
            return {name: archive[name] for name in ("about", "lengths", "numbers", "positions", "cells")}
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        log.warning("%s is not usable (%s) and is rebuilt", cached, error)
        return None


def _save(cached: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    try:
        make_folder(cached.parent)
        with atomic_write(cached, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    except InputError as error:
        log.warning("the index of the templates cannot be cached in %s: %s", cached.parent, error)
