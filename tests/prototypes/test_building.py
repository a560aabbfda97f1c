"""Crystals from prototypes: spglib says whether they are what was asked for."""

import numpy as np
import pytest
from ase.build import bulk
from crystals import rutile

from hybridcsp.core.problem import Problem
from hybridcsp.prototypes import Label, identify, shipped_table
from hybridcsp.prototypes.building import draw_crystal, substitute, supercell
from hybridcsp.structure.symmetry import spacegroup
from hybridcsp.structure.validity import shortest_violation

TITANIA = Problem("TiO2", formula_units=(1, 8), max_atoms=48)


@pytest.mark.parametrize(
    "label",
    [
        Label((1, 2), 136, ("a", "f")),
        Label((1, 2), 141, ("a", "e")),
        Label((1, 2), 12, ("a", "i")),
        Label((1, 2), 61, ("c", "cc")),
        Label((1, 2), 225, ("a", "c")),
        Label((1, 2), 164, ("a", "d")),
    ],
    ids=str,
)
def test_drawn_crystals_are_of_the_prototype(label):
    for seed in range(3):
        atoms = draw_crystal(label, (22, 8), TITANIA, label.units, np.random.default_rng(seed))
        assert TITANIA.units_of(atoms.numbers) == label.units
        assert spacegroup(atoms) == label.spacegroup
        assert identify(atoms, 0.01) == (label, (22, 8))
        assert shortest_violation(atoms, TITANIA.distance_table) is None
        low, high = TITANIA.volume_bounds
        assert low <= atoms.get_volume() / len(atoms) <= high


@pytest.mark.slow
def test_prototypes_of_the_shipped_table_can_be_drawn():
    """Those of one stoichiometry, popular and rare ones, in proportion to how often they occur."""
    problem = Problem("LiFeAs", formula_units=(1, 8), max_atoms=24)
    known = shipped_table().matching((1, 1, 1))
    rng = np.random.default_rng(0)
    weights = known.counts / known.counts.sum()
    drawn = tried = 0
    for row in rng.choice(len(weights), 25, p=weights):
        label = known.labels[known.which[row]]
        if label.units > 8:
            continue
        tried += 1
        atoms = draw_crystal(label, (3, 26, 33), problem, label.units, rng)
        if atoms is not None:
            drawn += 1
            assert identify(atoms, 0.01) == (label, (3, 26, 33))
            assert len(atoms) == 3 * label.units
    assert tried >= 15
    assert drawn >= 0.9 * tried


def test_substitution_keeps_sites_and_takes_the_expected_volume():
    problem = Problem("SnO2", formula_units=(1, 4))
    atoms = substitute(rutile(), {22: 50, 8: 8}, problem, 2)
    assert str(atoms.symbols) == "Sn2O4"
    assert spacegroup(atoms) == 136
    assert atoms.get_volume() / 6 == pytest.approx(problem.expected_volume_per_atom)
    assert atoms.get_scaled_positions() == pytest.approx(rutile().get_scaled_positions() % 1.0)


def test_crystals_with_close_atoms_are_expanded_to_the_required_distances():
    problem = Problem("NaCl", formula_units=1, min_distances={"Na-Cl": 3.0})
    atoms = substitute(bulk("MgO", "rocksalt", a=4.2), {12: 11, 8: 17}, problem, 1)
    assert atoms.get_all_distances(mic=True)[0, 1] == pytest.approx(3.0, abs=1e-4)
    assert shortest_violation(atoms, problem.distance_table) is None
    assert atoms.get_volume() / 2 > problem.expected_volume_per_atom


def test_substitution_returns_none_if_no_allowed_volume_is_large_enough():
    problem = Problem("NaCl", formula_units=1, min_distances={"Na-Cl": 4.2})
    assert substitute(bulk("MgO", "rocksalt", a=4.2), {12: 11, 8: 17}, problem, 1) is None
    assert draw_crystal(Label((1, 1), 225, ("a", "b")), (11, 17), problem, 1, np.random.default_rng(0)) is None


def test_bounds_of_the_cell_are_respected():
    elements = {12: 11, 8: 17}
    rock_salt = bulk("MgO", "rocksalt", a=4.2)
    assert substitute(rock_salt, elements, Problem("NaCl", formula_units=1, length_bounds=(3, 6)), 1) is not None
    assert substitute(rock_salt, elements, Problem("NaCl", formula_units=1, length_bounds=(5, 6)), 1) is None
    assert substitute(rock_salt, elements, Problem("NaCl", formula_units=1, angle_bounds=(80, 110)), 1) is None


@pytest.mark.parametrize("times", [2, 3, 4, 8])
def test_supercells_are_compact_and_the_same_crystal(times):
    primitive = bulk("NaCl", "rocksalt", a=5.6)
    larger = supercell(primitive, times)
    assert len(larger) == 2 * times
    assert larger.get_volume() == pytest.approx(primitive.get_volume() * times)
    assert identify(larger) == identify(primitive)
    assert larger.cell.lengths().max() < 2.3 * (larger.get_volume()) ** (1 / 3)


def test_crystal_is_inverted_if_only_the_enantiomorph_is_allowed():
    quartz = Label((1, 2), 152, ("a", "c"))
    for number in (152, 154):
        problem = Problem("SiO2", formula_units=3, spacegroups=(number,))
        atoms = draw_crystal(quartz, (14, 8), problem, 3, np.random.default_rng(1))
        assert spacegroup(atoms) == number


def test_draws_are_reproducible():
    label = Label((1, 2), 136, ("a", "f"))
    first, second = (draw_crystal(label, (22, 8), TITANIA, 2, np.random.default_rng(5)) for _ in range(2))
    assert first == second
    assert first != draw_crystal(label, (22, 8), TITANIA, 2, np.random.default_rng(6))
