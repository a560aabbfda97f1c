"""Data sets of crystals: examples read from files, and the split by formula into training and held-out examples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hybridcsp.errors import InputError
from hybridcsp.generators.base import Example
from hybridcsp.io.frames import ReadFailure
from hybridcsp.similarity import same_structure
from hybridcsp.structure.symmetry import primitive
from hybridcsp.training.files import training_files
from hybridcsp.training.held_out import HELD_OUT, formula_of, is_held_out
from hybridcsp.training.properties import names_of_numbers, number_of, unknown_property

__all__ = ["HELD_OUT", "Dataset", "formula_of", "is_held_out", "read_dataset", "split"]

# Largest relative difference of the volumes of crystals that are compared; the comparison's own tolerance is 6 %.
_VOLUME_WINDOW = 0.07


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Represent examples and their provenance.

    Attributes
    ----------
    examples
        Examples in the order of the files.
    files
        Name, SHA-256 and number of frames of each file.
    skipped
        Number of frames that are not among the examples, by reason.
    """

    examples: tuple[Example, ...]
    files: tuple[Mapping[str, Any], ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def provenance(self) -> dict[str, Any]:
        """Files and skipped frames in a form that can be written as JSON."""
        return {"files": [dict(file) for file in self.files], "skipped": dict(self.skipped)}


def read_dataset(
    paths: Iterable[Path],
    *,
    max_atoms: int,
    properties: Collection[str] = (),
    optional: Collection[str] = (),
    progress: Callable[[int], None] | None = None,
) -> Dataset:
    """Read examples from files or folders of structures as primitive cells without duplicates.

    If frames have ``e_above_hull`` (eV/atom) in their ``info``, the energy quantile of an example is the fraction of
    all examples with a *lower* energy above the hull: 0 for everything on the hull. The energy above the hull compares
    a crystal with the best phases of its composition, so that quantiles of different compositions are comparable.
    ``pressure_gpa`` and ``weight`` are read from ``info``, too.

    Of equal crystals (:func:`hybridcsp.similarity.same_structure`) the one with the lowest energy above the hull is
    kept, or else the first.

    Parameters
    ----------
    paths
        Structure files, or folders of them; pickles are never read.
    max_atoms
        Largest number of atoms in a primitive cell.
    properties
        Names of properties, numbers in ``info``, that are kept where a frame has them; at least one must have each.
    optional
        Names of further properties that are kept where a frame has them.
    progress
        Function that is called with the number of frames read so far.

    Raises
    ------
    InputError
        If a file cannot be read, no usable crystal is left, or none has one of the properties.
    """
    skipped: Counter[str] = Counter()
    files: list[dict[str, Any]] = []
    kept: dict[tuple[tuple[str, int], ...], list[tuple[float, int, Example]]] = {}
    others: Counter[str] = Counter()
    seen = 0
    for file, frames, record in training_files(paths):
        files.append(record)
        for found in frames:
            seen += 1
            if isinstance(found, ReadFailure):
                skipped[found.reason.partition(":")[0]] += 1
                continue
            cell = primitive(found.atoms)
            if len(cell) > max_atoms:
                skipped[f"more than {max_atoms} atoms"] += 1
                continue
            where = f"{file}, frame {found.number}"
            others.update(names_of_numbers(found.atoms.info))
            example, energy = _example(cell, found.atoms.info, (*properties, *optional), where)
            skipped["duplicates"] += not _fold(kept, example, seen, energy)
            if progress is not None:
                progress(seen)
    rows = sorted((row for rows in kept.values() for row in rows), key=lambda row: row[1])
    if not rows:
        reasons = "; ".join(f"{n} times: {reason}" for reason, n in skipped.items())
        raise InputError(
            "data", [file["name"] for file in files], reason=f"there is no usable crystal ({reasons or 'no files'})"
        )
    for name in properties:
        if not any(name in example.properties for _, _, example in rows):
            raise unknown_property(name, [key for key, _ in others.most_common() if key != name])
    quantiles = _quantiles([energy for energy, _, _ in rows])
    examples = tuple(
        replace(example, energy_quantile=quantile) for (_, _, example), quantile in zip(rows, quantiles, strict=True)
    )
    return Dataset(examples=examples, files=tuple(files), skipped={k: n for k, n in skipped.items() if n})


def split(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Split examples by reduced formula into training and held-out examples.

    If all examples would be held out, none is.
    """
    held = [is_held_out(formula_of(example.atoms)) for example in examples]
    if all(held):
        return list(examples), []
    learned = [example for example, out in zip(examples, held, strict=True) if not out]
    return learned, [example for example, out in zip(examples, held, strict=True) if out]


def _example(cell: Atoms, info: Mapping[str, Any], properties: Collection[str], where: str) -> tuple[Example, float]:
    """Return a crystal as an example, and its energy above the hull in eV/atom, NaN if it is unknown."""
    known = ("e_above_hull", "weight", "pressure_gpa")
    numbers = {key: number_of(info[key], key, where) for key in known if key in info}
    if not 0 <= numbers.get("weight", 1.0) < math.inf:
        raise InputError("data", where, reason=f"weight = {numbers['weight']} is not a number from 0")
    if not math.isfinite(numbers.get("pressure_gpa", 0.0)):
        raise InputError("data", where, reason=f"pressure_gpa = {numbers['pressure_gpa']} is not a finite number")
    values = {name: number_of(info[name], name, where) for name in properties if name in info}
    example = Example(
        atoms=Atoms(cell.numbers, positions=cell.positions, cell=cell.cell.array, pbc=True),
        weight=numbers.get("weight", 1.0),
        pressure_gpa=numbers.get("pressure_gpa"),
        properties={name: value for name, value in values.items() if math.isfinite(value)},
    )
    return example, numbers.get("e_above_hull", math.nan)


def _fold(
    kept: dict[tuple[tuple[str, int], ...], list[tuple[float, int, Example]]],
    example: Example,
    position: int,
    energy: float,
) -> bool:
    """Add a crystal, or replace an equal one of higher or unknown energy; return whether it is new.

    Crystals at different pressures are different; one without a pressure equals that at 0 GPa. Properties and a
    pressure that only one of two equal crystals has are kept.
    """
    atoms = example.atoms
    rows = kept.setdefault(tuple(sorted(Counter(atoms.get_chemical_symbols()).items())), [])
    for i, (other_energy, other_position, other) in enumerate(rows):
        close = abs(math.log(atoms.get_volume() / other.atoms.get_volume())) < _VOLUME_WINDOW
        same_pressure = (other.pressure_gpa or 0.0) == (example.pressure_gpa or 0.0)
        if close and same_pressure and same_structure(atoms, other.atoms):
            better = energy < other_energy or (math.isnan(other_energy) and not math.isnan(energy))
            (best_energy, best), worse = ((energy, example), other) if better else ((other_energy, other), example)
            merged = replace(
                best,
                properties={**worse.properties, **best.properties},
                pressure_gpa=worse.pressure_gpa if best.pressure_gpa is None else best.pressure_gpa,
            )
            rows[i] = best_energy, other_position, merged
            return False
    rows.append((energy, position, example))
    return True


def _quantiles(energies: Sequence[float]) -> list[float | None]:
    known = np.sort([energy for energy in energies if math.isfinite(energy)])
    return [
        float(np.searchsorted(known, energy - 1e-6) / len(known)) if math.isfinite(energy) else None
        for energy in energies
    ]
