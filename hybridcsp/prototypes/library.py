"""Prototypes with coordinates: AFLOW's, as pymatgen carries them."""

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

#: Kinds of templates, by which proposals made from them are known.
AFLOW = "aflow"
TEMPLATE = "template"


@dataclass(frozen=True, kw_only=True, eq=False)
class Template:
    """A known structure that other elements can be put into.

    Attributes
    ----------
    name
        What people call it, or where it stands.
    kind
        :data:`AFLOW` or :data:`TEMPLATE`.
    label
        Its prototype.
    elements
        Atomic number of the element in each slot of the label.
    atoms
        Its primitive cell.
    strukturbericht
        Its Strukturbericht symbol, an empty text where it has none.
    """

    name: str
    kind: str
    label: Label
    elements: tuple[int, ...]
    atoms: Atoms
    strukturbericht: str = ""


class Library(Protocol):
    """A set of templates, indexed by stoichiometry."""

    def __len__(self) -> int:
        """Return how many templates there are."""

    def matching(self, stoichiometry: tuple[int, ...]) -> Sequence[Template]:
        """Return those of a stoichiometry (reduced, ascending), always in the same order."""


class AflowLibrary:
    """The AFLOW library of crystallographic prototypes (doi:10.1016/j.commatsci.2017.01.017), from pymatgen's data.

    The file is read where it lies: importing ``pymatgen.analysis.prototypes`` takes seconds. Symmetries are worked out
    for the stoichiometries that are asked for.

    Raises
    ------
    HybridCSPError
        If pymatgen has no such file.
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
        """Return how many templates there are."""
        return sum(map(len, self._raw.values()))

    @property
    def formulas(self) -> frozenset[str]:
        """Reduced formulas in Hill's order."""
        return frozenset(_formula(atoms) for entries in self._raw.values() for *_, atoms in entries)

    def without(self, formulas: Iterable[str]) -> AflowLibrary:
        """Return the library without the structures of some reduced formulas (in Hill's order).

        A benchmark on known crystals needs it: what is sought must not be among the templates.
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
        """All that occur."""
        return sorted(self._raw)

    def matching(self, stoichiometry: tuple[int, ...]) -> Sequence[Template]:
        """Return those of a stoichiometry (reduced, ascending), in AFLOW's order."""
        if stoichiometry not in self._found:
            self._found[stoichiometry] = [
                template
                for name, strukturbericht, atoms in self._raw.get(stoichiometry, [])
                if (template := as_template(name, AFLOW, atoms, strukturbericht)) is not None
            ]
        return self._found[stoichiometry]


def as_template(name: str, kind: str, atoms: Atoms, strukturbericht: str = "") -> Template | None:
    """Work out the prototype of a structure; ``None`` where spglib finds none at either tolerance."""
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
    """Return the one instance."""
    return AflowLibrary()


def _formula(atoms: Atoms) -> str:
    return str(atoms.symbols.formula.reduce()[0].format("hill"))


def _aflow_file() -> Path:
    spec = importlib.util.find_spec("pymatgen.analysis")
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    found = [file for folder in folders for file in sorted(Path(folder).rglob("aflow_prototypes.json.gz"))]
    if not found:
        raise HybridCSPError("pymatgen brings no aflow_prototypes.json.gz; install pymatgen 2025.1 or newer")
    return found[0]


def _as_atoms(snl: dict[str, Any]) -> Atoms:
    return Atoms(
        numbers=[atomic_numbers[site["species"][0]["element"]] for site in snl["sites"]],
        scaled_positions=[site["abc"] for site in snl["sites"]],
        cell=snl["lattice"]["matrix"],
        pbc=True,
    )
