"""Sites of a CIF: which element, how full, and where all their images are."""

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

#: Sites are full, or empty, whose occupancy is that close to 1 or 0.
_FULL = 0.005

#: An image of an atom that is closer (Å) is the atom itself, which lies on a symmetry element. Coordinates of few
#: digits are off by more, up to the second value; beyond that two atoms are meant, or the file is damaged.
_SAME, _SAME_AT_MOST = 0.05, 0.4

_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Site:
    """One row of the list of sites.

    Attributes
    ----------
    label, element, occupancy
        As the file has them; the element is ``""`` where the site is empty, which is then left out.
    place
        Fractional coordinates.
    """

    label: str
    element: str
    occupancy: float
    place: tuple[float, float, float]


def number(text: str, what: str) -> float:
    """Return a number that may have its standard uncertainty in parentheses behind it.

    Raises
    ------
    StructureError
        If it is none; ``what`` names it.
    """
    if found := _NUMBER.fullmatch(text):
        return float(found[1])
    if (found := _FRACTION.fullmatch(text)) and int(found[2]):
        return int(found[1]) / int(found[2])
    raise StructureError(0, f"{what} is {text[:20]!r}, not a number")


def sites_of(block: DataBlock, stated: Mapping[str, float]) -> list[Site]:
    """Return the sites of a data block that hold atoms.

    An occupancy that is not there, ``.`` or ``?`` is 1, the default of the CIF core dictionary; sites with occupancy 0
    and dummy atoms are left out.

    Parameters
    ----------
    block
        The data block.
    stated
        Elements of the formula that it states; empty where it states none.

    Raises
    ------
    StructureError
        For a site that is partly occupied, that names no element or several, or that has no coordinates.
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
        raise StructureError(0, "no fractional coordinates of atoms (_atom_site_fract_x, _y and _z)")
    names = columns["label"] or columns["type_symbol"]
    if names is None:
        raise StructureError(0, "the atoms have neither labels nor symbols")
    rows = len(names)
    given = {name: column for name, column in columns.items() if column is not None}
    if any(len(column) != rows for column in given.values()):
        raise StructureError(0, "the columns of the atoms have different lengths")
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
        raise StructureError(0, "disordered: the atoms of several disorder groups are alternatives to each other")
    return found


def expand(sites: Sequence[Site], operations: Operations, cell: Floats) -> tuple[list[str], Floats]:
    """Return elements and fractional coordinates of all atoms of the cell, shape ``(n_atoms, 3)``.

    A site near a symmetry element, as 0.333 0.667 is near 1/3 2/3, is put onto it, so that every atom is there once.
    Rows that describe the same atoms add up: Fe2+ and Fe3+ at half occupancy are one full site of iron.

    Raises
    ------
    StructureError
        For a partly occupied site, or one that comes too close to its own images without being on a symmetry element.
    """
    tolerance = _tolerance(sites, cell)
    orbits: list[tuple[Site, Floats, dict[str, float]]] = []
    for site in sites:
        orbit = _orbit(site, operations, cell, tolerance)
        for _, other, there in orbits:
            # Other elements share a site only if they fit; otherwise they are atoms on top of each other.
            fits = site.element in there or sum(there.values()) + site.occupancy < 1 + _FULL
            if fits and len(other) == len(orbit) and _distances(other, orbit[0], cell).min() < tolerance:
                there[site.element] = there.get(site.element, 0.0) + site.occupancy
                break
        else:
            orbits.append((site, orbit, {site.element: site.occupancy}))
    symbols, places = [], []
    for site, orbit, there in orbits:
        if len(there) > 1:
            raise StructureError(0, f"partly occupied sites: {site.label} holds {' and '.join(sorted(there))}")
        if there[site.element] < 1 - _FULL:
            raise StructureError(0, f"partly occupied sites: {site.label} is occupied to {there[site.element]:g}")
        symbols += [site.element] * len(orbit)
        places.append(orbit)
    return symbols, np.concatenate(places) if places else np.empty((0, 3))


def _site(row: Mapping[str, str], stated: Mapping[str, float]) -> Site | None:
    label = row.get("label", "")
    name = label or row.get("type_symbol", "")
    occupancy = _occupancy(row.get("occupancy", DEFAULT), name)
    if occupancy <= _FULL or row.get("calc_flag", "").lower() == "dum":
        return None
    element = _element(row.get("type_symbol", UNKNOWN), label, stated)
    hydrogens = row.get("attached_hydrogens", DEFAULT)
    if hydrogens not in (DEFAULT, UNKNOWN) and number(hydrogens, f"the number of hydrogen atoms at {name}"):
        raise StructureError(0, f"{hydrogens} hydrogen atoms are attached to {name} without coordinates")
    x, y, z = (number(row[f"fract_{axis}"], f"the coordinate {axis} of {name}") for axis in "xyz")
    return Site(label=name, element=element, occupancy=occupancy, place=(x, y, z))


def _occupancy(text: str, name: str) -> float:
    if text in (DEFAULT, UNKNOWN, ""):
        return 1.0
    occupancy = number(text, f"the occupancy of {name}")
    if not 0 <= occupancy <= 1 + _FULL:
        raise StructureError(0, f"the occupancy of {name} is {text}, not from 0 to 1")
    return occupancy


def _element(symbol: str, label: str, stated: Mapping[str, float]) -> str:
    for text in (symbol, label):
        if names_several(text):
            raise StructureError(0, f"partly occupied sites: {label or symbol} holds several elements ({text})")
    if symbol in (UNKNOWN, DEFAULT, ""):
        found, text = element_of_label(label, stated), label
    else:
        found, text = element_of_type_symbol(symbol), symbol
    if found is None:
        raise StructureError(0, f"{text[:40]!r} is not the symbol of one element")
    return found


def _tolerance(sites: Sequence[Site], cell: Floats) -> float:
    """Return the distance in Å below which two positions are one, from the digits of the coordinates."""
    digits = max((len(repr(round(abs(x) % 1, 6)).partition(".")[2]) for site in sites for x in site.place), default=6)
    # Each of up to three coordinates that an operation combines is off by half a unit of the last digit.
    rounding = 1.5 * 10.0**-digits * float(np.linalg.norm(cell, axis=1).sum())
    return float(np.clip(rounding, _SAME, _SAME_AT_MOST))


def _orbit(site: Site, operations: Operations, cell: Floats, tolerance: float) -> Floats:
    place = np.array(site.place)
    place -= np.floor(place)
    stabiliser = np.zeros(len(operations), dtype=bool)
    for _ in range(_ROUNDS):
        images = operations.images(place)
        shifts = np.rint(images - place)
        near = np.linalg.norm((images - shifts - place) @ cell, axis=1) < tolerance
        if (near == stabiliser).all():
            break
        # The mean of what the site's own symmetry makes of it is invariant under that symmetry.
        stabiliser, place = near, (images - shifts)[near].mean(axis=0)
    images = operations.images(place)
    images -= np.floor(images)
    orbit: list[Floats] = []
    remaining = images
    while len(remaining):
        orbit.append(remaining[0])
        remaining = remaining[_distances(remaining, remaining[0], cell) >= tolerance]
    if len(orbit) * int(stabiliser.sum()) != len(operations):
        raise StructureError(0, f"{site.label} comes close to its own images, but lies on no symmetry element")
    return np.array(orbit)


def _distances(places: Floats, place: Floats, cell: Floats) -> Floats:
    """Return distances in Å to the nearest image of a place, exact where they are small, shape ``(n,)``."""
    apart = places - place
    return np.asarray(np.linalg.norm((apart - np.rint(apart)) @ cell, axis=1))
