"""Names of prototypes: stoichiometry, space group and Wyckoff letters, the same for every description of a crystal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby, permutations, product
from math import gcd

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.structure.normalizer import ENANTIOMORPHS, letter_permutations
from hybridcsp.structure.orbits import find_orbits
from hybridcsp.structure.symmetry import SYMPREC_LOOSE
from hybridcsp.structure.wyckoff import LETTERS, space_group, wyckoff_position


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
        atoms = sum(wyckoff_position(self.spacegroup, letter).multiplicity for letter in self.letters[0])
        return atoms // self.stoichiometry[0]

    @property
    def freedom(self) -> int:
        """How many coordinates and shape parameters of the cell are free; volume and polar axes' origin aside."""
        shape = {"triclinic": 5, "monoclinic": 3, "orthorhombic": 2, "tetragonal": 1, "hexagonal": 1, "cubic": 0}
        free = sum(wyckoff_position(self.spacegroup, letter).freedom for letters in self.letters for letter in letters)
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
        atoms = sum(
            wyckoff_position(self.spacegroup, letter, conventional=True).multiplicity
            for letters in self.letters
            for letter in letters
        )
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
    found = standardized_prototype(atoms, symprec)
    return None if found is None else found[:2]


def standardized_prototype(atoms: Atoms, symprec: float) -> tuple[Label, tuple[int, ...], Atoms] | None:
    """Return the prototype of a crystal, the elements in its slots and its idealised primitive cell, or ``None``."""
    found = find_orbits(atoms, symprec)
    if found is None:
        return None
    letters: dict[int, str] = {}
    for orbit in found.orbits:
        letters[orbit.element] = letters.get(orbit.element, "") + orbit.letter
    return *canonical_label(found.spacegroup, letters, reduced_counts(found.numbers)), found.primitive_cell()


def canonical_label(number: int, sites: Mapping[int, str], counts: Mapping[int, int]) -> tuple[Label, tuple[int, ...]]:
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
        spacegroup=ENANTIOMORPHS.get(number, number),
        letters=tuple("".join(LETTERS[key] for key in keys) for _, keys, _ in best),
    )
    return label, tuple(z for _, _, z in best)


@lru_cache(maxsize=1 << 14)
def _renamings(number: int, used: str) -> tuple[Mapping[str, str], ...]:
    """Distinct new names of the letters in use."""
    indices = [LETTERS.index(letter) for letter in used]
    distinct = sorted({tuple(line[i] for i in indices) for line in letter_permutations(number)})
    return tuple(dict(zip(used, names, strict=True)) for names in distinct)


def _sorted(letters: str, names: Mapping[str, str]) -> str:
    return "".join(sorted((names[letter] for letter in letters), key=LETTERS.index))


def _keys(letters: str) -> tuple[int, ...]:
    return tuple(LETTERS.index(letter) for letter in letters)


def _runs(letters: str) -> list[tuple[str, int]]:
    return [(letter, len(list(run))) for letter, run in groupby(letters)]
