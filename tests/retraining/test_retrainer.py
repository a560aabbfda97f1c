"""Generators that learn during a search: when, from what, at what cost, and exactly the same again."""

import json
import re
import shutil
import time
from dataclasses import replace

import ase.io
import pytest
from crystals import InlineBackend, P1Source, instant_relaxation, relaxed, what_happened
from rich.console import Console
from toys import Toy

from hybridcsp import Problem, Search
from hybridcsp.analysis.report import sources_table
from hybridcsp.archive.history import ModelUpdate
from hybridcsp.core.records import Cost
from hybridcsp.errors import ArchiveError, InputError
from hybridcsp.generators.base import Condition
from hybridcsp.retraining import Retraining
from hybridcsp.retraining.versions import version_folder
from hybridcsp.sources.generative import GenerativeSource

COPPER = Problem("Cu", formula_units=(2, 4), distance_fraction=0.05)
OFTEN = Retraining(new_minima=5, trial=3, epochs=4)


def costing(job):
    """A relaxation to nowhere of 75 force calls."""
    outcome = instant_relaxation(job)
    return relaxed(job.candidate, outcome.enthalpy_per_atom, job.atoms, level=job.level, cost=Cost(force_calls=75))


def search(
    directory, generator=None, runner=costing, capacity=1, retraining=OFTEN, others=(), problem=COPPER, **options
):
    return Search(
        problem,
        calculator=None,
        directory=directory,
        sources=[GenerativeSource(problem, generator=generator or Toy()), *(others or [P1Source()])],
        backend=InlineBackend(runner, capacity),
        retraining=retraining,
        allocation="equal",
        **options,
    )


def adoptions(run):
    return [event for event in run.archive.history() if isinstance(event, ModelUpdate)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A search with seed 1 that has learned."""
    run = search(tmp_path_factory.mktemp("learning"), seed=1)
    run.run(relaxations=24, refine=0)
    return run


def test_candidates_name_the_version_that_was_trained_on_minima(finished):
    run = finished
    first = adoptions(run)[0]
    assert first.versions == (0, 1)
    assert first.training["version"] == 1
    assert first.training["passes"] == first.training["epochs"] * first.training["examples"]
    assert first.cost.seconds > 0
    folder = version_folder(run.directory, "toy", 1)
    assert json.loads((folder / "card.json").read_text())["settings"] == ["anchor", "learning_rate"]
    made_by = {
        run.archive.candidate(i).proposal.tag["version"]
        for i in range(1, run.archive.candidates + 1)
        if run.archive.candidate(i).source == "toy"
    }
    assert {0, 1} <= made_by


def text_of(table):
    console = Console(width=300)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_table_of_sources_shows_trainings(finished):
    assert re.search(r"toy: retrained \d times in \d+ s, current version \d", text_of(sources_table(finished.archive)))


def test_it_waits_for_new_minima_and_for_its_share_of_force_calls(finished):
    for event in adoptions(finished):
        if event.training:
            so_far = [past for past in finished.archive.history() if past.sequence < event.sequence]
            force_calls = sum(past.cost.force_calls for past in so_far)
            passes = sum(past.training.get("passes", 0) for past in so_far if isinstance(past, ModelUpdate))
            assert passes + event.training["passes"] <= 0.1 * force_calls * 4
            assert sum(getattr(past, "is_new_minimum", False) for past in so_far) >= 5


def test_duration_of_trainings_is_charged_to_the_search(tmp_path):
    class Slow(Toy):
        def fit(self, examples, **settings):
            time.sleep(0.3)
            super().fit(examples, **settings)

    run = search(tmp_path, Slow())
    run.run(relaxations=15, refine=0)
    trained = [event for event in adoptions(run) if event.training]
    assert all(event.cost.seconds > 0.3 for event in trained)
    assert run.archive.state.cost.seconds > 0.3 * len(trained) > 0


def test_one_seed_gives_the_same_search(finished, tmp_path):
    search(tmp_path, seed=1).run(relaxations=24, refine=0)
    assert what_happened(tmp_path) == what_happened(finished.directory)
    assert any(event[0] == "adopted" for event in what_happened(tmp_path))


def test_interrupted_and_resumed_is_the_same_as_uninterrupted(finished, tmp_path):
    def interrupt(progress):
        if progress.relaxations in (9, 17):
            raise KeyboardInterrupt

    for last in (False, False, True):
        part = search(tmp_path, seed=1)
        try:
            part.run(relaxations=24, refine=0, on_progress=None if last else interrupt)
        except KeyboardInterrupt:
            part.close()
    assert what_happened(tmp_path) == what_happened(finished.directory)


def test_interrupted_while_it_trains_is_the_same_as_uninterrupted(finished, tmp_path):
    class Interrupted(Toy):
        def fit(self, examples, **settings):
            raise KeyboardInterrupt

    part = search(tmp_path, Interrupted(), seed=1)
    with pytest.raises(KeyboardInterrupt):
        part.run(relaxations=24, refine=0)
    part.close()
    search(tmp_path, seed=1).run(relaxations=24, refine=0)
    assert what_happened(tmp_path) == what_happened(finished.directory)


def test_without_retraining_a_search_is_the_same_up_to_the_first_training(finished, tmp_path):
    search(tmp_path, seed=1, retraining=Retraining(new_minima=0)).run(relaxations=24, refine=0)
    learning, frozen = what_happened(finished.directory), what_happened(tmp_path)
    first = [event[0] for event in learning].index("adopted")
    assert learning[:first] == frozen[:first]
    assert learning[first + 1 :] != frozen[first:]


class TestTrials:
    """What relaxes from new versions earns as a test wishes."""

    def run(self, directory, better):
        energies = iter(range(1000))

        def runner(job):
            version = job.candidate.proposal.tag.get("version", 0)
            good = (version > 0) == better
            energy = -4.0 - 0.01 * next(energies) if good else -3.0
            return relaxed(job.candidate, energy, job.atoms, cost=Cost(force_calls=75))

        run = search(directory, runner=runner)
        run.run(relaxations=26, refine=0)
        return adoptions(run)

    def test_version_with_more_credit_is_kept(self, tmp_path):
        started, settled = self.run(tmp_path, better=True)[:2]
        assert started.versions == (0, 1)
        assert settled.versions == (1,)
        assert "kept" in settled.detail

    def test_version_with_less_credit_is_given_up(self, tmp_path):
        started, settled = self.run(tmp_path, better=False)[:2]
        assert started.versions == (0, 1)
        assert settled.versions == (0,)
        assert "given up" in settled.detail

    def test_both_get_the_same_number_of_proposals(self, tmp_path):
        run = search(tmp_path, retraining=Retraining(new_minima=5, trial=6, epochs=4))
        run.run(relaxations=36, refine=0)
        started, settled = adoptions(run)[:2]
        between = [
            past.candidate.proposal.tag["version"]
            for past in run.archive.history()
            if started.sequence < past.sequence < settled.sequence
            and hasattr(past, "evaluation")
            and past.candidate.source == "toy"
        ]
        assert abs(between.count(0) - between.count(1)) <= 2


class TestFaults:
    def test_failed_trainings_are_recorded_and_end_after_three(self, tmp_path):
        class Broken(Toy):
            def fit(self, examples, **settings):
                raise ValueError("the loss is not a number")

        run = search(tmp_path, Broken())
        assert run.run(relaxations=50, refine=0).stopped == "relaxations used up"
        events = adoptions(run)
        assert len(events) == 3
        assert {event.versions for event in events} == {(0,)}
        assert all("the loss is not a number" in event.detail for event in events)

    def test_unreadable_replay_data_do_not_end_the_search(self, tmp_path):
        (tmp_path / "data.extxyz").write_text("no crystals")
        settings = Retraining(new_minima=5, replay_data=str(tmp_path / "data.extxyz"))
        run = search(tmp_path / "run", retraining=settings)
        assert run.run(relaxations=10, refine=0).stopped == "relaxations used up"
        assert adoptions(run)[0].training["failed"]
        assert "nothing to learn from" in adoptions(run)[0].detail
        assert "nothing to learn from" in text_of(sources_table(run.archive))

    def test_missing_or_changed_version_is_an_error_on_resumption(self, finished, tmp_path):
        shutil.copytree(finished.directory, tmp_path / "copy")
        folder = version_folder(tmp_path / "copy", "toy", 1)
        weights = (folder / "weights.json").read_text()
        (folder / "weights.json").write_text(weights[:-10])
        with pytest.raises(ArchiveError, match="changed or are damaged"):
            search(tmp_path / "copy", seed=1)
        shutil.rmtree(folder)
        with pytest.raises(ArchiveError, match="is missing"):
            search(tmp_path / "copy", seed=1)

    def test_folder_of_a_version_holds_its_training_set(self, finished):
        names = {file.name for file in version_folder(finished.directory, "toy", 1).iterdir()}
        assert names == {"examples.extxyz", "plan.json", "report.json", "weights.json", "card.json"}


@pytest.mark.parametrize("knows", [False, True])
def test_only_generators_conditioned_on_pressure_learn_it(tmp_path, knows):
    toy = Toy()
    toy.conditions = frozenset({Condition.PRESSURE}) if knows else frozenset()
    run = search(tmp_path, toy, problem=replace(COPPER, pressure_gpa=50.0))
    run.run(relaxations=12, refine=0)
    assert adoptions(run)[0].training["version"] == 1
    taught = ase.io.read(version_folder(tmp_path, "toy", 1) / "examples.extxyz", ":")
    assert {atoms.info.get("pressure_gpa") for atoms in taught} == ({50.0} if knows else {None})


def test_progress_shows_the_state_of_retraining(tmp_path):
    seen = []
    run = search(tmp_path)
    run.run(relaxations=12, refine=0, on_progress=seen.append)
    training = [line for progress in seen for line in progress.training]
    assert any(line.startswith("toy learns after ") for line in training)
    assert any(line.startswith("toy: version 1 on trial against 0, ") for line in training)
    assert any(progress.activity.startswith("training toy: epoch 1 of ") for progress in seen)


def test_tie_keeps_the_previous_version(tmp_path):
    def nothing_new(job):
        outcome = costing(job)
        return outcome if job.candidate.id <= 5 else replace(outcome, converged=False)

    run = search(tmp_path, runner=nothing_new)
    run.run(relaxations=26, refine=0)
    started, settled = adoptions(run)[:2]
    assert started.versions == (0, 1)
    assert "0: 0.00, 1: 0.00" in settled.detail
    assert settled.versions == (0,)


@pytest.mark.slow
class TestSubprocess:
    def test_several_workers_train_in_a_subprocess(self, tmp_path):
        def slowly(job):
            time.sleep(0.05)
            return costing(job)

        run = search(tmp_path, runner=slowly, capacity=2)
        run.run(relaxations=400, refine=0, hours=25 / 3600)
        run.close()
        trained = [event for event in adoptions(run) if event.training]
        assert trained
        assert not any(event.training.get("failed") for event in trained)
        again = search(tmp_path, capacity=2)
        assert again.sources["toy"].versions == run.sources["toy"].versions

    def test_died_subprocess_is_a_failed_training(self, tmp_path):
        class Local(Toy):  # cannot be imported by the other process
            pass

        run = search(tmp_path, Local(), capacity=2)
        deadline = time.monotonic() + 60
        relaxations = 20
        while not adoptions(run):
            assert time.monotonic() < deadline
            relaxations += 1
            run.run(relaxations=relaxations, refine=0)
        assert adoptions(run)[0].training["failed"]


class TestUntrained:
    PROBLEM = Problem("TiO2", formula_units=(1, 2), distance_fraction=0.3)

    def search(self, directory, retraining=OFTEN, sources=None):
        source = GenerativeSource(self.PROBLEM, generator=Toy(), from_scratch=True)
        return Search(
            self.PROBLEM,
            calculator=None,
            directory=directory,
            sources=[source, P1Source()] if sources is None else [source],
            backend=InlineBackend(costing),
            retraining=retraining,
            allocation="equal",
        )

    @pytest.mark.slow
    def test_untrained_generator_learns_from_prototypes_and_minima_of_others(self, tmp_path):
        run = self.search(tmp_path)
        run.run(relaxations=20, refine=0)
        first = adoptions(run)[0]
        assert first.versions == (1,)
        assert first.training["examples"] > 4 * 5
        made = [run.archive.candidate(i) for i in range(1, run.archive.candidates + 1)]
        assert {c.proposal.tag["version"] for c in made if c.source == "toy"} >= {1}

    def test_untrained_generator_needs_retraining_and_another_source(self, tmp_path):
        with pytest.raises(InputError, match=r"needs retraining .* and another source"):
            self.search(tmp_path / "alone", sources=())
        with pytest.raises(InputError, match="needs retraining"):
            self.search(tmp_path / "frozen", retraining=Retraining(new_minima=0))
