"""Checks of energies, forces, stresses and moments from calculators, files and scripts, and their conversion.

They may be numbers, lists, arrays of any type or tensors. Anything but real numbers of the right shape is refused with
an error that names the quantity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import message_of

#: Allowed shapes of each quantity; ``n`` stands for the number of atoms. They are those of ASE, and the stress may also
#: be a matrix.
SHAPES: dict[str, tuple[tuple[int | str, ...], ...]] = {
    "energy": ((),),
    "free_energy": ((),),
    "forces": (("n", 3),),
    "stress": ((6,), (3, 3)),
    "magmoms": (("n",),),
    "charges": (("n",),),
}


#: Largest magnitude of an energy per atom in eV: an atom of the heaviest element, with all electrons, has about 10⁶ eV.
LARGEST_ENERGY = 1e7


class PropertyError(ValueError):
    """Invalid quantity; the message states its name, its value or shape, and the expected one."""


class WrongKindError(PropertyError):
    """Quantity of the wrong shape or data type."""


class NotFiniteError(PropertyError):
    """Quantity of the right shape with numbers that are infinite or not a number."""


def real_number(name: str, value: object, n_atoms: int) -> float:
    """Return a checked energy as a ``float``; an array with one number is accepted.

    Parameters
    ----------
    name
        Name of the quantity, a key of :data:`SHAPES` of a scalar.
    value
        Value from the calculator or file, in eV.
    n_atoms
        Number of atoms of the structure.

    Raises
    ------
    PropertyError
        If the value is not one finite real number, or its magnitude is impossible.
    """
    values = _real(name, value)
    if values.size != 1:
        raise WrongKindError(f"{name} has shape {values.shape}, expected one number")
    number = float(_finite(name, values.reshape(()))[()])
    if abs(number) > LARGEST_ENERGY * n_atoms:
        raise WrongKindError(
            f"{name} is {number / n_atoms:.3g} eV per atom, expected less than {LARGEST_ENERGY:g} in either direction"
        )
    return number


def real_array(name: str, value: object, n_atoms: int) -> NDArray[np.float64]:
    """Return checked forces, stress, magnetic moments or charges as an array.

    Parameters
    ----------
    name
        Name of the quantity, a key of :data:`SHAPES`.
    value
        Value from the calculator or file.
    n_atoms
        Number of atoms of the structure.

    Returns
    -------
    ndarray
        Copy in double precision; a stress in Voigt order, shape ``(6,)``.

    Raises
    ------
    PropertyError
        If the value has another shape or is not made of finite real numbers.
    """
    shapes = [tuple(n_atoms if part == "n" else int(part) for part in shape) for shape in SHAPES[name]]
    values = _real(name, value)
    if values.shape not in shapes:
        raise WrongKindError(
            f"{name} {_have(name)} shape {values.shape}, expected {' or '.join(str(shape) for shape in shapes)}"
        )
    values = _finite(name, values)
    if name == "stress" and values.ndim == 2:
        values = ((values + values.T) / 2).ravel()[[0, 4, 8, 5, 2, 1]]
    return values


def results_of(atoms: Atoms) -> dict[str, Any]:
    """Return the checked energy of a structure and the other results of its calculator.

    Parameters
    ----------
    atoms
        Structure with a calculator.

    Returns
    -------
    dict
        ``energy`` and, if available, ``forces``, ``stress`` (Voigt order) and ``magmoms``.

    Raises
    ------
    PropertyError
        If the energy is not available, or a quantity is invalid.
    """
    try:
        energy = atoms.calc.get_property("energy", atoms)
    except Exception as error:
        raise PropertyError(f"the energy is not available ({message_of(error)})") from error
    found: dict[str, Any] = {"energy": real_number("energy", energy, len(atoms))}
    held = getattr(atoms.calc, "results", {})
    for name in ("forces", "stress", "magmoms"):
        if held.get(name) is not None:
            found[name] = real_array(name, held[name], len(atoms))
    return found


def _real(name: str, value: object) -> NDArray[Any]:
    if value is None:
        raise WrongKindError(f"{name} {_be(name)} None, expected numbers")
    try:
        values = np.asarray(value)
    except Exception as error:
        raise WrongKindError(f"{name} cannot be read as numbers ({message_of(error)})") from error
    if values.dtype.kind not in "iuf":
        kind = "complex numbers" if values.dtype.kind == "c" else f"of type {values.dtype}"
        raise WrongKindError(f"{name} {_be(name)} {kind}, expected real numbers")
    if np.ma.is_masked(value):
        raise WrongKindError(f"{name} {_have(name)} masked values, expected real numbers")
    return values


def _finite(name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):  # a number beyond double precision becomes infinite and is refused
        found = np.array(values, dtype=np.float64)
    wrong = int(np.count_nonzero(~np.isfinite(found)))
    if wrong:
        which = "" if found.size == 1 else f" in {wrong} of {found.size} components"
        raise NotFiniteError(f"{name} {_be(name)} not finite{which}")
    return found


def _be(name: str) -> str:
    return "are" if name.endswith("s") and name != "stress" else "is"


def _have(name: str) -> str:
    return "have" if _be(name) == "are" else "has"
