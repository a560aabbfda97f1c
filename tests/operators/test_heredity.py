"""Heredity: children consist of slabs of both parents, whatever their sizes and shapes."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from crystals import anatase, rutile
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.core.problem import Problem
from hybridcsp.operators.heredity import Heredity
from hybridcsp.operators.splicing import PLANES, Slab, block, face, stack
from hybridcsp.similarity import same_structure
from hybridcsp.structure.separations import shortest_distances


def marked(atoms, mark):
    """A copy whose atoms carry a charge to be known by."""
    result = atoms.copy()
    result.set_initial_charges(np.full(len(atoms), mark, dtype=float))
    return result


def neighbours(atoms, index, n):
    distances = np.sort(atoms.repeat(3).get_distances(index, range(27 * len(atoms)), mic=True))
    return distances[1 : n + 1]


class TestChildren:
    def test_children_contain_atoms_of_both_parents(self):
        problem, rng = Problem("TiO2", formula_units=(2, 4)), np.random.default_rng(0)
        for _ in range(10):
            child = Heredity()([marked(rutile(), 1), marked(anatase(), 2)], problem, rng)
            assert child is not None
            share = (child.get_initial_charges() == 1).mean()
            assert 0.15 <= share <= 0.85

    def test_ordered_slabs_are_preferred_to_disordered_ones(self):
        """Half of one parent is disordered; its atoms carry another charge than those of the ordered half."""
        rng = np.random.default_rng(0)
        half = bulk("Cu", "fcc", a=3.6, cubic=True).repeat((1, 1, 2))
        crystal = bulk("Cu", "fcc", a=3.6, cubic=True).repeat((1, 1, 4))
        ordered = crystal.positions[:, 2] < half.cell[2, 2] - 0.1
        crystal.positions[~ordered] += rng.normal(0, 0.35, (int((~ordered).sum()), 3))
        crystal.set_initial_charges(np.where(ordered, 1.0, 2.0))
        other = marked(bulk("Cu", "bcc", a=2.9, cubic=True).repeat((2, 2, 2)), 3)
        problem = Problem("Cu", formula_units=16, cell=tuple(crystal.cell.cellpar()))
        other.set_cell(crystal.cell, scale_atoms=True)
        shares = {}
        for cuts in (1, 8):
            charges = []
            for _ in range(20):
                child = Heredity(cuts=cuts)([crystal, other], problem, rng)
                if child is not None:
                    charges += child.get_initial_charges().tolist()
            shares[cuts] = charges.count(1.0) / (charges.count(1.0) + charges.count(2.0))
        assert shares[8] > shares[1] + 0.1

    def test_slabs_are_pieces_of_the_parents(self):
        """In a fixed cell nothing is strained: atoms from one parent are to one another as they were there."""
        cell = rutile().cell
        problem, rng = Problem("TiO2", formula_units=2, cell=tuple(cell.cellpar())), np.random.default_rng(4)
        parents = [rutile(), rutile(u=0.25)]
        parents[1].rattle(0.2, seed=0)
        for k, parent in enumerate(parents):
            parent.set_initial_charges(10.0 * k + np.arange(6))
        children = [child for child in (Heredity()(parents, problem, rng) for _ in range(6)) if child is not None]
        assert children
        for child in children:
            assert np.allclose(child.cell.cellpar(), cell.cellpar())
            origins = child.get_initial_charges().astype(int)
            assert set(origins // 10) == {0, 1}
            for k, parent in enumerate(parents):
                own = np.flatnonzero(origins // 10 == k)
                before = parent.get_scaled_positions()[origins[own] % 10]
                moved = child.get_scaled_positions()[own] - before
                apart = moved - moved[0]
                assert np.allclose(apart, np.rint(apart), atol=1e-9)

    def test_local_environments_of_both_parents_survive(self):
        """Two metals that differ in their nearest distances: both are found in most children."""
        problem, rng = Problem("Cu", formula_units=16), np.random.default_rng(1)
        wide, narrow = (bulk("Cu", kind, a, cubic=True) for kind, a in (("fcc", 3.9), ("sc", 2.5)))
        parents = [wide.repeat((2, 2, 1)), narrow.repeat((4, 2, 2))]
        kept = []
        for _ in range(8):
            child = Heredity()([marked(parent, k) for k, parent in enumerate(parents)], problem, rng)
            scale = (child.get_volume() / len(child)) ** (1 / 3)
            for mark, parent in enumerate(parents):
                own = np.flatnonzero(child.get_initial_charges() == mark)
                expected = neighbours(parent, 0, 6).mean() / (parent.get_volume() / len(parent)) ** (1 / 3)
                kept.append(min(abs(neighbours(child, i, 6).mean() / scale / expected - 1) for i in own))
        assert np.median(kept) < 0.05

    def test_sizes_may_differ(self):
        problem, rng = Problem("TiO2", formula_units=(1, 6)), np.random.default_rng(2)
        big = rutile().repeat((1, 1, 3))
        sizes = set()
        for _ in range(12):
            child = Heredity()([marked(anatase(), 1), marked(big, 2)], problem, rng)
            if child is not None:
                sizes.add(len(child))
                assert len(set(child.get_initial_charges())) == 2
        assert sizes == {6, 18}

    def test_the_volume_lies_between_the_parents(self):
        problem, rng = Problem("TiO2", formula_units=2), np.random.default_rng(3)
        large = rutile(a=5.0, c=3.2)
        bounds = rutile().get_volume(), large.get_volume()
        for _ in range(6):
            child = Heredity()([rutile(), large], problem, rng)
            assert bounds[0] <= child.get_volume() <= bounds[1]


class TestStack:
    """One slab as thick as its block is the block; hence a slab of a parent on one of itself can be the parent."""

    @pytest.mark.parametrize("plane", PLANES)
    def test_a_whole_block_is_the_crystal(self, plane):
        atoms = anatase().copy()
        own = block(atoms, face(atoms, plane))
        child, _ = stack(
            [Slab(own, 0.3, 1.0)], {"Ti": 2, "O": 4}, np.zeros((119, 119)), np.random.default_rng(0), free=False
        )
        assert same_structure(child, atoms)

    @pytest.mark.parametrize("plane", PLANES[:4])
    def test_two_blocks_are_a_supercell(self, plane):
        own = block(anatase(), face(anatase(), plane))
        child, _ = stack(
            [Slab(own, 0.7, 2.0)], {"Ti": 4, "O": 8}, np.zeros((119, 119)), np.random.default_rng(0), free=False
        )
        assert len(child) == 12
        assert same_structure(child, anatase())

    def test_missing_atoms_far_from_the_cut_give_no_child(self):
        own = block(rutile(), face(rutile(), (0, 0, 1)))
        stacked = stack([Slab(own, 0.25, 0.2)], {"Ti": 6, "O": 6}, np.zeros((119, 119)), np.random.default_rng(0))
        assert stacked is None

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def test_faces_span_the_whole_lattice(self, seed):
        rng = np.random.default_rng(seed)
        atoms = Atoms("Cu", cell=np.eye(3) * 3 + rng.normal(0, 0.4, (3, 3)), pbc=True)
        for plane in PLANES:
            basis = face(atoms, plane)
            assert round(np.linalg.det(basis)) == 1
            assert (basis[:2] @ plane == 0).all()
            turned = block(atoms, basis)
            volume = np.linalg.det(turned.lateral) * turned.stacking[2]
            assert volume == pytest.approx(atoms.get_volume())

    def test_slabs_are_shifted_to_fit(self):
        """Atoms at a seam come no nearer than half of what they do in the parents, nearly always."""
        problem, rng = Problem("TiO2", formula_units=2), np.random.default_rng(5)
        wanted = shortest_distances([rutile(), anatase()])
        made = [Heredity()([rutile(), anatase()], problem, rng) for _ in range(10)]
        assert sum(child is not None for child in made) >= 9
        closest = [
            (shortest_distances([child])[np.ix_([8, 22], [8, 22])] / wanted[np.ix_([8, 22], [8, 22])]).min()
            for child in made
            if child is not None
        ]
        assert np.median(closest) > 0.7
