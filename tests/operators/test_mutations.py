"""Permutation, strain, displacements, formula units and supercells."""

import numpy as np
import pytest
import spglib
from ase.build import bulk
from ase.calculators.emt import EMT
from crystals import rutile
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate, Job, Proposal
from hybridcsp.operators.displacement import CoordinateMutation, Rattle, Shake, local_order
from hybridcsp.operators.formula_units import FormulaUnits
from hybridcsp.operators.permutation import Permutation
from hybridcsp.operators.strain import Strain, random_strain
from hybridcsp.operators.supercell import Supercell, supercells
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.similarity import compute_descriptors, same_structure
from hybridcsp.structure.symmetry import spacegroup

TIO2 = Problem("TiO2", formula_units=(1, 6), max_atoms=18)
SEEDS = st.integers(0, 2**32 - 1)


def spinel_like():
    """Three elements on the sites of a simple cubic lattice."""
    atoms = bulk("Po", "sc", 2.4).repeat(2)
    atoms.symbols = "Mg2Fe2O4"
    return atoms


class TestPermutation:
    @settings(max_examples=20, deadline=None)
    @given(SEEDS)
    def test_atoms_are_exchanged_and_sites_stay(self, seed):
        problem = Problem("MgFeO2", formula_units=2, distance_fraction=0.3)
        parent = spinel_like()
        child = Permutation()([parent], problem, np.random.default_rng(seed))
        order = np.lexsort(child.positions.round(6).T)
        before = np.lexsort(parent.positions.round(6).T)
        assert np.allclose(child.positions[order], parent.positions[before])
        changed = (child.numbers[order] != parent.numbers[before]).sum()
        assert changed >= 2
        assert changed % 2 == 0

    def test_similar_radii_are_swapped_most_often(self):
        problem, rng = Problem("MgFeO2", formula_units=2, distance_fraction=0.3), np.random.default_rng(0)
        parent = spinel_like()
        oxygen = 0
        for _ in range(60):
            child = Permutation()([parent], problem, rng)
            order, before = (np.lexsort(atoms.positions.round(6).T) for atoms in (child, parent))
            oxygen += ((child.numbers[order] == 8) != (parent.numbers[before] == 8)).any()
        assert 0 < oxygen < 30

    def test_one_element_has_nothing_to_swap(self):
        problem = Problem("Cu", formula_units=4)
        assert not Permutation().applies_to(problem)
        assert Permutation()([bulk("Cu", cubic=True)], problem, np.random.default_rng(0)) is None


class TestStrain:
    @settings(max_examples=15, deadline=None)
    @given(SEEDS)
    def test_volume_and_fractional_positions_stay_and_the_shape_changes(self, seed):
        parent = rutile()
        child = Strain(deviation=(0.1, 0.1))([parent], TIO2, np.random.default_rng(seed))
        assert child.get_volume() == pytest.approx(parent.get_volume())
        apart = child.get_scaled_positions() - parent.get_scaled_positions()
        assert np.allclose(apart, np.rint(apart), atol=1e-6)
        assert not np.allclose(child.cell.cellpar(), parent.cell.cellpar(), rtol=1e-3)

    def test_strains_are_symmetric_with_the_given_deviation(self):
        rng = np.random.default_rng(0)
        strains = np.array([random_strain(0.2, rng) - np.eye(3) for _ in range(2000)])
        assert np.allclose(strains, strains.transpose(0, 2, 1))
        assert strains[:, [0, 1, 2], [0, 1, 2]].std() == pytest.approx(0.2, rel=0.05)
        assert strains[:, 0, 1].std() == pytest.approx(0.1, rel=0.1)

    def test_a_fixed_cell_is_not_strained(self):
        problem = Problem("TiO2", formula_units=2, cell=tuple(rutile().cell.cellpar()))
        assert not Strain().applies_to(problem)
        assert Strain()([rutile()], problem, np.random.default_rng(0)) is None


class TestDisplacements:
    def test_rattling_moves_atoms_by_its_deviation(self):
        operator, rng, parent = Rattle(deviation=(0.05, 0.05)), np.random.default_rng(0), rutile()
        length = (parent.get_volume() / 6) ** (1 / 3)
        moves = []
        for _ in range(40):
            child = operator([parent], TIO2, rng)
            apart = child.get_scaled_positions() - parent.get_scaled_positions()
            moves.append((apart - np.rint(apart)) @ parent.cell.array)
        expected = 0.05 * length * np.sqrt(5 / 6)  # of six atoms, the mean is taken out
        assert np.std(moves) == pytest.approx(expected, rel=0.12)

    def test_shake_leaves_a_saddle_point_and_returns_to_a_minimum(self, monkeypatch):
        """Simple cubic copper stays so if the worker does not leave saddle points; face-centred copper is lower."""
        monkeypatch.setattr("hybridcsp.relaxation.relax.is_symmetric", lambda atoms: False)
        relax = Relaxer(calculator=EMT())()
        problem, rng = Problem("Cu", formula_units=2), np.random.default_rng(0)

        def relaxed(atoms):
            candidate = Candidate(proposal=Proposal(atoms=atoms, operator="test"), id=1, source="test")
            return relax(Job(candidate=candidate, atoms=atoms))

        start = bulk("Cu", "sc", a=2.4).repeat((2, 1, 1))
        saddle = relaxed(start)
        assert saddle.converged and saddle.cost.force_calls < 20
        below = relaxed(Shake()([saddle.atoms], problem, rng))
        assert below.enthalpy_per_atom < saddle.enthalpy_per_atom - 0.1
        minimum = relaxed(bulk("Cu", "fcc", a=3.6).repeat((2, 1, 1)))
        shaken = Shake()([minimum.atoms], problem, rng)
        assert relaxed(shaken).enthalpy_per_atom == pytest.approx(minimum.enthalpy_per_atom, abs=0.002)

    def test_shaking_strains_the_cell_unless_it_is_fixed(self):
        child = Shake()([rutile()], TIO2, np.random.default_rng(0))
        assert spacegroup(child) == 1
        assert not np.allclose(child.cell.cellpar(), rutile().cell.cellpar(), rtol=1e-3)
        fixed = Problem("TiO2", formula_units=2, cell=tuple(rutile().cell.cellpar()))
        child = Shake()([rutile()], fixed, np.random.default_rng(0))
        assert spacegroup(child) == 1
        assert np.allclose(child.cell.cellpar(), rutile().cell.cellpar())

    def test_displaced_atom_has_lowest_order_and_moves_most(self):
        parent = bulk("Cu", cubic=True).repeat((2, 1, 1))
        parent.positions[3] += (0.5, 0.3, 0.4)
        order = local_order(parent)
        assert order.argmin() == 3
        rng = np.random.default_rng(0)
        moves = np.zeros(len(parent))
        for _ in range(20):
            child = CoordinateMutation(deviation=(0.05, 0.1))([parent], Problem("Cu", formula_units=8), rng)
            apart = child.get_scaled_positions() - parent.get_scaled_positions()
            moves += np.linalg.norm((apart - np.rint(apart)) @ parent.cell.array, axis=1)
        assert moves.argmax() == 3
        assert moves[3] > 2 * np.median(moves)

    def test_local_order_is_the_same_for_equivalent_atoms_and_in_supercells(self):
        atoms = rutile()
        order = local_order(atoms)
        assert np.ptp(order[:2]) < 1e-6
        assert np.ptp(order[2:]) < 1e-6
        assert local_order(atoms.repeat((1, 1, 2))) == pytest.approx(np.tile(order, 2))

    def test_crystals_are_more_ordered_than_their_rattled_copies(self):
        atoms = rutile().repeat((1, 1, 2))
        shaken = atoms.copy()
        shaken.rattle(0.2, seed=0)
        assert local_order(shaken).mean() < 0.8 * local_order(atoms).mean()


class TestFormulaUnits:
    def test_the_number_of_units_changes_and_the_density_stays(self):
        rng, sizes = np.random.default_rng(0), set()
        for _ in range(12):
            child = FormulaUnits()([rutile()], TIO2, rng)
            if child is not None:
                assert len(child) != 6
                sizes.add(len(child) // 3)
                density = child.get_volume() / len(child)
                assert density == pytest.approx(rutile().get_volume() / 6, rel=1e-6)
        assert len(sizes) >= 3
        assert any(size > 2 for size in sizes)

    def test_twice_a_parent_is_not_simply_its_supercell(self):
        problem, rng = Problem("TiO2", formula_units=(2, 4), min_atoms=6), np.random.default_rng(0)
        doubled = [
            child for child in (FormulaUnits()([rutile()], problem, rng) for _ in range(20)) if child is not None
        ]
        doubled = [child for child in doubled if len(child) == 12]
        assert doubled
        assert not any(same_structure(child, rutile()) for child in doubled)

    def test_shrinking_is_undone_growth_for_a_layered_crystal(self):
        """A stack of equal layers, one of which is removed, is a stack of equal layers."""
        layer = bulk("Cu", "sc", 2.5).repeat((1, 1, 3))
        layer.positions[1, 2] += 0.01
        problem, rng = Problem("Cu", formula_units=(2, 3)), np.random.default_rng(0)
        made = [FormulaUnits()([layer], problem, rng) for _ in range(20)]
        assert all(child is None or len(child) == 2 for child in made)
        assert any(child is not None and spacegroup(child, 0.1) == 221 for child in made)


class TestSupercell:
    def test_all_superlattices_of_a_size_are_known(self):
        """Their numbers are sums over divisors: OEIS A001001."""
        assert [len(supercells(n)) for n in range(1, 7)] == [1, 7, 13, 35, 31, 91]
        assert all(round(np.linalg.det(shape)) == 4 for shape in supercells(4))

    def test_children_are_distorted_multiples_of_the_parent(self):
        rng, parent = np.random.default_rng(0), rutile()
        own = compute_descriptors(parent).fingerprint
        for _ in range(8):
            child = Supercell(amplitude=(0.03, 0.04), deviation=0.01)([parent], TIO2, rng)
            assert len(child) in (12, 18)
            assert np.abs(compute_descriptors(child).fingerprint - own).max() < 0.3
            assert spacegroup(child) != 136

    def test_a_parent_that_is_itself_a_supercell_is_reduced_first(self):
        problem = Problem("TiO2", formula_units=4, max_atoms=12)
        child = Supercell()([rutile().repeat((2, 1, 1))], problem, np.random.default_rng(0))
        assert len(child) == 12

    def test_parent_is_primitive_if_spglib_fails(self, monkeypatch):
        def give_up(*_, **__):
            raise spglib.SpglibError("no symmetry")

        monkeypatch.setattr(spglib, "standardize_cell", give_up)
        assert len(Supercell()([rutile()], TIO2, np.random.default_rng(0))) in (12, 18)

    def test_no_child_if_no_multiple_is_allowed(self):
        problem = Problem("TiO2", formula_units=3)
        assert Supercell()([rutile()], problem, np.random.default_rng(0)) is None
