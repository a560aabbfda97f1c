"""Crystals from the arrays that databases, trajectories and JSON files hold."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from hybridcsp.io.crystals import MOST_ATOMS, accepted
from hybridcsp.io.text import BrokenError

#: What may stand beside a structure: plain values under names, no longer than this.
_MOST_KEYS = 200
_LONGEST_VALUE = 10_000


def from_arrays(
    *,
    numbers: Any,
    cell: Any,
    positions: Any = None,
    scaled: Any = None,
    pbc: Any = True,
    moments: Any = None,
    charges: Any = None,
    energy: Any = None,
    calculator: Any = None,
    info: Any = None,
) -> Atoms:
    """Return a crystal that has passed :func:`~hybridcsp.io.crystals.check_crystal`.

    Nothing is taken for granted of the arguments; what has an absurd size is refused before it is copied.

    Parameters
    ----------
    numbers
        Atomic numbers, shape ``(n_atoms,)``.
    cell
        Lattice vectors as rows in Å, shape ``(3, 3)``, or the three lengths of a cell with right angles.
    positions, scaled
        Cartesian (Å) or fractional coordinates, shape ``(n_atoms, 3)``; one of the two.
    pbc
        Periodicity, one value or three.
    moments, charges
        Initial magnetic moments, shape ``(n_atoms,)`` or ``(n_atoms, 3)``, and charges, shape ``(n_atoms,)``.
    energy
        Of the cell in eV; what is no finite number is left out.
    calculator
        What the energy comes from, as ASE names it; it becomes ``info["calculator"]``.
    info
        What is known of the structure; only plain values are kept.

    Raises
    ------
    BrokenError
        If the arrays do not fit together, or the crystal is refused.
    """
    species = _array("atomic numbers", numbers)
    n = len(species)
    if species.ndim != 1 or not 0 < n <= MOST_ATOMS:
        raise BrokenError(0, f"atomic numbers of shape {species.shape}; 1 to {MOST_ATOMS} atoms are read")
    if not ((species % 1 == 0) & (species >= 0) & (species < 119)).all():
        raise BrokenError(0, "an atom of no element")
    places = _array("coordinates", positions if scaled is None else scaled, (n, 3))
    vectors = _array("cell", cell)
    if vectors.shape == (3,):
        vectors = np.diag(vectors)
    if vectors.shape != (3, 3):
        raise BrokenError(0, f"a cell of shape {vectors.shape}")
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool).reshape(-1), (3,)) if np.size(pbc) in (1, 3) else False
    with np.errstate(invalid="ignore", over="ignore"):
        cartesian = places if scaled is None else places @ vectors
    atoms = Atoms(species.astype(int), positions=cartesian, cell=vectors, pbc=periodic)
    if moments is not None:
        values = _array("magnetic moments", moments)
        if values.shape not in ((n,), (n, 3)):
            raise BrokenError(0, f"magnetic moments of shape {values.shape} for {n} atoms")
        atoms.set_initial_magnetic_moments(values)
    if charges is not None:
        atoms.set_initial_charges(_array("charges", charges, (n,)))
    atoms.info = plain_values(info)
    if isinstance(calculator, str) and calculator not in ("", "unknown"):
        atoms.info.setdefault("calculator", calculator[:200])
    atoms = accepted(atoms)
    if isinstance(energy, int | float) and abs(energy) <= sys.float_info.max:
        atoms.calc = SinglePointCalculator(atoms, energy=float(energy))
    return atoms


def plain_values(found: Any) -> dict[str, str | int | float | bool]:
    """Return the texts and numbers in a mapping by their names, without whatever else is in it."""
    if not isinstance(found, Mapping):
        return {}
    kept = {key: value for key, value in list(found.items())[:_MOST_KEYS] if isinstance(key, str) and _is_plain(value)}
    return {key: value for key, value in kept.items() if not isinstance(value, str) or len(value) <= _LONGEST_VALUE}


def _is_plain(value: Any) -> bool:
    """Whether a value is a text or a number; whole numbers beyond double precision are none that anybody means."""
    return isinstance(value, str | float) or (isinstance(value, int) and abs(value) <= sys.float_info.max)


def _array(what: str, value: Any, shape: tuple[int, ...] | None = None) -> NDArray[np.float64]:
    if not isinstance(value, np.ndarray | list | tuple):
        raise BrokenError(0, f"the {what} are missing")
    if len(value) > MOST_ATOMS:
        raise BrokenError(0, f"{what} of {len(value)} atoms; at most {MOST_ATOMS} are read")
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError, OverflowError):
        raise BrokenError(0, f"the {what} are not numbers in equal rows") from None
    if shape is not None and array.shape != shape:
        raise BrokenError(0, f"{what} of shape {array.shape} for {shape[0]} atoms")
    return array
