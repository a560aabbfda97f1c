"""The minima that a search finds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ase import Atoms

from hybridcsp.core.records import Candidate, Relaxed


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
        Space group numbers of ``best`` at 0.01 Å and at 0.1 Å; ``None`` if they are determined when they are needed.
    """

    id: int
    best: Relaxed
    found_by: Candidate
    multiplicity: int
    first_relaxation: int
    first_force_calls: int
    spacegroups: tuple[int, int] | None = None

    @property
    def spacegroup(self) -> int:
        """Space group number of ``best`` at 0.01 Å."""
        return self._found_spacegroups[0]

    @property
    def spacegroup_loose(self) -> int:
        """Space group number of ``best`` at 0.1 Å."""
        return self._found_spacegroups[1]

    @cached_property
    def _found_spacegroups(self) -> tuple[int, int]:
        from hybridcsp.structure.symmetry import spacegroups

        return spacegroups(self.best.atoms) if self.spacegroups is None else self.spacegroups

    @property
    def atoms(self) -> Atoms:
        """A copy of the structure of ``best``, with its energy and, where there are any, forces and stress."""
        from hybridcsp.io.export import structure_of

        return structure_of(self)

    @property
    def enthalpy_per_atom(self) -> float:
        """Enthalpy of ``best`` in eV/atom."""
        return self.best.enthalpy_per_atom

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
