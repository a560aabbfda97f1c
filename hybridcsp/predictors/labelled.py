"""Crystals whose property is known, and their division into a learned and a held-out part."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.io.frames import ReadFailure
from hybridcsp.similarity import MINIMA, StructureIndex
from hybridcsp.training.files import training_files
from hybridcsp.training.held_out import HELD_OUT, formula_of, tenth_of
from hybridcsp.training.properties import names_of_numbers, number_of, unit_of, unknown_property

#: Fewest crystals from which a property is learned.
FEWEST = 10

# Key of the number of the original in the ``info`` of augmented crystals (:mod:`hybridcsp.datasets.augmentation`).
_ORIGINAL = "crystal"

# Smallest part of the crystals that must be held out by formula; if it is smaller, crystals are held out instead.
_SMALLEST_PART = 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """Represent crystals with the values of one property.

    Attributes
    ----------
    crystals
        The crystals.
    values
        Values of the property, shape ``(n,)``.
    name, unit
        Name and unit of the property.
    files
        Name, SHA-256 and number of frames of each file.
    skipped
        Number of frames that are left out, by reason.
    """

    crystals: tuple[Atoms, ...]
    values: NDArray[np.float64]
    name: str
    unit: str = ""
    files: tuple[Mapping[str, Any], ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    def part(self, indices: Sequence[int] | NDArray[np.int_]) -> Labelled:
        """Return some of the crystals."""
        return Labelled(
            crystals=tuple(self.crystals[i] for i in indices),
            values=self.values[np.asarray(indices, dtype=int)],
            name=self.name,
            unit=self.unit,
        )


def read_labelled(
    paths: Iterable[Path],
    name: str,
    *,
    max_atoms: int,
    unit: str | None = None,
    missing: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Labelled:
    """Read the crystals of files or folders whose ``info`` has a property.

    Frames without the property, with a value that is not finite, or with more atoms than ``max_atoms`` are left out and
    counted.

    Parameters
    ----------
    paths
        Structure files, or folders of them; pickles are never read.
    name
        Name of the property, a key of ``info``.
    max_atoms
        Largest number of atoms.
    unit
        Unit of the property; by default that of :func:`hybridcsp.training.properties.unit_of`.
    missing
        Value for frames without the property, which are then not left out.
    progress
        Function that is called with the number of frames read so far.

    Raises
    ------
    InputError
        If a file cannot be read, a value is not a number, or no frame has the property.
    """
    skipped: Counter[str] = Counter()
    others: Counter[str] = Counter()
    files: list[dict[str, Any]] = []
    crystals: list[Atoms] = []
    values: list[float] = []
    seen = 0
    for file, frames, record in training_files(paths):
        files.append(record)
        for frame in frames:
            seen += 1
            if progress is not None:
                progress(seen)
            if isinstance(frame, ReadFailure):
                skipped[frame.reason.partition(":")[0]] += 1
                continue
            info = frame.atoms.info
            others.update(key for key in names_of_numbers(info) if key != name)
            if name in info:
                value = number_of(info[name], name, f"{file}, frame {frame.number}")
            elif missing is not None:
                value = missing
            else:
                skipped[f"without {name}"] += 1
                continue
            if not math.isfinite(value):
                skipped[f"whose {name} is not finite"] += 1
            elif len(frame.atoms) > max_atoms:
                skipped[f"with more than {max_atoms} atoms"] += 1
            else:
                crystals.append(_bare(frame.atoms))
                values.append(value)
    if not crystals:
        reasons = "; ".join(f"{n} frames {reason}" for reason, n in skipped.items()) or "there are no frames"
        raise unknown_property(name, [key for key, _ in others.most_common()], reasons)
    return Labelled(
        crystals=tuple(crystals),
        values=np.array(values),
        name=name,
        unit=unit_of(name) if unit is None else unit,
        files=tuple(files),
        skipped=dict(skipped),
    )


def check_learnable(data: Labelled, *, logarithmic: bool) -> None:
    """Check that a property can be learned from crystals.

    Raises
    ------
    InputError
        If there are too few crystals, a value is not finite, all values are equal, or a logarithm is to be learned
        and a value is not positive.
    """
    n = len(data.crystals)
    if n < FEWEST:
        reason = (
            f"{n} crystals with {data.name} are too few to learn from and to test with; {FEWEST} are needed at least"
        )
        raise InputError("data", n, reason=reason)
    if len(data.values) != n:
        raise InputError("values", len(data.values), f"one value for each of the {n} crystals")
    if not np.isfinite(data.values).all():
        wrong = int(np.count_nonzero(~np.isfinite(data.values)))
        raise InputError(
            "property", data.name, reason=f"{wrong} of its {n} values are not finite; leave these crystals out"
        )
    if np.ptp(data.values) == 0:
        reason = f"all {n} crystals have the value {data.values[0]:g}, so that there is nothing to learn"
        raise InputError("property", data.name, reason=reason)
    if logarithmic and not (data.values > 0).all():
        wrong = int(np.count_nonzero(data.values <= 0))
        reason = f"the logarithm can be learned of positive values only, and {wrong} of {n} are 0 or negative"
        raise InputError("property", data.name, reason=f"{reason}; leave out --log")


class Division(NamedTuple):
    """Represent the division of crystals into a learned and a held-out part.

    Attributes
    ----------
    learned, held_out
        Positions of the crystals in the two parts.
    of
        What is held out: ``"formulas"``, or ``"crystals"`` if there are too few formulas.
    grouped_by
        What all crystals of a group, which is never divided, have in common: ``"formula"``, the key ``"crystal"`` in
        ``info``, or ``"structure"``; empty if all are descriptions of one crystal, which is divided then.
    """

    learned: NDArray[np.int_]
    held_out: NDArray[np.int_]
    of: str
    grouped_by: str

    @property
    def record(self) -> dict[str, str]:
        """Entries of a card that state what was held out."""
        return {"of": self.of, "grouped_by": self.grouped_by}


def split(crystals: Sequence[Atoms]) -> Division:
    """Divide crystals into a learned and a held-out part.

    The crystals of a tenth of all formulas are held out (:func:`hybridcsp.training.held_out.is_held_out`), so that the
    errors on them are those for new compositions. If these are too few, because the data are without them already, the
    next tenth is held out; and if no tenth is large enough, as in data of one formula, every tenth crystal, together
    with all its copies (:func:`copies`).
    """
    tenths = np.array([tenth_of(formula_of(crystal)) for crystal in crystals])
    least = max(2, math.ceil(_SMALLEST_PART * len(crystals)))
    for tenth in range(HELD_OUT):
        held = tenths == tenth
        if least <= held.sum() <= len(crystals) / 2:
            return Division(np.flatnonzero(~held), np.flatnonzero(held), "formulas", "formula")
    groups, common = copies(crystals)
    if groups.max() == 0:
        groups, common = np.arange(len(crystals)), ""
    n = int(groups.max()) + 1
    held = groups % (n if n < 4 else min(HELD_OUT, n // 2)) == 0
    if held.sum() > len(crystals) / 2:  # a crystal with more copies than all others have is learned
        held = ~held
    return Division(np.flatnonzero(~held), np.flatnonzero(held), "crystals", common)


def copies(crystals: Sequence[Atoms]) -> tuple[NDArray[np.int_], str]:
    """Return the number, from 0, of the crystal of which each is a description, and how this was found.

    Augmented data sets have the number of the original as ``crystal`` in ``info``. If one of the crystals is without
    it, their structures are compared instead.

    Returns
    -------
    tuple
        Numbers in order of their first occurrence, and ``"crystal"`` or ``"structure"``.
    """
    if all(_ORIGINAL in crystal.info for crystal in crystals):
        keys = [(formula_of(crystal), str(crystal.info[_ORIGINAL])) for crystal in crystals]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        return np.array([numbers[key] for key in keys]), _ORIGINAL
    index = StructureIndex(energy_window=None, tolerances=MINIMA)
    groups: list[int] = []
    for crystal in crystals:
        number = index.find(crystal)
        if number is None:
            number = len(index)
            index.add(number, crystal)
        groups.append(number)
    return np.array(groups), "structure"


def _bare(atoms: Atoms) -> Atoms:
    """Return the structure, with the number of its original if it is a copy."""
    info = {_ORIGINAL: atoms.info[_ORIGINAL]} if _ORIGINAL in atoms.info else {}
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=True, info=info)
