"""Crystals in the settings of subgroups of their space groups."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from crystals import quartz, random_crystal, rutile
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.core.problem import Problem
from hybridcsp.operators.subgroups import fitted, subgroups_of
from hybridcsp.similarity import same_structure
from hybridcsp.structure.symmetry import spacegroup
from hybridcsp.structure.wyckoff import space_group

CRYSTALS = {
    "rutile": (rutile(), Problem("TiO2", formula_units=2)),
    "quartz": (quartz(), Problem("SiO2", formula_units=3)),
    "rocksalt": (bulk("NaCl", "rocksalt", a=5.6), Problem("NaCl", formula_units=1)),
}


def rebuilt(view):
    """The crystal that a view describes."""
    vectors = space_group(view.number).vectors
    scaled = view.positions @ np.linalg.inv(vectors)
    return Atoms(view.atoms.numbers, cell=vectors @ np.linalg.cholesky(view.metric), scaled_positions=scaled, pbc=True)


@pytest.mark.parametrize("name", CRYSTALS)
def test_a_view_describes_the_whole_crystal_in_the_setting_of_the_tables(name):
    """Each orbit of the view is one orbit of a Wyckoff position in the table of the subgroup."""
    atoms, problem = CRYSTALS[name]
    subgroups = subgroups_of(atoms, problem)
    assert spacegroup(atoms) in subgroups.by_number or name == "quartz"
    for kinds in subgroups.by_number.values():
        view = subgroups.view(kinds[0])
        assert same_structure(rebuilt(view), atoms)
        operations = space_group(view.number, conventional=True).positions[0]
        for orbit in view.orbits:
            images = operations.rotations @ view.positions[orbit[0]] + operations.translations
            apart = images[:, None] - view.positions[orbit]
            centring = space_group(view.number).vectors
            apart = apart @ np.linalg.inv(centring)
            assert np.abs(apart - np.rint(apart)).max(axis=-1).min(axis=1).max() < 1e-5


@pytest.mark.parametrize("name", CRYSTALS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_equivalent_settings_describe_the_same_crystal(name, seed):
    atoms, problem = CRYSTALS[name]
    rng = np.random.default_rng(seed)
    subgroups = subgroups_of(atoms, problem)
    number = sorted(subgroups.by_number)[rng.integers(len(subgroups.by_number))]
    view = subgroups.draw_view(number, rng)
    stretched = np.diag(rng.uniform(2, 8, 3)) ** 2
    changed = fitted(view, stretched, rng)
    assert changed.number == number
    assert same_structure(rebuilt(changed), atoms)


def test_the_setting_resembles_the_other_cell():
    """A cell with its axes exchanged is turned back."""
    places = [(0.1, 0.2, 0.15), (0.9, 0.8, 0.85), (0.3, 0.7, 0.4), (0.7, 0.3, 0.6)]
    atoms = Atoms("Cu2Au2", cell=[3, 4, 9], scaled_positions=places, pbc=True)
    problem = Problem("CuAu", formula_units=2)
    subgroups = subgroups_of(atoms, problem)
    view = subgroups.draw_view(2, np.random.default_rng(0))
    other = np.diag([9.0, 3.0, 4.0]) ** 2
    found = fitted(view, other, np.random.default_rng(1)).metric
    assert np.sqrt(np.diag(found)) == pytest.approx([9, 3, 4], rel=0.2)


def test_crystals_without_symmetry_have_no_subgroups():
    atoms = random_crystal("Ti2O4", 12, np.random.default_rng(0))
    assert subgroups_of(atoms, Problem("TiO2", formula_units=2)).by_number == {}


def test_a_supercell_is_reduced_where_the_problem_allows_it():
    double = rutile().repeat((1, 1, 2))
    small = subgroups_of(double, Problem("TiO2", formula_units=(2, 4)))
    assert len(small.whole.atoms) == 6
    large = subgroups_of(double, Problem("TiO2", formula_units=4))
    assert large.whole is None
    assert large.by_number
    for kinds in large.by_number.values():
        assert len(large.view(kinds[0]).atoms) == 12
