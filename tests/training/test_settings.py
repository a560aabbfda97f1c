"""Settings of trainings."""

import math

import pytest

from hybridcsp.errors import InputError
from hybridcsp.training.settings import TrainingSettings


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"learning_rate": -1}, "learning_rate = -1 is not valid: it must be a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate = nan is not valid: it must be a number above 0"),
        ({"epochs": True}, "epochs = True is not valid: it must be a whole number above 0"),
        ({"batch_size": 2.5}, "batch_size = 2.5 is not valid: it must be a whole number above 0"),
        ({"batch_size": "abc"}, "batch_size = 'abc' is not valid: it must be a whole number above 0"),
        ({"anchor": -0.1}, "anchor = -0.1 is not valid: it must be a number from 0"),
        ({"averaging": 1.0}, "averaging = 1.0 is not valid: it must be a number from 0, below 1"),
        ({"device": "foo"}, "device = 'foo' is not valid: it must be one of auto, cpu, cuda"),
    ],
)
def test_invalid_settings_are_refused(setting, message):
    with pytest.raises(InputError) as raised:
        TrainingSettings(**setting)
    assert message in str(raised.value)


def test_learning_rate_warms_up_and_falls_to_a_hundredth():
    settings = TrainingSettings(learning_rate=2.0, warm_up=10)
    rates = [settings.rate(step, 1000) for step in range(1001)]
    assert rates[0] == pytest.approx(0.2, rel=1e-3)
    assert max(rates) == pytest.approx(2.0, rel=1e-3) == rates[10]
    assert rates[1000] == pytest.approx(0.02)


@pytest.mark.parametrize("steps", [1, 5, 100])
def test_learning_rate_without_warm_up_starts_at_its_maximum(steps):
    assert math.isclose(TrainingSettings(learning_rate=2.0, warm_up=0).rate(0, steps), 2.0)
