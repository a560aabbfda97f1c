"""Construction of structures from numbers in files, with checks that reject damaged or invalid data."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from hybridcsp.io.frames import StructureError
from hybridcsp.structure.validity import find_defect

#: Maximum number of atoms. Structure searches have fewer, and finding the symmetry of more takes seconds.
MAX_ATOMS = 2_000

#: The reason that several readers give for disorder.
PARTLY_OCCUPIED = "partly occupied sites: every site must hold exactly one element"

_MAX_ATOMIC_NUMBER = 118

# Limits of the annotations of a structure: the number of keys, and the characters of a value.
_MAX_KEYS = 200
_MAX_VALUE_LENGTH = 10_000


def build_crystal(
    symbols: Sequence[str] | NDArray[np.int64], positions: NDArray[np.float64], cell: NDArray[np.float64]
) -> Atoms:
    """Build a periodic structure with a right-handed cell.

    Parameters
    ----------
    symbols
        Element symbols or atomic numbers, shape ``(n_atoms,)``.
    positions
        Cartesian coordinates in Å, shape ``(n_atoms, 3)``.
    cell
        Lattice vectors as rows in Å, shape ``(3, 3)``. Two vectors of a left-handed cell are exchanged, which describes
        the same crystal; many programs reject left-handed cells.

    Raises
    ------
    StructureError
        If :func:`check_crystal` rejects the structure.
    """
    return checked(Atoms(symbols, positions=positions, cell=cell, pbc=True))


def build_from_fractional(symbols: Sequence[str], scaled: NDArray[np.float64], cell: NDArray[np.float64]) -> Atoms:
    """Build a periodic structure from fractional coordinates, as :func:`build_crystal` does from Cartesian ones."""
    with np.errstate(invalid="ignore", over="ignore"):  # check_crystal rejects numbers that are not finite
        return build_crystal(symbols, scaled @ cell, cell)


def checked(atoms: Atoms) -> Atoms:
    """Check a structure with :func:`check_crystal`, make its cell right-handed in place, and return it.

    Raises
    ------
    StructureError
        If the check fails.
    """
    check_crystal(atoms)
    if np.linalg.det(atoms.cell.array) < 0:
        atoms.set_cell(atoms.cell.array[[1, 0, 2]])
    return atoms


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
    """Build a structure from arrays of databases, trajectories or JSON files, without trusting their types or sizes.

    Arrays that are too large are rejected before they are copied.

    Parameters
    ----------
    numbers
        Atomic numbers, shape ``(n_atoms,)``.
    cell
        Lattice vectors as rows in Å, shape ``(3, 3)``, or the three lengths of an orthorhombic cell in Å.
    positions, scaled
        Cartesian (Å) or fractional coordinates, shape ``(n_atoms, 3)``; one of the two is required.
    pbc
        Periodicity, one value or one for each lattice vector.
    moments, charges
        Initial magnetic moments, shape ``(n_atoms,)`` or ``(n_atoms, 3)``, and charges, shape ``(n_atoms,)``.
    energy
        Energy of the cell in eV; anything else than a finite number is ignored.
    calculator
        ASE's name of the calculator that gave the energy, stored as ``info["calculator"]``.
    info
        Annotations; only text and numbers are kept.

    Raises
    ------
    StructureError
        If the shapes of the arrays do not match, or :func:`check_crystal` rejects the structure.
    """
    species = _array("atomic numbers", numbers)
    n = len(species)
    if n == 0:
        raise StructureError(0, "it has no atoms")
    if species.ndim != 1 or n > MAX_ATOMS:
        raise StructureError(
            0, f"the atomic numbers have the shape {species.shape}; (n,) with n from 1 to {MAX_ATOMS} is read"
        )
    if not ((species % 1 == 0) & (species >= 1) & (species <= _MAX_ATOMIC_NUMBER)).all():
        raise StructureError(0, f"an atomic number is not a whole number from 1 to {_MAX_ATOMIC_NUMBER}")
    places = _array("coordinates", positions if scaled is None else scaled, (n, 3))
    vectors = _array("lattice vectors", cell)
    if vectors.shape == (3,):
        vectors = np.diag(vectors)
    if vectors.shape != (3, 3):
        raise StructureError(0, f"the cell has the shape {vectors.shape} instead of (3, 3)")
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool).reshape(-1), (3,)) if np.size(pbc) in (1, 3) else False
    with np.errstate(invalid="ignore", over="ignore"):
        cartesian = places if scaled is None else places @ vectors
    atoms = Atoms(species.astype(int), positions=cartesian, cell=vectors, pbc=periodic)
    if moments is not None:
        values = _array("magnetic moments", moments)
        if values.shape not in ((n,), (n, 3)):
            raise StructureError(0, f"the magnetic moments have the shape {values.shape} instead of ({n},) or ({n}, 3)")
        atoms.set_initial_magnetic_moments(values)
    if charges is not None:
        atoms.set_initial_charges(_array("charges", charges, (n,)))
    atoms.info = plain_values(info)
    if isinstance(calculator, str) and calculator not in ("", "unknown"):
        atoms.info.setdefault("calculator", calculator[:200])
    atoms = checked(atoms)
    if isinstance(energy, int | float) and abs(energy) <= sys.float_info.max:
        atoms.calc = SinglePointCalculator(atoms, energy=float(energy))
    return atoms


def plain_values(value: Any) -> dict[str, str | int | float | bool]:
    """Return the text and number values of a mapping that have text keys; empty for anything else than a mapping."""
    if not isinstance(value, Mapping):
        return {}
    return {
        key: item
        for key, item in list(value.items())[:_MAX_KEYS]
        if isinstance(key, str) and _is_plain(item) and not (isinstance(item, str) and len(item) > _MAX_VALUE_LENGTH)
    }


def _is_plain(value: Any) -> bool:
    """Return whether a value is text or a number within the range of double precision."""
    return isinstance(value, str | float) or (isinstance(value, int) and abs(value) <= sys.float_info.max)


def _array(name: str, value: Any, shape: tuple[int, ...] | None = None) -> NDArray[np.float64]:
    if not isinstance(value, np.ndarray | list | tuple):
        raise StructureError(0, f"the {name} are missing or not an array")
    if len(value) > MAX_ATOMS:
        raise StructureError(0, f"the {name} are given for {len(value)} atoms; at most {MAX_ATOMS} are read")
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError, OverflowError):
        raise StructureError(0, f"the {name} are not numbers in rows of equal length") from None
    if shape is not None and array.shape != shape:
        raise StructureError(0, f"the {name} have the shape {array.shape} instead of {shape}")
    return array


def check_crystal(atoms: Atoms) -> None:
    """Check that a structure read from a file is a crystal without disorder; every reader calls this.

    Every site must hold one element at full occupancy, and :func:`~hybridcsp.structure.validity.find_defect` must find
    no other defect.

    Raises
    ------
    StructureError
        If the structure has too many atoms or a defect.
    """
    if len(atoms) > MAX_ATOMS:
        raise StructureError(0, f"it has {len(atoms)} atoms; at most {MAX_ATOMS} are read")
    _check_occupancies(atoms)
    defect = find_defect(atoms)
    if defect is not None:
        raise StructureError(0, defect)


def internal_energy(atoms: Atoms, enthalpy: float | None, pressure_gpa: float | None) -> float | None:
    """Return the energy in eV that corresponds to an enthalpy in eV; ``None`` if either input is unknown."""
    if enthalpy is None or pressure_gpa is None:
        return None
    return float(enthalpy - pressure_gpa * units.GPa * atoms.get_volume())


def _check_occupancies(atoms: Atoms) -> None:
    """Reject partial and mixed occupancies, given by a column or by the site records of ASE's readers."""
    column = atoms.arrays.get("occupancy", atoms.arrays.get("occupancies"))
    if column is not None and not all(map(_is_full, column.ravel().tolist())):
        raise StructureError(0, PARTLY_OCCUPIED)
    sites: Any = atoms.info.get("occupancy")
    if not isinstance(sites, dict):
        return
    for site in sites.values():
        if isinstance(site, dict) and (len(site) > 1 or not all(map(_is_full, site.values()))):
            raise StructureError(0, PARTLY_OCCUPIED)


def _is_full(occupancy: object) -> bool:
    return isinstance(occupancy, int | float) and 0.995 <= occupancy <= 1.005  # ASE leaves damaged values as text
