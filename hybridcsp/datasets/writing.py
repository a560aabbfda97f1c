"""Writing of data sets as extended XYZ files with their cards, and folding of duplicates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hybridcsp.datasets.cards import Tally, make_card, write_card
from hybridcsp.errors import InputError
from hybridcsp.io.structure_writer import format_of, structure_writer
from hybridcsp.similarity import MINIMA, StructureIndex, Tolerances

#: Reason for which an equal crystal is left out.
DUPLICATE = "duplicate"

# Values in ``info`` that are kept are these, or arrays of numbers.
_PLAIN = (str, int, float, bool, np.generic, np.ndarray)


def write_dataset(
    crystals: Iterable[Atoms],
    output: Path | str,
    command: str,
    *,
    settings: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]] = (),
    left_out: Mapping[str, int] | Callable[[], Mapping[str, int]] = {},  # noqa: B006  # is not changed
    key: str = "output",
    **more: Any,
) -> dict[str, Any]:
    """Write crystals to an extended XYZ file and their card beside it, and return the card.

    Parameters
    ----------
    crystals
        Crystals with their properties in ``info``; they are taken one at a time.
    output
        File whose name ends in ``.extxyz`` or ``.xyz``, which may be compressed.
    command
        Step that made the crystals.
    settings, inputs, left_out, more
        Entries of the card (:func:`hybridcsp.datasets.cards.make_card`); ``left_out`` may be a function, which is
        called when all crystals have been written.
    key
        Name of the option for error messages.

    Raises
    ------
    InputError
        If the file has another ending, or cannot be written.
    """
    check_output(output, key)
    tally = Tally()
    with structure_writer(output, "extxyz", key=key) as write:
        for atoms in crystals:
            tally.add(atoms)
            write(_plain(atoms))
    counts = left_out() if callable(left_out) else left_out
    card = make_card(command, settings=settings, inputs=inputs, left_out=counts, tally=tally, **more)
    write_card(card, Path(output))
    return card


def check_output(output: Path | str, key: str = "output") -> None:
    """Check that a name is that of an extended XYZ file.

    Raises
    ------
    InputError
        If it is another.
    """
    allowed = "a file whose name ends in .extxyz or .xyz (each may be followed by .gz)"
    if str(output).endswith("/") or Path(output).is_dir():
        raise InputError(key, output, allowed)
    try:
        format_of(output, "extxyz", key=key)
    except InputError as error:
        raise InputError(key, output, allowed) from error


def fold(crystals: Iterable[Atoms], left_out: Counter[str], tolerances: Tolerances = MINIMA) -> Iterator[Atoms]:
    """Yield crystals without those that equal an earlier one, and count these.

    Parameters
    ----------
    crystals
        Crystals; put those first that are to be kept.
    left_out
        Counter of the duplicates, under :data:`DUPLICATE`.
    tolerances
        Tolerances of the comparison; by default those of relaxed minima.
    """
    index = StructureIndex(energy_window=None, tolerances=tolerances)
    for key, atoms in enumerate(crystals):
        if index.find(atoms) is None:
            index.add(key, atoms)
            yield atoms
        else:
            left_out[DUPLICATE] += 1


def fold_to_lowest(crystals: Sequence[Atoms], left_out: Counter[str], tolerances: Tolerances = MINIMA) -> list[Atoms]:
    """Return crystals without duplicates in their order, and count the duplicates.

    Of equal crystals the first is kept, or the one of lowest ``enthalpy_per_atom`` among those that have the same
    ``calculator`` and ``pressure_gpa`` as the first: other enthalpies are not comparable. A crystal whose enthalpy is
    missing or not finite is higher than any other.

    Parameters
    ----------
    crystals, left_out, tolerances
        As for :func:`fold`.
    """
    index = StructureIndex(energy_window=None, tolerances=tolerances)
    kept: dict[int, int] = {}  # the crystal that is kept, by the first of those that equal it
    for number, atoms in enumerate(crystals):
        first = index.find(atoms)
        if first is None:
            index.add(number, atoms)
            kept[number] = number
            continue
        left_out[DUPLICATE] += 1
        is_comparable = _origin_of_enthalpy(atoms) == _origin_of_enthalpy(crystals[first])
        if is_comparable and _enthalpy(atoms) < _enthalpy(crystals[kept[first]]):
            kept[first] = number
    return [crystals[number] for number in sorted(kept.values())]


def _enthalpy(atoms: Atoms) -> float:
    value = atoms.info.get("enthalpy_per_atom")
    return float(value) if isinstance(value, int | float | np.number) and np.isfinite(value) else math.inf


def _origin_of_enthalpy(atoms: Atoms) -> tuple[str, str]:
    return str(atoms.info.get("calculator", "")), f"{atoms.info.get('pressure_gpa', 0.0)}"


def _plain(atoms: Atoms) -> Atoms:
    """Return a crystal whose ``info`` holds only texts, numbers and arrays of them."""
    info = {key: value for key, value in atoms.info.items() if isinstance(value, _PLAIN)}
    if len(info) == len(atoms.info):
        return atoms
    plain = atoms.copy()
    plain.calc = atoms.calc
    plain.info = info
    return plain
