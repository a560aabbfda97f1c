"""The generative source: what it asks for, what it lets through, and what a bad generator can do to a search."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from crystals import InlineBackend, P1Source, instant_relaxation, rutile, what_happened
from toys import Toy

from hybridcsp import Problem, Search
from hybridcsp.archive.archive import Archive
from hybridcsp.core.outcomes import RejectionReason
from hybridcsp.core.records import Candidate, Job
from hybridcsp.errors import GeneratorError, InputError
from hybridcsp.generators.base import Condition, Reject, Sample
from hybridcsp.generators.selection import requests_for, select
from hybridcsp.search.setup import build_sources
from hybridcsp.similarity import STARTS, StructureIndex
from hybridcsp.sources.base import Context, SourceStatus
from hybridcsp.sources.batch_queue import FIRST_CHOICES
from hybridcsp.sources.generative import GenerativeSource
from hybridcsp.sources.preselection import RELAXATIONS_PER_JOB
from hybridcsp.sources.registry import SOURCES
from hybridcsp.structure.symmetry import spacegroup

COPPER = Problem("Cu", formula_units=(1, 4), distance_fraction=0.05)


@pytest.fixture
def archive(tmp_path):
    with Archive(tmp_path / "archive", write=True) as opened:
        yield opened


def context(archive, call=0, problem=COPPER):
    return Context(problem=problem, archive=archive, rng=np.random.default_rng(call))


def take(source, archive, n, problem=COPPER):
    """Ask for proposals as a search does."""
    candidates = []
    for call in range(n):
        proposals = source.propose(1, context(archive, call, problem))
        more = [Candidate(proposal=p, id=len(candidates) + i + 1, source="toy") for i, p in enumerate(proposals)]
        source.proposed(more)
        candidates += more
    return candidates


def search(directory, *sources, **options):
    backend = InlineBackend(instant_relaxation)
    return Search(COPPER, calculator=None, directory=directory, sources=sources, backend=backend, **options)


class TestRequests:
    def test_they_are_spread_over_the_formula_units(self):
        requests = requests_for(COPPER, frozenset(), 12, np.random.default_rng(0))
        assert sorted(r.contents["Cu"] for r in requests) == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3

    def test_requests_contain_only_conditions_of_the_model(self):
        problem = replace(COPPER, spacegroups=(225, 229), pressure_gpa=20.0)
        (plain,) = requests_for(problem, frozenset(), 1, np.random.default_rng(0))
        assert (plain.spacegroup, plain.energy_quantile, plain.pressure_gpa) == (None, None, None)
        (full,) = requests_for(problem, frozenset(Condition), 1, np.random.default_rng(0))
        assert full.spacegroup in (225, 229)
        assert 0 <= full.energy_quantile <= 0.2
        assert full.pressure_gpa == 20.0

    def test_every_second_request_names_one_of_several_space_groups(self):
        def groups(*named):
            problem = replace(COPPER, spacegroups=named)
            return [r.spacegroup for r in requests_for(problem, frozenset(Condition), 40, np.random.default_rng(0))]

        assert groups(225) == [225] * 40
        several = groups(*range(16, 231))
        assert several[1::2] == [None] * 20
        assert set(several[::2]) <= set(range(16, 231))


class TestSelection:
    def of(self, *structures, problem=COPPER, conditions=frozenset()):
        answers = [
            s if isinstance(s, Reject) else Sample(atoms=s, request=i, log_likelihood=-float(i))
            for i, s in enumerate(structures)
        ]
        return select(answers, problem, conditions, len(answers))

    def test_unusable_samples_are_counted_by_reason(self):
        broken = bulk("Cu")
        broken.positions[:] = np.nan
        dense, close = bulk("Cu", a=1.5), bulk("Cu", cubic=True)
        close.positions[1] = close.positions[0] + 0.01
        useless = [broken, dense, close, bulk("Ag"), Reject(request=4, reason="out of luck")]
        found = self.of(*useless, bulk("Cu").repeat(2), bulk("Cu"), bulk("Cu", cubic=True))
        assert found.rejects == {
            "invalid": 1,
            "volume": 1,
            "distance": 1,
            "composition": 1,
            "duplicate": 2,  # the supercell is reduced to the same crystal
            "out of luck": 1,
        }
        assert len(found.chosen) == 1

    def test_answers_that_are_none_are_counted(self):
        found = select([None, "crystal", Sample(atoms="Cu", request=2)], COPPER, frozenset(), 5)  # type: ignore[list-item]
        assert found.rejects == {"no answer": 5}

    def test_samples_are_filtered_by_space_group_without_that_condition(self):
        found = self.of(bulk("Cu"), bulk("Cu", "bcc", a=2.9), problem=replace(COPPER, spacegroups=(229,)))
        assert found.rejects == {str(RejectionReason.SPACEGROUP): 1}
        assert [chosen.spacegroup for chosen in found.chosen] == [229]

    def test_a_model_that_knows_no_pressure_has_its_samples_compressed(self):
        problem = replace(COPPER, pressure_gpa=100.0)
        (plain,) = self.of(bulk("Cu"), problem=problem).chosen
        (conditioned,) = self.of(bulk("Cu"), problem=problem, conditions=frozenset({Condition.PRESSURE})).chosen
        expected = problem.expected_volume_per_atom / COPPER.expected_volume_per_atom
        assert plain.atoms.get_volume() / conditioned.atoms.get_volume() == pytest.approx(expected)

    def test_near_symmetry_becomes_symmetry(self):
        rattled = rutile()
        rattled.rattle(0.02, seed=2)
        found = self.of(rattled, problem=Problem("TiO2", formula_units=2))
        assert [chosen.spacegroup for chosen in found.chosen] == [136]

    def test_a_lower_symmetry_of_its_own_is_left_alone(self):
        orthorhombic = bulk("Cu", cubic=True)
        orthorhombic.set_cell([3.6, 3.9, 4.2], scale_atoms=True)
        assert [chosen.spacegroup for chosen in self.of(orthorhombic).chosen] == [69]

    def test_the_likeliest_come_first_but_formula_units_and_space_groups_take_turns(self):
        fcc, bcc, hcp = bulk("Cu", a=3.7), bulk("Cu", "bcc", a=2.9), bulk("Cu", "hcp", a=2.6, c=4.2)
        flat = bulk("Cu", "hcp", a=2.6, c=5.0)
        found = self.of(fcc, bcc, hcp, flat)
        assert [(c.units, c.spacegroup) for c in found.chosen] == [(1, 225), (2, 194), (1, 229), (2, 194)]

    def test_a_model_that_puts_its_answers_in_order_is_believed(self):
        answers = [
            Sample(atoms=atoms, request=i, log_likelihood=float(i))
            for i, atoms in enumerate([bulk("Cu", "bcc", a=2.9), bulk("Cu", a=3.7)])
        ]
        for best_first, groups in ((False, [225, 229]), (True, [229, 225])):
            found = select(answers, COPPER, frozenset(), 2, best_first=best_first)
            assert [chosen.spacegroup for chosen in found.chosen] == groups


class TestTheSource:
    def test_proposals_know_their_batch_and_the_version_that_made_them(self, archive):
        candidates = take(GenerativeSource(COPPER, generator=Toy()), archive, 6)
        assert {c.operator for c in candidates} == {"toy"}
        assert {c.proposal.tag["version"] for c in candidates} == {0}
        assert len({c.proposal.tag["batch"] for c in candidates}) == 2  # a third of 8 samples, then more
        assert {COPPER.units_of(c.atoms.numbers) for c in candidates} <= {1, 2, 3, 4}
        assert candidates[0].proposal.cost.seconds > 0

    def test_the_first_batch_is_small_and_the_next_ones_are_not(self, archive, monkeypatch):
        monkeypatch.setattr(Toy, "batch_size", 48)
        candidates = take(GenerativeSource(replace(COPPER, formula_units=2), generator=Toy()), archive, 8)
        samples = [c.proposal.tag["samples"] for c in candidates if "samples" in c.proposal.tag]
        assert samples == [16, 48]

    def test_proposing_changes_nothing(self, archive):
        source = GenerativeSource(COPPER, generator=Toy())
        first, again = (source.propose(1, context(archive))[0] for _ in range(2))
        assert first.tag == again.tag
        assert first.atoms == again.atoms

    def test_nothing_is_proposed_twice(self, archive):
        class Stubborn(Toy):
            def answer(self, number, request, rng):
                few = [bulk("Cu"), bulk("Cu", "bcc", a=2.9), bulk("Cu", "hcp", a=2.6, c=4.2)]
                return Sample(atoms=few[rng.integers(3)], request=number)

        source = GenerativeSource(COPPER, generator=Stubborn())
        assert {spacegroup(c.atoms) for c in take(source, archive, 3)} == {225, 229, 194}
        with pytest.raises(GeneratorError, match="proposed before"):
            source.propose(1, context(archive, 9))

    def test_rejects_are_counted(self, archive):
        class Dense(Toy):
            def answer(self, number, request, rng):
                if number % 2:
                    return Sample(atoms=bulk("Cu", a=1.0), request=number)
                return super().answer(number, request, rng)

        source = GenerativeSource(COPPER, generator=Dense())
        (candidate,) = take(source, archive, 1)
        assert candidate.proposal.tag["rejects"]["volume"] >= 4

    def test_energies_choose_among_samples_after_the_first_choices(self, archive):
        problem = replace(COPPER, formula_units=(2, 3))
        candidates = take(GenerativeSource(problem, generator=Toy(), samples_per_job=3), archive, 12, problem)
        assert [len(c.starts) for c in candidates[:FIRST_CHOICES]] == [1] * FIRST_CHOICES
        assert {c.proposal.level for c in candidates[:FIRST_CHOICES]} == {"relax"}
        ranked = candidates[FIRST_CHOICES:]
        assert max(len(c.starts) for c in ranked) == 3
        for candidate in ranked:
            assert candidate.proposal.level == ("lowest" if len(candidate.starts) > 1 else "relax")
            assert all((start.numbers == candidate.atoms.numbers).all() for start in candidate.starts)
        index = StructureIndex(energy_window=None, tolerances=STARTS)
        for number, start in enumerate(start for candidate in candidates for start in candidate.starts):
            assert index.find(start) is None  # no sample is evaluated twice
            index.add(number, start)

    def test_samples_that_a_job_did_not_relax_follow_by_energy(self, archive):
        problem = replace(COPPER, formula_units=3)
        source = GenerativeSource(problem, generator=Toy(), samples_per_job=4)
        take(source, archive, FIRST_CHOICES, problem)
        outcomes = []
        for call in range(FIRST_CHOICES, FIRST_CHOICES + RELAXATIONS_PER_JOB + 1):
            (proposal,) = source.propose(1, context(archive, call, problem))
            candidate = Candidate(proposal=proposal, id=call + 1, source="toy")
            source.proposed([candidate])
            outcomes.append(instant_relaxation(Job(candidate=candidate, atoms=candidate.atoms, level=proposal.level)))
            source.observe(outcomes[-1:])
        job, *followers, next_job = outcomes
        lowest = np.argsort(job.start_enthalpies)
        assert [follower.level for follower in followers] == ["relax"] * (RELAXATIONS_PER_JOB - 1)
        for place, follower in enumerate(followers, 1):
            assert follower.candidate.atoms == job.candidate.starts[lowest[place]]
        assert next_job.level == "lowest"
        assert next_job.candidate.starts[-1] == job.candidate.starts[lowest[RELAXATIONS_PER_JOB]]
        assert 2 <= len(next_job.candidate.starts) <= 4

    def test_rivals_keep_their_structure_whatever_the_order_of_their_atoms(self, archive):
        problem = Problem("CuAg", formula_units=2, distance_fraction=0.05)

        class Shuffled(Toy):
            def answer(self, number, request, rng):
                atoms = super().answer(number, request, rng).atoms
                atoms = atoms[rng.permutation(len(atoms))]
                made.append(atoms)
                return Sample(atoms=atoms, request=number, log_likelihood=-float(number))

        made: list[Atoms] = []
        source = GenerativeSource(problem, generator=Shuffled(), samples_per_job=4)
        for candidate in take(source, archive, 8, problem):
            for start in candidate.starts:
                known = StructureIndex(energy_window=None, tolerances=STARTS)
                for number, atoms in enumerate(made):
                    known.add(number, atoms)
                assert known.find(start) is not None

    def test_a_search_hands_its_setting_on_to_the_sources_that_are_named(self):
        toy = GenerativeSource(COPPER, generator=Toy())
        built = build_sources(["wyckoff", "random", toy], COPPER, samples_per_job=9, posterior=False)
        assert {name: getattr(source, "samples_per_job", None) for name, source in built.items()} == {
            "wyckoff": 9,
            "random": None,
            "toy": 1,
        }
        assert {name: getattr(source, "posterior", None) is None for name, source in built.items()} == {
            "wyckoff": True,
            "random": True,
            "toy": False,
        }
        with pytest.raises(InputError, match="one_shot"):
            build_sources(["random"], COPPER, samples_per_job=0)

    def test_a_fixed_cell_is_left_to_others(self):
        problem = Problem("Cu", formula_units=1, cell=(2.5, 2.5, 2.5, 60, 60, 60))
        assert GenerativeSource(problem, generator=Toy()).status() is SourceStatus.EXHAUSTED

    @pytest.mark.parametrize(
        ("name", "argument", "said"),
        [
            ("generative", None, "must be generative:NAME or generative:FOLDER"),
            ("generative", "wykoff", "did you mean 'wyckoff'"),
            ("generative", "./nothing", "card.json"),
            ("generative", "wyckoff:scrach", ":scratch"),
            ("wyckoff", "./nothing", "card.json"),
        ],
    )
    def test_generator_that_cannot_be_loaded_is_an_error_at_once(self, name, argument, said):
        with pytest.raises(InputError, match=said):
            SOURCES[name].load()(COPPER, argument)

    def test_a_folder_of_weights_does_not_begin_untrained(self, tmp_path):
        with pytest.raises(
            InputError, match=r"the folder alone, because its weights are trained; NAME:scratch starts without"
        ):
            SOURCES["generative"].load()(COPPER, f"{tmp_path}:scratch")


class TestInASearch:
    def test_other_weights_than_before_are_said(self, tmp_path, caplog):
        def begun(weights):
            toy = Toy()
            toy.card = {"weights_sha256": weights}
            with search(tmp_path, GenerativeSource(COPPER, generator=toy)) as run:
                run.run(relaxations=run.archive.state.relaxations + 2)

        begun("one")
        begun("one")
        assert "differ from those" not in caplog.text
        begun("another")
        assert "source toy: its weights differ from those that this search has used so far" in caplog.text

    def test_one_seed_gives_the_same_search(self, tmp_path):
        for name in ("a", "b"):
            search(tmp_path / name, GenerativeSource(COPPER, generator=Toy()), seed=3).run(relaxations=10)
        assert what_happened(tmp_path / "a") == what_happened(tmp_path / "b")

    @pytest.mark.parametrize(("one_shot", "relaxations", "stops"), [(1, 14, (3, 8)), (4, 30, (6, 13))])
    def test_interrupted_and_resumed_is_the_same_as_uninterrupted(self, tmp_path, one_shot, relaxations, stops):
        def source():
            return GenerativeSource(COPPER, generator=Toy(), samples_per_job=one_shot)

        search(tmp_path / "whole", source(), P1Source(), seed=5).run(relaxations=relaxations)

        def interrupt(progress):
            if progress.relaxations in stops:
                raise KeyboardInterrupt

        for last in (False, False, True):
            part = search(tmp_path / "parts", source(), P1Source(), seed=5)
            try:
                part.run(relaxations=relaxations, on_progress=None if last else interrupt)
            except KeyboardInterrupt:
                part.close()
        levels = [event.level for event in part.archive.history() if hasattr(event, "level")]
        assert (levels.count("lowest") >= 2) == (one_shot > 1)
        assert what_happened(tmp_path / "parts") == what_happened(tmp_path / "whole")

    def test_asked_candidate_contains_all_structures_of_its_job(self, tmp_path):
        run = search(tmp_path, GenerativeSource(COPPER, generator=Toy(), samples_per_job=4))
        asked = run.ask(FIRST_CHOICES + 3)
        assert max(len(candidate.starts) for candidate in asked[FIRST_CHOICES:]) > 1
        assert [len(candidate.starts) for candidate in run.pending()] == [len(c.starts) for c in asked]
        best = asked[-1].starts[-1]
        best.calc = SinglePointCalculator(best, energy=-3.5 * len(best), forces=np.zeros((len(best), 3)))
        assert run.tell(asked[-1], best).is_new_minimum

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (lambda *_: 1 / 0, "ZeroDivisionError"),
            (lambda *_: None, "8 no answer"),
            (lambda self, number, request, rng: Sample(atoms=bulk("Ag"), request=number), "8 composition"),
        ],
    )
    def test_a_bad_generator_costs_nothing_but_its_counted_errors(self, tmp_path, answer, said):
        bad = type("Bad", (Toy,), {"answer": answer})()
        run = search(tmp_path, GenerativeSource(COPPER, generator=bad), P1Source())
        assert run.run(relaxations=8).stopped == "relaxations used up"
        errors = [event.error for event in run.archive.history() if getattr(event, "error", "")]
        assert len(errors) == GenerativeSource.max_errors
        assert all(said in error for error in errors)
        assert run.archive.state.errors["toy"] == GenerativeSource.max_errors


@pytest.mark.slow
def test_the_shipped_transformer_proposes_rutile_early_and_the_same_in_every_process(archive):
    dioxide = Problem("TiO2", formula_units=(1, 2))
    first, again = (take(SOURCES["wyckoff"].build(dioxide, None), archive, 6, dioxide) for _ in range(2))
    assert [c.atoms for c in first] == [c.atoms for c in again]
    assert {c.operator for c in first} == {"wyckoff"}
    assert 136 in {spacegroup(c.atoms) for c in first if len(c.atoms) == 6}
