"""Similarity to a measured powder pattern as an objective."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.errors import InputError, UnreadableError
from hybridcsp.objectives.base import MAXIMUM, Objective
from hybridcsp.powder import (
    CELL_CHANGE,
    DEFAULT_WAVELENGTH,
    TWO_THETA,
    PatternSimilarity,
    read_pattern,
    read_wavelength,
)
from hybridcsp.utils.reading import sha256_of


def digest_of_pattern(file: Path | str) -> str:
    """Return the hash of the file of a pattern; empty if it cannot be read, which reading the pattern explains."""
    try:
        return sha256_of(Path(file))
    except UnreadableError:
        return ""


class PowderSimilarity(Objective):
    """Similarity to a measured powder X-ray diffraction pattern, from 0 to 1.

    Parameters
    ----------
    argument
        Path of the pattern; see :func:`~hybridcsp.powder.read_pattern`.
    wavelength
        Emission line by pymatgen's names, or wavelength in Å.
    axis
        Quantity of the first column: ``"two-theta"``, ``"q"`` or ``"d"``.
    cell_change
        Largest relative change of a length of the cell by its adjustment to the pattern; with 0, cells are not
        adjusted.
    """

    natural_goal = MAXIMUM
    argument_is_path: ClassVar[bool] = True

    def __init__(
        self,
        argument: str | None = None,
        *,
        wavelength: str | float = DEFAULT_WAVELENGTH,
        axis: str = TWO_THETA,
        cell_change: float = CELL_CHANGE,
    ) -> None:
        if not argument:
            raise InputError("objective", "xrd", reason="it needs a measured pattern: xrd:pattern.xy")
        length = read_wavelength(str(wavelength))
        self.digest = digest_of_pattern(argument)
        pattern = read_pattern(Path(argument), wavelength=length, axis=axis, key="xrd")
        try:
            self._similarity = PatternSimilarity(pattern, cell_change=cell_change)
        except InputError as error:
            raise (error.renamed("xrd", argument) if error.key == "pattern" else error) from None

    @classmethod
    def bounds(cls, problem: Problem, volumes: tuple[float, float]) -> tuple[float, float]:
        """Return the range of similarities."""
        return (0.0, 1.0)

    def value(self, atoms: Atoms) -> float:
        """Return the similarity after the cell is adjusted to the pattern."""
        return self._similarity.similarity(atoms)
