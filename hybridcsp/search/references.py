"""Known phases that a search of a chemical system relaxes first, so that they enter its convex hull."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from hybridcsp.core.system import System
from hybridcsp.errors import InputError
from hybridcsp.io.frames import Frame, ReadFailure
from hybridcsp.io.structure_files import read_structures
from hybridcsp.structure.symmetry import primitive
from hybridcsp.structure.validity import violation
from hybridcsp.utils.paths import expanded

log = logging.getLogger(__name__)

#: Number of structures that an error names.
_NAMED = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """A structure of a known phase.

    Attributes
    ----------
    atoms
        Primitive cell, without energies: they are of another calculator.
    file, frame
        File that it comes from, and its position there, from 0.
    """

    atoms: Atoms
    file: str
    frame: int

    @property
    def tag(self) -> dict[str, str | int]:
        """Plain JSON by which it is recognised in a run directory."""
        return {"file": self.file, "frame": self.frame}


def read_references(paths: Sequence[str | Path], system: System, *, resumed: bool = False) -> list[Reference]:
    """Read the known phases of a chemical system from structure files or folders of them.

    Structures with other elements are left out, so that a file may hold the phases of many systems. Energies in the
    files are not read: every phase is relaxed with the calculator of the search.

    Parameters
    ----------
    paths
        Files or folders: extended XYZ, CIF, ASE databases and everything else that seeds may be read from.
    system
        The system.
    resumed
        Whether the search was begun before. Then files that were moved or changed are no error but a warning, because
        the run directory holds the phases that were read from them.

    Raises
    ------
    InputError
        If a path does not exist, or holds no phase of the system that can be used.
    """
    found: list[Reference] = []
    for path in paths:
        try:
            found += _read(expanded(path), system)
        except InputError as error:
            if not resumed:
                raise
            log.warning("%s The search continues with the known phases that it has recorded.", error)
    return found


def _read(path: Path, system: System) -> Iterator[Reference]:
    if not path.exists():
        raise InputError("references", str(path), reason="there is no such file or folder")
    unusable: list[str] = []
    found = 0
    for one in read_structures(path):
        if isinstance(one, ReadFailure):
            unusable.append(str(one))
            log.warning("a known phase cannot be read: %s", one)
            continue
        where = f"{one.file}, frame {one.number}"
        formula = system.formula_of(one.atoms.numbers)
        if formula is None:
            unusable.append(f"{where}: {one.atoms.symbols} has elements outside the system")
            continue
        atoms = _bare(one)
        if broken := violation(atoms, system.problem_of_known_phases(formula), given=True):
            unusable.append(f"{where}: {broken.detail}")
            log.warning("a known phase cannot be used: %s", unusable[-1])
            continue
        found += 1
        yield Reference(atoms=atoms, file=str(one.file.resolve()), frame=one.number)
    if not found:
        named = "; ".join(unusable[:_NAMED]) or "it holds no structures"
        more = f"; and {len(unusable) - _NAMED} more" if len(unusable) > _NAMED else ""
        reason = f"it holds no structure of the system {system.formula} that can be used ({named}{more})"
        raise InputError("references", str(path), reason=reason)


def _bare(frame: Frame) -> Atoms:
    """Return the primitive cell of a structure, with its initial magnetic moments and nothing else."""
    atoms = Atoms(numbers=frame.atoms.numbers, positions=frame.atoms.positions, cell=frame.atoms.cell, pbc=True)
    if frame.atoms.has("initial_magmoms"):
        atoms.set_initial_magnetic_moments(frame.atoms.get_initial_magnetic_moments())
        return atoms  # the primitive cell may have fewer atoms than the magnetic one
    return primitive(atoms)
