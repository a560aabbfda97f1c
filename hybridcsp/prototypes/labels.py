"""Names of prototypes: stoichiometry, space group and Wyckoff letters, the same for every description of a crystal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from itertools import groupby, permutations, product
from math import gcd
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.structure.symmetry import SYMPREC_LOOSE
from hybridcsp.structure.wyckoff import LETTERS, WyckoffPosition, space_group

#: Groups of the other hand: they have the same Wyckoff letters, at mirrored coordinates.
OTHER_HAND = {
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


@dataclass(frozen=True, order=True)
class Label:
    """A prototype without coordinates.

    A *slot* is what one element takes: a multiset of Wyckoff positions. Slots come in ascending order of their atoms,
    those with equal numbers in the order of their letters. Of all descriptions of a crystal that the affine normaliser
    of its space group makes equal (other origins, axes and cells), the label is the one with the first letters in
    the alphabet; of an enantiomorphic pair of groups, it is in the one with the lower number.

    Attributes
    ----------
    stoichiometry
        Atoms in each slot, as in a reduced formula.
    spacegroup
        Number of the space group.
    letters
        Wyckoff letters of each slot, a letter as often as the position is occupied.
    """

    stoichiometry: tuple[int, ...]
    spacegroup: int
    letters: tuple[str, ...]

    @property
    def units(self) -> int:
        """Number of reduced formula units in the primitive cell."""
        positions = _by_letter(self.spacegroup, False)
        return sum(positions[letter].multiplicity for letter in self.letters[0]) // self.stoichiometry[0]

    @property
    def freedom(self) -> int:
        """How many coordinates and shape parameters of the cell are free; volume and polar axes' origin aside."""
        positions = _by_letter(self.spacegroup, False)
        shape = {"triclinic": 5, "monoclinic": 3, "orthorhombic": 2, "tetragonal": 1, "hexagonal": 1, "cubic": 0}
        free = sum(positions[letter].freedom for letters in self.letters for letter in letters)
        group = space_group(self.spacegroup)
        # The trace of the mean of all rotations is the dimension of what none of them moves.
        polar = round(float(np.trace(group.positions[0].rotations.mean(axis=0))))
        return free - polar + shape[group.lattice_type]

    @cached_property
    def symmetries(self) -> tuple[tuple[int, ...], ...]:
        """Permutations of the slots that the label cannot tell apart, the identity among them."""
        used = "".join(sorted(set("".join(self.letters))))
        renamed = {
            tuple(_sorted(letters, names) for letters in self.letters) for names in _renamings(self.spacegroup, used)
        }
        return tuple(
            order for order in slot_orders(self.stoichiometry) if tuple(self.letters[slot] for slot in order) in renamed
        )

    def __str__(self) -> str:
        """Write it as AFLOW does, though slots come in our order: ``AB2_tP6_136_a_f``."""
        group = space_group(self.spacegroup)
        centring, lattice_type = group.symbol[0], group.lattice_type
        family = {"triclinic": "a", "monoclinic": "m", "orthorhombic": "o", "tetragonal": "t", "hexagonal": "h"}
        positions = _by_letter(self.spacegroup, True)
        atoms = sum(positions[letter].multiplicity for letters in self.letters for letter in letters)
        if centring == "R":
            atoms //= 3  # as AFLOW counts
        pearson = f"{family.get(lattice_type, 'c')}{'C' if centring in 'ABC' else centring}{atoms}"
        slots = "_".join(
            "".join(f"{n if n > 1 else ''}{letter}" for letter, n in _runs(letters)) for letters in self.letters
        )
        return f"{anonymous_formula(self.stoichiometry)}_{pearson}_{self.spacegroup}_{slots}"


def anonymous_formula(stoichiometry: Sequence[int]) -> str:
    """Write ``(1, 2)`` as ``AB2``."""
    return "".join(f"{chr(ord('A') + i)}{n if n > 1 else ''}" for i, n in enumerate(stoichiometry))


def reduced_counts(numbers: Sequence[int] | NDArray[np.int_]) -> dict[int, int]:
    """Atoms of each element (atomic numbers) in the reduced formula, the fewest first."""
    elements, counts = np.unique(np.asarray(numbers, dtype=int), return_counts=True)
    divisor = gcd(*counts.tolist())
    found = sorted(zip(counts.tolist(), elements.tolist(), strict=True))
    return {element: count // divisor for count, element in found}


def slot_orders(stoichiometry: Sequence[int]) -> list[tuple[int, ...]]:
    """All permutations of the slots among those with equal numbers of atoms, the identity first."""
    groups = [list(members) for _, members in groupby(range(len(stoichiometry)), key=stoichiometry.__getitem__)]
    return [sum(order, ()) for order in product(*(permutations(group) for group in groups))]


def identify(atoms: Atoms, symprec: float = SYMPREC_LOOSE) -> tuple[Label, tuple[int, ...]] | None:
    """Find the prototype of a crystal and which element (atomic number) is in each slot.

    Returns
    -------
    tuple or None
        ``None`` where spglib finds no consistent symmetry at this tolerance (Å).
    """
    found = standardised(atoms, symprec)
    return None if found is None else found[:2]


def standardised(atoms: Atoms, symprec: float) -> tuple[Label, tuple[int, ...], Atoms] | None:
    """Find the prototype of a crystal, the elements in its slots and its idealised primitive cell, or ``None``."""
    import spglib

    try:
        dataset = spglib.get_symmetry_dataset((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), symprec)
    except spglib.SpglibError:
        return None
    if dataset is None:
        return None
    # One letter for each orbit of the standard cell, where orbits are whole.
    numbers = np.asarray(dataset.std_types)
    positions = _by_letter(int(dataset.number), True)
    mapping = np.asarray(dataset.std_mapping_to_primitive)
    letter_of = dict(zip(np.asarray(dataset.mapping_to_primitive).tolist(), dataset.wyckoffs, strict=True))
    found: dict[tuple[int, str], int] = {}
    for number, primitive_atom in zip(numbers.tolist(), mapping.tolist(), strict=True):
        key = number, letter_of[primitive_atom]
        found[key] = found.get(key, 0) + 1
    sites: dict[int, str] = {}
    taken = ""
    for (number, letter), atoms_there in found.items():
        orbits, rest = divmod(atoms_there, positions[letter].multiplicity)
        fixed = not positions[letter].freedom
        if rest or (fixed and (orbits > 1 or letter in taken)):
            return None
        taken += letter * fixed
        sites[number] = sites.get(number, "") + letter * orbits
    _, first = np.unique(mapping, return_index=True)
    cell = space_group(int(dataset.number)).vectors @ dataset.std_lattice
    reduced = Atoms(numbers[first], positions=(dataset.std_positions @ dataset.std_lattice)[first], cell=cell, pbc=True)
    reduced.wrap()
    return *canonical(int(dataset.number), sites, reduced_counts(numbers)), reduced


def canonical(number: int, sites: Mapping[int, str], counts: Mapping[int, int]) -> tuple[Label, tuple[int, ...]]:
    """Return the label of a distribution of elements over Wyckoff positions, and the elements of its slots.

    Parameters
    ----------
    number
        Space group.
    sites
        Wyckoff letters by element.
    counts
        Atoms of each element in the reduced formula.
    """
    used = "".join(sorted(set("".join(sites.values()))))
    best = min(
        sorted((counts[z], _keys(_sorted(letters, names)), z) for z, letters in sites.items())
        for names in _renamings(number, used)
    )
    label = Label(
        stoichiometry=tuple(count for count, _, _ in best),
        spacegroup=OTHER_HAND.get(number, number),
        letters=tuple("".join(LETTERS[key] for key in keys) for _, keys, _ in best),
    )
    return label, tuple(z for _, _, z in best)


@cache
def letter_permutations(number: int) -> frozenset[tuple[str, ...]]:
    """All ways in which the affine normaliser of a space group exchanges its Wyckoff positions.

    They are the Bilbao server's (doi:10.1524/zkri.2006.221.1.15), as PyXtal carries them, which cover the normaliser
    but for other choices of the cell in triclinic and monoclinic groups; those are worked out here.

    Returns
    -------
    frozenset of tuple of str
        New letters of the positions in the order of :data:`LETTERS`.
    """
    found = {tuple(line.split()) for line in wyckoff_sets()[str(number)]["Transformed WP"]}
    for shear in _SHEARS.get("triclinic" if number <= 2 else "monoclinic" if number <= 15 else "", ()):
        found |= _of_transformation(number, np.array(shear, dtype=float))
    generators = list(found)
    new = generators
    while new:
        closed = {
            tuple(outer[LETTERS.index(letter)] for letter in inner) for inner in new for outer in generators
        } - found
        found |= closed
        new = list(closed)
    return frozenset(found)


def _of_transformation(number: int, vectors: NDArray[np.float64]) -> set[tuple[str, ...]]:
    """Exchange of letters by replaced cell vectors and an origin moved by quarters, where that normalises the group.

    One origin is enough: the others are reached from it by the translations of the normaliser.
    """
    positions = sorted(space_group(number, conventional=True).positions, key=lambda p: LETTERS.index(p.letter))
    general = max(positions, key=lambda p: p.multiplicity)
    to_new = np.asarray(np.linalg.inv(vectors).T, dtype=float)
    # A point without meaning but its being general: 1 in 10^6 of all points would mislead.
    point = np.array([0.1234567, 0.2718281, 0.3819660])
    for shift in product((0.0, 0.25, 0.5, 0.75), repeat=3):
        if not is_normalising(to_new, np.array(shift), general):
            continue
        images = [to_new @ (p.rotations[0] @ point + p.translations[0]) + shift for p in positions]
        return {tuple(_letter_of(image, positions) for image in images)}
    return set()


def is_normalising(rotation: NDArray[np.float64], shift: NDArray[np.float64], general: WyckoffPosition) -> bool:
    """Whether ``x -> rotation @ x + shift`` carries a group into itself.

    Parameters
    ----------
    rotation, shift
        Of coordinates in the conventional cell.
    general
        The group's general position in that cell.
    """
    rotations = rotation @ general.rotations @ np.linalg.inv(rotation)
    translations = general.translations @ rotation.T + shift - rotations @ shift
    own = np.column_stack([general.rotations.reshape(-1, 9), general.translations])
    other = np.column_stack([rotations.reshape(-1, 9), translations])
    difference = own[:, None] - other[None]
    difference[..., 9:] -= np.rint(difference[..., 9:])
    return bool((np.abs(difference).max(axis=-1) < 1e-6).any(axis=0).all())


def _letter_of(point: NDArray[np.float64], positions: Sequence[WyckoffPosition]) -> str:
    """Return the letter of the most special position that holds a point; they come in that order."""
    steps = np.array(list(product(range(-2, 3), repeat=3)))
    for position in sorted(positions, key=lambda p: p.freedom):
        for rotation, translation in zip(position.rotations, position.translations, strict=True):
            across = np.eye(3) - rotation @ np.linalg.pinv(rotation)
            apart = (point - translation + steps) @ across.T
            if (np.abs(apart).max(axis=1) < 1e-6).any():
                return position.letter
    raise AssertionError("the general position holds every point")


@cache
def wyckoff_sets() -> Mapping[str, Any]:
    """Operations of the normalisers and how they exchange the Wyckoff positions: PyXtal's table, by group number."""
    # PyXtal's Group.get_alternatives reads this file anew for each group.
    return dict(json.loads(files("pyxtal").joinpath("database/wyckoff_sets.json").read_text(encoding="utf-8")))


@lru_cache(maxsize=1 << 14)
def _renamings(number: int, used: str) -> tuple[Mapping[str, str], ...]:
    """Distinct new names of the letters in use."""
    indices = [LETTERS.index(letter) for letter in used]
    distinct = sorted({tuple(line[i] for i in indices) for line in letter_permutations(number)})
    return tuple(dict(zip(used, names, strict=True)) for names in distinct)


@cache
def _by_letter(number: int, conventional: bool) -> Mapping[str, WyckoffPosition]:
    return {position.letter: position for position in space_group(number, conventional=conventional).positions}


def _sorted(letters: str, names: Mapping[str, str]) -> str:
    return "".join(sorted((names[letter] for letter in letters), key=LETTERS.index))


def _keys(letters: str) -> tuple[int, ...]:
    return tuple(LETTERS.index(letter) for letter in letters)


def _runs(letters: str) -> list[tuple[str, int]]:
    return [(letter, len(list(run))) for letter, run in groupby(letters)]
