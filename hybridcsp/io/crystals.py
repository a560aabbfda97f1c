"""The gate between files and everything else: what is no crystal of whole atoms is refused with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from hybridcsp.io.text import BrokenError
from hybridcsp.structure.validity import find_defect

#: More atoms than this are taken for damage; no structure search has as many, and symmetry takes seconds to find.
MOST_ATOMS = 2_000


def crystal(
    symbols: Sequence[str] | NDArray[np.int64], positions: NDArray[np.float64], cell: NDArray[np.float64]
) -> Atoms:
    """Return a crystal with a right-handed cell.

    Parameters
    ----------
    symbols
        Of each atom, or atomic numbers.
    positions
        Cartesian, shape ``(n_atoms, 3)``, in Å.
    cell
        Lattice vectors as rows, in Å. Those of a left-handed cell are exchanged: it is the same crystal, but many
        programs refuse it.

    Raises
    ------
    BrokenError
        If :func:`check_crystal` refuses it.
    """
    return accepted(Atoms(symbols, positions=positions, cell=cell, pbc=True))


def accepted(atoms: Atoms) -> Atoms:
    """Return the crystal itself after :func:`check_crystal`, with a right-handed cell.

    Raises
    ------
    BrokenError
        If it is refused.
    """
    check_crystal(atoms)
    if np.linalg.det(atoms.cell.array) < 0:
        atoms.set_cell(atoms.cell.array[[1, 0, 2]])
    return atoms


def from_fractions(symbols: Sequence[str], scaled: NDArray[np.float64], cell: NDArray[np.float64]) -> Atoms:
    """Return :func:`crystal` for fractional coordinates."""
    with np.errstate(invalid="ignore", over="ignore"):  # check_crystal refuses numbers that are not finite
        return crystal(symbols, scaled @ cell, cell)


def check_crystal(atoms: Atoms) -> None:
    """Refuse a structure that is not a crystal of whole atoms: every reader calls this for all that it reads.

    Every site must hold one whole atom of an element; the rest is checked by
    :func:`~hybridcsp.structure.validity.find_defect`.

    Raises
    ------
    BrokenError
        With the reason.
    """
    if len(atoms) > MOST_ATOMS:
        raise BrokenError(0, f"{len(atoms)} atoms; at most {MOST_ATOMS} are read")
    _check_occupancies(atoms)
    defect = find_defect(atoms)
    if defect is not None:
        raise BrokenError(0, defect)


def internal_energy(atoms: Atoms, enthalpy: float | None, pressure_gpa: float | None) -> float | None:
    """Return the energy in eV that goes with an enthalpy, where both that and the pressure are known."""
    if enthalpy is None or pressure_gpa is None:
        return None
    return float(enthalpy - pressure_gpa * units.GPa * atoms.get_volume())


def _check_occupancies(atoms: Atoms) -> None:
    """Refuse sites that ASE's readers found to be shared or partly empty, or that a column says are partly empty."""
    column = atoms.arrays.get("occupancy", atoms.arrays.get("occupancies"))
    if column is not None and not all(map(_is_full, column.ravel().tolist())):
        raise BrokenError(0, "partly occupied sites; one element per site is needed")
    sites: Any = atoms.info.get("occupancy")
    if not isinstance(sites, dict):
        return
    for site in sites.values():
        if isinstance(site, dict) and (len(site) > 1 or not all(map(_is_full, site.values()))):
            raise BrokenError(0, "partly occupied sites; one element per site is needed")


def _is_full(occupancy: object) -> bool:
    return isinstance(occupancy, int | float) and 0.995 <= occupancy <= 1.005  # ASE leaves a text for what is damaged
