"""Reading of JSON files of pymatgen (structures and computed entries) and of ASE (JSON databases) as plain data.

Both libraries import the classes that their files name. This reader uses only numbers, texts and element symbols.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.geometry import cellpar_to_cell

from hybridcsp.io.construction import MAX_ATOMS, PARTLY_OCCUPIED, from_arrays, plain_values
from hybridcsp.io.element_symbols import parse_element
from hybridcsp.io.frames import Frame, ReadFailure, StructureError
from hybridcsp.utils.reading import read_json

_LATTICE = ("a", "b", "c", "alpha", "beta", "gamma")

# Keys of pymatgen's entries that are no properties of the crystal.
_OF_ENTRIES = ("entry_id", "energy", "correction")

_WANTED = "a pymatgen Structure or ComputedStructureEntry, a list of them, or an ASE database in JSON"


def read_json_structures(file: Path) -> Iterator[Frame | ReadFailure]:
    """Yield the structures of a JSON file; an invalid entry does not affect the others.

    Raises
    ------
    UnreadableError
        If the file is not JSON, is too large, or is nested too deeply.
    """
    content = read_json(file)
    number = -1
    for number, (where, entry) in enumerate(_entries(content)):
        try:
            atoms, name = _atoms(entry)
        except StructureError as error:
            yield ReadFailure(file=file, line=1, reason=f"{where}: {error.reason}")
        else:
            yield Frame(atoms=atoms, file=file, number=number, name=name or f"{file.stem}-{number + 1}")
    if number < 0:
        yield ReadFailure(file=file, line=1, reason=f"it contains no structure; {_WANTED} is read")


def structure_of_pymatgen(described: Any) -> Atoms:
    """Return the structure that the dictionary of a pymatgen structure describes.

    Raises
    ------
    StructureError
        If it is another object, or does not describe a valid structure.
    """
    if not isinstance(described, dict) or not {"lattice", "sites"} <= described.keys():
        raise StructureError(0, "it is not the dictionary of a pymatgen structure")
    return _of_pymatgen(described, None)


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict) and {"ids", "nextid"} <= content.keys():
        ids = content["ids"] if isinstance(content["ids"], list) else [key for key in content if key.isdecimal()]
        yield from ((f"row {key}", content.get(str(key))) for key in ids)
    else:
        entries = content if isinstance(content, list) else [content]
        yield from ((f"entry {number}", entry) for number, entry in enumerate(entries, start=1))


def _atoms(entry: Any) -> tuple[Atoms, str]:
    if not isinstance(entry, dict):
        raise StructureError(0, f"it is not {_WANTED}")
    if "numbers" in entry and "positions" in entry:
        return _of_ase(entry), ""
    described = entry.get("structure", entry)
    if not isinstance(described, dict) or not {"lattice", "sites"} <= described.keys():
        raise StructureError(0, f"it is not {_WANTED}")
    name = entry.get("entry_id") if "structure" in entry else None
    energy = entry.get("energy") if "structure" in entry else None
    atoms = _of_pymatgen(described, energy)
    if "structure" in entry:
        atoms.info |= _properties(entry)
    return atoms, str(name)[:200] if isinstance(name, str | int) else ""


def _properties(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the texts and numbers beside a structure and in its ``data``, except for what pymatgen writes itself."""
    data = entry.get("data")
    values = {**entry, **(data if isinstance(data, dict) else {})}
    return plain_values({key: value for key, value in values.items() if key[:1] != "@" and key not in _OF_ENTRIES})


def _of_ase(row: Mapping[str, Any]) -> Atoms:
    cell = _array(row.get("cell"))
    return from_arrays(
        numbers=_array(row["numbers"]),
        positions=_array(row["positions"]),
        cell=_array(cell.get("array")) if isinstance(cell, dict) else cell,
        pbc=_array(row.get("pbc", False)),
        moments=_array(row.get("initial_magmoms")),
        charges=_array(row.get("initial_charges")),
        energy=row.get("energy"),
        calculator=row.get("calculator"),
        info=row.get("key_value_pairs"),
    )


def _array(value: Any) -> Any:
    """Convert ASE's JSON representation of an array; return other values unchanged.

    Raises
    ------
    StructureError
        If the numbers do not have the stated shape.
    """
    if not isinstance(value, dict) or "__ndarray__" not in value:
        return value
    try:
        shape, _, flat = value["__ndarray__"]
        if len(flat) > 9 * MAX_ATOMS or any(not 0 <= n <= len(flat) for n in shape):
            raise ValueError
        return np.array(flat, dtype=float).reshape(shape)
    except (TypeError, ValueError, OverflowError):
        raise StructureError(0, "the numbers of an array do not have the stated shape") from None


def _of_pymatgen(described: Mapping[str, Any], energy: Any) -> Atoms:
    sites = described["sites"]
    if not isinstance(sites, list) or len(sites) > MAX_ATOMS:
        raise StructureError(0, f"the sites must be a list of at most {MAX_ATOMS}")
    cell = _cell(described["lattice"])
    symbols, places, moments = [], [], []
    for number, site in enumerate(sites, start=1):
        if not isinstance(site, dict):
            raise StructureError(0, f"site {number} is not a dictionary with species and coordinates")
        symbols.append(_symbol(site.get("species"), number))
        places.append(_place(site, cell, number))
        properties = site.get("properties")
        moments.append(properties.get("magmom") if isinstance(properties, dict) else None)
    magnetic = moments and all(isinstance(moment, int | float) for moment in moments)
    return from_arrays(
        numbers=[atomic_numbers[symbol] for symbol in symbols],
        scaled=places,
        cell=cell,
        moments=moments if magnetic else None,
        energy=energy,
    )


def _cell(lattice: Any) -> np.ndarray:
    if not isinstance(lattice, dict):
        raise StructureError(0, "the lattice is not a dictionary with a matrix or parameters")
    try:
        if "matrix" in lattice:
            cell = np.array(lattice["matrix"], dtype=float)
        else:
            with np.errstate(invalid="ignore", divide="ignore"):  # impossible angles give NaN
                cell = np.asarray(cellpar_to_cell([float(lattice[name]) for name in _LATTICE]))
    except (KeyError, TypeError, ValueError, OverflowError, AssertionError):
        raise StructureError(0, "the lattice has neither a matrix of numbers nor six valid parameters") from None
    if cell.shape != (3, 3):
        raise StructureError(0, f"the lattice has the shape {cell.shape} instead of (3, 3)")
    return cell


def _symbol(species: Any, number: int) -> str:
    if not isinstance(species, list) or not species or not all(isinstance(one, dict) for one in species):
        raise StructureError(0, f"site {number} has no list of species")
    occupancy = species[0].get("occu", 1)
    if len(species) > 1 or not isinstance(occupancy, int | float) or not occupancy > 0.995:
        raise StructureError(0, PARTLY_OCCUPIED)
    return parse_element(str(species[0].get("element"))[:20])


def _place(site: Mapping[str, Any], cell: np.ndarray, number: int) -> list[float]:
    """Return the fractional coordinates of a site, shape ``(3,)``."""
    try:
        if "abc" in site:
            x, y, z = (float(value) for value in site["abc"])
            return [x, y, z]
        return [float(value) for value in np.linalg.solve(cell.T, np.array(site["xyz"], dtype=float).reshape(3))]
    except (KeyError, TypeError, ValueError, OverflowError, np.linalg.LinAlgError):
        raise StructureError(0, f"site {number} has no coordinates, or they are not three numbers") from None
