"""Several generators that learn in one search: whose turn it is, and what all of them together may take."""

import itertools
import time

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from crystals import InlineBackend, P1Source, instant_relaxation, random_crystal, relaxed, what_happened
from toys import Toy

from hybridcsp import Problem, Search
from hybridcsp.archive.history import ModelUpdate
from hybridcsp.core.records import Cost
from hybridcsp.retraining import Deferred, Retraining
from hybridcsp.retraining import scheduler as scheduler_module
from hybridcsp.sources.generative import GenerativeSource

COPPER = Problem("Cu", formula_units=(2, 4), distance_fraction=0.05)


class Slow(Toy):
    effort = 2.0


def costing(force_calls):
    def runner(job):
        end = instant_relaxation(job)
        cost = Cost(force_calls=force_calls)
        return relaxed(job.candidate, end.enthalpy_per_atom, job.atoms, level=job.level, cost=cost)

    return runner


def search(directory, *generators, force_calls=75, capacity=1, **settings):
    return Search(
        COPPER,
        calculator=None,
        directory=directory,
        sources=[*(GenerativeSource(COPPER, generator=one) for one in generators), P1Source()],
        backend=InlineBackend(costing(force_calls), capacity),
        retraining=Retraining(**{"new_minima": 5, "trial": 3, "epochs": 10, "replay": 0, **settings}),
        allocation="equal",
    )


def trainings(run):
    return [past for past in run.archive.history() if isinstance(past, ModelUpdate) and past.training]


def test_generators_are_trained_in_turn(tmp_path):
    run = search(tmp_path, Toy(), Toy(), Toy(), new_minima=1, trial=0)  # each is due again at once
    run.run(relaxations=30, refine=0)
    turns = [event.source for event in trainings(run)]
    assert turns[:6] == ["toy", "toy-2", "toy-3"] * 2


def test_all_trainings_together_keep_to_the_share(tmp_path):
    run = search(tmp_path, Toy(), Slow(), force_calls=50)
    run.run(relaxations=120, refine=0)
    effort = {"toy": 1.0, "toy-2": 2.0}
    assert {event.source for event in trainings(run)} == set(effort)
    spent = paid = 0.0
    for past in run.archive.history():
        paid += past.cost.force_calls
        if isinstance(past, ModelUpdate) and past.training:
            spent += past.training["passes"] * effort[past.source] / 4
            assert spent <= 0.1 * paid


def test_generator_is_trained_within_the_whole_budget_if_others_learn_too(tmp_path):
    """As many epochs as are worth it fit the whole budget, and not half of it."""
    alone, together = (
        search(tmp_path / "one", Toy(), force_calls=15),
        search(tmp_path / "two", Toy(), Toy(), force_calls=15),
    )
    for run in (alone, together):
        run.run(relaxations=60, refine=0)
    assert trainings(alone)
    assert trainings(together)


def test_training_is_postponed_if_earlier_ones_took_too_long(tmp_path, monkeypatch):
    class Lazy(Toy):
        def fit(self, examples, **settings):
            time.sleep(0.5)
            super().fit(examples, **settings)

    monkeypatch.setattr(scheduler_module, "GRACE", 0.0)
    run = search(tmp_path, Lazy(), epochs=4)
    run.run(relaxations=40, refine=0)
    first, *others = trainings(run)
    assert first.training["version"] == 1
    assert others  # a search of no seconds, a tenth of which the first training has used up
    assert all(event.training == {"postponed": True} for event in others)


def test_added_structures_do_not_increase_the_budget(tmp_path):
    with search(tmp_path, Toy(), epochs=4) as run:
        scheduler = run._proposer._scheduler
        for n in range(30):
            atoms = random_crystal("Cu2", 20.0, np.random.default_rng(n))
            atoms.calc = SinglePointCalculator(atoms, energy=-3.0 * len(atoms) - 0.01 * n)
            run.add(atoms)
        assert run.archive.number_of_minima > 5
        assert scheduler._force_calls() == 0
        assert not run._proposer.learn()
        step = scheduler.step()
        assert isinstance(step, Deferred)
        assert step.reason == "the training of toy does not fit into its share of the time yet"


def test_only_one_generator_is_trained_at_a_time_in_the_background(tmp_path, monkeypatch):
    run = search(tmp_path, Toy(), Toy(), capacity=2, epochs=4)
    running = []
    scheduler = run._proposer._scheduler
    step = scheduler.step

    def watched():
        event = step()
        running.append(sum(retrainer.running for retrainer in scheduler._retrainers.values()))
        return event

    monkeypatch.setattr(scheduler, "step", watched)
    run.run(relaxations=40, refine=0)
    run.close()
    assert max(running) == 1


def test_resumed_search_keeps_the_turns(tmp_path):
    search(tmp_path / "whole", Toy(), Slow()).run(relaxations=60, refine=0)
    for relaxations in (17, 33, 60):
        part = search(tmp_path / "parts", Toy(), Slow())
        part.run(relaxations=relaxations, refine=0)
        part.close()
    whole = [event for event in what_happened(tmp_path / "whole") if event[0] == "adopted"]
    assert [event for event in what_happened(tmp_path / "parts") if event[0] == "adopted"] == whole
    assert len(whole) > 2


@pytest.mark.parametrize("told", [None, 75])
def test_generators_learn_in_ask_and_tell_with_and_without_force_calls(tmp_path, told):
    energies = itertools.count()
    sources = [GenerativeSource(COPPER, generator=Toy()), P1Source()]
    settings = Retraining(new_minima=5, trial=3, epochs=4)
    with Search(COPPER, calculator=None, directory=tmp_path, sources=sources, retraining=settings) as run:
        for _ in range(24):
            for candidate in run.ask():
                atoms = candidate.atoms.copy()
                atoms.calc = SinglePointCalculator(atoms, energy=-3.0 * len(atoms) - 0.01 * next(energies))
                run.tell(candidate, atoms, force_calls=told)
        assert [event.training["version"] for event in trainings(run)][:1] == [1]
