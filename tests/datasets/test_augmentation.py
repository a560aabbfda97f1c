"""Tests of augmentation."""

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from crystals import quartz, rutile

from hybridcsp.datasets.augmentation import OPERATIONS, augment
from hybridcsp.errors import InputError
from hybridcsp.similarity import STARTS, same_structure


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_changes_the_description_and_not_the_crystal(name):
    start, rng = quartz(), np.random.default_rng(3)
    copies = [OPERATIONS[name](start, 3 * len(start), rng) for _ in range(6)]
    for copy in copies:
        assert np.linalg.det(copy.cell.array) > 0
        assert copy.get_volume() / len(copy) == pytest.approx(start.get_volume() / len(start))
        assert same_structure(start, copy, STARTS)
    assert any(
        len(copy) != len(start)
        or not np.allclose(copy.cell.array, start.cell.array)
        or not np.allclose(copy.positions, start.positions)
        for copy in copies
    )


def test_all_operations_together_keep_the_crystal():
    for copy in augment([rutile()], 12, np.random.default_rng(0), operations=OPERATIONS, max_atoms=18):
        assert len(copy) in (6, 12, 18)
        assert same_structure(rutile(), copy, STARTS)


def test_compositions_are_filled_evenly_and_energies_grow_with_cells():
    first, second, other = rutile(), rutile(a=4.4), quartz()
    for atoms, energy in ((first, -54.0), (second, -53.0), (other, -70.0)):
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
        atoms.info["band_gap"] = 3.0
    made = list(augment([first, other, second], 5, np.random.default_rng(1), operations=["supercells"], max_atoms=12))
    numbers = [atoms.info["crystal"] for atoms in made]
    assert [numbers.count(n) for n in range(3)] == [3, 5, 2]
    for atoms in made:
        start = (first, other, second)[atoms.info["crystal"]]
        assert atoms.get_potential_energy() / len(atoms) == pytest.approx(start.get_potential_energy() / len(start))
        assert atoms.info["band_gap"] == 3.0
        if atoms.info["copy"] == 0:
            assert atoms == start


def test_full_compositions_get_no_copies():
    made = list(augment([rutile(), rutile(a=4.4)], 1, np.random.default_rng(0)))
    assert [atoms.info["copy"] for atoms in made] == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"per_composition": 0}, "per_composition = 0"),
        ({"operations": ["mirror"]}, "mirror"),
        ({"operations": []}, "at least one of"),
        ({"max_atoms": 0}, "max_atoms = 0"),
    ],
)
def test_invalid_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(InputError, match=message):
        augment([rutile()], **{"per_composition": 2, "rng": np.random.default_rng(0), **arguments})
