"""Prototypes with coordinates from the AFLOW library in pymatgen's data."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from ase import Atoms
from ase.data import atomic_numbers

from hybridcsp.errors import HybridCSPError
from hybridcsp.prototypes.labels import Label, reduced_counts, standardized_prototype
from hybridcsp.structure.symmetry import SYMPREC, SYMPREC_LOOSE

#: Kinds of templates, which are recorded with the proposals built from them.
AFLOW = "aflow"
TEMPLATE = "template"


@dataclass(frozen=True, kw_only=True, eq=False)
class Template:
    """Known structure whose elements can be substituted.

    Attributes
    ----------
    name
        Name of the prototype, or file and frame of the structure.
    kind
        :data:`AFLOW` or :data:`TEMPLATE`.
    label
        Prototype.
    elements
        Atomic number of the element in each slot of the label.
    atoms
        Primitive cell.
    strukturbericht
        Strukturbericht symbol; empty if there is none.
    """

    name: str
    kind: str
    label: Label
    elements: tuple[int, ...]
    atoms: Atoms
    strukturbericht: str = ""


class Library(Protocol):
    """Interface of a set of templates indexed by stoichiometry."""

    def __len__(self) -> int:
        """Return the number of templates."""

    def matching(self, stoichiometry: tuple[int, ...]) -> Sequence[Template]:
        """Return the templates of a stoichiometry (reduced, ascending) in a fixed order."""


class AflowLibrary:
    """AFLOW library of crystallographic prototypes (doi:10.1016/j.commatsci.2017.01.017) from pymatgen's data.

    The file is read directly because importing ``pymatgen.analysis.prototypes`` takes seconds. Symmetries are
    determined on first use of a stoichiometry.

    Raises
    ------
    HybridCSPError
        If pymatgen has no file of AFLOW prototypes.
    """

    def __init__(self) -> None:
        self._raw: dict[tuple[int, ...], list[tuple[str, str, Atoms]]] = {}
        for entry in json.loads(gzip.decompress(_aflow_file().read_bytes())):
            atoms = _as_atoms(entry["snl"])
            tags = entry["tags"]
            mineral = tags.get("mineral")
            name = f"{tags['aflow']} ({mineral})" if mineral and mineral != "None" else tags["aflow"]
            stoichiometry = tuple(reduced_counts(atoms.numbers).values())
            self._raw.setdefault(stoichiometry, []).append((name, tags.get("strukturbericht") or "", atoms))
        self._found: dict[tuple[int, ...], list[Template]] = {}

    def __len__(self) -> int:
        """Return the number of templates."""
        return sum(map(len, self._raw.values()))

    @property
    def formulas(self) -> frozenset[str]:
        """Reduced formulas in Hill order."""
        return frozenset(_formula(atoms) for entries in self._raw.values() for *_, atoms in entries)

    def without(self, formulas: Iterable[str]) -> AflowLibrary:
        """Return the library without the structures of given reduced formulas (in Hill order).

        Benchmarks on known crystals use it to remove the structures sought from the templates.
        """
        left_out = frozenset(formulas)
        smaller = copy(self)
        smaller._raw = {
            stoichiometry: [entry for entry in entries if _formula(entry[-1]) not in left_out]
            for stoichiometry, entries in self._raw.items()
        }
        smaller._found = {}
        return smaller

    @property
    def stoichiometries(self) -> list[tuple[int, ...]]:
        """Stoichiometries of the templates in ascending order."""
        return sorted(self._raw)

    def matching(self, stoichiometry: tuple[int, ...]) -> Sequence[Template]:
        """Return the templates of a stoichiometry (reduced, ascending) in AFLOW's order."""
        if stoichiometry not in self._found:
            self._found[stoichiometry] = [
                template
                for name, strukturbericht, atoms in self._raw.get(stoichiometry, [])
                if (template := as_template(name, AFLOW, atoms, strukturbericht)) is not None
            ]
        return self._found[stoichiometry]


def as_template(name: str, kind: str, atoms: Atoms, strukturbericht: str = "") -> Template | None:
    """Return a structure as a template, or ``None`` if spglib finds no consistent symmetry at either tolerance."""
    for symprec in (SYMPREC_LOOSE, SYMPREC):
        found = standardized_prototype(atoms, symprec)
        if found is not None:
            label, elements, reduced = found
            return Template(
                name=name, kind=kind, label=label, elements=elements, atoms=reduced, strukturbericht=strukturbericht
            )
    return None


@cache
def aflow() -> AflowLibrary:
    """Return the AFLOW library; it is read once."""
    return AflowLibrary()


def _formula(atoms: Atoms) -> str:
    return str(atoms.symbols.formula.reduce()[0].format("hill"))


def _aflow_file() -> Path:
    spec = importlib.util.find_spec("pymatgen.analysis")
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    found = [file for folder in folders for file in sorted(Path(folder).rglob("aflow_prototypes.json.gz"))]
    if not found:
        raise HybridCSPError(
            "the installed pymatgen has no file aflow_prototypes.json.gz; install pymatgen 2025.1 or newer"
        )
    return found[0]


def _as_atoms(snl: dict[str, Any]) -> Atoms:
    return Atoms(
        numbers=[atomic_numbers[site["species"][0]["element"]] for site in snl["sites"]],
        scaled_positions=[site["abc"] for site in snl["sites"]],
        cell=snl["lattice"]["matrix"],
        pbc=True,
    )
