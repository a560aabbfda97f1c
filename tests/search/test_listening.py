"""Follow-up relaxations change the minima that become parents, starts, leaders and lessons in a search."""

import math
from collections import Counter

import numpy as np
import pytest
from crystals import InlineBackend, ListSource, random_crystal, relaxed

from hybridcsp import Problem, Search
from hybridcsp.archive.history import ModelUpdate, SourceCall
from hybridcsp.archive.niche_worths import FIRST_SCALE
from hybridcsp.core.outcomes import FollowUpOutcome
from hybridcsp.core.records import FOLLOW_UP
from hybridcsp.errors import InputError
from hybridcsp.retraining import Retraining
from hybridcsp.retraining.training_set import examples_from_minima
from hybridcsp.search.follow_up import FollowUp
from hybridcsp.sources.base import BaseSource, Context
from hybridcsp.sources.basin_hopping import BasinHoppingSource
from hybridcsp.sources.evolution import EvolutionSource
from hybridcsp.sources.shake import ShakeSource
from hybridcsp.sources.swarm import SwarmSource

TITANIA = Problem("TiO2", formula_units=2, distance_fraction=0.05, volume_per_atom=(5.0, 60.0))

#: Enthalpies of minima by the search: the first is the lowest.
ENERGIES = (-9.0, -8.95, -8.9, -8.85, -8.8, -8.75, -8.7)


@pytest.fixture
def search(tmp_path):
    """A search that found a minimum of each of these energies, in this order."""
    rng = np.random.default_rng(1)
    crystals = [random_crystal("Ti2O4", 12, rng) for _ in ENERGIES]
    energies = iter(ENERGIES)
    source = ListSource(crystals)
    source.name = "evolution"  # which counts the children that it has made itself
    with Search(
        TITANIA,
        calculator=None,
        directory=tmp_path,
        sources=[source],
        backend=InlineBackend(lambda job: relaxed(job.candidate, next(energies), job.atoms)),
    ) as found:
        found.run(relaxations=len(ENERGIES), refine=0)
        yield found


def follow(search, of, energy, atoms=None, number=1, sources=()):
    """Record that a follow-up relaxation of a minimum ended with an energy, and tell sources of it."""
    archive = search.archive
    candidate = archive.candidate(archive.state.basins[of].best.candidate)
    calculator = f"better {number}"
    end = relaxed(candidate, energy, atoms, level=FOLLOW_UP, calculator=calculator)
    outcome = FollowUpOutcome(of=of, number=number, spec=calculator, calculator=calculator, outcome=end)
    recorded = archive.record_follow_ups([outcome])
    for source in sources:
        source.observe_follow_ups(recorded)


def informed(source, search):
    """The source, after it was told of everything that the search has recorded."""
    for past in search.archive.history():
        if isinstance(past, FollowUpOutcome):
            source.observe_follow_ups([past])
        elif not isinstance(past, SourceCall | ModelUpdate):
            source.observe([past])
    return source


def context(search, seed=0):
    return Context(problem=search.problem, archive=search.archive, rng=np.random.default_rng(seed))


def parent(source: BaseSource, search: Search) -> int:
    """The minimum that the next proposal of a source is made from."""
    (proposal,) = source.propose(1, context(search))
    found = {minimum.best.candidate.id: minimum.id for minimum in search.minima()}
    return found[proposal.parents[-1]]


class TestPreferredMinima:
    def test_without_follow_ups_they_are_the_minima_of_the_search(self, search):
        preferred = search.archive.preferred_minima()
        assert [one.minimum for one in preferred] == search.archive.minima()
        assert [one.height for one in preferred] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
        assert all(one.end is one.minimum.best for one in preferred)

    def test_heights_by_follow_ups_take_the_place_of_heights_by_the_search(self, search):
        follow(search, 1, -20.0)
        follow(search, 3, -20.12)
        preferred = search.archive.preferred_minima(4)
        assert [one.minimum.id for one in preferred] == [3, 2, 1, 4]
        assert [one.height for one in preferred] == pytest.approx([0, 0.05, 0.12, 0.15])
        assert [one.end.level for one in preferred] == [FOLLOW_UP, "relax", FOLLOW_UP, "relax"]

    def test_sources_that_know_only_outcomes_find_the_same_heights(self, search):
        rng = np.random.default_rng(0)
        source = informed(ShakeSource(TITANIA), search)
        lowest = search.archive.best_enthalpy_per_atom
        for of, number in ((1, 1), (4, 1), (3, 1), (7, 1), (4, 2), (1, 2)):
            follow(search, of, -20.0 * number + rng.random(), number=number, sources=[source])
            for one in search.archive.preferred_minima():
                assert source._heights.shifted(one.minimum.best) == pytest.approx(lowest + one.height)


class TestEvolution:
    def weights(self, search):
        population = EvolutionSource(TITANIA).population(search.archive)
        return {one.minimum.id: one.fitness.values[0] for one in population}

    def test_minimum_that_is_put_high_loses_weight_and_one_that_is_preferred_gains(self, search):
        before = self.weights(search)
        assert max(before, key=before.get) == 1
        follow(search, 2, -20.0)
        follow(search, 5, -20.2)
        after = self.weights(search)
        assert max(after, key=after.get) == 5
        assert after[2] < after[3] < before[2]

    def test_children_are_made_of_the_structure_in_which_the_follow_up_ended(self, search):
        end = random_crystal("Ti2O4", 12, np.random.default_rng(9))
        follow(search, 2, -20.0, end)
        individual = next(one for one in EvolutionSource(TITANIA).population(search.archive) if one.minimum.id == 2)
        assert individual.end.atoms.positions == pytest.approx(end.positions)
        assert individual.minimum.best.atoms.positions != pytest.approx(end.positions)

    def test_a_child_is_a_success_if_it_is_lower_than_its_parent_by_these_heights(self, search):
        follow(search, 1, -20.0)
        follow(search, 6, -19.9)
        unsuccessful = self.weights(search)[1]
        follow(search, 6, -20.0)  # the last but one of the children of the first
        assert self.weights(search)[1] > 1.2 * unsuccessful


class TestBasinHopping:
    def test_walkers_start_at_preferred_minima(self, search):
        follow(search, 1, -20.0)
        follow(search, 4, -20.2)
        assert parent(informed(BasinHoppingSource(TITANIA), search), search) == 4

    def test_a_walker_leaves_a_minimum_more_easily_that_is_put_high(self, search):
        follow(search, 1, -20.0)
        follow(search, 2, -20.02)  # the first lies 0.02 above the best now, the second at the best
        tags = {}
        for id_ in (2, 1):
            source = informed(BasinHoppingSource(TITANIA), search)
            source._visited = {other for other in range(1, 8) if other != id_}
            (proposal,) = source.propose(1, context(search))
            tags[id_] = proposal.tag["enthalpy"]
        assert tags == pytest.approx({1: -8.98, 2: -9.0})


class TestSwarm:
    def test_new_particles_begin_at_preferred_minima(self, search):
        follow(search, 1, -20.0)
        follow(search, 6, -20.5)
        source = informed(SwarmSource(TITANIA), search)
        assert [one.minimum for one in source.swarms[2].unvisited()][:2] == [6, 2]

    def test_preferred_minimum_attracts_particles(self, search):
        follow(search, 1, -20.0)
        follow(search, 6, -20.5)
        source = informed(SwarmSource(TITANIA, "global"), search)
        first, second = source.swarms[2].unvisited()[:2]
        assert first.minimum == 6
        source.swarms[2].visited.add(6)
        assert second.minimum == 2
        (proposal,) = source.propose(1, context(search))
        assert proposal.parents == (second.candidate.id, first.candidate.id)


class TestShake:
    @pytest.fixture
    def source(self, search, monkeypatch):
        monkeypatch.setattr(ShakeSource, "_is_symmetric", lambda *_, **__: True)
        return informed(ShakeSource(TITANIA), search)

    def test_preferred_minimum_is_shaken_first(self, search, source):
        assert source._next().minimum == 1
        follow(search, 1, -20.0, sources=[source])
        follow(search, 3, -20.1, sources=[source])
        assert source._next().minimum == 3

    def test_window_is_about_heights_by_the_last_calculator(self, search, source):
        assert set(source._waiting) == {1, 2, 3, 4, 5}  # up to 0.2 eV/atom
        follow(search, 2, -20.0, sources=[source])
        follow(search, 7, -20.3, sources=[source])
        assert set(source._waiting) == {1, 3, 4, 5, 7}
        follow(search, 1, -20.7, sources=[source])
        assert set(source._waiting) == {1, 3, 4, 5}


class TestLessons:
    def weights(self, search):
        preferred = search.archive.preferred_minima()
        examples = examples_from_minima(preferred, "flow", TITANIA, Retraining(temperature=0.1))
        return [example.weight for example in examples], examples

    def test_weights_are_those_of_the_heights(self, search):
        follow(search, 1, -20.0)
        follow(search, 5, -20.1)
        weights, _ = self.weights(search)
        heights = np.array([0, 0.05, 0.1, 0.1, 0.15, 0.25, 0.3])
        assert weights == pytest.approx(np.exp(-heights / 0.1) / np.mean(np.exp(-heights / 0.1)))

    def test_lesson_is_the_structure_of_the_follow_up(self, search):
        end = random_crystal("Ti2O4", 14, np.random.default_rng(9))
        follow(search, 3, -20.0, end)
        _, examples = self.weights(search)
        assert any(example.atoms.get_volume() == pytest.approx(end.get_volume()) for example in examples)

    def test_minima_that_became_one_are_one_lesson(self, search):
        end = random_crystal("Ti2O4", 14, np.random.default_rng(9))
        follow(search, 2, -20.0, end)
        follow(search, 4, -20.0, end)
        _, examples = self.weights(search)
        assert len(examples) == len(ENERGIES) - 1
        volumes = Counter(round(example.atoms.get_volume(), 3) for example in examples)
        assert volumes[round(end.get_volume(), 3)] == 1


class Opinions(InlineBackend):
    """Relaxes at once; structure k ends at the k-th energy of the search, and of the follow-up calculator."""

    def __init__(self, structures, energies, second):
        super().__init__(self.run)
        self.found = {self.key(atoms): pair for atoms, *pair in zip(structures, energies, second, strict=True)}

    @staticmethod
    def key(atoms):
        return round(float(atoms.positions.sum()), 6)

    def labels(self):
        return "test", "better"

    def run(self, job):
        first, second = self.found[self.key(job.atoms)]
        if job.level == FOLLOW_UP:
            return relaxed(job.candidate, second, job.atoms, level=FOLLOW_UP, calculator="better")
        return relaxed(job.candidate, first, job.atoms)


class TestWhatCounts:
    FIRST = (-9.0, -9.1, -8.8, -8.7, -8.75, -8.6, -8.95, -8.85, -8.65, -8.9)
    SECOND = (-20.0, -20.1, -20.9, -20.2, -20.3, -21.0, -20.4, -20.5, -20.05, -20.15)

    def run(self, directory, *, counts, first=FIRST, **criteria):
        rng = np.random.default_rng(3)
        crystals = [random_crystal("Ti2O4", 12, rng) for _ in first]
        with Search(
            TITANIA,
            calculator=None,
            directory=directory,
            sources=[ListSource(crystals)],
            backend=Opinions(crystals, first, self.SECOND[: len(first)]),
            then=FollowUp(calculators=("lj",), every=2, counts=counts),
        ) as search:
            summary = search.run(refine=0, **criteria)
            credit = search._proposer.allocation._credit.credit("list")
            return summary, search.archive.state, credit

    def test_unchanged_best_is_that_of_the_follow_ups(self, tmp_path):
        summary, _, _ = self.run(tmp_path / "not", counts=False, stop_after_unchanged=4)
        assert (summary.stopped, summary.progress.relaxations) == ("best unchanged", 6)
        # The second calculator prefers the third and then the sixth, which are followed up after the fourth and sixth.
        summary, state, _ = self.run(tmp_path / "counts", counts=True, stop_after_unchanged=4)
        assert (summary.stopped, summary.progress.relaxations) == ("best unchanged", 10)
        assert state.follow_ups.levels[0].improvements[-1][0] == 6

    def test_a_search_does_not_end_while_minima_wait_for_follow_ups(self, tmp_path):
        summary, state, _ = self.run(tmp_path, counts=True, stop_after_unchanged=1)
        assert (summary.stopped, summary.progress.relaxations) == ("best unchanged", 8)
        assert state.follow_ups.levels[0].results == 8

    @pytest.mark.parametrize(("counts", "relaxations"), [(False, 2), (True, 6)])
    def test_target_enthalpy_is_that_of_the_follow_ups(self, tmp_path, counts, relaxations):
        target = -21.0 if counts else -9.1
        summary, _, _ = self.run(tmp_path, counts=counts, stop_at=target)
        assert (summary.stopped, summary.progress.relaxations) == ("target reached", relaxations)

    @pytest.mark.parametrize(("counts", "relaxations"), [(False, 3), (True, 4)])
    def test_target_structure_must_be_a_minimum_of_the_follow_ups(self, tmp_path, counts, relaxations):
        rng = np.random.default_rng(3)
        third = [random_crystal("Ti2O4", 12, rng) for _ in range(3)][-1]
        third.write(tmp_path / "third.vasp")
        summary, _, _ = self.run(tmp_path / "run", counts=counts, stop_at=str(tmp_path / "third.vasp"))
        assert (summary.stopped, summary.progress.relaxations) == ("target reached", relaxations)

    def test_sources_earn_by_the_follow_ups(self, tmp_path):
        _, _, credit = self.run(tmp_path / "not", counts=False, relaxations=4)
        # Four minima of the search: the best, and others 0.1, 0.3 and 0.4 eV/atom above it.
        assert credit == pytest.approx(sum(math.exp(-height / FIRST_SCALE) for height in (0.0, 0.1, 0.3, 0.4)))
        _, state, credit = self.run(tmp_path / "counts", counts=True, relaxations=4)
        # By their follow-ups the third is the best, and the others lie 0.9, 0.8 and 0.7 eV/atom above it.
        assert credit == pytest.approx(sum(math.exp(-height / FIRST_SCALE) for height in (0.0, 0.7, 0.8, 0.9)))
        assert state.follow_ups.levels[0].results == 4

    def test_they_cannot_count_before_there_are_any(self):
        with pytest.raises(InputError, match="every"):
            FollowUp(calculators=("lj",), counts=True)
