"""The minima that a search finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ase import Atoms

from hybridcsp.core.outcomes import Relaxed
from hybridcsp.core.records import Candidate

#: Usual difference of heights above the best, in eV/atom, from which two calculators disagree about a minimum.
DISAGREEMENT = 0.02


def keys_of_objectives(values: Mapping[str, float]) -> dict[str, float]:
    """Return values of objectives with the keys that tables and structure files have: ``objective_NAME``."""
    return {f"objective_{name}": value for name, value in values.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class FollowUpResult:
    """The follow-up relaxation of a minimum of the search with another calculator.

    Attributes
    ----------
    spec
        Name of the follow-up calculator as it was given.
    relaxed
        The relaxation, or that of lowest enthalpy among those that ended in the same minimum of this calculator.
    minimum
        Number of the minimum among those of this calculator.
    rank
        Rank of the minimum among those of this calculator, from 1.
    height
        Enthalpy above the lowest minimum of this calculator in eV/atom.
    same_structure
        Whether the structure is still similar to that of the minimum of the search.
    """

    spec: str
    relaxed: Relaxed
    minimum: int
    rank: int
    height: float
    same_structure: bool


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Minimum:
    """A local minimum of the enthalpy, in which one or more relaxations ended.

    Attributes
    ----------
    id
        Number of the minimum from 1, in the order of discovery.
    best
        Its relaxation of lowest enthalpy per atom.
    found_by
        Candidate that reached it first.
    multiplicity
        Number of relaxations that ended in it.
    first_relaxation
        Number, from 1 in the order of completion, of the relaxation that reached it first.
    first_force_calls
        Force calls of the whole search up to and including that relaxation.
    spacegroups
        Space group numbers of ``final`` at 0.01 Å and at 0.1 Å; ``None`` if they are determined when they are needed.
    follow_ups
        Its follow-up relaxations in the order of their calculators; empty in the search's own ranking.
    merged
        Ids of other minima of the search that ended in the same minimum as this one in a follow-up relaxation.
    search_rank
        Rank among the minima of the search by its own calculator, from 1; ``None`` in the search's own ranking.
    search_height
        Enthalpy above the lowest minimum of the search by its own calculator, in eV/atom; ``None`` likewise.
    suspect
        Whether it is probably a hole of the potential and not a crystal.
    composition
        Its composition in a search of a chemical system, such as ``"V2O5"``; ``None`` in a search of one formula.
    above_hull
        Its height above the convex hull of the chemical system when it was read, in eV/atom; ``None`` without one.
    is_known_phase
        Whether it is a known phase that was given to the search of a chemical system, or the same as one.
    """

    id: int
    best: Relaxed
    found_by: Candidate
    multiplicity: int
    first_relaxation: int
    first_force_calls: int
    spacegroups: tuple[int, int] | None = None
    follow_ups: tuple[FollowUpResult, ...] = ()
    merged: tuple[int, ...] = ()
    search_rank: int | None = None
    search_height: float | None = None
    suspect: bool = False
    composition: str | None = None
    above_hull: float | None = None
    is_known_phase: bool = False

    @property
    def niche(self) -> int:
        """Id of the first minimum of its niche; its own id if no niche was recorded."""
        return self.id if self.best.niche is None else self.best.niche

    @property
    def objectives(self) -> Mapping[str, float]:
        """Values of the objectives of the search by name, for ``best``; without those that could not be computed."""
        return self.best.objectives

    @property
    def final(self) -> Relaxed:
        """Relaxation that counts: that with the last follow-up calculator, or ``best`` without any."""
        return self.follow_ups[-1].relaxed if self.follow_ups else self.best

    def disagrees(self, threshold: float = DISAGREEMENT) -> bool:
        """Return whether a follow-up calculator disagrees with that of the search about this minimum.

        Parameters
        ----------
        threshold
            Largest difference in eV/atom of the heights above the lowest minima of both calculators in agreement. A
            follow-up relaxation to another structure is always a disagreement.
        """
        return any(
            not result.same_structure
            or (self.search_height is not None and abs(result.height - self.search_height) > threshold)
            for result in self.follow_ups
        )

    @property
    def spacegroup(self) -> int:
        """Space group number of ``final`` at 0.01 Å."""
        return self._found_spacegroups[0]

    @property
    def spacegroup_loose(self) -> int:
        """Space group number of ``final`` at 0.1 Å."""
        return self._found_spacegroups[1]

    @cached_property
    def _found_spacegroups(self) -> tuple[int, int]:
        from hybridcsp.structure.symmetry import spacegroups

        return spacegroups(self.final.atoms) if self.spacegroups is None else self.spacegroups

    @property
    def atoms(self) -> Atoms:
        """A copy of the structure of ``final``, with its energy and, where there are any, forces and stress."""
        from hybridcsp.io.export import structure_of

        return structure_of(self)

    @property
    def enthalpy_per_atom(self) -> float:
        """Enthalpy of ``final`` in eV/atom, by the last calculator that relaxed the minimum."""
        return self.final.enthalpy_per_atom

    def write(self, path: Path | str, *, cell: str = "as-found") -> Path:
        """Write the structure to a file in the format of its suffix: CIF, extended XYZ, POSCAR, .res or JSON.

        Parameters
        ----------
        path
            File to write; see :func:`hybridcsp.io.structure_writer.structure_writer`.
        cell
            ``"as-found"``, ``"primitive"`` or ``"conventional"``.

        Returns
        -------
        Path
            Written file.

        Raises
        ------
        InputError
            If the suffix is unknown, or the file cannot be written.
        """
        from hybridcsp.io.export import export

        (file,) = export([self], path, cell=cell)
        return file

    def to_cif(self, path: Path | str, *, cell: str = "conventional") -> Path:
        """Write a CIF file, by default of the conventional cell with its symmetry; see :meth:`write`."""
        from hybridcsp.io.export import export

        (file,) = export([self], path, format="cif", cell=cell)
        return file

    def __repr__(self) -> str:
        from hybridcsp.analysis.reprs import text_of_minimum

        return text_of_minimum(self)

    def _repr_html_(self) -> str:
        from hybridcsp.analysis.reprs import html_of_minimum

        return html_of_minimum(self)
