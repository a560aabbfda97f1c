"""Targets of element substitution: a chemical system, one formula, or any elements."""

from __future__ import annotations

from dataclasses import dataclass

from ase.data import atomic_numbers

from hybridcsp.core.problem import Problem
from hybridcsp.errors import InputError
from hybridcsp.prototypes.labels import reduced_formula
from hybridcsp.utils.formulas import elements_of_system

#: The target that replaces elements by similar ones, whatever they are.
ANY = "any"

# More elements would have thousands of orders in one template.
_MOST_ELEMENTS = 6

_ALLOWED = "a chemical system such as V-O or Mg-Mn-O, a formula such as TiO2, or any"


@dataclass(frozen=True)
class Target:
    """Elements, and possibly their ratio, that substituted crystals have.

    Attributes
    ----------
    text
        Target as it was given: ``"V-O"``, ``"TiO2"`` or ``"any"``.
    elements
        Atomic numbers in ascending order; empty for any elements.
    counts
        Numbers of atoms in the reduced formula by atomic number, in ascending order; ``None`` for a chemical system.
    """

    text: str
    elements: tuple[int, ...]
    counts: dict[int, int] | None = None

    @classmethod
    def of(cls, text: str) -> Target:
        """Return the target that a text names.

        Parameters
        ----------
        text
            A chemical system (``"V-O"``), a formula (``"TiO2"``, ``"Fe"``) or ``"any"``.

        Raises
        ------
        InputError
            If it is none of these.

        Examples
        --------
        >>> Target.of("V-O").elements
        (8, 23)
        """
        if not isinstance(text, str) or not text.strip():
            raise InputError("target", text, _ALLOWED)
        if text.strip().lower() == ANY:
            return cls(ANY, ())
        symbols = elements_of_system(text)
        if not symbols:
            try:
                composition = Problem(text, max_atoms=10**6).composition
            except InputError as error:
                reason = error.clause if error.key == "formula" else _ALLOWED
                raise InputError("target", text, reason=reason) from None
            counts = reduced_formula(composition)
            return cls(text, tuple(sorted(counts)), counts)
        if len(set(symbols)) < len(symbols):
            raise InputError("target", text, reason="an element is named twice")
        if len(symbols) > _MOST_ELEMENTS:
            raise InputError("target", text, f"a system of at most {_MOST_ELEMENTS} elements")
        return cls(text, tuple(sorted(atomic_numbers[symbol] for symbol in symbols)))
