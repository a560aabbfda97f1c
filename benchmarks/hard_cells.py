"""Choose known crystals whose prototype is nowhere in what the package has learned from.

    python benchmarks/hard_cells.py mp20_train.extxyz mpts52_train.extxyz

A *hard cell* is a crystal that a search has to find without a known relative:

- its reduced formula belongs to the tenth that no generator learns from
  (:func:`hybridcsp.generators.datasets.is_held_out`), which is asserted against the cards of the shipped weights;
- it is on the hull, to the 2 meV/atom that all benchmarks here allow, and the lowest of its formula in the files;
- its primitive cell has 5 to 10 (*small*), 12 to 20 (*large*) or 21 to 40 atoms (*larger*);
- no crystal of the other nine tenths has its prototype: its label (stoichiometry, space group and Wyckoff letters, as
  in the shipped table) is neither in the shipped table, the formulas held out left out, nor in AFLOW's library;
- its elements are those that CHGNet and SevenNet know, without noble gases.

The cells of each size are drawn in an order with a fixed seed; nothing of them is looked at but what is named above.
results/hard_cells.json holds identifiers, formulas and labels, no structures. :func:`hard_cells` returns the crystals.
The shipped table was counted from all crystals of the same files, those of formulas held out included: searches of
these cells use the table without them, :func:`table_of_nine_tenths`, and the library without them,
:func:`library_of_nine_tenths`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from rich.console import Console

from hybridcsp.generators.datasets import formula_of, is_held_out
from hybridcsp.generators.loading import read_card
from hybridcsp.generators.weights_io import overlap, shipped
from hybridcsp.prototypes import CountTable, Label, aflow, identify
from hybridcsp.prototypes.library import AflowLibrary
from hybridcsp.prototypes.table import reduced_hill_formula
from hybridcsp.structure.symmetry import primitive

RESULT = Path(__file__).parent / "results" / "hard_cells.json"

#: Bounds of the number of atoms in the primitive cell, and the number of cells that are drawn.
SIZES = {"small": (5, 10, 16), "large": (12, 20, 18), "larger": (21, 40, 16)}

SEED = 0

#: Largest energy above the hull (eV/atom) of what counts as on it.
ON_HULL = 0.002

#: Elements of the Materials Project's trajectories, which CHGNet and SevenNet were trained on, without noble gases.
KNOWN = frozenset([*range(1, 84), *range(89, 95)]) - {2, 10, 18, 36, 54}

_SYMBOL = re.compile(r"[A-Z][a-z]?")


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """Known crystal to be searched for.

    Attributes
    ----------
    name
        Name in the tables of results.
    size
        ``"small"``, ``"large"`` or ``"larger"``.
    atoms
        Primitive cell.
    """

    name: str
    size: str
    atoms: Atoms


def read_crystals(paths: Iterable[Path]) -> dict[str, Atoms]:
    """Return the crystals of the files by their identifiers."""
    return {str(atoms.info["material_id"]): atoms for path in paths for atoms in ase.io.read(path, ":")}


def hard_cells(paths: Sequence[Path]) -> list[Cell]:
    """Return the crystals named in the result file, the small cells first."""
    crystals = read_crystals(paths)
    return [
        Cell(name=row["name"], size=row["size"], atoms=primitive(crystals[row["material_id"]]))
        for row in json.loads(RESULT.read_text())["cells"]
    ]


def table_without(left_out: Callable[[str], bool]) -> CountTable:
    """Return the shipped table of prototypes without the crystals of some reduced formulas, in Hill order."""
    raw = _shipped()
    kept: dict[str, dict[str, str]] = {}
    for stoichiometry, prototypes in raw["prototypes"].items():
        for label, kinds in prototypes.items():
            others = [kind for kind in kinds.split() if not left_out(_formula(stoichiometry, kind))]
            if others:
                kept.setdefault(stoichiometry, {})[label] = " ".join(others)
    table = CountTable({"card": raw["card"], "prototypes": kept})
    assert not any(map(left_out, table.formulas)), "the table still holds formulas that were to be left out"
    return table


def table_of_nine_tenths() -> CountTable:
    """Return the shipped table of prototypes without the crystals of formulas that are held out."""
    return table_without(is_held_out)


def held_out_crystals() -> Iterator[tuple[tuple[int, ...], Label, str, list[int]]]:
    """Yield stoichiometry, prototype, formula and elements of the slots of held-out crystals in the shipped table."""
    for text, prototypes in _shipped()["prototypes"].items():
        stoichiometry = tuple(map(int, text.split()))
        for label, kinds in prototypes.items():
            number, *letters = label.split()
            for kind in kinds.split():
                formula = _formula(text, kind)
                if is_held_out(formula):
                    elements = [atomic_numbers[symbol] for symbol in _SYMBOL.findall(kind.partition("*")[0])]
                    yield stoichiometry, Label(stoichiometry, int(number), tuple(letters)), formula, elements


def library_of_nine_tenths() -> AflowLibrary:
    """Return AFLOW's library without the crystals of formulas that are held out."""
    return aflow().without(filter(is_held_out, aflow().formulas))


def choose(crystals: dict[str, Atoms]) -> dict[str, Any]:
    """Return what the result file holds."""
    lowest: dict[str, str] = {}
    for identifier, atoms in crystals.items():
        formula = formula_of(atoms)
        best = lowest.setdefault(formula, identifier)
        if atoms.info["e_above_hull"] < crystals[best].info["e_above_hull"]:
            lowest[formula] = identifier
    counts: Counter[str] = Counter()
    known = _known_labels()
    found: dict[str, list[dict[str, Any]]] = {size: [] for size in SIZES}
    for formula, identifier in sorted(lowest.items()):
        atoms = crystals[identifier]
        if not is_held_out(formula) or atoms.info["e_above_hull"] > ON_HULL or not KNOWN.issuperset(atoms.numbers):
            continue
        cell = primitive(atoms)
        size = next((name for name, (low, high, _) in SIZES.items() if low <= len(cell) <= high), None)
        if size is None:
            continue
        counts[f"{size} on the hull"] += 1
        label = identify(cell)
        if label is None:
            counts[f"{size} without a label"] += 1
        elif label[0] not in known:
            name = f"{identifier}-{cell.get_chemical_formula()}"
            row = {"name": name, "material_id": identifier, "formula": formula, "atoms": len(cell)}
            found[size].append({**row, "size": size, "prototype": str(label[0])})
    chosen = []
    for size, (_, _, most) in SIZES.items():
        counts[f"{size} with a new prototype"] = len(found[size])
        order = np.random.default_rng(SEED).permutation(len(found[size]))[:most]
        chosen += [found[size][i] for i in order]
    formulas = frozenset(row["formula"] for row in chosen)
    for generator in ("wyckoff", "flow"):
        seen = overlap(read_card(shipped(generator)), formulas)
        assert not seen, f"{generator} was trained on {sorted(seen)}"
    return {"seed": SEED, "counts": dict(sorted(counts.items())), "cells": chosen}


def _formula(stoichiometry: str, kind: str) -> str:
    """Return the reduced formula of an entry of the table, such as ``"TiO*3"`` for ``"1 2"``."""
    counts = map(int, stoichiometry.split())
    return reduced_hill_formula(dict(zip(_SYMBOL.findall(kind.partition("*")[0]), counts, strict=True)))


def _shipped() -> Any:
    return json.loads(files("hybridcsp").joinpath("data/prototype_counts.json").read_text(encoding="utf-8"))


def _known_labels() -> set[Label]:
    """Return the prototypes of the nine tenths and of AFLOW's library."""
    library = aflow()
    found = {template.label for which in library.stoichiometries for template in library.matching(which)}
    for stoichiometry, prototypes in _shipped()["prototypes"].items():
        for text, kinds in prototypes.items():
            if not all(is_held_out(_formula(stoichiometry, kind)) for kind in kinds.split()):
                number, *letters = text.split()
                found.add(Label(tuple(map(int, stoichiometry.split())), int(number), tuple(letters)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    found = choose(read_crystals(arguments.files))
    found["files"] = [file.name for file in arguments.files]
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    console = Console()
    for what, count in found["counts"].items():
        console.print(f"{count:5d} {what}", highlight=False)
    for row in found["cells"]:
        elements = len({atomic_numbers[s] for s in _SYMBOL.findall(row["formula"])})
        console.print(f"{row['size']} {row['name']} {elements} elements {row['prototype']}", highlight=False)


if __name__ == "__main__":
    main()
