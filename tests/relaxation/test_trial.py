import os
import time
from functools import partial

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from limited_calculators import Failing, OnlySilicon, raising

from hybridcsp.errors import BackendError, CalculatorError
from hybridcsp.relaxation.trial import displaced, run_trial, trial_crystals
from hybridcsp.utils.activity import announcements


def test_first_crystal_is_relaxed():
    steps = []
    with announcements(steps.append):
        trial = run_trial("emt")
    assert trial.passed
    assert (trial.crystal, trial.n_atoms, trial.failures) == ("Cu", 2, {})
    assert trial.before.calculator == trial.after.evaluation.calculator
    assert trial.before.calculator.startswith("emt (ase ")
    assert trial.after.evaluation.energy < trial.before.energy - 0.01
    assert trial.after.cost.force_calls > 3
    assert 0 < trial.seconds_per_call < 1
    assert steps == ["starting the calculator", "relaxing Cu"]


def test_crystals_of_unknown_elements_are_skipped():
    trial = run_trial(OnlySilicon)
    assert trial.crystal == "Si"
    assert trial.after is not None
    assert trial.failures == {"Cu": "NotImplementedError: no parameters for Cu2"}


def test_calculator_that_fails_for_every_crystal():
    trial = run_trial(lambda: Failing(raising))
    assert not trial.passed
    assert len(trial.failures) == len(trial_crystals())
    assert set(trial.failures.values()) == {"RuntimeError: the device is lost"}
    assert trial.seconds_per_call is None


@pytest.mark.parametrize(
    ("act", "expected"), [(partial(os._exit, 3), "exit status 3"), (partial(time.sleep, 60), "limit")]
)
def test_other_crystals_are_not_tried_after_a_death_or_a_time_limit(act, expected, monkeypatch):
    monkeypatch.setattr("hybridcsp.relaxation.backends.pool.GRACE_SECONDS", 0.1)
    trial = run_trial(lambda: Failing(act), seconds=3.0)
    assert list(trial.failures) == ["Cu"]
    assert expected in trial.failures["Cu"]


def test_crystals_of_the_user():
    trial = run_trial(EMT, crystals=[displaced(bulk("Al", cubic=True))])
    assert trial.passed
    assert (trial.crystal, trial.n_atoms) == ("Al", 4)


def test_calculator_that_cannot_be_built():
    def build():
        raise ValueError("no licence")

    with pytest.raises(CalculatorError, match="no licence"):
        run_trial(build)


def test_calculator_that_is_never_ready():
    with pytest.raises(BackendError, match=r"was not ready after 1\.5 s"):
        run_trial(lambda: time.sleep(60), seconds=1.5)
