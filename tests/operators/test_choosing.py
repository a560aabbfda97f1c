"""Operators by name."""

import pytest

from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.operators import CALCULATOR_SOFT_MUTATION, OPERATORS
from hybridcsp.operators.registry import NAMED, offers_named


def names(text):
    return [offer.operator.name for offer in offers_named(text)]


def test_every_operator_has_a_name_a_summary_and_a_class():
    entries = NAMED.entries()
    assert {offer.operator.name for offer in OPERATORS} < set(entries)
    for offer in (*OPERATORS, CALCULATOR_SOFT_MUTATION):
        assert entries[offer.operator.name].load() is type(offer.operator)
    assert all(entry.summary.endswith(".") for entry in entries.values() if entry.package == "hybridcsp")


def test_names_give_operators_with_their_priors_and_levels():
    heredity, soft = offers_named("heredity,calculator-soft-mutation")
    assert heredity is OPERATORS[0]
    assert soft.level == "soft"


def test_default_stands_for_all_that_are_used_otherwise():
    assert names("default") == [offer.operator.name for offer in OPERATORS]
    assert names("default,calculator-soft-mutation") == [*names("default"), "calculator-soft-mutation"]


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("hereditary", UnknownNameError, "did you mean 'heredity'"),
        ("heredity,", UnknownNameError, "operator = ''"),
        ("strain,strain", InputError, "strain is there twice"),
        ("default,strain", InputError, "strain is there twice"),
    ],
)
def test_what_makes_no_sense_is_refused(text, error, words):
    with pytest.raises(error, match=words):
        offers_named(text)
