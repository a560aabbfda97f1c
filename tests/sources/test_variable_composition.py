"""The source that uses minima of other compositions: which become parents, and that it only works in systems."""

from collections import Counter
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from crystals import rutile

from hybridcsp import Search
from hybridcsp.archive.preferred import PreferredMinimum
from hybridcsp.archive.tallies import Tallies
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Cost
from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.operators.variable_composition import Substitution, Transmutation
from hybridcsp.sources.base import Context
from hybridcsp.sources.registry import DEFAULT_SOURCES, SOURCES
from hybridcsp.sources.variable_composition import PLACES, VariableCompositionSource, population

CU3AU = Problem("Cu3Au", formula_units=(1, 2))

CUAU = Atoms("CuAu", cell=[2.8, 2.8, 3.7], scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], pbc=True)

_ids = count(1)


def minimum(atoms, height, niche=None):
    """A minimum of some composition at a height above the hull, found by the candidate of ten times its id."""
    id_ = next(_ids)
    of = SimpleNamespace(id=id_, niche=niche or id_, found_by=SimpleNamespace(id=10 * id_))
    return PreferredMinimum(minimum=of, height=height, end=SimpleNamespace(atoms=atoms))


def archive(minima, candidates=()):
    """The archive of one composition in which nothing was found, in a system with some minima."""
    state = SimpleNamespace(preferred=list, candidates={}, relaxations=0, cost=Cost(), tallies=Tallies(), parts={})
    whole = SimpleNamespace(preferred_minima=lambda n=None: minima[:n], state=state)
    own = SimpleNamespace(preferred=list, candidates_of=lambda _: iter(candidates))
    return SimpleNamespace(whole=whole, state=own)


def proposals(minima, n=1, problem=CU3AU, seed=0, candidates=(), **options):
    context = Context(problem=problem, archive=archive(minima, candidates), rng=np.random.default_rng(seed))
    return VariableCompositionSource(problem, **options).propose(n, context)


def child(operator, parent):
    return SimpleNamespace(operator=operator, parents=(parent.minimum.found_by.id,), candidate=1)


def test_children_have_the_composition_of_the_problem_and_parents_of_others():
    minima = [minimum(bulk("Cu"), 0.0), minimum(bulk("Au"), 0.0), minimum(CUAU, 0.0)]
    known = {one.minimum.found_by.id for one in minima}
    made = proposals(minima, 20)
    assert len(made) == 20
    assert len({proposal.operator for proposal in made}) >= 3
    for proposal in made:
        assert CU3AU.units_of(proposal.atoms.numbers) in CU3AU.units
        assert proposal.parents
        assert set(proposal.parents) <= known
        assert proposal.cost.seconds > 0


def test_the_same_random_numbers_give_the_same_children():
    minima = [minimum(bulk("Cu"), 0.0), minimum(CUAU, 0.01)]
    first, second = proposals(minima, 5, seed=4), proposals(minima, 5, seed=4)
    assert [one.operator for one in first] == [one.operator for one in second]
    assert [one.atoms.positions.tobytes() for one in first] == [one.atoms.positions.tobytes() for one in second]


def test_without_minima_of_other_compositions_nothing_is_proposed():
    ordered = Atoms("Cu3Au", cell=[3.8] * 3, scaled_positions=[(0, 0, 0.5), (0, 0.5, 0), (0.5, 0, 0), (0.5, 0.5, 0.5)])
    ordered.pbc = True
    assert proposals([]) == []
    assert proposals([minimum(ordered, 0.0)]) == []


def test_in_the_archive_of_a_formula_nothing_is_proposed():
    context = Context(problem=CU3AU, archive=SimpleNamespace(), rng=np.random.default_rng(0))
    assert VariableCompositionSource(CU3AU).propose(1, context) == []


class TestParents:
    def test_low_minima_and_near_compositions_are_preferred(self):
        low, high, far = minimum(bulk("Cu"), 0.0), minimum(CUAU, 0.3), minimum(bulk("Au"), 0.0)
        made = proposals([low, far, high], 60, operators=[Transmutation()])
        counts = Counter(proposal.parents[0] for proposal in made)
        used = [counts[one.minimum.found_by.id] for one in (low, far, high)]
        assert used[0] > 30
        assert used[0] > used[1]
        assert used[0] > used[2]

    def test_pairs_are_those_between_which_the_composition_lies(self):
        minima = [minimum(bulk("Cu"), 0.0), minimum(CUAU, 0.0), minimum(bulk("Au"), 0.0), minimum(bulk("Al"), 0.0)]
        made = proposals(minima, 40, argument="composition-heredity")
        pairs = Counter(tuple(sorted(proposal.parents)) for proposal in made)
        aluminium = minima[3].minimum.found_by.id
        assert sum(n for pair, n in pairs.items() if aluminium not in pair) > 30

    def test_children_without_success_lower_the_weight(self):
        first, second = minimum(bulk("Cu"), 0.0), minimum(bulk("Cu", "bcc", a=2.9), 0.0)
        before = [child("transmutation", first)] * 80
        made = proposals([first, second], 20, candidates=before, operators=[Transmutation()])
        assert {proposal.parents for proposal in made} == {(second.minimum.found_by.id,)}

    def test_a_substitution_is_not_repeated(self):
        problem = Problem("Ti2O", formula_units=2)
        parent = minimum(rutile(), 0.0)
        assert len(proposals([parent], problem=problem, operators=[Substitution()])) == 1
        before = [child("substitution", parent)]
        assert proposals([parent], problem=problem, operators=[Substitution()], candidates=before) == []

    def test_each_composition_has_few_parents_of_different_niches(self):
        coppers = [minimum(bulk("Cu", a=3.6 + 0.01 * k), 0.01 * k) for k in range(10)]
        twin = minimum(CUAU, 0.2, niche=coppers[0].minimum.niche)
        gold = minimum(bulk("Au"), 0.5)
        chosen = population(archive([*coppers, twin, gold]).whole)
        assert chosen == [*coppers[:PLACES], gold]


class TestRegistration:
    def test_a_search_of_one_formula_is_refused(self, tmp_path):
        sources = ("random", "variable-composition")
        with pytest.raises(InputError, match="chemical system, such as Ti-O, and not of the formula TiO2"):
            Search("TiO2", sources=sources, calculator=None, directory=tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_it_is_no_default_source_of_formulas(self):
        assert "variable-composition" not in DEFAULT_SOURCES

    def test_its_argument_names_its_operators(self):
        source = SOURCES["variable-composition"].build(CU3AU, "substitution,transmutation")
        assert isinstance(source, VariableCompositionSource)
        with pytest.raises(UnknownNameError, match="did you mean 'transmutation'"):
            VariableCompositionSource(CU3AU, "transmutaton")

    def test_in_a_fixed_cell_nothing_is_proposed(self):
        fixed = Problem("CuAu", formula_units=1, cell=(2.8, 2.8, 3.7, 90, 90, 90))
        assert proposals([minimum(bulk("Cu"), 0.0)], problem=fixed) == []
