"""Evolution: whom it breeds, with what, and that all of it can be taken up again."""

import random
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from crystals import InlineBackend, ListSource, instant_relaxation, random_crystal, relaxed, rutile, what_happened
from deap import tools

from hybridcsp import Search
from hybridcsp.archive.basins import Basin
from hybridcsp.core.outcomes import Failed, FailureReason
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Cost
from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.operators import CALCULATOR_SOFT_MUTATION, OPERATORS, WeightedOperator
from hybridcsp.operators.displacement import CoordinateMutation, Rattle
from hybridcsp.operators.soft_mutation import SoftMutation
from hybridcsp.operators.strain import Strain
from hybridcsp.sources.base import Context
from hybridcsp.sources.evolution import EvolutionSource
from hybridcsp.sources.operator_shares import FLOOR
from hybridcsp.sources.population import KEPT, PLACES
from hybridcsp.sources.registry import SOURCES
from hybridcsp.sources.selection import Fitness, Individual, seeded_random, select_parents
from hybridcsp.sources.survivors import WARMEST, boltzmann_weights

PROBLEM = Problem("TiO2", formula_units=(1, 3), max_atoms=9)
LOOSE = Problem("TiO2", formula_units=(1, 4), distance_fraction=0.05, volume_per_atom=(5.0, 40.0))


def searched(directory, sources=("evolution",), runner=instant_relaxation, problem=PROBLEM, **options):
    return Search(
        problem, calculator=None, directory=directory, sources=sources, backend=InlineBackend(runner), **options
    )


def filled(directory, structures, energies, problem=LOOSE):
    """A search whose minima are these structures, and a source that has nothing to do with them."""
    levels = iter(energies)
    search = searched(
        directory,
        [ListSource(structures)],
        lambda job: replace(relaxed(job.candidate, next(levels), job.atoms), cost=Cost(force_calls=10)),
        problem,
    )
    search.run(relaxations=len(structures), refine=0)
    return search


def context(search, seed=0):
    return Context(problem=search.problem, archive=search.archive, rng=np.random.default_rng(seed))


def diverse(n, seed=0):
    rng = np.random.default_rng(seed)
    return [random_crystal("Ti2O4", 12, rng) for _ in range(n)]


_niches = count()


def individual(weight, niche=None):
    """An individual of a niche of its own unless it is given."""
    of = SimpleNamespace(niche=next(_niches) if niche is None else niche)
    return Individual(of, None, Fitness((weight,)))


def select(population, n, rng):
    return select_parents(population, n, rng, EvolutionSource(PROBLEM).toolbox)


def test_it_is_a_registered_source_whose_argument_names_operators():
    source = SOURCES["evolution"].build(PROBLEM, "heredity,strain")
    assert isinstance(source, EvolutionSource)
    assert set(source._operators) == {"heredity", "strain"}
    with pytest.raises(UnknownNameError, match="did you mean 'strain'"):
        EvolutionSource(PROBLEM, "heredity,strian")


class TestSupply:
    def test_alone_it_begins_with_random_crystals_and_then_breeds(self, tmp_path):
        search = searched(tmp_path)
        summary = search.run(relaxations=25, refine=0)
        assert summary.progress.relaxations == 25
        operators = [search.archive.candidate(i).operator for i in range(1, search.archive.candidates + 1)]
        assert operators[:4] == ["random"] * 4
        assert len(set(operators[4:]) - {"random"}) > 4

    def test_it_never_starves_where_nothing_ever_relaxes(self, tmp_path):
        def failing(job):
            return Failed(candidate=job.candidate, reason=FailureReason.OVERLAP)

        summary = searched(tmp_path, runner=failing).run(relaxations=8, refine=0)
        assert summary.progress.failed == 8

    def test_it_never_starves_where_all_ends_in_one_basin(self, tmp_path):
        summary = searched(tmp_path, runner=lambda job: relaxed(job.candidate, -3.0, rutile())).run(
            relaxations=8, refine=0
        )
        assert summary.progress.relaxations == 8

    def test_it_never_starves_where_no_operator_has_children(self, tmp_path):
        class Barren(Strain):
            def __call__(self, parents, problem, rng):
                return None

        search = filled(tmp_path, diverse(6), [-3.0 - 0.1 * k for k in range(6)])
        source = EvolutionSource(PROBLEM, operators=[WeightedOperator(Barren())])
        assert [proposal.operator for proposal in source.propose(3, context(search))] == ["random"] * 3

    def test_random_crystals_are_left_to_others_that_have_them(self, tmp_path):
        search = searched(tmp_path, ["evolution", "random"], allocation="equal")
        search.run(relaxations=40, refine=0)
        candidates = [search.archive.candidate(i) for i in range(1, search.archive.candidates + 1)]
        bred = [candidate for candidate in candidates if candidate.source == "evolution"]
        assert [candidate.source for candidate in candidates[:6]] == ["random"] * 6
        assert len(bred) > 10
        assert all(candidate.operator != "random" and candidate.proposal.parents for candidate in bred)

    def test_a_fifth_stays_random_where_others_bring_fewer_newcomers(self, tmp_path):
        search = filled(tmp_path, diverse(12), [-3.0 - 0.1 * k for k in range(12)])
        source = EvolutionSource(LOOSE, operators=[WeightedOperator(Strain())])
        made = Counter(proposal.operator for proposal in source.propose(100, context(search)))
        assert made.keys() == {"random", "strain"}
        assert 10 <= made["random"] <= 32

    def test_parents_are_the_candidates_that_reached_them_first(self, tmp_path):
        search = filled(tmp_path, diverse(6), [-3.0 - 0.1 * k for k in range(6)])
        known = {minimum.found_by.id for minimum in search.minima()}
        counts = {offer.operator.name: offer.operator.n_parents for offer in OPERATORS}
        for proposal in EvolutionSource(LOOSE).propose(30, context(search)):
            assert set(proposal.parents) <= known
            assert len(set(proposal.parents)) == counts.get(proposal.operator, 0)


class TestPopulation:
    def test_relatives_of_one_structure_cannot_fill_it(self, tmp_path):
        rng = np.random.default_rng(1)
        family = []
        for k in range(12):
            relative = rutile(u=0.305 + 0.008 * (k % 4), c=2.96 + 0.1 * (k // 4))
            relative.rattle(0.02, rng=rng)
            family.append(relative)
        family.append(rutile().repeat((1, 1, 2)))
        family[-1].rattle(0.05, rng=rng)
        others = diverse(6)
        energies = [-9.0 + 0.02 * k for k in range(len(family))] + [-7.0 + 0.1 * k for k in range(6)]
        search = filled(tmp_path, family + others, energies)
        assert search.archive.number_of_minima > 14
        population = EvolutionSource(LOOSE).population(search.archive)
        members = [individual.minimum.enthalpy_per_atom for individual in population]
        assert members[0] == pytest.approx(-9.0)
        assert sum(level < -8 for level in members) <= 2 * PLACES
        assert sum(level > -8 for level in members) >= 3

    def test_the_better_weigh_more_and_crowds_share(self, tmp_path):
        near = rutile(u=0.312)
        search = filled(tmp_path, [rutile(), near, *diverse(4)], [-9.0, -8.98, -9.0, -8.5, -8.0, -7.5])
        weights = {
            individual.minimum.found_by.id: individual.fitness.values[0]
            for individual in EvolutionSource(LOOSE).population(search.archive)
        }
        assert weights[3] > weights[4] > weights[5] > weights[6]
        assert weights[1] < weights[3]  # of the same enthalpy, but with a neighbour

    def test_a_parent_without_successful_children_grows_old(self, tmp_path):
        best, *rest = diverse(6)
        children = diverse(10, seed=3)

        class Parented(ListSource):
            name = "evolution"

            def propose(self, n, context):
                chosen = super().propose(n, context)
                return [replace(proposal, parents=(1,) if self.next >= 6 else ()) for proposal in chosen]

        levels = iter([-9.0, -8.9, -8.8, -8.7, -8.6, -8.5] + [-5.0] * 9 + [-9.1])
        search = searched(
            tmp_path,
            [Parented([best, *rest, *children])],
            lambda job: relaxed(job.candidate, next(levels), job.atoms),
            LOOSE,
        )

        def weight():
            population = EvolutionSource(LOOSE).population(search.archive)
            chances = {individual.minimum.found_by.id: individual.fitness.values[0] for individual in population}
            return chances[1] / chances[2]

        search.run(relaxations=6, refine=0)
        young = weight()
        search.run(relaxations=15, refine=0)
        old = weight()
        assert old < 0.6 * young
        search.run(relaxations=16, refine=0)  # a child that beats its parent
        assert weight() > old

    def test_weights_of_energies(self):
        assert boltzmann_weights([]) == []
        assert boltzmann_weights([-3.0]) == [1.0]
        assert boltzmann_weights([0.0, 0.01, 0.1]) == pytest.approx([1, 1 / np.e, np.exp(-10)])

    def test_high_minima_rarely_breed_even_if_most_are_high(self):
        weights = boltzmann_weights([0.0, 0.2, 0.3, 0.4, 0.5])
        assert weights[1] == pytest.approx(np.exp(-0.2 / WARMEST))
        assert sum(weights[1:]) < 0.01

    def test_the_worst_have_no_children(self, tmp_path):
        search = filled(tmp_path, diverse(20), [-9.0 + 0.1 * k for k in range(20)])
        population = EvolutionSource(LOOSE).population(search.archive)
        assert len(population) == KEPT * 20
        assert max(one.minimum.enthalpy_per_atom for one in population) == pytest.approx(-9.0 + 0.1 * 11)

    def test_often_visited_niches_lose_weight(self, tmp_path):
        crystals = diverse(7)
        energies = [-9.0, -9.0, -8.9, -8.89, -8.88, -8.87, -8.86]

        def landscape(job):
            first = job.candidate.id - 1 if job.candidate.id <= 7 else 0
            return relaxed(job.candidate, energies[first], crystals[first])

        search = searched(tmp_path, [ListSource([*crystals, *diverse(6, seed=5)])], landscape, LOOSE)
        search.run(relaxations=7, refine=0)
        once = [one.fitness.values[0] for one in EvolutionSource(LOOSE).population(search.archive)]
        search.run(relaxations=13, refine=0)
        often = [one.fitness.values[0] for one in EvolutionSource(LOOSE).population(search.archive)]
        assert often[0] / often[1] < 0.5 * once[0] / once[1]

    def test_children_of_other_sources_do_not_age_a_parent(self, tmp_path):
        """A displaced copy that falls back tells nothing of what evolution can make of its parent."""

        class Shaking(ListSource):
            def propose(self, n, context):
                chosen = super().propose(n, context)
                return [replace(proposal, parents=(1,) if self.next >= 6 else ()) for proposal in chosen]

        levels = iter([-9.0, -8.99, -8.98, -8.97, -8.96, -8.95] + [-5.0] * 8)
        search = searched(
            tmp_path,
            [Shaking([*diverse(6), *diverse(8, seed=3)])],
            lambda job: relaxed(job.candidate, next(levels), job.atoms),
            LOOSE,
        )
        search.run(relaxations=6, refine=0)
        before = {one.minimum.id: one.fitness.values[0] for one in EvolutionSource(LOOSE).population(search.archive)}
        search.run(relaxations=14, refine=0)
        after = {one.minimum.id: one.fitness.values[0] for one in EvolutionSource(LOOSE).population(search.archive)}
        assert after[1] / after[2] == pytest.approx(before[1] / before[2], rel=0.3)


class TestSelection:
    def test_parents_are_drawn_in_proportion_and_differ(self):
        rng = np.random.default_rng(0)
        population = [individual(weight) for weight in (4.0, 2.0, 1.0, 1.0)]
        drawn = Counter()
        for _ in range(800):
            first, second = select(population, 2, rng)
            assert first is not second
            drawn[population.index(first)] += 1
        assert drawn[0] == pytest.approx(400, abs=60)
        assert drawn[1] == pytest.approx(200, abs=50)

    def test_parents_are_of_different_niches_where_possible(self):
        rng = np.random.default_rng(0)
        population = [individual(4.0, niche=-1), individual(4.0, niche=-1), individual(0.1, niche=-2)]
        for _ in range(20):
            assert {parent.minimum.niche for parent in select(population, 2, rng)} == {-1, -2}
            assert len(select(population, 3, rng)) == 3

    def test_another_selection_of_deap_can_be_registered(self):
        source = EvolutionSource(PROBLEM)
        source.toolbox.register("select", tools.selBest, k=1)
        population = [individual(weight) for weight in (1.0, 3.0, 2.0)]
        parents = select_parents(population, 2, np.random.default_rng(0), source.toolbox)
        assert parents == [population[1], population[2]]

    def test_the_global_random_numbers_are_left_as_they_were(self):
        random.seed(7)
        expected = [random.random() for _ in range(3)]
        random.seed(7)
        first = random.random()
        select([individual(1.0), individual(2.0)], 1, np.random.default_rng(0))
        with pytest.raises(RuntimeError), seeded_random(np.random.default_rng(0)):
            random.random()
            raise RuntimeError
        assert [first, random.random(), random.random()] == expected

    def test_the_global_random_numbers_do_not_matter(self):
        population = [individual(weight) for weight in (1.0, 1.1, 0.9, 1.2)]
        picks = []
        for seed in (1, 2):
            random.seed(seed)
            rng = np.random.default_rng(5)
            picks.append([population.index(select(population, 1, rng)[0]) for _ in range(10)])
        assert picks[0] == picks[1]


class TestOperators:
    def test_shares_move_to_operators_with_yield(self, tmp_path):
        """Children of one operator reach new lows, those of the others the highlands."""
        lows = iter(-9.0 - 0.01 * np.arange(100))

        def landscape(job):
            level = next(lows) if job.candidate.operator == "strain" else -5.0 - 0.001 * (job.candidate.id % 7)
            return replace(relaxed(job.candidate, level, job.atoms), cost=Cost(force_calls=50))

        source = EvolutionSource(PROBLEM, operators=[replace(offer, prior=1.0) for offer in OPERATORS])
        search = searched(tmp_path, [source], landscape)
        before = source.shares(search.archive)
        search.run(relaxations=60, refine=0)
        after = source.shares(search.archive)
        assert sum(before.values()) == pytest.approx(1)
        assert sum(after.values()) == pytest.approx(1)
        assert len(set(before.values())) == 1
        assert after["strain"] > 1.5 * before["strain"]
        assert after["strain"] == max(after.values())
        assert min(after.values()) >= FLOOR

    def test_only_the_first_minimum_of_a_niche_is_paid_for(self, tmp_path, monkeypatch):
        def landscape(job):
            level = -9.0 if job.candidate.operator == "strain" else -8.9
            return replace(relaxed(job.candidate, level - 1e-3 * job.candidate.id, job.atoms), cost=Cost(force_calls=9))

        source = EvolutionSource(PROBLEM, operators=[Strain(), Rattle()])
        search = searched(tmp_path, [source], landscape)
        search.run(relaxations=30, refine=0)
        paid = source.shares(search.archive)["strain"]
        monkeypatch.setattr(Basin, "niche", property(lambda basin: 1))
        assert paid > 0.6
        assert source.shares(search.archive)["strain"] < paid

    def test_an_operator_that_costs_more_for_the_same_earns_less(self, tmp_path):
        def landscape(job):
            calls = 400 if job.candidate.operator == "rattle" else 20
            return replace(instant_relaxation(job), cost=Cost(force_calls=calls))

        source = EvolutionSource(PROBLEM, operators=[Rattle(), CoordinateMutation(), Strain()])
        search = searched(tmp_path, [source], landscape)
        search.run(relaxations=60, refine=0)
        after = source.shares(search.archive)
        tallies = search.archive.state.tallies
        assert tallies["evolution", "rattle"].relaxed > 0
        assert after["rattle"] < after["coordinate-mutation"]

    def test_only_operators_that_can_do_something_are_offered(self):
        fixed = Problem("Cu", formula_units=4, cell=(3.6, 3.6, 3.6, 90, 90, 90))
        names = set(EvolutionSource(fixed)._operators)
        assert "heredity" in names
        assert names.isdisjoint({"permutation", "strain", "formula-units", "supercell", "symmetrisation"})

    def test_soft_mutations_of_one_parent_follow_one_mode_after_the_other(self, tmp_path):
        search = filled(tmp_path / "a", diverse(6), [-3.0 - 0.1 * k for k in range(6)])
        search.close()
        source = EvolutionSource(LOOSE, operators=[WeightedOperator(SoftMutation())])
        search = searched(tmp_path / "b", [ListSource(diverse(6)), source], problem=LOOSE)
        search.run(relaxations=40, refine=0)
        modes = {}
        for id_ in range(1, search.archive.candidates + 1):
            candidate = search.archive.candidate(id_)
            if candidate.operator == "soft-mutation":
                modes.setdefault(candidate.proposal.parents, []).append(candidate.proposal.tag["mode"])
        assert sum(map(len, modes.values())) > 10
        assert max(map(len, modes.values())) > 1
        assert all(own == list(range(len(own))) for own in modes.values())

    def test_modes_of_the_calculator_are_a_job_of_their_own_level(self, tmp_path):
        search = filled(tmp_path, diverse(6), [-3.0 - 0.1 * k for k in range(6)])
        source = EvolutionSource(LOOSE, operators=[CALCULATOR_SOFT_MUTATION])
        levels = {(p.operator, p.level, p.tag.get("mode")) for p in source.propose(12, context(search))}
        assert ("calculator-soft-mutation", "soft", 0) in levels
        assert "calculator-soft-mutation" not in {offer.operator.name for offer in OPERATORS}


class TestGivenOperators:
    def test_operator_without_weight_has_the_default_weight(self, tmp_path):
        search = filled(tmp_path, diverse(6), [-3.0 - 0.1 * k for k in range(6)])
        bare = EvolutionSource(LOOSE, operators=[Strain(), WeightedOperator(Rattle(), prior=3.0)])
        weighted = EvolutionSource(LOOSE, operators=[WeightedOperator(Strain()), WeightedOperator(Rattle(), prior=3.0)])
        assert bare.shares(search.archive) == weighted.shares(search.archive)
        assert {"strain", "rattle"} <= {proposal.operator for proposal in bare.propose(12, context(search))}

    @pytest.mark.parametrize(
        ("operators", "message"),
        [
            (["strain"], "operators = 'strain' cannot be used: every item of the list must be an instance"),
            ([Strain], "every item of the list must be an instance of a subclass"),
            ([lambda parents, problem, rng: parents[0]], "or a WeightedOperator"),
            ("strain", "it must be a list"),
            (Strain(), "it must be a list"),
            (
                [Strain(), WeightedOperator(Strain())],
                "operators = 'strain' cannot be used: two operators have this name",
            ),
        ],
    )
    def test_other_objects_are_refused(self, operators, message):
        with pytest.raises(InputError, match=message):
            EvolutionSource(LOOSE, operators=operators)


def interrupted_at(*relaxations):
    def interrupt(progress):
        if progress.relaxations in relaxations:
            raise KeyboardInterrupt

    return interrupt


class TestTakingUpAgain:
    def test_a_search_in_pieces_is_the_search_in_one(self, tmp_path):
        whole = searched(tmp_path / "whole")
        whole.run(relaxations=24, refine=0)
        whole.close()
        for stop in (7, 19, None):
            piece = searched(tmp_path / "pieces")
            with nullcontext() if stop is None else pytest.raises(KeyboardInterrupt):
                piece.run(relaxations=24, refine=0, on_progress=interrupted_at(stop))
            piece.close()
        assert what_happened(tmp_path / "whole") == what_happened(tmp_path / "pieces")

    def test_beside_another_source_too(self, tmp_path):
        sources = ("evolution", "random")
        whole = searched(tmp_path / "whole", sources)
        whole.run(relaxations=16, refine=0)
        whole.close()
        for stop in (9, None):
            piece = searched(tmp_path / "pieces", sources)
            with nullcontext() if stop is None else pytest.raises(KeyboardInterrupt):
                piece.run(relaxations=16, refine=0, on_progress=interrupted_at(stop))
            piece.close()
        assert what_happened(tmp_path / "whole") == what_happened(tmp_path / "pieces")

    def test_proposing_changes_nothing(self, tmp_path):
        search = filled(tmp_path, diverse(8), [-3.0 - 0.1 * k for k in range(8)])
        source = EvolutionSource(LOOSE)
        first = source.propose(3, context(search))
        source.propose(5, context(search, seed=1))
        again = source.propose(3, context(search))
        assert [a.atoms == b.atoms for a, b in zip(first, again, strict=True)] == [True] * 3


@pytest.mark.slow
def test_choosing_costs_little_after_many_relaxations(tmp_path):
    search = filled(tmp_path, diverse(120), [-3.0 - 0.001 * k for k in range(120)])
    source = EvolutionSource(LOOSE)
    source.population(search.archive)
    start = time.process_time()
    for _ in range(5):
        source.population(search.archive)
        source.shares(search.archive)
    seconds = (time.process_time() - start) / 5
    assert seconds < 0.05
