"""Augmentation: further descriptions of the same crystals, for models that do not know which descriptions are equal.

None of the operations changes the crystal: only the choice of lattice vectors, orientation, origin, order of the atoms
and size of the cell. Properties per atom or of the material therefore stay as they are, and the energy of the cell
grows with the number of atoms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import permutations, product
from math import ceil

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.spatial.transform import Rotation

from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.generators.datasets import formula_of
from hybridcsp.prototypes.building import random_supercell
from hybridcsp.utils.checks import whole_number

#: Operation on a crystal: the function gets the crystal, the largest number of atoms and a random number generator.
Operation = Callable[[Atoms, int, np.random.Generator], Atoms]

# Signed permutation matrices of determinant 1: the exchanges and reversals of axes that keep a basis right-handed.
_SETTINGS = [
    matrix
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
    if round(np.linalg.det(matrix := np.eye(3, dtype=int)[list(order)] * np.array(signs)[:, None])) == 1
]


def exchange_axes(atoms: Atoms, max_atoms: int, rng: np.random.Generator) -> Atoms:
    """Return the crystal with its lattice vectors exchanged and reversed, in one of the 24 right-handed ways."""
    return _with_cell(atoms, _SETTINGS[int(rng.integers(len(_SETTINGS)))] @ atoms.cell.array)


def rotate(atoms: Atoms, max_atoms: int, rng: np.random.Generator) -> Atoms:
    """Return the crystal rotated in space at random."""
    turn = Rotation.random(random_state=rng).as_matrix()
    rotated = atoms.copy()
    rotated.set_cell(atoms.cell.array @ turn.T)
    rotated.positions = atoms.positions @ turn.T
    return rotated


def translate(atoms: Atoms, max_atoms: int, rng: np.random.Generator) -> Atoms:
    """Return the crystal with a random origin, all atoms inside the cell."""
    moved = atoms.copy()
    moved.positions = atoms.positions + rng.random(3) @ atoms.cell.array
    moved.wrap(eps=0.0)
    return moved


def permute(atoms: Atoms, max_atoms: int, rng: np.random.Generator) -> Atoms:
    """Return the crystal with the atoms of each element in random order; the sequence of the elements stays."""
    order = np.arange(len(atoms))
    for number in np.unique(atoms.numbers):
        places = np.flatnonzero(atoms.numbers == number)
        order[places] = rng.permutation(places)
    permuted = atoms[order]
    permuted.info = dict(atoms.info)
    return permuted


def repeat(atoms: Atoms, max_atoms: int, rng: np.random.Generator) -> Atoms:
    """Return a supercell drawn at random among all that have at most ``max_atoms``, the cell itself included."""
    times = int(rng.integers(1, max(1, max_atoms // len(atoms)) + 1))
    if times == 1:
        return atoms
    larger = random_supercell(atoms, times, rng)
    larger.info = dict(atoms.info)
    return larger


#: Operations by name, in the order in which they are applied.
OPERATIONS: Mapping[str, Operation] = {
    "supercells": repeat,
    "axes": exchange_axes,
    "rotations": rotate,
    "translations": translate,
    "permutations": permute,
}

#: Operations that are used unless others are asked for.
DEFAULT = ("axes", "rotations", "translations", "permutations")


def augment(
    crystals: Sequence[Atoms],
    per_composition: int,
    rng: np.random.Generator,
    *,
    operations: Iterable[str] = DEFAULT,
    max_atoms: int = 20,
    composition: Callable[[Atoms], str] = formula_of,
) -> Iterator[Atoms]:
    """Yield all crystals, each followed by copies, so that every composition has at least a number of them.

    The copies are spread evenly over the crystals of a composition. A composition that has enough crystals gets no
    copies, and none of its crystals is left out.

    Parameters
    ----------
    crystals
        Crystals.
    per_composition
        Number of crystals of each composition, copies included.
    rng
        Random number generator.
    operations
        Names of :data:`OPERATIONS`.
    max_atoms
        Largest number of atoms of a supercell.
    composition
        Function that returns the composition of a crystal; by default its reduced formula.

    Yields
    ------
    Atoms
        Crystals with ``crystal`` (number of the original from 0) and ``copy`` (0 for the original) in ``info``. Of the
        results of calculators, only the energy is kept.

    Raises
    ------
    InputError
        If an operation is not known, or a number is not valid.
    """
    whole_number("per_composition", per_composition, "a whole number from 1")
    whole_number("max_atoms", max_atoms, "a whole number from 1")
    chosen = list(operations)
    for name in chosen:
        if name not in OPERATIONS:
            raise UnknownNameError("operation", name, OPERATIONS)
    if not chosen:
        raise InputError("operations", "none", f"at least one of {', '.join(OPERATIONS)}")
    return _augmented(crystals, per_composition, rng, chosen, max_atoms, composition)


def _augmented(
    crystals: Sequence[Atoms],
    per_composition: int,
    rng: np.random.Generator,
    operations: Sequence[str],
    max_atoms: int,
    composition: Callable[[Atoms], str],
) -> Iterator[Atoms]:
    names = [composition(atoms) for atoms in crystals]
    members = Counter(names)
    seen: Counter[str] = Counter()
    for number, (atoms, name) in enumerate(zip(crystals, names, strict=True)):
        yield _marked(atoms.copy(), atoms, number, 0)
        missing = max(0, per_composition - members[name])
        # The first crystals of a composition get one copy more than the others if the division leaves a rest.
        copies = ceil(max(0, missing - seen[name]) / members[name])
        seen[name] += 1
        for copy in range(1, copies + 1):
            changed = atoms
            for operation in OPERATIONS:
                if operation in operations:
                    changed = OPERATIONS[operation](changed, max_atoms, rng)
            yield _marked(changed.copy(), atoms, number, copy)


def _marked(changed: Atoms, atoms: Atoms, number: int, copy: int) -> Atoms:
    changed.info = {**atoms.info, "crystal": number, "copy": copy}
    if atoms.calc is not None and "energy" in atoms.calc.results:
        energy = float(atoms.calc.results["energy"]) * len(changed) / len(atoms)
        changed.calc = SinglePointCalculator(changed, energy=energy)
    return changed


def _with_cell(atoms: Atoms, cell: np.ndarray) -> Atoms:
    """Return the crystal in another cell of the same volume, with all atoms inside the cell."""
    changed = atoms.copy()
    changed.set_cell(cell)
    changed.wrap(eps=0.0)
    return changed
