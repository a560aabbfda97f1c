"""Follow-up relaxations of the best minima with other calculators, during and after a search."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from copper import crystals, search
from crystals import InlineBackend, ListSource, instant_relaxation, relaxed, what_happened

from hybridcsp import Search
from hybridcsp.core.outcomes import Failed, FailureReason
from hybridcsp.core.records import FOLLOW_UP
from hybridcsp.errors import BackendError, CalculatorError, InputError
from hybridcsp.relaxation.backends import ExecutorBackend
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.search.follow_up import FollowUp
from hybridcsp.search.settings import SearchSettings

LABELS = ("test", "emt 1", "lj 1")


class TwoCalculators(InlineBackend):
    """Relaxes at once; every calculator has its own order of energies, and its label."""

    def __init__(self, labels=LABELS, *, failing=(), capacity=1, last=None):
        super().__init__(self._run, capacity)
        self.known = labels
        self.failing = failing
        self.followed = []
        self.last = last  # number of jobs after which the backend breaks

    def labels(self):
        return self.known

    def completed(self, timeout):
        if self.jobs and self.last is not None:
            if self.last == 0:
                raise BackendError("the queue is gone")
            self.last -= 1
        return super().completed(timeout)

    def _run(self, job):
        if job.level != FOLLOW_UP:
            return instant_relaxation(job)
        self.followed.append((job.calculator, job.candidate.id))
        if job.calculator in self.failing:
            reason = FailureReason.CALCULATOR
            return Failed(candidate=job.candidate, reason=reason, level=job.level, detail="no such element")
        rng = np.random.default_rng([job.calculator, len(job.atoms), int(job.atoms.positions.sum() * 1e6)])
        label = self.known[job.calculator] if self.known else LABELS[job.calculator]
        energy = -10 * job.calculator - rng.random()
        start = (energy + 0.5,)
        return relaxed(job.candidate, energy, job.atoms, level=FOLLOW_UP, calculator=label, start_enthalpies=start)


def run(directory, backend=None, *, relaxations=12, seed=0, **then):
    """Run or resume a search with follow-ups and return its state."""
    with search(directory, seed=seed, then=FollowUp(**({"calculators": ("emt",)} | then))) as one:
        one._backend = backend or TwoCalculators()
        one.run(relaxations=relaxations, refine=0)
        return one.archive.state


def test_best_minima_are_relaxed_with_each_calculator_after_the_search(tmp_path):
    backend = TwoCalculators()
    with search(tmp_path, then=FollowUp(calculators=("emt", "lj"), best=4, window=0.0)) as one:
        one._backend = backend
        seen = []
        one.run(relaxations=12, refine=0, on_progress=seen.append)
        first, second = one.archive.state.follow_ups
        minima = one.minima()
        searched = one.archive.minima()
    assert [number for number, _ in backend.followed] == [1] * 4 + [2] * 4
    assert [candidate for _, candidate in backend.followed[:4]] == [m.best.candidate.id for m in searched[:4]]
    # the second calculator begins with what the first likes best
    assert [candidate for _, candidate in backend.followed[4:]] == [m.best.candidate for m in first.ranked()]
    assert [m.final.evaluation.calculator for m in minima[:5]] == ["lj 1"] * 4 + ["test"]
    assert second.lowest() == minima[0].final.enthalpy_per_atom
    assert (first.results, second.results) == (4, 4)
    assert seen[-1].level == "follow-up"
    assert (seen[-1].follow_ups_done, seen[-1].follow_ups_left) == (8, 0)
    assert seen[-1].relaxations == 12


def test_structures_far_above_the_best_of_the_calculator_are_given_up(tmp_path):
    backend = TwoCalculators()
    limits = []

    def noting(job):
        if job.level == FOLLOW_UP:
            limits.append(job.give_up_above)
        return backend._run(job)

    backend.runner = noting
    state = run(tmp_path, backend, window=0.3)
    level = state.follow_ups.levels[0]
    lowest = [enthalpy for _, _, enthalpy in level.improvements]
    assert limits[0] is None
    assert limits[1] == pytest.approx(lowest[0] + 0.5 + 0.3)  # above the lowest start, not above the lowest minimum
    assert limits[-1] <= limits[1]
    assert level.lowest_start() == pytest.approx(lowest[-1] + 0.5)


def test_all_within_the_window_are_followed_up(tmp_path):
    state = run(tmp_path, best=1, window=0.02)
    lowest = state.lowest()
    within = [basin.id for basin in state.ranked() if basin.enthalpy_per_atom <= lowest + 0.02]
    level = state.follow_ups.levels[0]
    assert 1 < len(within) < state.number_of_minima
    assert level.results == len(within)
    assert all(level.result(id_) for id_ in within)


def test_of_similar_structures_only_the_lowest_is_followed_up(tmp_path):
    one, other = crystals(2)
    distorted = one.copy()
    distorted.set_cell(one.cell @ np.diag([1.1, 0.95, 1.0]), scale_atoms=True)
    backend = TwoCalculators()
    with search(tmp_path, ListSource([one, distorted, other]), then="emt") as run_:
        run_._backend = backend
        run_.run(relaxations=3, refine=0)
        assert run_.archive.number_of_minima == 3
        assert run_.archive.state.follow_ups.levels[0].results == 2


def test_a_later_run_follows_up_only_what_is_new(tmp_path):
    run(tmp_path)
    backend = TwoCalculators()
    run(tmp_path, backend)
    assert backend.followed == []
    run(tmp_path, backend, relaxations=16)
    assert 0 < len(backend.followed) <= 4


def test_minima_are_followed_up_during_the_search(tmp_path):
    state = run(tmp_path, relaxations=14, every=5, best=3, window=0.0)
    kinds = [kind for kind, _, _ in what_happened(tmp_path) if kind in ("relaxed", "followed-up")]
    text = "".join({"relaxed": "r", "followed-up": "f"}[kind] for kind in kinds)
    assert text.startswith("rrrrrfffrrrrr")
    assert state.relaxations == 14


@pytest.mark.parametrize("every", [0, 5])
def test_a_run_that_breaks_at_any_job_continues_as_if_it_had_not(tmp_path, every):
    settings = {"relaxations": 11, "every": every, "best": 3, "window": 0.001, "calculators": ("emt", "lj")}
    whole = TwoCalculators()
    run(tmp_path / "whole", whole, **settings)
    expected = what_happened(tmp_path / "whole")
    jobs = 11 + len(whole.followed)
    assert jobs >= 17
    for last in range(4, jobs, 3):
        with pytest.raises(BackendError):
            run(tmp_path / f"{last}", TwoCalculators(last=last), **settings)
        run(tmp_path / f"{last}", **settings)
        assert what_happened(tmp_path / f"{last}") == expected


def test_several_workers_follow_up_every_minimum_once(tmp_path):
    backend = TwoCalculators(capacity=3)
    state = run(tmp_path, backend, relaxations=20, every=5, calculators=("emt", "lj"), best=30)
    assert len(backend.followed) == len(set(backend.followed))
    assert sum(level.results for level in state.follow_ups) == len(backend.followed)
    again = TwoCalculators(capacity=3)
    run(tmp_path, again, relaxations=20, calculators=("emt", "lj"), best=30)
    assert again.followed == []


def test_results_of_a_changed_calculator_are_outdated(tmp_path):
    before = run(tmp_path).follow_ups.levels[0]
    backend = TwoCalculators(("test", "emt 2"))
    level = run(tmp_path, backend).follow_ups.levels[0]
    assert (before.label, level.label) == ("emt 1", "emt 2")
    assert level.results == len(backend.followed) == before.results
    again = TwoCalculators()
    assert run(tmp_path, again).follow_ups.levels[0].label == "emt 1"
    assert again.followed == []  # its results are still there


def test_a_calculator_that_always_fails_is_given_up_and_the_search_is_complete(tmp_path, caplog):
    backend = TwoCalculators(failing=(1,))
    state = run(tmp_path, backend, relaxations=20)
    assert len(backend.followed) == 10
    assert state.stops == ["relaxations used up"]
    assert state.number_of_minima > 10
    (warning,) = [record.message for record in caplog.records if "follow-up" in record.message]
    assert "none of 10 follow-up relaxations with emt has succeeded (10 calculator: no such element)" in warning
    mended = TwoCalculators()
    state = run(tmp_path, mended, relaxations=20)  # a later run tries again
    assert state.follow_ups.levels[0].results == len(mended.followed) > 10


def test_few_failures_are_reported_at_the_end(tmp_path, caplog):
    run(tmp_path, TwoCalculators(failing=(1,)), best=3, window=0.0)
    assert "none of 3 follow-up relaxations with emt" in caplog.text


def test_the_next_calculator_works_on_the_search_if_the_one_before_fails(tmp_path):
    state = run(tmp_path, TwoCalculators(failing=(1,)), calculators=("emt", "lj"), best=3, window=0.0)
    assert [level.results for level in state.follow_ups] == [0, 3]


def test_a_failure_is_not_repeated_and_others_go_on(tmp_path):
    class FailingOnce(TwoCalculators):
        def _run(self, job):
            self.failing = (1,) if job.level == FOLLOW_UP and not self.followed else ()
            return super()._run(job)

    state = run(tmp_path, FailingOnce())
    level = state.follow_ups.levels[0]
    assert level.failed == {"calculator": 1}
    assert level.results > 5
    assert level.failures[0].calculator == "emt 1"
    again = TwoCalculators()
    run(tmp_path, again)
    assert again.followed == []


def test_a_backend_without_labels_takes_those_of_the_results(tmp_path):
    state = run(tmp_path, TwoCalculators(()))
    assert state.follow_ups.levels[0].label == "emt 1"


def test_records_of_a_search_without_follow_ups_have_no_new_keys(tmp_path):
    with search(tmp_path) as one:
        assert "then" not in one.archive.state.settings[0]


@pytest.mark.parametrize(
    ("then", "calculators"), [("emt", ("emt",)), (["emt", "lj"], ("emt", "lj")), (FollowUp(best=3), ())]
)
def test_follow_ups_are_given_as_names_or_settings(then, calculators):
    assert SearchSettings(then=then).then.calculators == calculators


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match="then = 'etm' cannot be used: did you mean 'emt'"):
        SearchSettings(then="etm")
    with pytest.raises(InputError, match="best"):
        FollowUp(best=0)
    with pytest.raises(InputError, match="window"):
        FollowUp(window=-0.1)
    with pytest.raises(InputError, match="every"):
        FollowUp(every=-1)
    with pytest.raises(InputError, match="a list of calculators"):
        FollowUp(calculators="emt")


def test_equal_names_are_told_apart():
    assert FollowUp(calculators=("emt", "lj", "emt")).names == ("emt", "lj", "emt (2)")


def test_interpreter_of_a_follow_up_that_cannot_run_is_a_mistake_in_the_follow_ups(tmp_path):
    named = tmp_path / "emt.toml"
    named.write_text('calculator = "emt"\npython = "/bin/false"')
    with pytest.raises(InputError, match="calculators = '/bin/false' cannot be used: this is not a Python interpreter"):
        SearchSettings(calculator="emt", then=str(named))


def test_calculator_that_another_interpreter_cannot_build_is_an_error_before_there_is_a_directory(tmp_path):
    named = tmp_path / "own.toml"
    named.write_text(f'calculator = "not_there:make"\npython = "{sys.executable}"')
    for settings in ({"calculator": str(named)}, {"calculator": "emt", "then": str(named)}):
        with pytest.raises(CalculatorError, match=r"not_there:make cannot be built by .*No module named 'not_there'"):
            Search("Cu", directory=tmp_path / "run", sources=["random"], **settings)
        assert not (tmp_path / "run").exists()


def test_follow_ups_that_nothing_could_make_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"then\.every = 5 cannot be used: there is no follow-up calculator"):
        SearchSettings(calculator="emt", then=FollowUp(every=5))
    with pytest.raises(InputError, match=r"then = \['lj'\] cannot be used: there are no workers with ask and tell"):
        Search("Cu", calculator=None, then="lj", directory=tmp_path / "run")


def test_calculators_of_different_precision_have_different_names():
    precise = CalculatorChoice(calculator="sevennet", precision="float64")
    assert FollowUp(calculators=("emt", precise)).names == ("emt", "sevennet float64")


def test_minima_of_the_ranking_that_counts_have_the_enthalpy_of_their_last_calculator(tmp_path):
    run(tmp_path)
    with search(tmp_path) as one:
        best = one.minima(1)[0]
    assert best.enthalpy_per_atom == best.final.enthalpy_per_atom != best.best.enthalpy_per_atom
    assert best.atoms.get_potential_energy() / len(best.atoms) == pytest.approx(best.enthalpy_per_atom)


def test_a_backend_without_the_follow_up_calculator_is_told_so(tmp_path, caplog):
    with ThreadPoolExecutor(1) as threads:
        backend = ExecutorBackend(threads, Relaxer(calculator="lj"), capacity=1)
        with Search("Cu", calculator="lj", backend=backend, then="emt", directory=tmp_path, sources=["random"]) as run_:
            run_.run(relaxations=1, refine=0)
    assert "this Relaxer was made without its follow-up calculator 1" in caplog.text
