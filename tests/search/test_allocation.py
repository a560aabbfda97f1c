import numpy as np
import pytest
from ase.build import bulk
from crystals import InlineBackend, ListSource, P1Source, instant_relaxation, relaxed, what_happened

from hybridcsp import Problem, Search
from hybridcsp.archive.credit import CREDIT_SCALE, EXPECTED_FORCE_CALLS
from hybridcsp.core.records import (
    ADDED,
    Candidate,
    Cost,
    Failed,
    FailureReason,
    Proposal,
    Rejected,
    RejectionReason,
)
from hybridcsp.search.allocation import FLOOR, SHARE_OF_PARENTS, EqualAllocation, ThompsonAllocation


def candidate(source, id_=1, parents=()):
    return Candidate(proposal=Proposal(atoms=bulk("Cu"), operator="made", parents=parents), id=id_, source=source)


class TestEqualAllocation:
    def test_sources_get_equal_numbers_of_relaxations(self):
        allocation = EqualAllocation()
        given = []
        for _ in range(7):
            given.append(allocation.choose(["a", "b", "c"]))
            allocation.proposed([candidate(given[-1])])
        assert given == ["a", "b", "c", "a", "b", "c", "a"]

    def test_rejected_candidates_do_not_count(self):
        allocation = EqualAllocation()
        allocation.proposed([candidate("a")])
        allocation.observe([Rejected(candidate=candidate("a"), reason=RejectionReason.VOLUME)])
        assert allocation.choose(["a", "b"]) == "a"

    def test_only_available_sources_are_chosen(self):
        assert EqualAllocation().choose(["b"]) == "b"


def play(chances, steps, seed, change=None):
    """Let an allocation choose among sources that find a new minimum near the best with given chances.

    Returns the names chosen and the credit that each step earned.
    """
    rng = np.random.default_rng(seed)
    allocation = ThompsonAllocation(Problem("TiO2"), seed, priors=dict.fromkeys(chances, 0.005))
    chosen, earned = [], []
    for step in range(steps):
        if change and step == change[0]:
            chances = change[1]
        name = allocation.choose(list(chances))
        one = candidate(name, step + 1)
        allocation.proposed([one])
        success = rng.random() < chances[name]
        outcome = relaxed(
            one, -3.0 if success else -2.0, cost=Cost(force_calls=60), minimum=step + 1, is_new_minimum=True
        )
        allocation.observe([outcome])
        chosen.append(name)
        earned.append(success)
    return chosen, np.array(earned)


SOURCES = {"a": 0.05, "b": 0.4, "c": 0.1, "d": 0.05}


class TestThompsonAllocation:
    def test_best_source_is_chosen_most_often(self):
        shares = [play(SOURCES, 200, seed)[0][100:].count("b") / 100 for seed in range(10)]
        assert np.mean(shares) > 0.6

    def test_choices_follow_a_change_of_yields(self):
        after = SOURCES | {"b": 0.02, "c": 0.5}
        shares = [play(SOURCES, 500, seed, (200, after))[0][400:].count("c") / 100 for seed in range(10)]
        assert np.mean(shares) > 0.5

    def test_regret_after_sixty_relaxations_is_below_half(self):
        # One of four sources is eight times as good: equal shares would give 37 % of its yield.
        earned = np.mean([play(SOURCES, 60, seed)[1].mean() for seed in range(30)])
        assert earned / SOURCES["b"] > 0.5

    def test_every_source_gets_its_minimum_share(self):
        chosen, _ = play({"random": 0.0, "good": 0.9}, 300, 0)
        assert chosen.count("random") >= FLOOR * 300 - 2

    def test_every_source_proposes_once_in_the_order_of_the_priors(self):
        allocation = ThompsonAllocation(Problem("TiO2"), 0, priors={"good": 0.02, "poor": 0.001, "fair": 0.01})
        first = []
        for id_ in (1, 2, 3):
            first.append(allocation.choose(["poor", "good", "fair"]))
            allocation.proposed([candidate(first[-1], id_)])
        assert first == ["good", "fair", "poor"]

    def test_rejected_candidate_counts_as_first_proposal(self):
        allocation = ThompsonAllocation(Problem("TiO2"), 0, priors={"good": 0.02, "poor": 0.001})
        allocation.proposed([candidate("good")])
        allocation.observe([Rejected(candidate=candidate("good"), reason=RejectionReason.VOLUME)])
        assert allocation.choose(["good", "poor"]) == "poor"

    def test_source_without_proposals_is_not_chosen_every_time(self):
        allocation = ThompsonAllocation(Problem("TiO2"), 0, priors={"later": 0.005, "now": 0.01})
        asked = 0
        for id_ in range(1, 41):
            if allocation.choose(["later", "now"]) == "later":
                asked += 1
            allocation.proposed([candidate("now", id_)])
            allocation.observe(
                [relaxed(candidate("now", id_), -3.0, cost=Cost(force_calls=60), minimum=id_, is_new_minimum=True)]
            )
        assert 4 <= asked < 30

    def test_priors_guide_the_first_choices(self):
        second = []
        for seed in range(50):
            allocation = ThompsonAllocation(Problem("TiO2"), seed, priors={"good": 0.02, "poor": 0.001})
            allocation.proposed([candidate("good", 1), candidate("poor", 2)])
            second.append(allocation.choose(["good", "poor"]))
        assert second.count("good") > 40

    def test_known_minima_failures_and_unconverged_relaxations_earn_nothing(self):
        allocation = ThompsonAllocation(Problem("TiO2"), 0, priors={"a": 0.01})
        allocation.proposed([candidate("a", n) for n in (1, 2, 3, 4)])
        allocation.observe(
            [relaxed(candidate("a", 1), -3.0, cost=Cost(force_calls=100), minimum=1, is_new_minimum=True)]
        )
        first = allocation.yields()["a"]
        allocation.observe(
            [relaxed(candidate("a", 2), -3.0, cost=Cost(force_calls=100), minimum=1, is_new_minimum=False)]
        )
        allocation.observe(
            [Failed(candidate=candidate("a", 3), reason=FailureReason.OVERLAP, cost=Cost(force_calls=9))]
        )
        allocation.observe([relaxed(candidate("a", 4), -4.0, cost=Cost(force_calls=100), converged=False)])
        assert allocation.yields()["a"] < first

    def test_credit_falls_with_the_enthalpy_above_the_best(self):
        def earned(enthalpy):
            allocation = ThompsonAllocation(Problem("TiO2"), 0, priors={"a": 0.0, "b": 0.0})
            allocation.proposed([candidate("b", 1), candidate("a", 2)])
            allocation.observe([relaxed(candidate("b", 1), -3.0, minimum=1, is_new_minimum=True)])
            allocation.observe([relaxed(candidate("a", 2), enthalpy, minimum=2, is_new_minimum=True)])
            return allocation.yields()["a"]

        assert earned(-3.2) == earned(-3.0) > earned(-2.99) > earned(-2.95) > earned(-2.8)
        assert earned(-2.98) / earned(-3.0) == pytest.approx(np.exp(-0.02 / CREDIT_SCALE))

    def test_credit_does_not_depend_on_the_order_of_minima(self):
        def yields(outcomes):
            allocation = ThompsonAllocation(Problem("TiO2"), 0, priors={"a": 0.0, "b": 0.0, "c": 0.0})
            for n, (name, enthalpy) in enumerate(outcomes, 1):
                one = candidate(name, n)
                allocation.proposed([one])
                allocation.observe([relaxed(one, enthalpy, cost=Cost(force_calls=1), minimum=n, is_new_minimum=True)])
            return allocation.yields()

        found = [("a", -3.0), ("b", -3.01), ("a", -2.99), ("c", -3.05)]
        falling = yields(found)
        assert falling == pytest.approx(yields(found[::-1]), rel=0.002)  # each has paid a force call, or two
        assert falling["b"] / falling["c"] == pytest.approx(np.exp(-0.04 / CREDIT_SCALE), rel=0.002)

    def test_parents_share_the_credit(self):
        allocation = ThompsonAllocation(Problem("TiO2"), 0, priors={"random": 0.0, "evolution": 0.0})
        parent, child = candidate("random", 1), candidate("evolution", 2, parents=(1,))
        allocation.proposed([parent, child])
        allocation.observe([relaxed(child, -3.0, cost=Cost(force_calls=1), minimum=1, is_new_minimum=True)])
        yields = allocation.yields()
        ratio = SHARE_OF_PARENTS / (1 - SHARE_OF_PARENTS)
        assert yields["random"] / yields["evolution"] == pytest.approx(ratio, rel=0.002)

    def test_relaxations_without_force_calls_cost_the_expected_number(self):
        allocation = ThompsonAllocation(Problem("TiO2"), 0, priors={"a": 0.01, "b": 0.01})
        for n in range(1, 4):
            allocation.proposed([candidate("a", n)])
            allocation.observe([relaxed(candidate("a", n), -3.0, cost=Cost(), minimum=1, is_new_minimum=False)])
        counted = ThompsonAllocation(Problem("TiO2"), 0, priors={"a": 0.01, "b": 0.01})
        for n in range(1, 4):
            counted.proposed([candidate("a", n)])
            told = Cost(force_calls=int(EXPECTED_FORCE_CALLS))
            counted.observe([relaxed(candidate("a", n), -3.0, cost=told, minimum=1, is_new_minimum=False)])
        assert allocation.yields() == counted.yields()
        assert allocation.yields()["a"] < 0.01

    def test_added_structures_cost_nothing(self):
        allocation = ThompsonAllocation(Problem("TiO2"), 0, priors={"a": 0.01})
        allocation.proposed([candidate("a", 1)])
        allocation.observe(
            [relaxed(candidate("a", 1), -3.0, cost=Cost(force_calls=60), minimum=1, is_new_minimum=True)]
        )
        before = allocation.yields()["a"]
        for n in range(2, 50):
            allocation.observe([relaxed(candidate(ADDED, n), -3.0, cost=Cost(), minimum=1, is_new_minimum=False)])
        assert allocation.yields()["a"] == before

    def test_rejected_candidates_do_not_reduce_the_share(self):
        allocation = ThompsonAllocation(Problem("TiO2"), 0, priors={"a": 0.1, "b": 0.1})
        for n in range(1, 50):
            allocation.proposed([candidate("a", n)])
            allocation.observe([Rejected(candidate=candidate("a", n), reason=RejectionReason.DUPLICATE)])
        assert allocation.choose(["a"]) == "a"
        assert {allocation._job_counts("a").given, allocation._job_counts("a").running} == {0}

    def test_default_priors_are_positive_for_small_and_large_cells(self):
        for problem in (Problem("Cu", formula_units=1), Problem("MgSiO3", formula_units=4), Problem("TiO2")):
            yields = ThompsonAllocation(problem, 0)
            assert all(0 < value < 1 for value in yields._priors.values())
            assert "random" in yields._priors

    def test_resumed_search_equals_uninterrupted_search(self, tmp_path):
        def search(directory):
            return Search(
                "Cu",
                formula_units=(1, 4),
                distance_fraction=0.05,
                calculator=None,
                directory=directory,
                sources=[P1Source(), P1Source(), ListSource([])],
                backend=InlineBackend(instant_relaxation),
                seed=7,
            )

        search(tmp_path / "whole").run(relaxations=24, refine=0)

        def interrupt(progress):
            if progress.relaxations == 9:
                raise KeyboardInterrupt

        part = search(tmp_path / "parts")
        with pytest.raises(KeyboardInterrupt):
            part.run(relaxations=24, refine=0, on_progress=interrupt)
        part.close()
        search(tmp_path / "parts").run(relaxations=24, refine=0)
        assert what_happened(tmp_path / "parts") == what_happened(tmp_path / "whole")


def test_synonym_is_recorded_under_the_former_name(tmp_path):
    options = {"calculator": "emt", "sources": ["random"], "workers": 1, "directory": tmp_path}
    with Search("Cu", allocation="thompson", **options) as search:
        assert search.archive.state.settings[-1]["allocation"] == "earnings"
    Search("Cu", allocation="earnings", **options).close()
