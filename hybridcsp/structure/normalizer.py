"""Affine normalizers of the space groups: the changes of origin and axes that leave a group as it is.

They make equivalent descriptions of one crystal (doi:10.1107/97809553602060000515), between which Wyckoff letters and
coordinates differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridcsp.structure.wyckoff import LETTERS, orbit_coordinates, space_group

#: The lower number of each enantiomorphic pair of space groups by the higher one. Both have the same Wyckoff letters,
#: at mirrored coordinates.
ENANTIOMORPHS = {
    78: 76, 95: 91, 96: 92, 145: 144, 153: 151, 154: 152, 170: 169, 172: 171, 179: 178, 181: 180, 213: 212,
}  # fmt: skip

# Other choices of the cell of a monoclinic or triclinic lattice, which generate all of them. Rows are the new vectors.
_SHEARS = {
    "triclinic": (
        [[1, 1, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
        [[0, 1, 0], [1, 0, 0], [0, 0, -1]],
    ),
    "monoclinic": (
        [[1, 0, 1], [0, 1, 0], [0, 0, 1]],
        [[1, 0, 0], [0, 1, 0], [1, 0, 1]],
        [[1, 0, 2], [0, 1, 0], [0, 0, 1]],
        [[1, 0, 0], [0, 1, 0], [2, 0, 1]],
    ),
}  # fmt: skip

# A point on no special position of any group, nor close to one.
_GENERIC_POINT = np.array([0.1537129, 0.2881937, 0.4095311])


@dataclass(frozen=True, eq=False)
class NormalizerOperation:
    """A change of coordinates, ``x -> rotation @ x + shift``, that leaves a space group as it is.

    Attributes
    ----------
    letters
        New Wyckoff letters by old ones.
    rotation
        Linear part in fractions of the conventional cell, shape ``(3, 3)``.
    shift
        Translation in fractions of the conventional cell, shape ``(3,)``.
    """

    letters: Mapping[str, str]
    rotation: NDArray[np.float64]
    shift: NDArray[np.float64]


@cache
def normalizer_operations(number: int) -> tuple[NormalizerOperation, ...]:
    """Return the operations of a space group's normalizer, one of each coset of the group.

    They are those of the Bilbao server, continuous translations along polar axes aside; in monoclinic groups they are
    combined with other choices of the cell, as far as spglib's may be from the reduced one.
    """
    from pymatgen.core.operations import SymmOp

    listed = [SymmOp.from_xyz_str(text) for text in _tabulated_normalizers()[str(number)]["Coset Representative"]]
    found = [(operation.rotation_matrix, operation.translation_vector) for operation in listed]
    if 3 <= number <= 15:
        found = [(a @ b, a @ t + s) for a, s in found for b, t in _monoclinic_shears(number)]
    return tuple(
        NormalizerOperation(letter_exchange(number, rotation, shift), rotation, shift) for rotation, shift in found
    )


@cache
def letter_permutations(number: int) -> frozenset[tuple[str, ...]]:
    """Return all ways in which the affine normalizer of a space group exchanges its Wyckoff positions.

    They are those of the Bilbao server (doi:10.1524/zkri.2006.221.1.15), as PyXtal's tables list them, which cover the
    normalizer except for other choices of the cell in triclinic and monoclinic groups; those are computed here.

    Returns
    -------
    frozenset of tuple of str
        New letters of the positions in the order of :data:`~hybridcsp.structure.wyckoff.LETTERS`.
    """
    found = {tuple(line.split()) for line in _tabulated_normalizers()[str(number)]["Transformed WP"]}
    for vectors in _SHEARS.get("triclinic" if number <= 2 else "monoclinic" if number <= 15 else "", ()):
        rotation = np.linalg.inv(np.array(vectors, dtype=float)).T
        shift = _normalizing_shift(number, rotation)
        if shift is not None:
            exchange = letter_exchange(number, rotation, shift)
            found.add(tuple(exchange[letter] for letter in sorted(exchange, key=LETTERS.index)))
    generators = list(found)
    new = generators
    while new:
        closed = {
            tuple(outer[LETTERS.index(letter)] for letter in inner) for inner in new for outer in generators
        } - found
        found |= closed
        new = list(closed)
    return frozenset(found)


@cache
def letter_exchanges(number: int) -> tuple[Mapping[str, str], ...]:
    """Return the distinct exchanges of letters by the normalizer, new letters by old ones.

    In triclinic groups they are those that keep the cell: another choice of the cell is not among them.
    """
    if number > 2:
        return tuple(dict(zip(LETTERS, names, strict=False)) for names in letter_permutations(number))
    distinct = {tuple(sorted(o.letters.items())): o.letters for o in normalizer_operations(number)}
    return tuple(distinct.values())


@lru_cache(maxsize=1 << 16)
def canonical_letters(number: int, letters: tuple[str, ...]) -> tuple[str, ...]:
    """Return the first of the equivalent ways to name the Wyckoff positions that elements occupy.

    Parameters
    ----------
    number
        Space group.
    letters
        Letters of each element, the elements in a given order.
    """
    ways = (
        [sorted(LETTERS.index(names[letter]) for letter in own) for own in letters]
        for names in letter_exchanges(number)
    )
    return tuple("".join(LETTERS[index] for index in own) for own in min(ways))


def letter_exchange(number: int, rotation: NDArray[np.float64], shift: NDArray[np.float64]) -> Mapping[str, str]:
    """Return the Wyckoff letters, by old ones, to which ``x -> rotation @ x + shift`` leads."""
    positions = space_group(number, conventional=True).positions
    exchange = {}
    for position in positions:
        points = (position.rotations @ _GENERIC_POINT + position.translations) @ rotation.T + shift
        exchange[position.letter] = next(
            other.letter
            for other in positions
            if (other.multiplicity, other.freedom) == (position.multiplicity, position.freedom)
            and orbit_coordinates(number, other.letter, points) is not None
        )
    return exchange


@cache
def _monoclinic_shears(number: int) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]:
    """Return the changes of the cell in the plane across the unique axis that leave a monoclinic group as it is."""
    found = []
    for a, b, c, d in product(range(-2, 3), repeat=4):
        if abs(a * d - b * c) != 1:
            continue
        rotation = np.linalg.inv(np.array([[a, 0, b], [0, 1, 0], [c, 0, d]], dtype=float)).T
        shift = _normalizing_shift(number, rotation)
        if shift is not None:
            found.append((rotation, shift))
    return tuple(found)


def _normalizing_shift(number: int, rotation: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the first translation by quarters with which a rotation carries a group into itself, if there is one.

    One is enough: the others are reached from it by the translations of the normalizer.
    """
    general = space_group(number, conventional=True).positions[0]
    rotations = rotation @ general.rotations @ np.linalg.inv(rotation)
    own = np.column_stack([general.rotations.reshape(-1, 9), general.translations])
    for quarters in product((0.0, 0.25, 0.5, 0.75), repeat=3):
        shift = np.array(quarters)
        translations = general.translations @ rotation.T + shift - rotations @ shift
        other = np.column_stack([rotations.reshape(-1, 9), translations])
        difference = own[:, None] - other[None]
        difference[..., 9:] -= np.rint(difference[..., 9:])
        if (np.abs(difference).max(axis=-1) < 1e-6).any(axis=0).all():
            return shift
    return None


@cache
def _tabulated_normalizers() -> Mapping[str, Any]:
    """Return PyXtal's table of the normalizers, by group number: operations, and how they exchange the letters."""
    # PyXtal's Group.get_alternatives reads this file anew for each group.
    return dict(json.loads(files("pyxtal").joinpath("database/wyckoff_sets.json").read_text(encoding="utf-8")))
