"""Minima as files that other programs open."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import ase.io
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.formats import Record
from hybridcsp.records import Minimum
from hybridcsp.structure import conventional, primitive, to_pymatgen
from hybridcsp.utils.files import atomic_folder, atomic_write, make_folder

#: What a minimum's cell may be turned into.
CELLS: dict[str, Callable[[Atoms], Atoms]] = {
    "as-found": lambda atoms: atoms,
    "primitive": primitive,
    "conventional": conventional,
}

#: File name endings by format.
FORMATS = {"extxyz": "extxyz", "cif": "cif", "poscar": "vasp"}


def structure_of(minimum: Minimum, cell: str = "as-found") -> Atoms:
    """Return a minimum as one ``Atoms`` that says where it comes from.

    Parameters
    ----------
    minimum
        The minimum.
    cell
        A key of :data:`CELLS`. Forces, stress and magnetic moments belong to the cell they were computed in and are
        kept with "as-found" only; the energy is scaled to the number of atoms.

    Returns
    -------
    Atoms
        With the energy in a ``SinglePointCalculator``, and in ``info``: ``candidate`` (that found it first),
        ``enthalpy_per_atom`` (eV), ``spacegroup`` (at 0.01 Å), ``source``, ``operator``, ``relaxation`` (1-based
        number, in completion order, of the relaxation that found it first; 0 for one handed in before any),
        ``force_calls`` (of the whole search up to then) and ``multiplicity``.
    """
    found = minimum.best.atoms
    atoms = CELLS[cell](found).copy()
    energy = minimum.best.evaluation.energy * len(atoms) / len(found)
    results = {"energy": energy}
    if cell == "as-found" and found.calc is not None:
        results |= {
            name: found.calc.results[name] for name in ("forces", "stress", "magmoms") if name in found.calc.results
        }
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info = {
        "candidate": minimum.found_by.id,
        "enthalpy_per_atom": minimum.enthalpy_per_atom,
        "spacegroup": minimum.spacegroup,
        "source": minimum.found_by.source,
        "operator": minimum.found_by.operator,
        "relaxation": minimum.first_relaxation,
        "force_calls": minimum.first_force_calls,
        "multiplicity": minimum.multiplicity,
    }
    return atoms


def records_of(minima: Sequence[Minimum], cell: str = "as-found", pressure_gpa: float = 0.0) -> list[Record]:
    """Return minima as other codes' files have them.

    Parameters
    ----------
    minima, cell
        As for :func:`export`.
    pressure_gpa
        That the enthalpies are for.
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
                calculator=minimum.best.evaluation.calculator,
            )
        )
    return records


def export(minima: Sequence[Minimum], output: Path, *, format: str = "extxyz", cell: str = "as-found") -> list[Path]:
    """Write minima, in the order given.

    Parameters
    ----------
    minima
        What to write.
    output
        The file; for several POSCARs, which hold one structure each, a folder of that name.
    format, cell
        Keys of :data:`FORMATS` and :data:`CELLS`.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    InputError
        If there is nothing to write, nowhere to write it, or no such format or cell.
    """
    if format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS)
    if cell not in CELLS:
        raise UnknownNameError("cell", cell, CELLS)
    if not minima:
        raise InputError("minima", 0, "at least one converged minimum: this search has found none yet")
    structures = [structure_of(minimum, cell) for minimum in minima]
    if format == "poscar" and len(structures) > 1:
        return _write_poscars(structures, output)
    make_folder(output.parent, key="output")
    with atomic_write(output, key="output", follow=True) as file:
        file.write(_text(structures, format, cell))
    return [output]


def _text(structures: Sequence[Atoms], format: str, cell: str) -> str:
    if format == "cif":
        return "".join(_cif(atoms, symmetric=cell == "conventional") for atoms in structures)
    if format == "poscar":
        return _poscar(structures[0])
    text = io.StringIO()
    ase.io.write(text, list(structures), format="extxyz")
    return text.getvalue()


def _cif(atoms: Atoms, *, symmetric: bool) -> str:
    from pymatgen.io.cif import CifWriter

    # With a tolerance pymatgen writes the standardised cell with its symmetry operations; without one, P1 as it is.
    return str(CifWriter(to_pymatgen(atoms), symprec=0.01 if symmetric else None))


def _poscar(atoms: Atoms) -> str:
    from pymatgen.io.vasp import Poscar

    info = atoms.info
    title = f"{atoms.symbols} H={info['enthalpy_per_atom']:.6f} eV/atom SG={info['spacegroup']} c{info['candidate']}"
    return str(Poscar(to_pymatgen(atoms), comment=title, sort_structure=True).get_str(significant_figures=16))


def _write_poscars(structures: Sequence[Atoms], folder: Path) -> list[Path]:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError("output", str(folder), "a folder that is new or empty, for several POSCARs")
    names = [
        f"{rank:04d}_sg{atoms.info['spacegroup']}.{FORMATS['poscar']}" for rank, atoms in enumerate(structures, start=1)
    ]
    with atomic_folder(folder, key="output") as temporary:
        for name, atoms in zip(names, structures, strict=True):
            (temporary / name).write_text(_poscar(atoms), encoding="utf-8")
    return [folder / name for name in names]
