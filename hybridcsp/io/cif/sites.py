"""Sites of a CIF: their elements, occupancies, and symmetry-equivalent positions."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridcsp.io.cif.operations import Operations
from hybridcsp.io.cif.syntax import DEFAULT, UNKNOWN, DataBlock
from hybridcsp.io.element_symbols import element_of_label, element_of_type_symbol, names_several
from hybridcsp.io.frames import StructureError

Floats = NDArray[np.float64]

_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)(?:\((\d+)\)?)?")
_FRACTION = re.compile(r"([+-]?\d{1,3})/(\d{1,3})")

#: Tolerance of occupancies: a site within it of 1 is full, and within it of 0 is empty.
_OCCUPANCY_TOLERANCE = 0.005

#: Range of the distance in Å below which an image of an atom is the atom itself, on a symmetry element. The distance
#: grows with the rounding of the coordinates; images farther apart are two atoms, or the file is damaged.
_MIN_TOLERANCE, _MAX_TOLERANCE = 0.05, 0.4

# Maximum number of iterations that move an atom onto its symmetry element.
_MAX_ITERATIONS = 5


@dataclass(frozen=True, slots=True)
class Site:
    """One row of the list of sites.

    Attributes
    ----------
    label
        The label.
    element
        The element symbol.
    occupancy
        The occupancy, from 0 to 1.
    place
        Fractional coordinates.
    """

    label: str
    element: str
    occupancy: float
    place: tuple[float, float, float]


def parse_number(text: str, name: str) -> float:
    """Parse a number, which may be a fraction or be followed by its standard uncertainty in parentheses.

    Parameters
    ----------
    text
        The text.
    name
        The name of the quantity for error messages.

    Raises
    ------
    StructureError
        If the text is not a number.
    """
    if found := _NUMBER.fullmatch(text):
        return float(found[1])
    if (found := _FRACTION.fullmatch(text)) and int(found[2]):
        return int(found[1]) / int(found[2])
    raise StructureError(0, f"{name} is {text[:20]!r}, not a number")


def sites_of(block: DataBlock, stated: Mapping[str, float]) -> list[Site]:
    """Return the occupied sites of a data block, without dummy atoms.

    An absent occupancy, ``.`` or ``?`` is 1, the default of the CIF core dictionary.

    Parameters
    ----------
    block
        The data block.
    stated
        The stated formula: number of atoms by element; empty if none is stated.

    Raises
    ------
    StructureError
        If a site has no coordinates or does not name exactly one element, or sites are disordered.
    """
    columns = {
        name: block.column(f"_atom_site_{name}")
        for name in (
            *("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy", "calc_flag"),
            *("disorder_group", "disorder_assembly", "attached_hydrogens"),
        )
    }
    places = [columns[f"fract_{x}"] for x in "xyz"]
    if any(place is None for place in places):
        raise StructureError(0, "the atoms have no fractional coordinates (_atom_site_fract_x, _y and _z)")
    names = columns["label"] or columns["type_symbol"]
    if names is None:
        raise StructureError(0, "the atoms have neither labels nor symbols")
    rows = len(names)
    given = {name: column for name, column in columns.items() if column is not None}
    if any(len(column) != rows for column in given.values()):
        raise StructureError(0, "the columns of the atom sites have different lengths")
    found = []
    groups: dict[str, set[str]] = defaultdict(set)
    for values in zip(*given.values(), strict=True):
        row = dict(zip(given, values, strict=True))
        if (site := _site(row, stated)) is None:
            continue
        found.append(site)
        if (group := row.get("disorder_group", DEFAULT)) not in (DEFAULT, UNKNOWN, "", "0"):
            groups[row.get("disorder_assembly", DEFAULT)].add(group)
    if any(len(alternatives) > 1 for alternatives in groups.values()):
        raise StructureError(0, "disordered: the atoms of several disorder groups are alternatives of each other")
    return found


def expand(sites: Sequence[Site], operations: Operations, cell: Floats) -> tuple[list[str], Floats]:
    """Return the elements and the fractional coordinates, shape ``(n_atoms, 3)``, of all atoms of the cell.

    A site near a symmetry element, as 0.333 0.667 is near 1/3 2/3, is moved onto it, so that no atom is duplicated.
    Occupancies of the same element at the same position are added: half Fe2+ and half Fe3+ are one full site of iron.

    Raises
    ------
    StructureError
        If a site is partly occupied, or is close to its own images without being on a symmetry element.
    """
    tolerance = _tolerance(sites, cell)
    orbits: list[tuple[Site, Floats, dict[str, float]]] = []
    for site in sites:
        orbit = _orbit(site, operations, cell, tolerance)
        for _, other, there in orbits:
            # Several elements share a site if the sum of occupancies allows it; otherwise their atoms overlap.
            fits = site.element in there or sum(there.values()) + site.occupancy < 1 + _OCCUPANCY_TOLERANCE
            if fits and len(other) == len(orbit) and _distances(other, orbit[0], cell).min() < tolerance:
                there[site.element] = there.get(site.element, 0.0) + site.occupancy
                break
        else:
            orbits.append((site, orbit, {site.element: site.occupancy}))
    symbols, places = [], []
    for site, orbit, there in orbits:
        if len(there) > 1:
            raise StructureError(0, f"partly occupied sites: {site.label} is shared by {' and '.join(sorted(there))}")
        if there[site.element] < 1 - _OCCUPANCY_TOLERANCE:
            raise StructureError(0, f"partly occupied sites: {site.label} has the occupancy {there[site.element]:g}")
        symbols += [site.element] * len(orbit)
        places.append(orbit)
    return symbols, np.concatenate(places) if places else np.empty((0, 3))


def _site(row: Mapping[str, str], stated: Mapping[str, float]) -> Site | None:
    label = row.get("label", "")
    name = label or row.get("type_symbol", "")
    occupancy = _occupancy(row.get("occupancy", DEFAULT), name)
    if occupancy <= _OCCUPANCY_TOLERANCE or row.get("calc_flag", "").lower() == "dum":
        return None
    element = _element(row.get("type_symbol", UNKNOWN), label, stated)
    hydrogens = row.get("attached_hydrogens", DEFAULT)
    if hydrogens not in (DEFAULT, UNKNOWN) and parse_number(hydrogens, f"the number of hydrogen atoms at {name}"):
        raise StructureError(0, f"{hydrogens} hydrogen atoms attached to {name} have no coordinates")
    x, y, z = (parse_number(row[f"fract_{axis}"], f"the coordinate {axis} of {name}") for axis in "xyz")
    return Site(label=name, element=element, occupancy=occupancy, place=(x, y, z))


def _occupancy(text: str, name: str) -> float:
    if text in (DEFAULT, UNKNOWN, ""):
        return 1.0
    occupancy = parse_number(text, f"the occupancy of {name}")
    if not 0 <= occupancy <= 1 + _OCCUPANCY_TOLERANCE:
        raise StructureError(0, f"the occupancy of {name} is {text}; it must be from 0 to 1")
    return occupancy


def _element(symbol: str, label: str, stated: Mapping[str, float]) -> str:
    for text in (symbol, label):
        if names_several(text):
            raise StructureError(0, f"partly occupied sites: {label or symbol} has several elements ({text})")
    if symbol in (UNKNOWN, DEFAULT, ""):
        found, text = element_of_label(label, stated), label
    else:
        found, text = element_of_type_symbol(symbol), symbol
    if found is None:
        raise StructureError(0, f"{text[:40]!r} does not name exactly one element")
    return found


def _tolerance(sites: Sequence[Site], cell: Floats) -> float:
    """Return the distance in Å below which two positions are the same, given the digits of the coordinates."""
    digits = max((len(repr(round(abs(x) % 1, 6)).partition(".")[2]) for site in sites for x in site.place), default=6)
    # An operation combines up to three coordinates, each with an error of half a unit in the last digit.
    rounding = 1.5 * 10.0**-digits * float(np.linalg.norm(cell, axis=1).sum())
    return float(np.clip(rounding, _MIN_TOLERANCE, _MAX_TOLERANCE))


def _orbit(site: Site, operations: Operations, cell: Floats, tolerance: float) -> Floats:
    place = np.array(site.place)
    place -= np.floor(place)
    stabiliser = np.zeros(len(operations), dtype=bool)
    for _ in range(_MAX_ITERATIONS):
        images = operations.images(place)
        shifts = np.rint(images - place)
        near = np.linalg.norm((images - shifts - place) @ cell, axis=1) < tolerance
        if (near == stabiliser).all():
            break
        # The mean of the images under the site's own symmetry is invariant under that symmetry.
        stabiliser, place = near, (images - shifts)[near].mean(axis=0)
    images = operations.images(place)
    images -= np.floor(images)
    orbit: list[Floats] = []
    remaining = images
    while len(remaining):
        orbit.append(remaining[0])
        remaining = remaining[_distances(remaining, remaining[0], cell) >= tolerance]
    if len(orbit) * int(stabiliser.sum()) != len(operations):
        raise StructureError(0, f"{site.label} is close to its own images, but is not on a symmetry element")
    return np.array(orbit)


def _distances(places: Floats, place: Floats, cell: Floats) -> Floats:
    """Return the distances in Å to the nearest image of a position, shape ``(n,)``; only small ones are exact."""
    difference = places - place
    return np.asarray(np.linalg.norm((difference - np.rint(difference)) @ cell, axis=1))
