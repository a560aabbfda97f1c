"""Export of minima to structure files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from hybridcsp.core.minimum import DISAGREEMENT, Minimum, keys_of_objectives
from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.io.formats import Record
from hybridcsp.io.structure_writer import format_of, structure_writer
from hybridcsp.structure.symmetry import conventional, primitive

#: Choices of the cell that a minimum is exported in.
CELLS: dict[str, Callable[[Atoms], Atoms]] = {
    "as-found": lambda atoms: atoms,
    "primitive": primitive,
    "conventional": conventional,
}


def structure_of(minimum: Minimum, cell: str = "as-found", *, disagreement: float = DISAGREEMENT) -> Atoms:
    """Return the final structure of a minimum, with its origin in ``info``.

    Parameters
    ----------
    minimum
        The minimum.
    cell
        A key of :data:`CELLS`. Forces, stress and magnetic moments are kept only with "as-found", since they belong to
        the cell in which they were computed; the energy is scaled to the number of atoms.
    disagreement
        Difference of heights above the best from which two calculators disagree, in eV/atom.

    Returns
    -------
    Atoms
        The structure, with its energy in a ``SinglePointCalculator``, and in ``info``: ``candidate`` (the first that
        relaxed to the minimum), ``enthalpy_per_atom`` (eV), ``calculator`` (label), ``spacegroup`` (at 0.01 Å),
        ``source``, ``operator``, ``relaxation`` (number of the first relaxation to the minimum, from 1 in order of
        completion; 0 if the minimum was added by the user before any), ``force_calls`` (of the whole search until then)
        and ``multiplicity``. In a search with objectives also their values for the best relaxation by the calculator of
        the search, as ``objective_NAME``. In a chemical system also ``composition``, ``above_hull`` (eV/atom; missing
        without a hull) and ``known_phase``. If the search was followed up with other calculators, also ``search_rank``,
        ``search_enthalpy_per_atom`` and ``search_calculator``; with results of theirs, the structure and energy are of
        the last, and there are ``follow_up_1_rank``, ``follow_up_1_enthalpy_per_atom``, ``follow_up_1_calculator``, …,
        and ``disagrees``.
    """
    found = minimum.final.atoms
    atoms = CELLS[cell](found).copy()
    energy = minimum.final.evaluation.energy * len(atoms) / len(found)
    results = {"energy": energy}
    if cell == "as-found" and found.calc is not None:
        results |= {
            name: found.calc.results[name] for name in ("forces", "stress", "magmoms") if name in found.calc.results
        }
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info = {
        "candidate": minimum.found_by.id,
        "enthalpy_per_atom": minimum.enthalpy_per_atom,
        "calculator": minimum.final.evaluation.calculator,
        "spacegroup": minimum.spacegroup,
        "source": minimum.found_by.source,
        "operator": minimum.found_by.operator,
        "relaxation": minimum.first_relaxation,
        "force_calls": minimum.first_force_calls,
        "multiplicity": minimum.multiplicity,
    }
    atoms.info |= keys_of_objectives(minimum.objectives)
    atoms.info |= _place_in_system(minimum) | _rankings(minimum, disagreement)
    return atoms


def _place_in_system(minimum: Minimum) -> dict[str, Any]:
    """Return the composition of a minimum and its height above the hull; nothing in a search of one formula."""
    if minimum.composition is None:
        return {}
    height = {} if minimum.above_hull is None else {"above_hull": minimum.above_hull}
    return {"composition": minimum.composition, **height, "known_phase": minimum.is_known_phase}


def _rankings(minimum: Minimum, disagreement: float) -> dict[str, Any]:
    """Return the ranks and enthalpies of a minimum by each calculator; nothing if only one has relaxed any minima."""
    if minimum.search_rank is None:
        return {}
    known: dict[str, Any] = {
        "search_rank": minimum.search_rank,
        "search_enthalpy_per_atom": minimum.best.enthalpy_per_atom,
        "search_calculator": minimum.best.evaluation.calculator,
    }
    for number, result in enumerate(minimum.follow_ups, start=1):
        known |= {
            f"follow_up_{number}_rank": result.rank,
            f"follow_up_{number}_enthalpy_per_atom": result.relaxed.enthalpy_per_atom,
            f"follow_up_{number}_calculator": result.relaxed.evaluation.calculator,
        }
    return known | ({"disagrees": minimum.disagrees(disagreement)} if minimum.follow_ups else {})


def records_of(minima: Sequence[Minimum], cell: str = "as-found", pressure_gpa: float = 0.0) -> list[Record]:
    """Convert minima to records, which :mod:`hybridcsp.io.formats` writes for other codes.

    Parameters
    ----------
    minima
        The minima.
    cell
        A key of :data:`CELLS`.
    pressure_gpa
        The pressure of the enthalpies in GPa.
    """
    records = []
    for minimum in minima:
        atoms = structure_of(minimum, cell)
        info = atoms.info
        records.append(
            Record(
                atoms=atoms,
                energy=float(atoms.get_potential_energy()),
                enthalpy=info["enthalpy_per_atom"] * len(atoms),
                pressure_gpa=pressure_gpa,
                id=str(info["candidate"]),
                origin=info["operator"],
                calculator=info["calculator"],
            )
        )
    return records


def export(
    minima: Iterable[Minimum],
    output: Path | str,
    *,
    format: str | None = None,
    cell: str = "as-found",
    follow: bool = True,
    disagreement: float = DISAGREEMENT,
    more: Callable[[Minimum], Mapping[str, Any]] | None = None,
) -> list[Path]:
    """Write minima to a file or folder.

    Parameters
    ----------
    minima
        The minima, best first.
    output
        A file, or a folder with one file for each; see :func:`hybridcsp.io.structure_writer.structure_writer`.
    format
        A key of :data:`hybridcsp.io.structure_writer.FILE_FORMATS`; by default given by the file extension.
    cell
        A key of :data:`CELLS`.
    follow
        Whether a symbolic link is followed.
    disagreement
        Difference of heights above the best from which two calculators disagree, in eV/atom.
    more
        Function that returns further annotations of a minimum, for ``info``.

    Returns
    -------
    list of Path
        The written files.

    Raises
    ------
    InputError
        If there are no minima, the format or cell is unknown, or the files cannot be written.
    """
    format_of(output, format)
    if cell not in CELLS:
        raise UnknownNameError("cell", cell, CELLS)
    minima = iter(minima)
    first = next(minima, None)
    if first is None:
        raise InputError("minima", 0, reason="the search has found no converged minimum yet")
    files: dict[Path, None] = {}
    with structure_writer(output, format, symmetric=cell == "conventional", follow=follow) as write:
        for rank, minimum in enumerate(chain([first], minima), start=1):
            atoms = structure_of(minimum, cell, disagreement=disagreement)
            atoms.info = {"rank": rank, **atoms.info, **(more(minimum) if more else {})}
            files[write(atoms)] = None
    return list(files)
