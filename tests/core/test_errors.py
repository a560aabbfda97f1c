import pickle

import pytest

from hybridcsp.config.settings import ConfigurationError
from hybridcsp.errors import InputError, UnknownNameError, did_you_mean


def test_errors_say_what_was_wrong_where_and_what_is_right():
    assert str(InputError("max_atoms", 0, "a whole number from 1")) == "max_atoms = 0: a whole number from 1"
    assert str(UnknownNameError("source", "randm", ["random", "seeds"])) == (
        "source = 'randm': did you mean 'random'? known: random, seeds"
    )
    assert str(UnknownNameError("generator", "mine", ["flow"], "or a folder")) == (
        "generator = 'mine': known: flow; or a folder"
    )


def test_errors_travel_between_processes():
    for error in (
        InputError("max_atoms", 0, "more"),
        UnknownNameError("source", "randm", ["random"]),
        ConfigurationError("search.toml", ["one", "two"]),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.key == error.key


@pytest.mark.parametrize(
    ("name", "known", "suggested"),
    [
        ("CHGNet", ["chgnet", "emt"], "did you mean 'chgnet'? "),
        ("max-atoms", ["max_atoms", "min_atoms"], "did you mean 'max_atoms'? "),
        ("volume", ["volume_per_atom", "cell"], "did you mean 'volume_per_atom'? "),
        ("co", ["CO", "Co", "Cu"], "did you mean 'CO' or 'Co'? "),
        ("x", ["abc"], ""),
    ],
)
def test_names_are_suggested_whatever_their_case(name, known, suggested):
    assert did_you_mean(name, known) == suggested
