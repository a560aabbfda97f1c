"""Operators by name."""

import pytest

from hybridcsp.core.problem import Problem
from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.operators import CALCULATOR_SOFT_MUTATION, OPERATORS, Operator, WeightedOperator
from hybridcsp.operators.registry import OPERATOR_REGISTRY, operators_named


def names(text):
    return [offer.operator.name for offer in operators_named(text)]


def test_every_operator_has_a_name_a_summary_and_a_class():
    entries = OPERATOR_REGISTRY.entries()
    assert {offer.operator.name for offer in OPERATORS} < set(entries)
    for offer in (*OPERATORS, CALCULATOR_SOFT_MUTATION):
        assert entries[offer.operator.name].load() is type(offer.operator)
    assert all(entry.summary.endswith(".") for entry in entries.values() if entry.package == "hybridcsp")


def test_operators_are_found_by_name():
    heredity, soft = operators_named("heredity,calculator-soft-mutation")
    assert heredity is OPERATORS[0]
    assert soft.operator.level == "soft"


def test_default_stands_for_all_default_operators():
    assert names("default") == [offer.operator.name for offer in OPERATORS]
    assert names("default,calculator-soft-mutation") == [*names("default"), "calculator-soft-mutation"]


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("hereditary", UnknownNameError, "did you mean 'heredity'"),
        ("heredity,", UnknownNameError, "operator = ''"),
        ("strain,strain", InputError, "strain occurs more than once"),
        ("default,strain", InputError, "strain occurs more than once"),
    ],
)
def test_wrong_names_are_refused(text, error, words):
    with pytest.raises(error, match=words):
        operators_named(text)


class TestOperator:
    class Copy(Operator):
        name = "copy"

        def __call__(self, parents, problem, rng):
            return parents[0].copy()

    def test_defaults_of_a_new_operator(self):
        copy = self.Copy()
        assert (copy.n_parents, copy.level, copy.follows_modes) == (1, "relax", False)
        assert copy.applies_to(Problem("TiO2"))
        assert copy.following(3) is copy

    def test_operator_without_a_call_cannot_be_built(self):
        class Incomplete(Operator):
            name = "incomplete"

        with pytest.raises(TypeError, match="__call__"):
            Incomplete()

    @pytest.mark.parametrize("prior", [0, -1.0, float("inf"), float("nan")])
    def test_prior_is_positive_and_finite(self, prior):
        with pytest.raises(InputError, match="a finite positive number"):
            WeightedOperator(self.Copy(), prior=prior)

    def test_only_operators_can_be_weighted(self):
        with pytest.raises(InputError, match="a subclass of"):
            WeightedOperator(lambda parents, problem, rng: None)
