"""The tenth of all formulas that is held out of every training set."""

from __future__ import annotations

import hashlib
from collections import Counter

from ase import Atoms

from hybridcsp.prototypes.table import reduced_hill_formula

#: One of this many formulas is held out.
HELD_OUT = 10


def formula_of(atoms: Atoms) -> str:
    """Return the reduced formula in Hill's order, ``"O2Ti"`` for example."""
    return reduced_hill_formula(Counter(atoms.get_chemical_symbols()))


def tenth_of(formula: str) -> int:
    """Return the tenth of all formulas, 0 to 9, that a reduced formula (in Hill's order) belongs to."""
    return int.from_bytes(hashlib.sha256(formula.encode()).digest()[:4]) % HELD_OUT


def is_held_out(formula: str) -> bool:
    """Return whether a reduced formula (in Hill's order) belongs to the tenth that is held out of training sets."""
    return tenth_of(formula) == 0
