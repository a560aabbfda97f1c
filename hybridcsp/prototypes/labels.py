"""Labels of prototypes: stoichiometry, space group and Wyckoff letters, equal for all descriptions of a crystal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby, permutations, product
from math import gcd

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from hybridcsp.structure.normalizer import ENANTIOMORPHS, letter_permutations
from hybridcsp.structure.orbits import find_orbits
from hybridcsp.structure.symmetry import SYMPREC_LOOSE
from hybridcsp.structure.wyckoff import LETTERS, space_group, wyckoff_position


@dataclass(frozen=True, order=True)
class Label:
    """Prototype without coordinates.

    A *slot* is the multiset of Wyckoff positions that one element occupies. Slots are in ascending order of their
    numbers of atoms, those with equal numbers in the order of their letters. Among the descriptions of a crystal that
    are equivalent under the affine normalizer of its space group (other origins, axes and cells), the label has the
    first letters in the alphabet; of an enantiomorphic pair of groups, it is in the one with the lower number.

    Attributes
    ----------
    stoichiometry
        Number of atoms in each slot, as in a reduced formula.
    spacegroup
        Number of the space group.
    letters
        Wyckoff letters of each slot, repeated for positions that are occupied several times.
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
        """Number of free coordinates and shape parameters, without the volume and the origin along polar axes."""
        shape = {"triclinic": 5, "monoclinic": 3, "orthorhombic": 2, "tetragonal": 1, "hexagonal": 1, "cubic": 0}
        free = sum(wyckoff_position(self.spacegroup, letter).freedom for letters in self.letters for letter in letters)
        group = space_group(self.spacegroup)
        # The trace of the mean of all rotations is the dimension of the invariant space.
        polar = round(float(np.trace(group.positions[0].rotations.mean(axis=0))))
        return free - polar + shape[group.lattice_type]

    @cached_property
    def symmetries(self) -> tuple[tuple[int, ...], ...]:
        """Permutations of the slots that leave the label unchanged, including the identity."""
        used = "".join(sorted(set("".join(self.letters))))
        renamed = {
            tuple(_sorted(letters, names) for letters in self.letters) for names in _renamings(self.spacegroup, used)
        }
        return tuple(
            order for order in slot_orders(self.stoichiometry) if tuple(self.letters[slot] for slot in order) in renamed
        )

    def __str__(self) -> str:
        """Return the label in AFLOW's notation with slots in the order of this class: ``AB2_tP6_136_a_f``."""
        group = space_group(self.spacegroup)
        centring, lattice_type = group.symbol[0], group.lattice_type
        family = {"triclinic": "a", "monoclinic": "m", "orthorhombic": "o", "tetragonal": "t", "hexagonal": "h"}
        atoms = sum(
            wyckoff_position(self.spacegroup, letter, conventional=True).multiplicity
            for letters in self.letters
            for letter in letters
        )
        if centring == "R":
            atoms //= 3  # AFLOW counts the atoms of the primitive cell
        pearson = f"{family.get(lattice_type, 'c')}{'C' if centring in 'ABC' else centring}{atoms}"
        slots = "_".join(
            "".join(f"{n if n > 1 else ''}{letter}" for letter, n in _runs(letters)) for letters in self.letters
        )
        return f"{anonymous_formula(self.stoichiometry)}_{pearson}_{self.spacegroup}_{slots}"


def anonymous_formula(stoichiometry: Sequence[int]) -> str:
    """Return an anonymous formula: ``AB2`` for ``(1, 2)``."""
    return "".join(f"{chr(ord('A') + i)}{n if n > 1 else ''}" for i, n in enumerate(stoichiometry))


def reduced_counts(numbers: Sequence[int] | NDArray[np.int_]) -> dict[int, int]:
    """Return the reduced formula as numbers of atoms by atomic numbers, in ascending order."""
    elements, counts = np.unique(np.asarray(numbers, dtype=int), return_counts=True)
    divisor = gcd(*counts.tolist())
    found = sorted(zip(counts.tolist(), elements.tolist(), strict=True))
    return {element: count // divisor for count, element in found}


def reduced_formula(composition: Mapping[str, int]) -> dict[int, int]:
    """Return the reduced formula of numbers of atoms by symbol, as :func:`reduced_counts` does of atoms."""
    return reduced_counts([atomic_numbers[symbol] for symbol, n in composition.items() for _ in range(n)])


def slot_orders(stoichiometry: Sequence[int]) -> list[tuple[int, ...]]:
    """Return all permutations among slots with equal numbers of atoms, the identity first."""
    groups = [list(members) for _, members in groupby(range(len(stoichiometry)), key=stoichiometry.__getitem__)]
    return [sum(order, ()) for order in product(*(permutations(group) for group in groups))]


def identify(atoms: Atoms, symprec: float = SYMPREC_LOOSE) -> tuple[Label, tuple[int, ...]] | None:
    """Return the prototype of a crystal and the atomic numbers of the elements in its slots.

    Parameters
    ----------
    atoms
        Any cell of a crystal.
    symprec
        Tolerance of spglib in Å.

    Returns
    -------
    tuple or None
        ``None`` if spglib finds no consistent symmetry.
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
        Wyckoff letters by atomic number.
    counts
        Numbers of atoms in the reduced formula by atomic number.
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
    """Return the distinct mappings of the letters in use to equivalent ones."""
    indices = [LETTERS.index(letter) for letter in used]
    distinct = sorted({tuple(line[i] for i in indices) for line in letter_permutations(number)})
    return tuple(dict(zip(used, names, strict=True)) for names in distinct)


def _sorted(letters: str, names: Mapping[str, str]) -> str:
    return "".join(sorted((names[letter] for letter in letters), key=LETTERS.index))


def _keys(letters: str) -> tuple[int, ...]:
    return tuple(LETTERS.index(letter) for letter in letters)


def _runs(letters: str) -> list[tuple[str, int]]:
    return [(letter, len(list(run))) for letter, run in groupby(letters)]
