"""Basin hopping: where walkers start, what they accept, how the strength adapts, and that a search resumes exactly."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import bulk
from crystals import InlineBackend, archive_of, relaxed, rutile, what_happened

from hybridcsp import Problem, Search
from hybridcsp.core.outcomes import Failed, FailureReason, Rejected, RejectionReason
from hybridcsp.core.records import Candidate, Proposal
from hybridcsp.errors import InputError
from hybridcsp.sources.base import Context
from hybridcsp.sources.basin_hopping import (
    PATIENCE,
    STRAIN,
    TEMPERATURE,
    WALKERS,
    BasinHoppingSource,
    DynamicsEscapes,
    HopsAndSwaps,
)
from hybridcsp.sources.registry import SOURCES
from hybridcsp.structure.validity import shortest_violation

TITANIA = Problem("TiO2", formula_units=2)


class Walk:
    """A source and the search around it: proposals become candidates, and outcomes are what a test says."""

    def __init__(self, problem=TITANIA, minima=(), seed=0):
        self.source = BasinHoppingSource(problem)
        self.problem = problem
        self.minima = list(minima)
        self.rng = np.random.default_rng(seed)
        self.ids = 0

    def propose(self):
        context = Context(problem=self.problem, archive=archive_of(self.minima), rng=self.rng)
        proposals = self.source.propose(1, context)
        assert len(proposals) == 1
        self.ids += 1
        candidate = Candidate(proposal=proposals[0], id=self.ids, source="basin-hopping")
        self.source.proposed([candidate])
        return candidate

    def end(self, candidate, energy, atoms=None, **changes):
        self.source.observe([relaxed(candidate, energy, atoms, **changes)])

    def walker(self, candidate):
        return self.source.walkers[candidate.proposal.tag["walker"]]


def minimum(id_, energy, atoms=None):
    atoms = rutile(a=4.5 + 0.02 * id_) if atoms is None else atoms
    candidate = Candidate(proposal=Proposal(atoms=atoms, operator="test"), id=1000 + id_, source="test")
    return SimpleNamespace(id=id_, niche=id_, best=relaxed(candidate, energy), enthalpy_per_atom=energy)


class TestStarts:
    def test_walkers_start_at_the_best_minima_each_at_another(self):
        walk = Walk(minima=[minimum(k, -float(k)) for k in range(1, 7)])
        candidates = [walk.propose() for _ in range(WALKERS)]
        assert [candidate.proposal.tag["minimum"] for candidate in candidates] == [6, 5, 4]
        assert [candidate.proposal.parents for candidate in candidates] == [(1006,), (1005,), (1004,)]
        assert [candidate.proposal.tag["enthalpy"] for candidate in candidates] == [-6.0, -5.0, -4.0]

    def test_without_minima_they_start_at_random_structures(self):
        walk = Walk()
        starts = [walk.propose() for _ in range(WALKERS)]
        assert [candidate.operator for candidate in starts] == ["random"] * WALKERS
        walk.end(starts[0], -1.0, rutile())
        hop = walk.propose()
        assert hop.operator in ("hop", "swap")
        assert hop.proposal.tag["place"] == starts[0].id
        assert hop.proposal.parents == (starts[0].id,)

    def test_a_random_start_that_failed_is_made_up_for(self):
        walk = Walk()
        candidates = [walk.propose() for _ in range(WALKERS)]
        for candidate in candidates:
            walk.source.observe([Failed(candidate=candidate, reason=FailureReason.OVERLAP)])
        assert walk.propose().operator == "random"
        assert len(walk.source.walkers) == WALKERS

    def test_more_workers_than_walkers_get_more_walkers(self):
        walk = Walk(minima=[minimum(k, -float(k)) for k in range(1, 11)])
        candidates = [walk.propose() for _ in range(8)]
        assert sorted(candidate.proposal.tag["minimum"] for candidate in candidates) == list(range(3, 11))

    def test_after_futile_moves_a_walker_starts_elsewhere(self):
        walk = Walk(minima=[minimum(1, -5.0), minimum(2, -4.0), minimum(3, -3.0), minimum(4, -2.0)])
        places = []
        for _ in range(3 * PATIENCE + 1):
            candidate = walk.propose()
            places.append(candidate.proposal.tag["minimum"])
            walk.end(candidate, 10.0)
        assert set(places[: 3 * PATIENCE]) == {1, 2, 3}
        assert places[-1] == 4

    def test_a_lower_minimum_gives_it_new_patience(self):
        walk = Walk(minima=[minimum(1, -5.0)])
        candidate = walk.propose()
        walk.walker(candidate).futile = PATIENCE - 1
        walk.end(candidate, -5.5)
        assert walk.walker(candidate).futile == 0


class TestAcceptance:
    def test_lower_is_always_accepted(self):
        walk = Walk(minima=[minimum(1, -5.0)])
        candidate = walk.propose()
        walk.end(candidate, -5.01, rutile())
        assert walk.walker(candidate).place == candidate.id
        assert walk.walker(candidate).end.atoms == rutile()

    @pytest.mark.parametrize("climb", [0.3, 1.0, 2.0])
    def test_higher_is_accepted_with_metropolis_chance(self, climb):
        accepted = 0
        n = 150
        source = BasinHoppingSource(TITANIA)
        start = minimum(1, -5.0)
        rng = np.random.default_rng(3)
        archive = archive_of([start])
        for k in range(n):
            source.walkers.clear()
            source._visited.clear()
            proposal = source.propose(1, Context(problem=TITANIA, archive=archive, rng=rng))[0]
            candidate = Candidate(proposal=proposal, id=k + 1, source="basin-hopping")
            source.proposed([candidate])
            source.observe([relaxed(candidate, -5.0 + climb * TEMPERATURE)])
            accepted += source.walkers[0].place == candidate.id
        expected = math.exp(-climb)
        assert abs(accepted / n - expected) < 4 * (expected * (1 - expected) / n) ** 0.5

    @pytest.mark.parametrize("what", ["failed", "rejected", "unconverged"])
    def test_failed_or_rejected_move_leaves_the_walker_in_place(self, what):
        walk = Walk(minima=[minimum(1, -5.0)])
        candidate = walk.propose()
        if what == "failed":
            walk.source.observe([Failed(candidate=candidate, reason=FailureReason.OVERLAP)])
        elif what == "rejected":
            walk.source.observe([Rejected(candidate=candidate, reason=RejectionReason.DUPLICATE)])
        else:
            walk.end(candidate, -9.0, converged=False)
        walker = walk.walker(candidate)
        assert walker.place == 1001
        assert not walker.waiting
        context = Context(problem=TITANIA, archive=archive_of(walk.minima), rng=walk.rng)
        assert walk.source._place(walker, context) == (walk.minima[0].best, 1)

    def test_outcomes_of_others_and_refinements_change_nothing(self):
        walk = Walk(minima=[minimum(1, -5.0)])
        candidate = walk.propose()
        walk.end(candidate, -5.5)
        before = walk.walker(candidate).end
        walk.end(candidate, -7.0, level="refine")
        walk.end(walk.minima[0].best.candidate, -8.0)
        assert walk.walker(candidate).end is before


class TestStrength:
    @staticmethod
    def stream(threshold, n=160):
        """Hops are accepted where they are weaker than a threshold, with some noise."""
        walk = Walk(Problem("Cu", formula_units=4))
        candidates = [walk.propose() for _ in range(WALKERS)]
        for candidate in candidates:
            walk.end(candidate, -5.0, bulk("Cu", cubic=True))
        rng = np.random.default_rng(1)
        strengths, accepted = [], []
        for _ in range(n):
            candidate = walk.propose()
            walk.walker(candidate).futile = 0
            good = candidate.proposal.tag["strength"] < threshold * math.exp(0.2 * rng.normal())
            walk.end(candidate, -5.0 if good else 5.0, bulk("Cu", cubic=True))
            strengths.append(walk.source.strength)
            accepted.append(good)
        return np.array(strengths), np.array(accepted)

    @pytest.mark.parametrize("threshold", [0.12, 0.3])
    def test_it_adapts_to_half_of_the_moves_accepted(self, threshold):
        strengths, accepted = self.stream(threshold)
        assert np.median(strengths[60:]) == pytest.approx(threshold, rel=0.2)
        assert accepted[60:].mean() == pytest.approx(0.5, abs=0.1)

    def test_it_stays_within_its_bounds(self):
        low, _, high = HopsAndSwaps.bounds
        assert self.stream(100.0, 60)[0].max() == high
        assert self.stream(0.0, 60)[0].min() == low

    def test_duplicates_increase_the_strength_and_other_rejections_keep_it(self):
        walk = Walk(Problem("Cu", formula_units=4))
        while (candidate := walk.propose()).operator != "hop":
            walk.end(candidate, -5.0, bulk("Cu", cubic=True))
        before = walk.source.strength
        walk.source.observe([Rejected(candidate=candidate, reason=RejectionReason.DUPLICATE)])
        after = walk.source.strength
        assert after > before
        while (candidate := walk.propose()).operator != "hop":
            walk.end(candidate, -5.0, bulk("Cu", cubic=True))
        walk.source.observe([Rejected(candidate=candidate, reason=RejectionReason.SPACEGROUP)])
        assert walk.source.strength == after


class TestLeaps:
    def test_hops_keep_contents_distances_and_volume_and_their_bounds(self):
        leaper = HopsAndSwaps(TITANIA)
        rng = np.random.default_rng(0)
        low, high = TITANIA.volume_bounds
        for strength in (0.05, 0.3, 0.8):
            for _ in range(15):
                leap = leaper.move(rutile(), strength, rng)
                while leap.operator == "swap":
                    leap = leaper.move(rutile(), strength, rng)
                used = leap.tag["strength"]
                assert used <= strength
                assert (leap.atoms.numbers == rutile().numbers).all()
                assert low <= leap.atoms.get_volume() / 6 <= high
                assert shortest_violation(leap.atoms, TITANIA.distance_table) is None
                steps = leap.atoms.get_scaled_positions() - rutile().get_scaled_positions()
                steps -= np.rint(steps)
                radius = used * (rutile().get_volume() / 6) ** (1 / 3)
                assert 0 < np.linalg.norm(steps @ rutile().cell.array, axis=1).max() <= radius * (1 + 1e-9)
                stretches = np.linalg.eigvals(np.linalg.solve(rutile().cell.array, leap.atoms.cell.array))
                assert 0 < np.linalg.norm(np.log(stretches)) <= STRAIN * used * (1 + 1e-9)

    def test_swaps_exchange_two_unlike_atoms(self):
        problem = Problem("AuCu", formula_units=2)
        atoms = bulk("CuAu", "cesiumchloride", a=3.1).repeat((2, 1, 1))
        leaper, rng = HopsAndSwaps(problem), np.random.default_rng(0)
        leaps = [leaper.move(atoms, 0.2, rng) for _ in range(100)]
        swaps = [leap for leap in leaps if leap.operator == "swap"]
        assert 8 <= len(swaps) <= 35
        for leap in swaps:
            assert not (leap.raises or leap.lowers)
            steps = leap.atoms.get_scaled_positions() - atoms.get_scaled_positions()
            moved = np.flatnonzero(np.abs(steps - np.rint(steps)).max(axis=1) > 1e-9)
            assert len(moved) == 2
            assert leap.atoms.get_scaled_positions()[moved] == pytest.approx(atoms.get_scaled_positions()[moved[::-1]])
            assert len(set(atoms.numbers[moved])) == 2

    def test_elements_are_not_swapped(self):
        leaper, rng = HopsAndSwaps(Problem("Cu", formula_units=4)), np.random.default_rng(0)
        atoms = bulk("Cu", cubic=True)
        assert {leaper.move(atoms, 0.1, rng).operator for _ in range(30)} == {"hop"}

    def test_a_fixed_cell_stays(self):
        leaper = HopsAndSwaps(Problem("TiO2", formula_units=2, cell=(4.6, 4.6, 2.96, 90, 90, 90)))
        rng = np.random.default_rng(0)
        for _ in range(10):
            leap = leaper.move(rutile(), 0.2, rng)
            assert leap.atoms.cell.array == pytest.approx(rutile().cell.array)


def somewhere(job):
    """Relax to a place near the start that depends on the start alone."""
    atoms = job.atoms.copy()
    atoms.rattle(0.1, seed=job.candidate.id)
    shape = np.linalg.norm(atoms.cell.array @ atoms.cell.array.T) + np.abs(atoms.get_scaled_positions()).sum()
    return relaxed(job.candidate, -3.0 - 1.0 / shape, atoms, level=job.level)


def test_interrupted_search_equals_uninterrupted_search(tmp_path):
    def search(directory, runner=somewhere):
        sources = ["basin-hopping"]
        return Search(
            "Cu3Au", formula_units=1, calculator=None, directory=directory, sources=sources, seed=1,
            backend=InlineBackend(runner),
        )  # fmt: skip

    def jobs(n):
        left = iter(range(n))

        def interrupted(job):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return somewhere(job)

        return interrupted

    with search(tmp_path / "whole") as whole:
        whole.run(relaxations=30, refine=2)
    for n in (2, 7, 9):
        with search(tmp_path / "pieces", jobs(n)) as pieces, pytest.raises(KeyboardInterrupt):
            pieces.run(relaxations=30, refine=2)
    with search(tmp_path / "pieces") as pieces:
        pieces.run(relaxations=30, refine=2)
    happened = what_happened(tmp_path / "whole")
    operators = [data.get("operator") for kind, data, _ in happened if kind == "relaxed"]
    assert operators.count("hop") > 10
    assert operators.count("swap") >= 1
    assert what_happened(tmp_path / "pieces") == happened


def test_escapes_by_dynamics_are_jobs_of_their_own_level(tmp_path):
    jobs = []

    def runner(job):
        jobs.append(job)
        return somewhere(job)

    backend = InlineBackend(runner)
    with Search(
        "Cu", formula_units=2, calculator=None, directory=tmp_path, sources=["basin-hopping:dynamics"], backend=backend
    ) as search:
        search.run(relaxations=12, refine=0)
        assert search.archive.state.relaxations == 12
        escapes = [job for job in jobs if job.level == "escape"]
        assert len(escapes) == 12 - WALKERS
        low, _, high = DynamicsEscapes.bounds
        for job in escapes:
            tag = job.candidate.proposal.tag
            assert low <= tag["temperature"] <= high
            # It begins at the very structure that a relaxation ended in, which is no reason to reject it.
            (parent,) = job.candidate.proposal.parents
            ends = {m.best.candidate.id: m.best.atoms for m in search.archive.minima()}
            if parent in ends:
                assert job.atoms.positions == pytest.approx(ends[parent].positions)
        assert len({job.candidate.proposal.tag["seed"] for job in escapes}) == len(escapes)
        assert len({job.candidate.proposal.tag["temperature"] for job in escapes}) > 3


def test_it_has_a_name_and_knows_its_modes():
    assert SOURCES["basin-hopping"].load() is BasinHoppingSource
    with pytest.raises(InputError, match="hops"):
        BasinHoppingSource(TITANIA, "hop")
