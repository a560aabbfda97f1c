"""Counts of prototypes and of the elements in their slots, and the shipped table of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from math import gcd
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from hybridcsp.prototypes.labels import Label

_SYMBOL = re.compile(r"[A-Z][a-z]?")


@dataclass(frozen=True, eq=False)
class Occurrences:
    """Prototypes of one stoichiometry and the crystals counted for them.

    Attributes
    ----------
    labels
        Prototypes.
    elements
        Atomic numbers of the elements in the slots of each kind of crystal, shape ``(n, n_slots)``.
    which
        Index of the prototype of each kind, shape ``(n,)``.
    counts
        Number of crystals of each kind, shape ``(n,)``.
    """

    labels: tuple[Label, ...]
    elements: NDArray[np.int_]
    which: NDArray[np.int_]
    counts: NDArray[np.float64]

    def joined(self, others: Iterable[tuple[Label, tuple[int, ...]]]) -> Occurrences:
        """Return these occurrences together with others that count as one crystal each."""
        index = {label: i for i, label in enumerate(self.labels)}
        rows = list(others)
        which = [index.setdefault(label, len(index)) for label, _ in rows]
        elements = np.array([elements for _, elements in rows], dtype=int).reshape(len(rows), self.elements.shape[1])
        return Occurrences(
            labels=tuple(index),
            elements=np.concatenate([self.elements, elements]),
            which=np.concatenate([self.which, np.array(which, dtype=int)]),
            counts=np.concatenate([self.counts, np.ones(len(rows))]),
        )


class CountTable:
    """Counts of prototypes by stoichiometry, space group and Wyckoff letters, and of the elements in their slots.

    Parameters
    ----------
    raw
        ``{"card": {...}, "prototypes": {"1 2": {"136 a f": "TiO SnO*2", ...}, ...}}``: for each stoichiometry and
        label, the elements of the slots in their order, followed by the number of crystals if it is not 1.
    """

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.card: Mapping[str, Any] = raw["card"]
        self._raw: Mapping[str, Mapping[str, str]] = raw["prototypes"]

    def __len__(self) -> int:
        """Return the number of prototypes."""
        return sum(map(len, self._raw.values()))

    @cached_property
    def formulas(self) -> frozenset[str]:
        """Reduced formulas of all counted crystals in Hill order, such as ``"O2Ti"``."""
        return frozenset(
            reduced_hill_formula(dict(zip(_SYMBOL.findall(kind), map(int, stoichiometry.split()), strict=True)))
            for stoichiometry, prototypes in self._raw.items()
            for kinds in prototypes.values()
            for kind in kinds.replace("*", " *").split()
            if not kind.startswith("*")
        )

    def matching(self, stoichiometry: tuple[int, ...]) -> Occurrences:
        """Return the occurrences of a stoichiometry (reduced, ascending)."""
        prototypes = self._raw.get(" ".join(map(str, stoichiometry)), {})
        labels, elements, which, counts = [], [], [], []
        for index, (text, kinds) in enumerate(prototypes.items()):
            number, *letters = text.split()
            labels.append(Label(stoichiometry, int(number), tuple(letters)))
            for kind in kinds.split():
                symbols, _, count = kind.partition("*")
                elements.append([atomic_numbers[symbol] for symbol in _SYMBOL.findall(symbols)])
                which.append(index)
                counts.append(float(count or 1))
        return Occurrences(
            labels=tuple(labels),
            elements=np.array(elements, dtype=int).reshape(len(elements), len(stoichiometry)),
            which=np.array(which, dtype=int),
            counts=np.array(counts),
        )


def reduced_hill_formula(counts: Mapping[str, int]) -> str:
    """Return a reduced formula in Hill order (C, H, then alphabetical), such as ``"O2Ti"``."""
    divisor = gcd(*counts.values())
    order = sorted(counts, key=lambda symbol: (symbol not in ("C", "H"), symbol))
    return "".join(f"{s}{counts[s] // divisor if counts[s] > divisor else ''}" for s in order)


def encode_counts(found: Iterable[tuple[Label, tuple[int, ...]]]) -> dict[str, dict[str, str]]:
    """Return the counts of crystals, given as prototype and elements of the slots, in the form of the table."""
    counted: dict[str, dict[str, dict[str, int]]] = {}
    for label, elements in found:
        prototypes = counted.setdefault(" ".join(map(str, label.stoichiometry)), {})
        kinds = prototypes.setdefault(" ".join([str(label.spacegroup), *label.letters]), {})
        kind = "".join(chemical_symbols[z] for z in elements)
        kinds[kind] = kinds.get(kind, 0) + 1
    return {
        stoichiometry: {
            label: " ".join(f"{kind}*{n}" if n > 1 else kind for kind, n in sorted(kinds.items()))
            for label, kinds in sorted(prototypes.items(), key=lambda item: (-sum(item[1].values()), item[0]))
        }
        for stoichiometry, prototypes in sorted(counted.items())
    }


@cache
def shipped_table() -> CountTable:
    """Return the table of the package."""
    text = files("hybridcsp").joinpath("data/prototype_counts.json").read_text(encoding="utf-8")
    return CountTable(json.loads(text))
