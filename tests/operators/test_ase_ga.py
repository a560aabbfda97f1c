"""Adapter for operators of ase-ga: conversion of parents, random numbers and children."""

import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from crystals import rutile

from hybridcsp.core.problem import Problem
from hybridcsp.errors import InputError
from hybridcsp.operators.ase_ga import AseGaOperator, cut_and_splice, individual
from hybridcsp.operators.registry import operators_named
from hybridcsp.structure.validity import shortest_violation

PROBLEM = Problem("TiO2", formula_units=(1, 4))
ANATASE = Atoms(
    "TiO2TiO2",
    scaled_positions=[
        (0, 0, 0),
        (0.208, 0.208, 0),
        (-0.208, -0.208, 0),
        (0.75, 0.25, 0.5),
        (0.958, 0.458, 0.5),
        (0.542, 0.042, 0.5),
    ],
    cell=[[-1.89, 1.89, 4.75], [1.89, -1.89, 4.75], [1.89, 1.89, -4.75]],
    pbc=True,
)


class Noting:
    """What an OffspringCreator is to us; notes what it gets, and returns a copy of the first parent."""

    def __init__(self, child=lambda parents: parents[0].copy()):
        self.child = child
        self.made = []

    def make(self, parents, blmin, rng):
        self.blmin = blmin
        self.made.append((rng.randint(1000), rng.random()))
        return self

    def get_new_individual(self, parents):
        self.parents = parents
        return self.child(parents), "mutation: noting"


def test_parents_are_converted_for_ase_ga():
    noting = Noting()
    parents = [rutile(), rutile()[[5, 4, 3, 2, 1, 0]]]
    AseGaOperator(noting.make, name="noting", n_parents=2)(parents, PROBLEM, np.random.default_rng(0))
    first, second = noting.parents
    assert first.numbers.tolist() == second.numbers.tolist() == [8, 8, 8, 8, 22, 22]
    assert first.get_tags().tolist() == [0, 1, 2, 3, 4, 5]
    assert [parent.info["confid"] for parent in noting.parents] == [1, 2]
    assert first.info["key_value_pairs"] == {"extinct": 0}
    assert first.info["data"] == {}
    assert parents[0] == rutile()


def test_shortest_distances_are_those_of_the_problem():
    noting = Noting()
    AseGaOperator(noting.make, name="noting")([rutile()], PROBLEM, np.random.default_rng(0))
    assert set(noting.blmin) == {(8, 8), (8, 22), (22, 8), (22, 22)}
    assert noting.blmin[22, 8] == noting.blmin[8, 22] == PROBLEM.distance_table[8, 22]


def test_random_numbers_follow_the_search():
    noting = Noting()
    operator = AseGaOperator(noting.make, name="noting")
    for seed in (3, 3, 4):
        operator([rutile()], PROBLEM, np.random.default_rng(seed))
    assert noting.made[0] == noting.made[1] != noting.made[2]


def test_smaller_parents_are_repeated_if_allowed():
    small = rutile()[[0, 2, 3]]
    noting = Noting()
    operator = AseGaOperator(noting.make, name="noting", n_parents=2)
    operator([small, rutile()], PROBLEM, np.random.default_rng(0))
    assert [len(parent) for parent in noting.parents] == [6, 6]
    assert noting.parents[0].get_volume() == pytest.approx(2 * small.get_volume())
    narrow = Problem("TiO2", formula_units=(1, 2))
    assert operator([small, rutile().repeat((1, 1, 2))], narrow, np.random.default_rng(0)) is None


def test_children_that_violate_the_problem_are_rejected():
    def overlapping(parents):
        child = parents[0].copy()
        child.positions[0] = child.positions[1]
        return child

    for child in (lambda parents: None, overlapping, lambda parents: parents[0][:4]):
        operator = AseGaOperator(Noting(child).make, name="noting")
        assert operator([rutile()], PROBLEM, np.random.default_rng(0)) is None


class TestWithAseGa:
    @pytest.fixture(autouse=True)
    def _needs_it(self):
        pytest.importorskip("ase_ga")

    def test_cut_and_splice_makes_children_of_both_parents(self):
        (offer,) = operators_named("ase-ga-cut-and-splice")
        rng = np.random.default_rng(0)
        children = [offer.operator([rutile(), ANATASE], PROBLEM, rng) for _ in range(10)]
        made = [child for child in children if child is not None]
        assert len(made) > 3
        for child in made:
            assert child.info == {}
            assert sorted(child.numbers) == sorted(rutile().numbers)
            assert shortest_violation(child, PROBLEM.distance_table) is None
        again = offer.operator([rutile(), ANATASE], PROBLEM, np.random.default_rng(0))
        assert again == children[0]

    def test_mutations_of_ase_ga_work(self):
        from ase_ga.soft_mutation import SoftMutation
        from ase_ga.standardmutations import PermutationMutation, RattleMutation, StrainMutation
        from ase_ga.utilities import CellBounds

        creators = {
            "rattle": lambda parents, blmin, rng: RattleMutation(blmin, len(parents[0]), use_tags=True, rng=rng),
            "permutation": lambda parents, blmin, rng: PermutationMutation(
                len(parents[0]), use_tags=True, blmin=blmin, rng=rng
            ),
            "strain": lambda parents, blmin, rng: StrainMutation(blmin, CellBounds(), stddev=0.2, rng=rng),
            "soft": lambda parents, blmin, rng: SoftMutation(blmin, used_modes_file=None),
        }
        for name, make in creators.items():
            operator = AseGaOperator(make, name=name)
            child = next(filter(None, (operator([rutile()], PROBLEM, np.random.default_rng(k)) for k in range(20))))
            assert child != rutile(), name

    def test_individuals_go_into_its_database_and_its_population(self, tmp_path):
        from ase_ga.data import DataConnection, PrepareDB
        from ase_ga.population import Population

        PrepareDB(str(tmp_path / "ga.db"), simulation_cell=Atoms(pbc=True), stoichiometry=[8, 8, 8, 8, 22, 22])
        database = DataConnection(str(tmp_path / "ga.db"))
        for number, atoms in enumerate((rutile(), ANATASE)):
            one = individual(atoms, number)
            one.info["key_value_pairs"]["raw_score"] = float(number)
            database.add_relaxed_candidate(one)
        best, other = Population(database, 5, comparator=NeverAlike()).get_current_population()
        assert best.numbers.tolist() == other.numbers.tolist() == database.get_atom_numbers_to_optimize()
        assert best.info["key_value_pairs"]["raw_score"] == 1.0


class NeverAlike:
    def looks_like(self, first, second):
        return False


def test_missing_ase_ga_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "ase_ga.cutandsplicepairing", None)
    with pytest.raises(InputError, match="pip install ase-ga"):
        cut_and_splice()


def test_ase_ga_is_imported_only_when_used():
    script = "import sys, hybridcsp.sources.evolution, hybridcsp.operators.ase_ga; print('ase_ga' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "False"
