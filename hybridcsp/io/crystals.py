"""The gate between files and everything else: what is no crystal of whole atoms is refused with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from hybridcsp.io.text import BrokenError
from hybridcsp.structure.geometry import neighbours, niggli_cell

#: Cells of a smaller volume (Å³) are taken for damage.
SMALLEST_VOLUME = 0.1

#: Atoms that are closer (Å) lie on top of each other: at hundreds of GPa, H2 still measures 0.7 Å.
CLOSEST = 0.5

#: More atoms than this are taken for damage; no structure search has as many, and symmetry takes seconds to find.
MOST_ATOMS = 2_000

#: Longer lattice vectors, farther coordinates (Å), and larger volumes per atom (Å³) are no crystal's; they would only
#: take memory and time.
LONGEST = 10_000.0
LARGEST_VOLUME = 10_000.0

_HEAVIEST = 118

# A reduced cell with lattice planes this many times closer than CLOSEST is not really reduced.
_THINNEST = 20.0

# Up to so many atoms all pairs are looked at at once.
_FEW = 200


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
    """Refuse what is not a crystal: every reader of structures calls this for all that it reads.

    A crystal is periodic in three directions, has a cell with a volume, neither of absurd size, finite coordinates, and
    at least one atom.
    Every site holds one whole atom of an element, and no two atoms lie on top of each other.

    Raises
    ------
    BrokenError
        With the reason.
    """
    if not 0 < len(atoms) <= MOST_ATOMS:
        raise BrokenError(0, f"{len(atoms)} atoms; at most {MOST_ATOMS} are read" if len(atoms) else "no atoms")
    cell = atoms.cell.array
    if not (np.isfinite(cell).all() and np.isfinite(atoms.positions).all()):
        raise BrokenError(0, "numbers that are not finite")
    if not atoms.pbc.all() or (cell == 0).all(axis=1).any():
        raise BrokenError(0, "no cell that is periodic in three directions")
    longest = float(np.abs(cell).max())
    if longest > LONGEST or float(np.abs(atoms.positions).max()) > 1000 * LONGEST:
        raise BrokenError(0, f"a cell of {longest:.3g} Å, or coordinates that lie far outside of it")
    volume = abs(float(np.linalg.det(cell)))
    if volume > LARGEST_VOLUME * len(atoms):
        raise BrokenError(0, f"a cell of {volume / len(atoms):.3g} Å³ per atom")
    if not volume >= SMALLEST_VOLUME:
        raise BrokenError(0, f"a cell of {volume:.3g} Å³")
    if ((atoms.numbers < 1) | (atoms.numbers > _HEAVIEST)).any():
        raise BrokenError(0, "an atom of no element")
    _check_occupancies(atoms)
    _check_distances(atoms)


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


def _check_distances(atoms: Atoms) -> None:
    pair = _closest(atoms)
    if pair is None:
        return
    first, second, distance = pair
    if first == second:
        raise BrokenError(
            0, f"atoms on top of each other: {_called(atoms, first)} and its own image, {distance:.3f} Å apart"
        )
    raise BrokenError(
        0,
        f"atoms on top of each other: {_called(atoms, first)} and {_called(atoms, second)}, {distance:.3f} Å apart "
        f"(at least {CLOSEST} Å are needed)",
    )


def _called(atoms: Atoms, index: int) -> str:
    return f"{atoms.symbols[index]} (atom {index + 1})"


def _closest(atoms: Atoms) -> tuple[int, int, float] | None:
    """Return the closest pair of atoms and its distance, if that is below :data:`CLOSEST`."""
    cell = atoms.cell.array
    inverse = np.linalg.inv(cell)
    if np.linalg.norm(inverse, axis=0).max() * CLOSEST > 0.5:
        # Lattice planes that are less than 1 Å apart: a vector that short need not be the nearest image by rounding.
        cell = niggli_cell(cell)
        inverse = np.linalg.inv(cell)
        shortest = float(np.linalg.norm(cell, axis=1).min())
        if shortest < CLOSEST:
            return 0, 0, shortest
        if np.linalg.norm(inverse, axis=0).max() * CLOSEST > _THINNEST:
            raise BrokenError(0, "a cell with lattice planes that are next to no distance apart")
        if np.linalg.norm(inverse, axis=0).max() * CLOSEST > 0.5:
            return _shortest(*neighbours(atoms, CLOSEST))
    first, second = _candidates(atoms.positions @ inverse, inverse)
    apart = atoms.positions[second] - atoms.positions[first]
    apart -= np.rint(apart @ inverse) @ cell
    squares = np.einsum("nx,nx->n", apart, apart)
    if not len(squares) or squares.min() >= CLOSEST**2:
        return None
    at = int(squares.argmin())
    return int(first[at]), int(second[at]), float(np.sqrt(squares[at]))


def _candidates(scaled: NDArray[np.float64], inverse: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return pairs of atoms, among which are all that are closer than :data:`CLOSEST`."""
    if len(scaled) <= _FEW:
        first, second = np.triu_indices(len(scaled), 1)
        return first, second
    from scipy.spatial import KDTree

    wrapped = scaled % 1.0 % 1.0  # the second for -1e-17, which the first makes 1
    reach = CLOSEST * float(np.linalg.norm(inverse, axis=0).max())
    pairs = KDTree(wrapped, boxsize=1.0).query_pairs(reach, p=np.inf, output_type="ndarray")
    return pairs[:, 0], pairs[:, 1]


def _shortest(
    first: NDArray[np.int_], second: NDArray[np.int_], vectors: NDArray[np.float64], lengths: NDArray[np.float64]
) -> tuple[int, int, float] | None:
    if not len(lengths):
        return None
    at = int(lengths.argmin())
    return int(first[at]), int(second[at]), float(lengths[at])
