import pickle

import pytest

from hybridcsp.config.settings import ConfigurationError
from hybridcsp.errors import InputError, UnknownNameError, did_you_mean


def test_errors_say_what_was_wrong_where_and_what_is_right():
    assert str(InputError("max_atoms", 0, "a whole number from 1")) == (
        "max_atoms = 0 is not valid: it must be a whole number from 1."
    )
    assert str(InputError("sources", "swarm", reason="it cannot run alone")) == (
        "sources = 'swarm' cannot be used: it cannot run alone."
    )
    assert str(InputError("target", None, "a structure file")) == "target is missing: it must be a structure file."
    assert str(UnknownNameError("source", "randm", ["random", "seeds"])) == (
        "source = 'randm' cannot be used: did you mean 'random'? It must be one of random, seeds."
    )
    assert str(UnknownNameError("generator", "mine", ["flow"], "or a folder")) == (
        "generator = 'mine' is not valid: it must be flow; or a folder."
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
