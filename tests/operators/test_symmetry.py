"""Symmetry-keeping mutations and symmetrisation, against spglib and ASE."""

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal
from ase.spacegroup.symmetrize import prep_symmetry, refine_symmetry, symmetrize_rank1
from crystals import quartz, random_crystal, rutile

from hybridcsp.core.problem import Problem
from hybridcsp.operators.symmetry import (
    SubgroupMutation,
    SymmetricMutation,
    Symmetrisation,
    operations,
    symmetrised,
)
from hybridcsp.similarity import same_structure
from hybridcsp.structure.symmetry import spacegroup


def perovskite():
    return crystal(
        ["Ca", "Ti", "O"], [(0.5, 0.5, 0.5), (0, 0, 0), (0.5, 0, 0)], spacegroup=221, cellpar=[3.9] * 3 + [90] * 3
    )


def operations_of(atoms, symprec=1e-4):
    return spglib.get_symmetry((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), symprec)


def holds(atoms, rotation, translation, tolerance=1e-4):
    scaled = atoms.get_scaled_positions()
    apart = (scaled @ rotation.T + translation)[:, None] - scaled
    distances = np.linalg.norm((apart - np.rint(apart)) @ atoms.cell.array, axis=-1)
    distances[atoms.numbers[:, None] != atoms.numbers] = np.inf
    metric = atoms.cell.array @ atoms.cell.array.T
    return distances.min(axis=1).max() < tolerance and np.allclose(rotation.T @ metric @ rotation, metric, atol=1e-4)


PARENTS = {
    "rutile": (rutile(), Problem("TiO2", formula_units=2), 136),
    "quartz": (quartz(), Problem("SiO2", formula_units=3), 152),
    "supercell": (rutile().repeat((1, 1, 2)), Problem("TiO2", formula_units=4), 136),
}


class TestSymmetricMutation:
    @pytest.mark.parametrize("name", PARENTS)
    def test_all_operations_of_the_parent_are_kept(self, name):
        parent, problem, number = PARENTS[name]
        rng = np.random.default_rng(0)
        wanted = operations_of(parent)
        for _ in range(6):
            child = SymmetricMutation()([parent], problem, rng)
            assert child is not None
            assert len(operations_of(child)["rotations"]) >= len(wanted["rotations"])
            assert spacegroup(child, 1e-3) == number
            assert not same_structure(child, parent)

    def test_operations_keep_the_setting_of_the_parent(self):
        parent, rng = rutile(), np.random.default_rng(1)
        group = operations(parent)
        for _ in range(5):
            child = SymmetricMutation().mutated(parent, group, Problem("TiO2", formula_units=2), rng)
            for rotation, translation in zip(group.rotations, group.translations, strict=True):
                assert holds(child, rotation, translation)

    def test_no_children_if_only_the_volume_is_free(self):
        problem = Problem("NaCl", formula_units=1)
        assert SymmetricMutation()([bulk("NaCl", "rocksalt", 5.6)], problem, np.random.default_rng(0)) is None

    def test_with_a_fixed_cell_only_atoms_move(self):
        problem = Problem("TiO2", formula_units=2, cell=tuple(rutile().cell.cellpar()))
        child = SymmetricMutation()([rutile()], problem, np.random.default_rng(0))
        assert np.allclose(child.cell.cellpar(), problem.cell)
        assert spacegroup(child) == 136
        assert not np.allclose(child.get_scaled_positions(), rutile().get_scaled_positions(), atol=1e-3)

    def test_nearly_symmetric_parent_is_symmetrised(self):
        near = rutile()
        near.rattle(0.01, seed=0)
        assert spacegroup(near) != 136
        child = SymmetricMutation()([near], Problem("TiO2", formula_units=2), np.random.default_rng(0))
        assert spacegroup(child, 1e-3) == 136


@pytest.mark.parametrize("operator", [SymmetricMutation(), SubgroupMutation(), Symmetrisation()])
def test_no_children_if_spglib_fails(operator, monkeypatch):
    def give_up(*_, **__):
        raise spglib.SpglibError("no symmetry")

    monkeypatch.setattr(spglib, "get_symmetry_dataset", give_up)
    assert operator([rutile()], Problem("TiO2", formula_units=2), np.random.default_rng(0)) is None


class TestAverages:
    def test_symmetrised_structures_agree_with_ase(self):
        near = quartz()
        near.rattle(0.01, seed=1)
        near.set_cell(
            near.cell.array @ (np.eye(3) + 0.002 * np.random.default_rng(0).normal(size=(3, 3))), scale_atoms=True
        )
        expected = near.copy()
        refine_symmetry(expected, symprec=0.1)
        found, _ = symmetrised(near, 0.1)
        assert spacegroup(found, 1e-4) == spacegroup(expected, 1e-4) == 152
        assert same_structure(found, expected)
        assert np.abs(found.cell.cellpar() - expected.cell.cellpar()).max() < 0.05
        apart = found.get_scaled_positions() - near.get_scaled_positions()
        assert np.linalg.norm((apart - np.rint(apart)) @ near.cell.array, axis=1).max() < 0.1

    def test_averaged_displacements_agree_with_ase(self):
        atoms, rng = quartz(), np.random.default_rng(0)
        moves = rng.normal(size=(len(atoms), 3))
        cell = atoms.cell.array
        expected = symmetrize_rank1(cell, np.linalg.inv(cell), moves, *prep_symmetry(atoms, 1e-4))
        found = operations(atoms, 1e-4).average_displacements(moves @ np.linalg.inv(cell)) @ cell
        assert found == pytest.approx(expected, abs=1e-9)
        assert np.abs(found).max() > 1e-3

    def test_averaging_again_changes_nothing(self):
        near = rutile()
        near.rattle(0.01, seed=2)
        once, group = symmetrised(near)
        assert len(group) == 16
        twice, _ = symmetrised(once)
        assert np.allclose(once.cell.array, twice.cell.array, atol=1e-10)
        assert np.allclose(once.get_scaled_positions(), twice.get_scaled_positions(), atol=1e-10)

    def test_generated_subgroups_are_groups_whose_order_divides_that_of_the_group(self):
        group, rng = operations(perovskite()), np.random.default_rng(0)
        sizes = set()
        for _ in range(20):
            part = group.subgroup(rng.integers(len(group), size=2).tolist())
            sizes.add(len(part))
            assert len(group) % len(part) == 0
            keys = {rotation.tobytes() for rotation in part.rotations}
            assert all((a @ b).tobytes() in keys for a in part.rotations for b in part.rotations)
        assert len(sizes) > 3


class TestSubgroupMutation:
    def test_part_of_the_symmetry_is_broken_and_part_is_kept(self):
        problem, rng = Problem("CaTiO3", formula_units=1), np.random.default_rng(0)
        before = len(operations_of(perovskite())["rotations"])
        orders = []
        for _ in range(15):
            child = SubgroupMutation()([perovskite()], problem, rng)
            if child is not None:
                orders.append(len(operations_of(child, 1e-3)["rotations"]))
        assert len(orders) > 10
        assert all(order < before for order in orders)
        assert sum(order > 1 for order in orders) > len(orders) / 2

    def test_no_children_of_a_parent_without_symmetry(self):
        atoms = random_crystal("TiO2", 14, np.random.default_rng(0))
        problem = Problem("TiO2", formula_units=1, distance_fraction=0.05)
        assert SubgroupMutation()([atoms], problem, np.random.default_rng(0)) is None


class TestSymmetrisation:
    def test_distorted_crystal_is_symmetrised(self):
        distorted = rutile()
        distorted.rattle(0.08, seed=1)
        distorted.set_cell(distorted.cell.array @ np.diag([1.02, 0.99, 1.0]), scale_atoms=True)
        assert spacegroup(distorted, 0.1) != 136
        rng = np.random.default_rng(0)
        children = [Symmetrisation()([distorted], Problem("TiO2", formula_units=2), rng) for _ in range(8)]
        groups = [spacegroup(child) for child in children if child is not None]
        assert 136 in groups
        assert min(groups) > spacegroup(distorted, 0.1)

    def test_no_children_without_a_higher_symmetry(self):
        problem, rng = Problem("TiO2", formula_units=2), np.random.default_rng(0)
        assert Symmetrisation()([random_crystal("Ti2O4", 12, np.random.default_rng(5))], problem, rng) is None


def test_spglib_failures_print_nothing(capfd):
    positions = [
        *((0.23, 0.77, 0.82), (0.74, 0.21, 0.19), (0.26, 0.73, 0.21), (0.72, 0.26, 0.8)),
        *((0.28, 0.87, 0.32), (0.77, 0.45, 0.73), (0.66, 0.12, 0.69), (0.22, 0.52, 0.28)),
    ]
    cell = [(4.77, 0.15, 0.21), (0.14, 4.31, 0.07), (-0.57, 0.1, 7.52)]
    operations(Atoms("Rb2N2H4", scaled_positions=positions, cell=cell, pbc=True), 0.2)
    assert capfd.readouterr().err == ""
