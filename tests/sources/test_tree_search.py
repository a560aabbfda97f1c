"""Tree search: which growths share a node, what a result is worth, what is completed next, and that runs resume."""

import math
from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from crystals import archive_of, followed_up, relaxed

from hybridcsp import Problem
from hybridcsp.core.outcomes import Failed, FailureReason, Rejected, RejectionReason
from hybridcsp.core.records import Candidate
from hybridcsp.errors import InputError
from hybridcsp.generators.base import Sample
from hybridcsp.generators.growing import GrowingGenerator, PartialCrystal
from hybridcsp.sources import search_tree
from hybridcsp.sources.base import Context, SourceStatus
from hybridcsp.sources.growth_policies import RandomPolicy
from hybridcsp.sources.registry import SOURCES
from hybridcsp.sources.search_tree import Growth, SearchTree
from hybridcsp.sources.tree_search import TreeSearchSource
from hybridcsp.structure.symmetry import spacegroup
from hybridcsp.structure.wyckoff import point_group_order, wyckoff_position

SALT = Problem("NaCl", formula_units=(1, 2))
ROCK_SALT = Growth(1, 48, 225, (("Na", "a"), ("Cl", "b")))


class RockSalt(GrowingGenerator):
    """A generator that knows one crystal, and counts what it is asked for."""

    name = "rock-salt"
    learns = False

    def __init__(self):
        self.asked = []

    def complete(self, partial, rng):
        self.asked += partial
        return [self._completed(one) for one in partial]

    def build(self, complete, rng):
        a = 2.8 * (1 + 0.05 * rng.random())
        cell = [[0, a, a], [a, 0, a], [a, a, 0]]
        return [Atoms("NaCl", scaled_positions=[[0, 0, 0], [0.5] * 3], cell=cell, pbc=True) for _ in complete]

    def _completed(self, one):
        if sum(one.contents.values()) != 2 or one.spacegroup not in (None, 225):
            return None
        return PartialCrystal(contents=one.contents, spacegroup=225, sites=ROCK_SALT.sites)

    def sample(self, requests, rng):
        return [Sample(atoms=atoms, request=n) for n, atoms in enumerate(self.build(requests, rng))]

    def fit(self, examples, **settings):
        raise NotImplementedError

    def save(self, folder):
        raise NotImplementedError

    @classmethod
    def load(cls, folder):
        raise NotImplementedError


class Trip:
    """A source and the search around it: proposals become candidates, and outcomes are what a test says."""

    def __init__(self, problem=SALT, **options):
        self.source = TreeSearchSource(problem, **options)
        self.problem = problem
        self.rng = np.random.default_rng(0)
        self.ids = 0

    def propose(self):
        context = Context(problem=self.problem, archive=archive_of([]), rng=self.rng)
        (proposal,) = self.source.propose(1, context)
        self.ids += 1
        candidate = Candidate(proposal=proposal, id=self.ids, source="tree-search")
        self.source.proposed([candidate])
        return candidate

    def relax(self, energy, new=True, **changes):
        """Relax a new candidate to a minimum of its own, which is the first of its niche or not."""
        candidate = self.propose()
        niche = {"minimum": candidate.id, "is_new_minimum": new, "niche": candidate.id if new else 1}
        self.source.observe([relaxed(candidate, energy, **(niche | changes))])
        return candidate

    @property
    def values(self):
        return self.source._values().tolist()


class TestGrowths:
    def test_the_order_of_orbits_does_not_matter(self):
        one = Growth(1, 8, 47, (("Na", "a"), ("Na", "i"), ("Cl", "q")))
        other = Growth(1, 8, 47, (("Cl", "q"), ("Na", "i"), ("Na", "a")))
        assert one.key == other.key

    def test_the_origin_does_not_matter(self):
        assert ROCK_SALT.key == Growth(1, 48, 225, (("Na", "b"), ("Cl", "a"))).key
        assert ROCK_SALT.key != Growth(1, 48, 225, (("Na", "a"), ("Cl", "c"))).key

    def test_each_step_adds_one_choice(self):
        assert [len(step.sites) for step in ROCK_SALT.steps()] == [0, 0, 0, 0, 1, 2]
        assert [step.spacegroup for step in ROCK_SALT.steps()] == [0, 0, 0, 225, 225, 225]


class TestTree:
    def test_it_grows_by_one_node_with_each_candidate(self):
        tree = SearchTree()
        sizes = [len(tree.nodes) for _ in range(8) if tree.add(ROCK_SALT)]
        assert sizes == [2, 3, 4, 5, 6, 6, 6, 6]

    def test_the_number_of_nodes_is_bounded(self, monkeypatch):
        monkeypatch.setattr(search_tree, "MOST_NODES", 3)
        tree = SearchTree()
        for _ in range(5):
            visited = tree.add(ROCK_SALT)
        assert len(tree.nodes) == len(visited) == 3
        assert tree.select(np.zeros(0), lambda growth: ROCK_SALT, {}) == ROCK_SALT

    def test_results_reach_all_nodes_of_the_path(self):
        tree = SearchTree()
        paths = [tree.add(ROCK_SALT) for _ in range(3)]
        for number, path in enumerate(paths):
            tree.end(path, number)
        assert [len(node.results) for node in tree.nodes.values()] == [3, 3, 2, 1]
        assert all(node.running == 0 for node in tree.nodes.values())

    @staticmethod
    def two_children(results):
        """Return a tree whose root has the children 1 and 2 (formula units), with these numbers of results."""
        tree = SearchTree()
        number = 0
        for units, count in enumerate(results, start=1):
            for _ in range(count):
                path = tree.add(Growth(units, 48, 225, ROCK_SALT.sites))
                tree.end(path, number)
                number += 1
        return tree

    def next_units(self, tree, values, failures=None):
        chosen = tree.select(
            np.array(values),
            lambda growth: Growth(growth.units or 1, 48, 225, ROCK_SALT.sites if growth.units else ()),
            failures or {},
        )
        return chosen.units

    def test_the_child_of_higher_values_is_completed(self):
        tree = self.two_children([4, 4])
        assert self.next_units(tree, [0.1] * 4 + [0.9] * 4) == 2
        assert self.next_units(tree, [0.9] * 4 + [0.1] * 4) == 1

    def test_the_bound_has_the_adaptive_constant(self):
        tree = self.two_children([12, 3])
        # Bounds are equal at this difference of the means; the spread of the values of the parent is 1.
        width = [math.sqrt(2) / 4 * math.sqrt(2 * math.log(15) / count) for count in (12, 3)]
        values = np.array([0.0, 1.0, *[0.5] * 10, *[0.5 - (width[1] - width[0])] * 3])
        for change, expected in ((0.02, 2), (-0.02, 1)):
            assert self.next_units(tree, np.concatenate([values[:12], values[12:] + change])) == expected

    def test_running_candidates_count_as_visits(self):
        tree = self.two_children([4, 4])
        values = [0.0, 1.0, 0.5, 0.5, 0.0, 1.0, 0.5, 0.5]
        assert self.next_units(tree, values) == 1
        tree.add(Growth(1, 48, 225, ROCK_SALT.sites))
        assert self.next_units(tree, values) == 2

    def test_what_cannot_be_built_is_left_for_now(self):
        tree = self.two_children([4, 4])
        values = [0.0, 1.0, 0.5, 0.5, 0.0, 1.0, 0.5, 0.5]
        assert self.next_units(tree, values, Counter({Growth(1).key: 1, Growth().key: 1})) == 2


class TestValues:
    def test_a_value_is_the_share_of_worse_results(self):
        trip = Trip()
        for energy in (-1.0, -3.0, -2.0, 40.0):
            trip.relax(energy)
        assert trip.values == [0.25, 0.75, 0.5, 0.0]

    def test_failures_and_known_niches_have_the_lowest(self):
        trip = Trip()
        trip.relax(-1.0)
        trip.relax(-5.0, new=False)
        trip.relax(-6.0, minimum=None, niche=None, converged=False)
        trip.source.observe([Failed(candidate=trip.propose(), reason=FailureReason.OVERLAP)])
        trip.source.observe([Rejected(candidate=trip.propose(), reason=RejectionReason.DUPLICATE)])
        assert trip.values == [0.8, 0.0, 0.0, 0.0, 0.0]

    def test_a_candidate_that_was_not_taken_is_forgotten(self):
        trip = Trip()
        trip.source.observe([Rejected(candidate=trip.propose(), reason=RejectionReason.NOT_TAKEN)])
        assert trip.values == []
        assert all(node.running == 0 for node in trip.source.tree.nodes.values())

    def test_a_minimum_that_becomes_suspect_loses_its_value(self):
        trip = Trip()
        trip.relax(-9.0)
        assert trip.values == [0.0]
        trip.relax(-1.0)
        assert trip.values == [0.5, 0.0]
        trip.relax(-0.5, suspects=(1,))
        assert trip.values == pytest.approx([0.0, 2 / 3, 1 / 3])

    def test_follow_ups_shift_values(self):
        trip = Trip()
        trip.relax(-2.0)
        trip.relax(-1.9)
        trip.source.observe_follow_ups([followed_up(1, -1.0), followed_up(2, -3.0)])
        assert trip.values == [0.0, 0.5]


class TestRandomPolicy:
    @pytest.mark.parametrize("seed", range(4))
    def test_completions_keep_their_beginning_and_have_the_contents(self, seed):
        problem = Problem("Ti2O3", formula_units=(1, 2))
        policy, rng = RandomPolicy(problem), np.random.default_rng(seed)
        growth = policy.complete(Growth(), rng)
        for step in growth.steps():
            completed = policy.complete(step, rng)
            assert step in completed.steps()
            counts = Counter()
            for symbol, letter in completed.sites:
                counts[symbol] += wyckoff_position(completed.spacegroup, letter).multiplicity
            assert counts == problem.contents(completed.units)
            assert completed.order == point_group_order(completed.spacegroup)

    def test_positions_without_free_coordinates_are_occupied_once(self):
        policy, rng = RandomPolicy(Problem("NaCl", formula_units=1)), np.random.default_rng(0)
        begun = Growth(1, 48, 225, (("Na", "a"),))
        assert {policy.complete(begun, rng).sites for _ in range(5)} == {(("Na", "a"), ("Cl", "b"))}

    def test_crystals_are_in_their_group(self):
        policy, rng = RandomPolicy(SALT), np.random.default_rng(0)
        atoms = policy.build(ROCK_SALT, 0, None, rng)
        assert spacegroup(atoms) == 225


class TestSource:
    def test_proposals_obey_the_problem(self):
        trip = Trip(Problem("NaCl", formula_units=2, spacegroups=(62, 129)))
        for _ in range(4):
            candidate = trip.propose()
            assert spacegroup(candidate.atoms) in (62, 129)
            assert candidate.atoms.get_chemical_formula() == "Cl2Na2"

    def test_a_fixed_cell_is_kept(self):
        cell = (4.0, 4.0, 5.0, 90.0, 90.0, 90.0)
        candidate = Trip(Problem("NaCl", formula_units=1, cell=cell)).propose()
        assert candidate.atoms.cell.cellpar() == pytest.approx(cell)

    def test_space_groups_that_hold_nothing_are_an_error(self):
        with pytest.raises(InputError, match="spacegroups"):
            TreeSearchSource(Problem("Na2Cl", formula_units=1, spacegroups=(230,)))

    @pytest.mark.parametrize("argument", ["flow", "nothing"])
    def test_other_generators_are_an_error(self, argument):
        with pytest.raises(InputError):
            SOURCES["tree-search"].build(SALT, argument)

    def test_replay_rebuilds_its_state(self):
        trip, seen = Trip(), []
        for number in range(9):
            candidate = trip.propose()
            ended = {"minimum": candidate.id, "niche": candidate.id, "is_new_minimum": number % 3 > 0}
            seen.append((candidate, relaxed(candidate, -1.0 - 0.1 * (number * 7 % 5), **ended)))
            trip.source.observe([seen[-1][1]])
        waiting = trip.propose()
        resumed = TreeSearchSource(SALT)
        for candidate, outcome in seen:
            resumed.proposed([candidate])
            resumed.observe([outcome])
        resumed.proposed([waiting])
        for seed in range(3):
            found = []
            for source in (trip.source, resumed):
                context = Context(problem=SALT, archive=archive_of([]), rng=np.random.default_rng(seed))
                found.append(source.propose(1, context)[0])
            assert found[0].tag == found[1].tag
            assert np.array_equal(found[0].atoms.positions, found[1].atoms.positions)


class TestGenerators:
    def test_a_generator_completes_and_builds(self):
        generator = RockSalt()
        trip = Trip(Problem("NaCl", formula_units=1), generator=generator)
        for _ in range(6):
            candidate = trip.relax(-1.0)
            assert spacegroup(candidate.atoms) == 225
            assert candidate.proposal.tag["sites"] == [["Na", "a"], ["Cl", "b"]]
        assert {len(one.sites) for one in generator.asked} == {0, 1, 2}
        assert {one.spacegroup for one in generator.asked} == {None, 225}

    def test_groups_are_those_of_the_order_and_of_the_problem(self):
        generator = RockSalt()
        trip = Trip(Problem("NaCl", formula_units=1, spacegroups=(216, 225)), generator=generator)
        trip.propose()
        trip.propose()
        assert {one.spacegroups for one in generator.asked if one.spacegroup is None} <= {(216, 225), (225,)}

    def test_nothing_is_proposed_if_the_generator_finds_nothing(self):
        source = TreeSearchSource(Problem("NaCl", formula_units=2), generator=RockSalt())
        context = Context(problem=SALT, archive=archive_of([]), rng=np.random.default_rng(0))
        assert source.propose(1, context) == []

    def test_a_fixed_cell_exhausts_it(self):
        problem = Problem("NaCl", formula_units=1, cell=(4.0, 4.0, 5.0, 90.0, 90.0, 90.0))
        assert TreeSearchSource(problem, generator=RockSalt()).status() is SourceStatus.EXHAUSTED
