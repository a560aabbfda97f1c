import importlib

import pytest
from ase.build import bulk
from crystals import InlineBackend, ListSource, P1Source, instant_relaxation, relaxed, what_happened

from hybridcsp import Problem, Search
from hybridcsp.core.outcomes import Failed, FailureReason, Rejected, RejectionReason
from hybridcsp.core.records import ADDED, REFINE, Candidate, Cost, Proposal
from hybridcsp.search.allocation import Allocation, EqualAllocation
from hybridcsp.search.resumption import FORMER_NAMES
from hybridcsp.search.success_allocation import FLOOR, RISING_FLOORS, SuccessAllocation
from hybridcsp.search.success_priors import SuccessPrior, SuccessPriors
from hybridcsp.sources.registry import DEFAULT_SOURCES


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


def prior(shape=0.3, force_calls=300.0):
    return SuccessPrior(shape=shape, force_calls=force_calls)


def allocate(*, chance_of_known=0.0, known=(), **unknown):
    priors = SuccessPriors(chance_of_known=chance_of_known, unknown=unknown, known=dict(known))
    return SuccessAllocation(Problem("TiO2"), priors=priors)


def play(allocation, names, steps, enthalpy=lambda name, step: None):
    """Let an allocation choose; return the sources of the relaxations, which fail unless they have an enthalpy."""
    chosen = []
    for step in range(1, steps + 1):
        name = allocation.choose(list(names))
        one = candidate(name, step)
        allocation.proposed([one])
        found = enthalpy(name, step)
        cost = Cost(force_calls=60)
        if found is None:
            outcome = Failed(candidate=one, reason=FailureReason.OVERLAP, cost=cost)
        else:
            outcome = relaxed(one, found, cost=cost, minimum=step, is_new_minimum=True, niche=step)
        allocation.observe([outcome])
        chosen.append(name)
    return chosen


class TestSuccessAllocation:
    def test_source_with_the_best_prior_comes_first_and_then_has_had_its_chance(self):
        chosen = play(allocate(quick=prior(0.3, 20.0), slow=prior(0.3, 500.0)), ["slow", "quick"], 60)
        assert chosen[:4] == ["quick"] * 4
        assert 20 < chosen.count("slow") < 32

    def test_shares_of_sources_that_found_nothing_approach_their_shapes(self):
        chosen = play(allocate(often=prior(0.6), seldom=prior(0.2)), ["often", "seldom"], 200)
        assert chosen.count("often") == pytest.approx(150, abs=5)

    def test_source_that_finds_low_niches_gets_more(self):
        def low(name, step):
            return -3.0 if name == "good" else -3.0 + 0.5

        chosen = play(allocate(good=prior(), poor=prior()), ["poor", "good"], 60, low)
        assert chosen.count("good") > 40

    def test_source_whose_niches_others_reach_too_gets_no_more(self):
        allocation = allocate(a=prior(), b=prior())
        allocation.proposed([candidate("a", 1), candidate("b", 2)])
        first = relaxed(candidate("a", 1), -3.0, cost=Cost(force_calls=60), minimum=1, is_new_minimum=True)
        allocation.observe([first])
        assert allocation.rate("a") > 0.3 / 360
        allocation.observe([relaxed(candidate("b", 2), -3.0, cost=Cost(force_calls=60), minimum=1)])
        assert allocation.rate("a") == allocation.rate("b") == pytest.approx(0.3 / 360)

    def test_every_source_gets_its_minimum_share(self):
        chosen = play(allocate(random=prior(0.001, 1e5), good=prior(0.9, 10.0)), ["random", "good"], 200)
        assert chosen.count("random") == pytest.approx(FLOOR * 200, abs=2)

    def test_minimum_share_of_evolution_rises_with_the_relaxations(self):
        priors = {"evolution": prior(0.001, 1e5), "good": prior(0.9, 10.0)}
        chosen = play(allocate(**priors), ["evolution", "good"], 300)
        early, late = (chosen[a:b].count("evolution") / (b - a) for a, b in ((0, 50), (200, 300)))
        assert early < 0.2 < 0.25 < late <= RISING_FLOORS["evolution"][0] + 0.05

    def test_minimum_share_of_evolution_is_small_while_a_known_prototype_is_likely(self):
        unknown = {"evolution": prior(0.001, 1e5), "prototypes": prior(0.9, 100.0)}
        sure, unlikely = (
            play(allocate(chance_of_known=chance, known={"prototypes": prior(0.9, 90.0)}, **unknown), unknown, 40)
            for chance in (0.999, 0.001)
        )
        assert sure.count("evolution") <= 2
        assert unlikely.count("evolution") > 5

    def test_source_of_known_prototypes_is_given_up_when_it_has_failed(self):
        allocation = allocate(
            chance_of_known=0.9,
            known={"prototypes": prior(2.0, 30.0)},
            prototypes=prior(0.2, 900.0),
            random=prior(0.3, 500.0),
        )
        before = allocation.chance_of_known
        chosen = play(allocation, ["random", "prototypes"], 60)
        assert chosen[0] == "prototypes"
        assert chosen[30:].count("random") > 15
        assert allocation.chance_of_known < 0.1 < before

    def test_running_relaxations_count_as_paid(self):
        allocation = allocate(a=prior(), b=prior())
        first = []
        for number in range(1, 5):
            first.append(allocation.choose(["a", "b"]))
            allocation.proposed([candidate(first[-1], number)])
        assert first == ["a", "b", "a", "b"]

    def test_source_whose_candidates_are_all_rejected_falls_back(self):
        allocation = allocate(rejected=prior(0.3, 20.0), other=prior(0.3, 60.0))
        chosen = []
        for number in range(1, 100):
            chosen.append(allocation.choose(["rejected", "other"]))
            one = candidate(chosen[-1], number)
            allocation.proposed([one])
            if chosen[-1] == "other":
                break
            allocation.observe([Rejected(candidate=one, reason=RejectionReason.DUPLICATE)])
        assert chosen[0] == "rejected"
        assert chosen[-1] == "other"

    def test_rejected_source_below_its_minimum_share_does_not_block_the_others(self):
        allocation = allocate(rejected=prior(0.001, 1e5), other=prior(0.9, 10.0))
        chosen = []
        for number in range(1, 200):
            name = allocation.choose(["rejected", "other"])
            chosen.append(name)
            one = candidate(name, number)
            allocation.proposed([one])
            reject = Rejected(candidate=one, reason=RejectionReason.DUPLICATE)
            fail = Failed(candidate=one, reason=FailureReason.OVERLAP, cost=Cost(force_calls=60))
            allocation.observe([reject if name == "rejected" else fail])
        assert 2 < chosen.count("rejected") < 20

    def test_added_structures_change_no_rate(self):
        allocation = allocate(a=prior())
        before = allocation.rate("a")
        for number in range(2, 50):
            added = relaxed(candidate(ADDED, number), -3.0, cost=Cost(), minimum=number, is_new_minimum=True)
            allocation.observe([added])
        assert allocation.rate("a") == before

    def test_refinements_change_no_rate(self):
        allocation = allocate(a=prior())
        before = allocation.rate("a")
        refined = relaxed(candidate("a", 1), -3.0, level=REFINE, cost=Cost(force_calls=60), minimum=1)
        allocation.observe([refined])
        assert allocation.rate("a") == before

    def test_default_sources_have_rates_for_small_and_large_cells(self):
        for problem in (Problem("Cu", formula_units=1), Problem("MgSiO3", formula_units=4), Problem("TiO2")):
            allocation = SuccessAllocation(problem)
            assert all(0 < allocation.rate(name) < 1 for name in (*DEFAULT_SOURCES, "mine"))

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


def test_former_names_of_allocations_lead_to_present_ones():
    present = {former: now for former, now in FORMER_NAMES.items() if "llocation" in now}
    assert len(present) >= 3
    for name in present.values():
        module, _, attribute = name.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), attribute), Allocation)
