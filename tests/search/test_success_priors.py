import math

import pytest

from hybridcsp import Problem
from hybridcsp.prototypes import CountTable
from hybridcsp.search.success_priors import Difficulty, SuccessPrior, SuccessPriors, known_crystals, success_priors


def rate(priors, name):
    return priors.rate(name, {})


def priors_of(**difficulty):
    return success_priors(Difficulty(**{"atoms": 10, "elements": 3, "resemblance": 0.05} | difficulty))


class TestDifficulty:
    TABLE = CountTable(
        {"card": {}, "prototypes": {"1 2": {"136 a f": "TiO SnO*3", "225 a c": "CaF"}, "1 1": {"225 a b": "NaCl"}}}
    )

    def test_counts_atoms_and_elements(self):
        found = Difficulty.of(Problem("TiO2", formula_units=(2, 4)), self.TABLE)
        assert (found.atoms, found.elements) == (9.0, 2)

    def test_same_elements_in_a_cell_of_the_same_size_resemble_most(self):
        alike = [
            Difficulty.of(Problem(formula, formula_units=units), self.TABLE).resemblance
            for formula, units in (("TiO2", 2), ("ZrO2", 2), ("MgCl2", 2), ("TiO2", 4))
        ]
        assert alike[0] > 1 > alike[1] > alike[2] > alike[3] == 0

    def test_multiple_of_the_formula_in_one_cell_counts_its_reduced_units(self):
        one, other = Problem("Ti2O4", formula_units=1), Problem("TiO2", formula_units=2)
        assert Difficulty.of(one, self.TABLE) == Difficulty.of(other, self.TABLE)

    def test_no_prototype_is_known_for_a_fixed_cell(self):
        problem = Problem("TiO2", formula_units=2, cell=(4.6, 4.6, 3.0, 90.0, 90.0, 90.0))
        assert Difficulty.of(problem).resemblance == known_crystals(problem) == 0

    def test_shipped_table_knows_rutile_but_no_unheard_of_stoichiometry(self):
        assert Difficulty.of(Problem("TiO2")).resemblance > 1
        assert known_crystals(Problem("TiO2")) > 100
        assert Difficulty.of(Problem("Ti7Al11Ni1", formula_units=1)).resemblance == 0


class TestSuccessPriors:
    def test_prototypes_and_wyckoff_come_first_where_prototypes_are_known(self):
        priors = priors_of(atoms=6, elements=2, resemblance=1.0)
        best = sorted(priors.unknown, key=lambda name: rate(priors, name))[-3:]
        assert {*best} == {"prototypes", "seeds", "wyckoff"}

    def test_sources_are_about_equal_where_no_prototype_is_known(self):
        priors = priors_of(atoms=16, resemblance=0.0)
        failed = {"prototypes": 1000.0, "wyckoff": 1000.0}
        assert priors.rate("wyckoff", failed) < rate(priors, "evolution") < 10 * priors.rate("wyckoff", failed)

    @pytest.mark.parametrize("easier", [{"atoms": 6}, {"elements": 2}])
    def test_success_is_less_likely_in_larger_cells_and_with_more_elements(self, easier):
        hard = {"atoms": 16, "elements": 4, "resemblance": 0.05}
        easy, hard = (priors_of(**one) for one in (hard | easier, hard))
        assert all(rate(easy, name) > rate(hard, name) for name in hard.unknown)

    def test_chance_of_a_known_prototype_rises_with_the_resemblance(self):
        chances = [priors_of(resemblance=alike).chance_of_known for alike in (0.0, 0.01, 1.0)]
        assert 0.1 < chances[0] < 0.5 < chances[1] < 0.9 < chances[2] < 1

    def test_chance_of_a_known_prototype_follows_bayes_rule(self):
        known, unknown = SuccessPrior(shape=1.0, force_calls=10.0), SuccessPrior(shape=1.0, force_calls=1000.0)
        priors = SuccessPriors(chance_of_known=0.8, known={"prototypes": known}, unknown={"prototypes": unknown})
        failed = 0.8 / 11, 0.2 / 1.1
        assert priors.chance_left({"prototypes": 100.0, "other": 900.0}) == pytest.approx(failed[0] / sum(failed))
        assert priors.chance_left({}) == pytest.approx(0.8)

    def test_failure_is_the_integral_of_the_rate(self):
        prior = SuccessPrior(shape=0.4, force_calls=50.0)
        steps = [prior.logarithm_of_failure(calls) for calls in (200.0, 200.001)]
        assert (steps[0] - steps[1]) / 0.001 == pytest.approx(prior.shape / (prior.force_calls + 200), rel=1e-3)
        assert math.exp(prior.logarithm_of_failure(0.0)) == 1

    def test_priors_of_cells_beyond_those_fitted_to_are_those_of_the_largest(self):
        assert priors_of(atoms=500) == priors_of(atoms=5000)

    def test_source_that_is_named_twice_has_the_prior_of_its_kind(self):
        unknown = {"random": SuccessPrior(shape=1.0, force_calls=9.0), "a-b": SuccessPrior(shape=2.0, force_calls=5.0)}
        priors = SuccessPriors(chance_of_known=0.0, known={}, unknown=unknown)
        assert priors.of("random-2") is unknown["random"]
        assert priors.of("a-b") is priors.of("a-b-3") is unknown["a-b"]

    def test_unknown_source_has_the_typical_prior(self):
        unknown = {name: SuccessPrior(shape=n, force_calls=10 * n) for n, name in enumerate("abc", 1)}
        priors = SuccessPriors(chance_of_known=0.0, known={}, unknown=unknown)
        assert priors.of("mine") == SuccessPrior(shape=2, force_calls=20)
        assert SuccessPriors(chance_of_known=0.0, known={}, unknown={}).of("mine").force_calls > 0
