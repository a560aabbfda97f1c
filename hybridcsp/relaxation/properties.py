"""Energies, forces, stresses and moments as others return them: checked, and brought into one form.

Calculators of any origin, files and scripts return them as numbers, lists, arrays of any type and tensors. What is not
plain real numbers of the right shape is refused with the name of the quantity; nothing is dropped or guessed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import message_of

#: Quantities that a structure may have, and the shapes of each; ``n`` stands for the number of atoms. They are those of
#: ASE, with the stress as a matrix besides its Voigt form.
SHAPES: dict[str, tuple[tuple[int | str, ...], ...]] = {
    "energy": ((),),
    "free_energy": ((),),
    "forces": (("n", 3),),
    "stress": ((6,), (3, 3)),
    "magmoms": (("n",),),
    "charges": (("n",),),
}


#: Energies per atom (eV) beyond this are none: with all its electrons an atom of the heaviest element has about 10⁶ eV.
LARGEST_ENERGY = 1e7


class PropertyError(ValueError):
    """A quantity is not what it has to be; the message names it and says what it is and what is expected."""


class WrongKindError(PropertyError):
    """It has another shape or type of number."""


class NotFiniteError(PropertyError):
    """It has the right form, but some of its numbers are infinite or not a number."""


def real_number(name: str, value: object, n_atoms: int) -> float:
    """Return an energy as a number; an array of one number is one.

    Parameters
    ----------
    name
        A key of :data:`SHAPES` without a shape of its own.
    value
        What was returned.
    n_atoms
        Of the structure.

    Raises
    ------
    PropertyError
        If it is not one finite real number, or no energy that atoms can have.
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
    """Return forces, a stress, magnetic moments or charges as an array of their shape.

    Parameters
    ----------
    name
        A key of :data:`SHAPES`.
    value
        What was returned.
    n_atoms
        Of the structure.

    Returns
    -------
    ndarray
        A copy, of double precision; a stress is in Voigt order, shape ``(6,)``.

    Raises
    ------
    PropertyError
        If it has another shape, or is not of finite real numbers.
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
    """Return the energy of a structure, and what else its calculator has worked out with it, checked.

    Parameters
    ----------
    atoms
        With a calculator.

    Returns
    -------
    dict
        ``energy``, and where there are any, ``forces``, ``stress`` (Voigt order) and ``magmoms``.

    Raises
    ------
    PropertyError
        If there is no energy, or one of them is not what it has to be.
    """
    try:
        energy = atoms.calc.get_property("energy", atoms)
    except Exception as error:
        raise PropertyError(f"the energy cannot be had ({message_of(error)})") from error
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
    with np.errstate(over="ignore"):  # a number beyond double precision becomes infinite, and is refused
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
