"""Cards of data sets: what came from where, how it was made, and with which versions, calculators and seeds."""

from __future__ import annotations

import json
import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hybridcsp.errors import UnreadableError
from hybridcsp.generators.datasets import formula_of
from hybridcsp.io.structure_files import CARD
from hybridcsp.utils.files import atomic_write, is_stream
from hybridcsp.utils.reading import read_json
from hybridcsp.utils.text import printable_line

#: Version of the layout of cards.
FORMAT = 1

# Packages whose versions a card states.
_PACKAGES = ("hybridcsp", "ase", "numpy", "pymatgen", "spglib")

# Cards of cards are kept to this depth, and no card that is larger than this is read (bytes).
_DEEPEST, _LARGEST = 8, 4 << 20

# Longest text of a value in the description for people.
_WIDTH = 100


@dataclass(kw_only=True)
class Tally:
    """Counts of the crystals of a data set and of the numbers among their properties, one crystal at a time."""

    crystals: int = 0
    formulas: Counter[str] = field(default_factory=Counter)
    elements: Counter[str] = field(default_factory=Counter)
    atoms: Counter[int] = field(default_factory=Counter)
    calculators: Counter[str] = field(default_factory=Counter)
    numbers: dict[str, _Numbers] = field(default_factory=dict)

    def add(self, atoms: Atoms) -> None:
        """Count one crystal."""
        self.crystals += 1
        self.formulas[formula_of(atoms)] += 1
        self.elements.update(set(atoms.get_chemical_symbols()))
        self.atoms[len(atoms)] += 1
        label = atoms.info.get("calculator")
        if isinstance(label, str):
            self.calculators[label] += 1
        for name, given in atoms.info.items():
            value = given.item() if isinstance(given, np.generic) else given
            if isinstance(value, int | float) and not isinstance(value, bool):
                self.numbers.setdefault(str(name), _Numbers()).add(float(value))

    def summary(self) -> dict[str, Any]:
        """Return the counts as plain JSON."""
        return {
            "crystals": self.crystals,
            "formulas": len(self.formulas),
            "elements": dict(sorted(self.elements.items())),
            "atoms_per_cell": {str(n): count for n, count in sorted(self.atoms.items())},
            "calculators": dict(self.calculators),
            "properties": {name: numbers.summary() for name, numbers in self.numbers.items()},
        }


@dataclass
class _Numbers:
    count: int = 0
    not_finite: int = 0
    low: float = math.inf
    high: float = -math.inf
    total: float = 0.0

    def add(self, value: float) -> None:
        if not math.isfinite(value):
            self.not_finite += 1
            return
        self.count += 1
        self.low, self.high = min(self.low, value), max(self.high, value)
        self.total += value

    def summary(self) -> dict[str, float | int]:
        found: dict[str, float | int] = {"crystals": self.count}
        if self.not_finite:
            found["not_finite"] = self.not_finite
        if self.count:
            found |= {"min": self.low, "mean": self.total / self.count, "max": self.high}
        return found


def card_path(data: Path) -> Path:
    """Return the path of the card of a data set, in JSON: ``crystals.extxyz`` has ``crystals.card.json``."""
    name = data.name
    for ending in (".gz", ".bz2", ".xz"):
        name = name.removesuffix(ending)
    return data.with_name(f"{name.removesuffix('.extxyz').removesuffix('.xyz')}{CARD}")


def make_card(
    command: str,
    *,
    settings: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]],
    left_out: Mapping[str, int],
    tally: Tally,
    **more: Any,
) -> dict[str, Any]:
    """Return the card of a data set.

    Parameters
    ----------
    command
        Name of the step that made it: ``"substitute"``, for example.
    settings
        Parameters of the step, with its seed.
    inputs
        Records of the files that it was made from, as :func:`input_record` returns them.
    left_out
        Numbers of crystals that were left out, by reason.
    tally
        Counts of the crystals.
    more
        Further entries.
    """
    return {
        "format": FORMAT,
        "made_by": f"hybridcsp dataset {command}",
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "settings": dict(settings),
        "inputs": [dict(one) for one in inputs],
        **more,
        "left_out": {reason: n for reason, n in sorted(left_out.items(), key=lambda item: -item[1]) if n},
        **tally.summary(),
    }


def versions() -> dict[str, str]:
    """Return the versions of hybridcsp and of the packages that make crystals."""
    found = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def input_record(file: Mapping[str, Any], crystals: int, card: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the record of a file that a data set was made from.

    Parameters
    ----------
    file
        Its ``name`` and ``sha256``, as in :class:`hybridcsp.training.files.TrainingFile`.
    crystals
        Number of crystals read.
    card
        Its card, if it has one.
    """
    record: dict[str, Any] = {"name": file["name"], "sha256": file["sha256"], "crystals": crystals}
    return record if card is None else {**record, "card": _pruned(card, _DEEPEST)}


def write_card(card: Mapping[str, Any], data: Path, *, follow: bool = True) -> Path | None:
    """Write the card of a data set beside it, as JSON and as text; return the path of the JSON file.

    Nothing is written beside a stream such as the standard output.
    """
    if is_stream(data):
        return None
    path = card_path(data)
    with atomic_write(path, follow=follow) as stream:
        json.dump(card, stream, indent=1)
        stream.write("\n")
    with atomic_write(path.with_suffix(".txt"), follow=follow) as stream:
        stream.write("\n".join(describe_card(card)) + "\n")
    return path


def read_card(data: Path) -> dict[str, Any] | None:
    """Return the card beside a data set, or ``None`` if there is none that can be read."""
    path = card_path(data)
    if not path.is_file():
        return None
    try:
        card = read_json(path, _LARGEST)
    except UnreadableError:
        return None
    return card if isinstance(card, dict) and isinstance(card.get("made_by"), str) else None


def describe_card(card: Mapping[str, Any]) -> list[str]:
    """Return a card as lines of text for people."""
    lines = [f"{card.get('crystals', 0)} crystals of {card.get('formulas', 0)} formulas"]
    if "made_by" in card:
        lines.append(f"made by {card['made_by']} at {card.get('made_at', 'an unknown time')}")
    lines += _listed("versions", (f"{name} {number}" for name, number in _items(card, "versions")))
    lines += _listed("settings", (f"{name} = {value}" for name, value in _items(card, "settings")))
    lines += _listed("calculators", (f"{label} ({n})" for label, n in _items(card, "calculators")))
    lines += _listed("elements", (f"{symbol} {n}" for symbol, n in _items(card, "elements")))
    lines += _listed("atoms per cell", (f"{size}: {n}" for size, n in _items(card, "atoms_per_cell")))
    for name, numbers in _items(card, "properties"):
        if isinstance(numbers, Mapping):
            span = ", ".join(f"{key} {_shown(value)}" for key, value in numbers.items())
            lines.append(f"property {name}: {span}")
    for reason, n in _items(card, "left_out"):
        lines.append(f"left out {n}: {reason}")
    inputs = card.get("inputs")
    for one in inputs if isinstance(inputs, list) else ():
        if isinstance(one, Mapping):
            origin = f", SHA-256 {one['sha256']}" if "sha256" in one else ""
            lines.append(f"made from {one.get('name')}, {one.get('crystals')} crystals{origin}")
            if isinstance(one.get("card"), Mapping):
                lines += [f"    {line}" for line in describe_card(one["card"])]
    return [printable_line(line) for line in lines]


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _items(card: Mapping[str, Any], key: str) -> Iterable[tuple[str, Any]]:
    value = card.get(key)
    return value.items() if isinstance(value, Mapping) else ()


def _listed(title: str, parts: Iterable[str]) -> list[str]:
    text = ", ".join(parts)
    return textwrap.wrap(f"{title}: {text}", _WIDTH, subsequent_indent="  ") if text else []


def _pruned(card: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Return a card without the cards that lie deeper than a number of levels."""

    def pruned(one: Any) -> Any:
        if not isinstance(one, Mapping) or not isinstance(one.get("card"), Mapping):
            return one
        rest = {key: value for key, value in one.items() if key != "card"}
        return rest if depth <= 1 else {**rest, "card": _pruned(one["card"], depth - 1)}

    inputs = card.get("inputs")
    return {**card, "inputs": [pruned(one) for one in inputs]} if isinstance(inputs, list) else dict(card)
