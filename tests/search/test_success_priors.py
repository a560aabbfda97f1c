import pytest

from hybridcsp import Problem
from hybridcsp.prototypes import CountTable
from hybridcsp.search.success_priors import Difficulty, SuccessPrior, prior_of, success_priors


def rate(prior):
    return prior.shape / prior.force_calls


class TestDifficulty:
    def test_counts_atoms_elements_and_known_crystals_of_the_stoichiometry(self):
        table = CountTable({"card": {}, "prototypes": {"1 2": {"225 a c": "CaF CeO*3"}, "1 1": {"225 a b": "NaCl"}}})
        found = Difficulty.of(Problem("TiO2", formula_units=(2, 4)), table)
        assert found == Difficulty(atoms=9.0, elements=2, known_crystals=4.0)

    def test_no_prototype_is_known_for_a_fixed_cell(self):
        cell = (4.6, 4.6, 3.0, 90.0, 90.0, 90.0)
        assert Difficulty.of(Problem("TiO2", formula_units=2, cell=cell)).known_crystals == 0

    def test_shipped_table_knows_rutile_but_no_unheard_of_stoichiometry(self):
        assert Difficulty.of(Problem("TiO2")).known_crystals > 100
        assert Difficulty.of(Problem("Ti7Al11Ni1", formula_units=1)).known_crystals == 0


class TestSuccessPriors:
    def test_prototypes_and_wyckoff_come_first_where_prototypes_are_known(self):
        priors = success_priors(Difficulty(atoms=6, elements=2, known_crystals=1000))
        best = sorted(priors, key=lambda name: rate(priors[name]))[-3:]
        assert {*best} == {"prototypes", "seeds", "wyckoff"}

    @pytest.mark.parametrize("easier", [{"atoms": 6}, {"elements": 2}])
    def test_success_is_less_likely_in_larger_cells_and_with_more_elements(self, easier):
        hard = {"atoms": 16, "elements": 4, "known_crystals": 30}
        easy, hard = (success_priors(Difficulty(**one)) for one in (hard | easier, hard))
        assert all(rate(easy[name]) > rate(hard[name]) for name in hard)

    def test_known_crystals_favour_prototypes_over_random_structures(self):
        def advantage(known):
            priors = success_priors(Difficulty(atoms=10, elements=3, known_crystals=known))
            return rate(priors["prototypes"]) / rate(priors["random"])

        assert advantage(1000) > 2 * advantage(0)

    def test_priors_of_cells_beyond_those_fitted_to_are_those_of_the_largest(self):
        far, farther = (success_priors(Difficulty(atoms=atoms, elements=3, known_crystals=9)) for atoms in (500, 5000))
        assert far == farther

    def test_source_that_is_named_twice_has_the_prior_of_its_kind(self):
        priors = {"random": SuccessPrior(shape=1.0, force_calls=9.0), "a-b": SuccessPrior(shape=2.0, force_calls=5.0)}
        assert prior_of("random-2", priors) is priors["random"]
        assert prior_of("a-b", priors) is prior_of("a-b-3", priors) is priors["a-b"]

    def test_unknown_source_has_the_typical_prior(self):
        priors = {name: SuccessPrior(shape=n, force_calls=10 * n) for n, name in enumerate("abc", 1)}
        assert prior_of("mine", priors) == SuccessPrior(shape=2, force_calls=20)
        assert prior_of("mine", {}).force_calls > 0
