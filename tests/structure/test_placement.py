"""Random points on Wyckoff positions keep their distances and their symmetry."""

import numpy as np
import pytest
from ase import Atoms
from ase.data import atomic_numbers

from hybridcsp.core.problem import Problem
from hybridcsp.structure.placement import place, push_apart, random_cell, separations
from hybridcsp.structure.separations import usual_distances
from hybridcsp.structure.symmetry import spacegroup
from hybridcsp.structure.validity import shortest_violation
from hybridcsp.structure.wyckoff import space_group

PROBLEM = Problem("TiO2", formula_units=4)
USUAL = usual_distances(PROBLEM)
TITANIUM, OXYGEN = atomic_numbers["Ti"], atomic_numbers["O"]


def positions(number, letters):
    known = {position.letter: position for position in space_group(number).positions}
    return [known[letter] for letter in letters]


@pytest.mark.parametrize(
    ("number", "titanium", "oxygen"), [(14, "e", "ee"), (19, "a", "aa"), (62, "c", "cc"), (12, "ii", "iijj")]
)
def test_atoms_keep_their_usual_distances_and_the_group_is_kept(number, titanium, oxygen):
    sites = [(TITANIUM, p) for p in positions(number, titanium)] + [(OXYGEN, p) for p in positions(number, oxygen)]
    n_atoms = sum(position.multiplicity for _, position in sites)
    rng = np.random.default_rng(5)
    built = 0
    for _ in range(20):
        cell = random_cell(PROBLEM, space_group(number), n_atoms, rng)
        distances = separations(PROBLEM, USUAL, 1.0, abs(np.linalg.det(cell)) / n_atoms)
        placed = place(sites, cell, distances, rng)
        if placed is not None:
            atoms = Atoms(placed[0], scaled_positions=placed[1], cell=cell, pbc=True)
            assert sorted(atoms.numbers) == sorted(z for z, p in sites for _ in range(p.multiplicity))
            assert shortest_violation(atoms, distances) is None
            assert spacegroup(atoms) >= number
            built += 1
    assert built >= 5


def test_overlapping_atoms_are_pushed_apart_on_their_positions():
    (mirror,) = positions(62, "c")
    start = np.concatenate([mirror.rotations @ point + mirror.translations for point in ([0.1, 0, 0.1], [0.1, 0, 0.2])])
    numbers = np.repeat([TITANIUM, OXYGEN], 4)
    cell = np.diag([9.0, 4.0, 6.0])
    assert shortest_violation(Atoms(numbers, scaled_positions=start, cell=cell, pbc=True), USUAL) is not None
    found = push_apart(start, numbers, [mirror, mirror], cell, USUAL)
    assert shortest_violation(Atoms(numbers, scaled_positions=found, cell=cell, pbc=True), USUAL) is None
    assert np.abs(found - start).max() > 0.01
    for orbit in (found[:4], found[4:]):
        # All atoms are on the position of the first one: y is 1/4 or 3/4, and x and z are those of its orbit.
        point = np.array([orbit[0, 0], 0, orbit[0, 2]])
        assert orbit == pytest.approx(mirror.rotations @ point + mirror.translations, abs=1e-9)


def test_atoms_that_cannot_be_kept_apart_are_given_up():
    fixed = positions(221, "ab")
    cell = np.eye(3) * 2.0
    rng = np.random.default_rng(0)
    assert place([(TITANIUM, fixed[0]), (TITANIUM, fixed[1])], cell, USUAL, rng) is None
    general = positions(1, "a") * 4
    assert place([(TITANIUM, position) for position in general], np.eye(3) * 3.2, USUAL, rng) is None


def test_distances_shrink_with_a_small_volume_but_not_below_those_of_the_problem():
    wide, narrow = (separations(PROBLEM, USUAL, 1.0, volume) for volume in (20.0, 4.0))
    assert (wide == USUAL).all()
    assert narrow[OXYGEN, OXYGEN] < 0.9 * USUAL[OXYGEN, OXYGEN]
    own = Problem("TiO2", formula_units=4, min_distances={"Ti-O": 1.9})
    assert separations(own, usual_distances(own), 0.5, 10.0)[TITANIUM, OXYGEN] == 1.9
