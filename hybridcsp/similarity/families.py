"""Families of similar structures, which differ by small distortions at most."""

from __future__ import annotations

from functools import cache
from typing import Any

from ase import Atoms

from hybridcsp.structure.conversion import to_pymatgen


def is_similar(a: Atoms, b: Atoms) -> bool:
    """Return whether two crystals match within the default tolerances of pymatgen's ``StructureMatcher``.

    These are far wider than those within which relaxations are one minimum: they hold for the same crystal relaxed by
    different calculators.
    """
    if a.symbols.formula.reduce()[0] != b.symbols.formula.reduce()[0]:
        return False
    return bool(_matcher().fit(to_pymatgen(a), to_pymatgen(b)))


@cache
def _matcher() -> Any:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher()
