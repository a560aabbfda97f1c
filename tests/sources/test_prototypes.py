"""The prototypes source: known answers, the problem's limits, each thing once, and exact replay."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from crystals import InlineBackend, instant_relaxation, relaxed, rutile, what_happened
from toys import Toy

from hybridcsp import Search
from hybridcsp.archive import Archive
from hybridcsp.errors import InputError
from hybridcsp.problem import Problem
from hybridcsp.prototypes import aflow
from hybridcsp.records import Candidate, Failed, FailureReason, Job, Rejected, RejectionReason, Relaxed
from hybridcsp.screening import Screen
from hybridcsp.similarity import MINIMA, STARTS, StructureIndex, same_structure
from hybridcsp.sources import SOURCES, Context
from hybridcsp.sources.generative import GenerativeSource
from hybridcsp.sources.one_shot import RELAXATIONS_EACH, Start, starts_of
from hybridcsp.sources.prototypes import PrototypesSource
from hybridcsp.structure import spacegroup

# Before it is relaxed, a crystal has the shape of the prototype's and an estimated volume.
RELATIVES = replace(MINIMA, volume=0.3)


def context(problem, call, seed=0):
    return Context(problem=problem, archive=cast(Archive, None), rng=np.random.default_rng([seed, call]))


def take(source, problem, n, seed=0, first=0):
    """Ask for proposals one by one, as a search does."""
    found = []
    for call in range(first, first + n):
        proposals = source.propose(1, context(problem, call, seed))
        source.proposed([Candidate(proposal=p, id=call + 1, source="prototypes") for p in proposals])
        found += proposals
    return found


@pytest.fixture(scope="module")
def titania():
    problem = Problem("TiO2", formula_units=(1, 4))
    return take(PrototypesSource(problem), problem, 30)


def test_titania_gets_rutile_first_and_anatase_early(titania):
    anatase = bulk("Ti", "bct", a=3.79, c=9.51)
    assert same_structure(titania[0].atoms, rutile(), RELATIVES)
    assert titania[0].operator == "aflow"
    assert "Rutile" in titania[0].tag["template"]
    assert any(p.tag["template"] and "Anatase" in p.tag["template"] for p in titania[:10])
    found = next(p for p in titania if p.tag["template"] and "Anatase" in p.tag["template"])
    assert spacegroup(found.atoms) == 141
    # its titanium atoms alone are a body-centred tetragonal lattice's with a basis: two in the primitive cell
    assert len(found.atoms) == 6
    assert found.atoms.cell.lengths().max() < anatase.cell.lengths().max() * 1.2


def test_sodium_chloride_gets_rock_salt_first():
    problem = Problem("NaCl", formula_units=(1, 2))
    (first,) = take(SOURCES["prototypes"].load()(problem), problem, 1)
    assert same_structure(first.atoms, bulk("NaCl", "rocksalt", a=5.64), RELATIVES)
    assert first.atoms.get_volume() / 2 == pytest.approx(problem.expected_volume_per_atom)


def test_strontium_titanate_gets_perovskite_with_strontium_among_twelve_oxygen_atoms():
    problem = Problem("SrTiO3", formula_units=(1, 2))
    found = take(PrototypesSource(problem), problem, 5)
    cubic = next(p.atoms for p in found if spacegroup(p.atoms) == 221)
    assert len(cubic) == 5
    distances = cubic.get_all_distances(mic=True)
    symbols = list(cubic.symbols)
    to_oxygen = {s: min(distances[symbols.index(s), i] for i in range(5) if symbols[i] == "O") for s in ("Sr", "Ti")}
    assert to_oxygen["Sr"] == pytest.approx(to_oxygen["Ti"] * 2**0.5)


@pytest.mark.parametrize("formula", ["TiO2", "LiFeAs", "Mg2SiO4"])
def test_proposals_obey_the_problem_and_differ(formula):
    problem = Problem(formula, formula_units=(1, 4), max_atoms=28)
    screen = Screen(problem)
    duplicates = 0
    proposals = take(PrototypesSource(problem), problem, 20)
    assert len(proposals) == 20
    for i, proposal in enumerate(proposals):
        verdict = screen.check(proposal.atoms)
        duplicates += verdict.reason is RejectionReason.DUPLICATE
        assert verdict.reason in (None, RejectionReason.DUPLICATE), verdict.detail
        if verdict.described is not None:
            screen.accepted(Candidate(proposal=proposal, id=i + 1, source="prototypes"), verdict.described)
        assert spacegroup(proposal.atoms) == proposal.tag["spacegroup"] or proposal.operator == "aflow"
    assert duplicates <= 2
    assert len({proposal.tag["rank"] for proposal in proposals}) == 20


def test_tags_say_what_it_is(titania):
    for proposal in titania:
        assert set(proposal.tag) == {"prototype", "spacegroup", "sites", "template", "draw", "chance", "rank"}
        assert proposal.tag["prototype"].startswith("AB2_")
        assert proposal.tag["sites"] == ["Ti", "O"]
        assert proposal.operator == ("aflow" if proposal.tag["template"] else "wyckoff-table")
    chances = [proposal.tag["chance"] for proposal in titania]
    assert chances == sorted(chances, reverse=True)


def test_a_search_that_is_taken_up_again_goes_on_as_it_would_have(titania):
    problem = Problem("TiO2", formula_units=(1, 4))
    resumed = PrototypesSource(problem)
    for i, proposal in enumerate(titania[:20]):
        resumed.proposed([Candidate(proposal=proposal, id=i + 1, source="prototypes")])
    again = take(resumed, problem, 10, first=20)
    assert [p.atoms for p in again] == [p.atoms for p in titania[20:]]
    assert [dict(p.tag) for p in again] == [dict(p.tag) for p in titania[20:]]


def test_proposing_changes_nothing_until_it_is_taken_in():
    problem = Problem("NaCl", formula_units=(1, 4))
    source = PrototypesSource(problem)
    first, second = (source.propose(3, context(problem, 0)) for _ in range(2))
    assert [p.atoms for p in first] == [p.atoms for p in second]
    assert len(first) == 3


def test_the_seed_decides_what_is_drawn_but_not_the_order():
    problem = Problem("TiO2", formula_units=(1, 4))
    one, other = (take(PrototypesSource(problem), problem, 8, seed=seed) for seed in (0, 1))
    assert [p.tag["prototype"] for p in one] == [p.tag["prototype"] for p in other]
    drawn = [(a, b) for a, b in zip(one, other, strict=True) if a.operator == "wyckoff-table"]
    assert drawn
    assert all(a.atoms != b.atoms for a, b in drawn)


def test_it_ends_when_everything_was_proposed():
    problem = Problem("NaCl", formula_units=1, spacegroups=(225, 221))
    source = PrototypesSource(problem)
    found = take(source, problem, 10)
    assert {p.tag["prototype"] for p in found} == {"AB_cF8_225_a_b", "AB_cP2_221_a_b"}
    assert len(found) == 2
    assert source.exhausted
    assert source.propose(1, context(problem, 11)) == []


@pytest.mark.parametrize(
    "problem", [Problem("Li7Na13", max_atoms=40), Problem("NaCl", formula_units=1, cell=(4, 4, 4, 60, 60, 60))]
)
def test_it_is_exhausted_at_once_where_nothing_is_known(problem):
    source = PrototypesSource(problem)
    assert source.exhausted
    assert source.propose(1, context(problem, 0)) == []


class TestByEnergy:
    """Of several options the one of lowest energy is relaxed, and the others wait with what is known of them."""

    def search(self, directory, *others):
        return Search(
            "TiO2",
            formula_units=(1, 2),
            calculator=None,
            backend=InlineBackend(instant_relaxation),
            workers=1,
            directory=directory,
            sources=[PrototypesSource(Problem("TiO2", formula_units=(1, 2)), one_shot=5), *others],
        )

    def test_the_most_probable_first_then_jobs_of_the_next_and_after_each_the_two_that_are_lowest(self):
        problem = Problem("TiO2", formula_units=(1, 2))
        source = PrototypesSource(problem, one_shot=5)
        outcomes = []
        for call in range(22):
            (proposal,) = source.propose(1, context(problem, call))
            candidate = Candidate(proposal=proposal, id=call + 1, source="prototypes")
            source.proposed([candidate])
            outcome = instant_relaxation(Job(candidate=candidate, atoms=candidate.atoms, level=proposal.level))
            source.observe([replace(outcome, opened=True)])
            outcomes.append(outcome)
        first = outcomes.pop(0)
        assert (first.candidate.operator, first.candidate.proposal.level) == ("aflow", "relax")
        assert first.candidate.proposal.tag["rank"] == 0
        minima = StructureIndex(energy_window=None, tolerances=STARTS)
        minima.add(0, first.atoms)
        waiting: dict[int, Start] = {}
        tried, alone, again = {0}, RELAXATIONS_EACH, 0
        for number, outcome in enumerate(outcomes, 1):
            starts = {start.about["rank"]: start for start in starts_of(outcome.candidate)}
            assert not tried.intersection(starts)
            if len(starts) == 1:
                (chosen,) = starts
                assert chosen == min(waiting, key=lambda rank: waiting[rank].enthalpy)
                alone += 1
            else:
                assert len(starts) <= 5
                energies = dict(zip(starts, outcome.start_enthalpies, strict=True))
                fresh = [start.about["chance"] for rank, start in starts.items() if rank not in waiting]
                assert fresh == sorted(fresh, reverse=True)
                for rank in set(starts).intersection(waiting):
                    alike = [w.enthalpy for w in waiting.values() if len(w.atoms) == len(outcome.candidate.atoms)]
                    assert energies[rank] == pytest.approx(min(alike))
                    again += 1
                chosen = min(energies, key=energies.__getitem__)
                assert outcome.enthalpy_per_atom == pytest.approx(energies[chosen])
                waiting |= {rank: replace(start, enthalpy=energies[rank]) for rank, start in starts.items()}
                alone = 1
            assert alone <= RELAXATIONS_EACH
            tried.add(chosen)
            del waiting[chosen]
            minima.add(number, outcome.atoms)
            waiting = {rank: start for rank, start in waiting.items() if minima.find(start.atoms) is None}
        assert again >= 3
        assert len(waiting) > 5

    def test_interrupted_and_resumed_is_the_same_as_uninterrupted(self, tmp_path):
        def others():  # whose jobs have energies, too
            return GenerativeSource(Problem("TiO2", formula_units=(1, 2)), generator=Toy(volume=12.0), one_shot=3)

        with self.search(tmp_path / "whole", others()) as search:
            search.run(relaxations=20, refine=0)
            operators = [event.candidate.operator for event in search.archive.history() if isinstance(event, Relaxed)]
        assert {"by-energy", "toy", "aflow"} <= set(operators)

        def interrupt(progress):
            if progress.relaxations in (6, 13):
                raise KeyboardInterrupt

        for last in (False, False, True):
            with self.search(tmp_path / "parts", others()) as search:
                try:
                    search.run(relaxations=20, refine=0, on_progress=None if last else interrupt)
                except KeyboardInterrupt:
                    continue
        assert what_happened(tmp_path / "parts") == what_happened(tmp_path / "whole")

    def test_what_a_job_did_not_come_to_is_tried_again_but_for_what_it_would_have_relaxed(self):
        problem = Problem("TiO2", formula_units=2)
        source = PrototypesSource(problem, one_shot=4)
        take(source, problem, 1)
        (proposal,) = source.propose(1, context(problem, 1))
        lost = Candidate(proposal=proposal, id=2, source="prototypes")
        source.proposed([lost])
        source.observe([Failed(candidate=lost, reason=FailureReason.WORKER_DIED, level="lowest")])
        (again,) = source.propose(1, context(problem, 2))
        first, *others = [option["rank"] for option in proposal.tag["starts"]]
        assert [option["rank"] for option in again.tag["starts"]][: len(others)] == others
        assert first not in [option["rank"] for option in again.tag["starts"]]
        found = [Candidate(proposal=again, id=3, source="x").starts[n] for n in range(2)]
        assert found[0] == lost.starts[1]  # with the same coordinates, drawn or not
        assert found[1] == lost.starts[2]

    def test_known_minima_are_passed_over(self):
        problem = Problem("TiO2", formula_units=2)
        source = PrototypesSource(problem, one_shot=4)
        take(source, problem, 1)
        (proposal,) = source.propose(1, context(problem, 1))
        known = Candidate(proposal=proposal, id=9, source="random").starts[1]
        source.observe([relaxed(Candidate(proposal=proposal, id=9, source="random"), -9.0, known, opened=True)])
        (without,) = source.propose(1, context(problem, 1))
        ranks = [option["rank"] for option in proposal.tag["starts"]]
        assert ranks[1] not in [option["rank"] for option in without.tag["starts"]]
        assert without.tag["passed"] == [ranks[1]]

    def test_a_search_with_it_alone_relaxes_everything_and_refines(self, tmp_path):
        problem = Problem("NaCl", formula_units=2, spacegroups=(225, 221, 216, 129))
        options = [p.tag["rank"] for p in take(PrototypesSource(problem), problem, 200)]
        with Search(
            problem,
            calculator=None,
            backend=InlineBackend(instant_relaxation),
            workers=1,
            directory=tmp_path,
            sources=[PrototypesSource(problem, one_shot=4)],
        ) as search:
            assert search.run(relaxations=200, refine=5).stopped == "sources exhausted"
            events = [event for event in search.archive.history() if isinstance(event, Relaxed | Rejected)]
        assert any(event.level == "refine" for event in events if isinstance(event, Relaxed))
        passed = [rank for event in events for rank in event.candidate.proposal.tag.get("passed", ())]
        known = {start.about["rank"] for event in events for start in starts_of(event.candidate)}
        assert 4 < len(options) < 200
        assert known.union(passed) == set(options)

    def test_it_ends_when_everything_was_relaxed(self):
        problem = Problem("NaCl", formula_units=1, spacegroups=(225, 221))
        source = PrototypesSource(problem, one_shot=12)
        assert len(take(source, problem, 5)) == 2  # one by one: there is nothing to choose from
        assert source.exhausted

    def test_no_job_can_be_made_of_nothing(self):
        with pytest.raises(InputError, match="one_shot"):
            PrototypesSource(Problem("TiO2"), one_shot=0)


def test_templates_of_a_person_are_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(tmp_path / "own.extxyz", [bulk("AgCl", "rocksalt", a=5.5)])
    problem = Problem("NaCl", formula_units=1)
    (first,) = take(PrototypesSource(problem, str(tmp_path / "own.extxyz"), libraries=[]), problem, 1)
    assert first.operator == "template"
    assert first.tag["template"] == "own.extxyz, frame 0"
    with pytest.raises(InputError, match="no such file"):
        PrototypesSource(problem, str(tmp_path / "nothing.extxyz"))


def test_a_benchmark_can_leave_out_what_it_seeks():
    problem = Problem("TiO2", formula_units=(1, 2))
    source = PrototypesSource(problem, libraries=[aflow().without(["O2Ti"])])
    names = [p.tag["template"] for p in take(source, problem, 12) if p.operator == "aflow"]
    assert not any("Rutile" in name or "Anatase" in name for name in names)
