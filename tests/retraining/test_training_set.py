"""What generators are given to learn from."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from crystals import preferred, relaxed, rutile
from toys import Toy

from hybridcsp import Problem
from hybridcsp.core.minimum import Minimum
from hybridcsp.core.records import Candidate, Proposal
from hybridcsp.errors import InputError
from hybridcsp.generators.base import Example, Sample
from hybridcsp.generators.datasets import formula_of, is_held_out, split
from hybridcsp.generators.selection import select
from hybridcsp.retraining import Retraining
from hybridcsp.retraining.settings import NEW_MINIMA
from hybridcsp.retraining.training_set import (
    WEIGHT_OF_OWN_PROPOSALS,
    augment_volumes,
    examples_from_minima,
    initial_training_set,
    replay_examples,
    without_pressure,
)

COPPER = Problem("Cu", formula_units=(1, 2), distance_fraction=0.3)


def minimum(number, atoms, energy, source="random", start=None):
    proposal = Proposal(atoms=atoms if start is None else start, operator=source)
    found_by = Candidate(proposal=proposal, id=number, source=source)
    return Minimum(
        id=number,
        best=relaxed(found_by, energy, atoms),
        found_by=found_by,
        spacegroups=(1, 1),
        multiplicity=1,
        first_relaxation=number,
        first_force_calls=number,
    )


MINIMA = [
    minimum(1, bulk("Cu"), -3.7),
    minimum(2, bulk("Cu", "bcc", a=2.9), -3.6),
    minimum(3, bulk("Cu", "hcp", a=2.6, c=4.2), -3.4),
    minimum(4, bulk("Cu", "sc", a=2.4), -2.0),
]


def weights(examples):
    return [example.weight for example in examples]


def test_generators_that_begin_untrained_are_trained_by_default_and_others_are_not():
    default = Retraining()
    assert default.every(from_scratch=True) == NEW_MINIMA
    assert default.every(from_scratch=False) == 0
    for number in (0, 7):
        chosen = Retraining(new_minima=number)
        assert chosen.every(from_scratch=True) == chosen.every(from_scratch=False) == number


def test_a_niche_is_one_example():
    family = [MINIMA[0], *(replace(one, best=replace(one.best, niche=2)) for one in MINIMA[1:3])]
    found = examples_from_minima(preferred(family), "toy", COPPER, Retraining(temperature=0.1))
    assert [example.atoms.get_volume() for example in found] == pytest.approx(
        [minimum.atoms.get_volume() for minimum in MINIMA[:2]]
    )


def test_boltzmann_weights_follow_enthalpies_and_are_one_on_average():
    found = examples_from_minima(preferred(MINIMA), "toy", COPPER, Retraining(temperature=0.1))
    assert len(found) == 3  # the last weighs nothing
    assert np.mean(weights(found)) == pytest.approx(1)
    assert found[1].weight / found[0].weight == pytest.approx(np.exp(-1))
    assert [example.energy_quantile for example in found] == [0, 0.25, 0.5]


def test_best_minima_have_equal_weights():
    assert weights(examples_from_minima(preferred(MINIMA), "toy", COPPER, Retraining(weighting="best", best=0.5))) == [
        1,
        1,
    ]


def test_own_proposals_that_barely_relaxed_weigh_less():
    own = minimum(1, bulk("Cu"), -3.7, "toy")
    moved = minimum(2, bulk("Cu", "bcc", a=2.9), -3.7, "toy", start=bulk("Cu", "hcp", a=2.6, c=4.2))
    first, second = examples_from_minima(preferred([own, moved]), "toy", COPPER, Retraining())
    assert first.weight / second.weight == pytest.approx(WEIGHT_OF_OWN_PROPOSALS)
    first, second = examples_from_minima(preferred([own, moved]), "another", COPPER, Retraining())
    assert first.weight == second.weight


def test_examples_have_the_pressure_of_the_search():
    pressed = Problem("Cu", formula_units=(1, 2), distance_fraction=0.3, pressure_gpa=20.0)
    found = examples_from_minima(preferred(MINIMA), "toy", pressed, Retraining())
    found += replay_examples(Toy(), 10, pressed, Retraining(), np.random.default_rng(0))
    assert len(found) > 3
    assert {example.pressure_gpa for example in found} == {20.0}


def test_no_minima_give_no_examples():
    assert examples_from_minima([], "toy", COPPER, Retraining()) == []


@pytest.mark.parametrize("replay", [0.0, 0.5, 0.8])
def test_replayed_samples_have_their_share_of_the_weight(replay):
    found = replay_examples(Toy(), 10, COPPER, Retraining(replay=replay), np.random.default_rng(0))
    assert sum(weights(found)) / (10 + sum(weights(found))) == pytest.approx(replay)
    assert all(COPPER.units_of(example.atoms.numbers) for example in found)


def test_crystals_of_a_file_are_replayed_and_no_minimum_is_held_out(tmp_path):
    solids = [bulk(s, "fcc", a=4.0) for s in ("Ag", "Au", "Al", "Ni", "Pd", "Pt", "Rh", "Ir", "Pb", "Ca", "Sr")]
    write(tmp_path / "known.extxyz", solids)
    assert {is_held_out(formula_of(atoms)) for atoms in solids} == {True, False}
    settings = Retraining(replay_data=str(tmp_path / "known.extxyz"))
    found = replay_examples(Toy(), 10, COPPER, settings, np.random.default_rng(0))
    assert {example.atoms.get_chemical_formula() for example in found} <= {a.get_chemical_formula() for a in solids}
    assert sum(weights(found)) == pytest.approx(10)
    learned, held_out = split([*examples_from_minima(preferred(MINIMA), "toy", COPPER, settings), *found])
    assert len(learned) == 3 + len(found)
    assert held_out == []


def test_without_pressure_scales_to_the_volume_at_zero_pressure():
    problem = Problem("Cu", formula_units=1, pressure_gpa=100.0)
    example = Example(atoms=bulk("Cu", a=3.2), weight=2.0, energy_quantile=0.3, pressure_gpa=100.0)
    (changed,) = without_pressure([example], problem)
    free = replace(problem, pressure_gpa=0.0).expected_volume_per_atom
    assert free > 1.1 * problem.expected_volume_per_atom
    assert changed.atoms.get_volume() / example.atoms.get_volume() == pytest.approx(
        free / problem.expected_volume_per_atom
    )
    assert changed.pressure_gpa is None
    assert (changed.weight, changed.energy_quantile) == (2.0, 0.3)
    # What is made of it is compressed again, to where the lesson was.
    (chosen,) = select([Sample(atoms=changed.atoms, request=0)], problem, frozenset(), 1).chosen
    assert chosen.atoms.get_volume() == pytest.approx(example.atoms.get_volume())


def test_initial_training_set_consists_of_prototypes():
    dioxide = Problem("TiO2", formula_units=(1, 2))
    found = initial_training_set(dioxide, np.random.default_rng(0))
    assert len(found) > 20
    assert np.mean(weights(found)) == pytest.approx(1)
    assert {dioxide.units_of(example.atoms.numbers) for example in found} == {1, 2}


def test_copies_at_other_volumes_keep_shape_and_weight():
    copies = augment_volumes([Example(atoms=rutile(), weight=2.0)], np.random.default_rng(0))
    volumes = [example.atoms.get_volume() / rutile().get_volume() for example in copies]
    assert len(set(volumes)) == len(copies)
    assert all(0.9 < volume < 1.1 for volume in volumes)
    assert sum(weights(copies)) == pytest.approx(2)
    for example in copies:
        assert np.allclose(example.atoms.get_scaled_positions(), rutile().get_scaled_positions())
        assert example.atoms.cell.angles() == pytest.approx([90, 90, 90])


@pytest.mark.parametrize(
    "wrong",
    [
        {"new_minima": -1},
        {"share": 0},
        {"share": 1.5},
        {"weighting": "worst"},
        {"temperature": 0},
        {"best": 0},
        {"replay": 1},
        {"anchor": -1},
        {"learning_rate": float("nan")},
        {"epochs": 0},
        {"trial": -1},
        {"replay_data": "no/such/file"},
    ],
)
def test_invalid_settings_are_refused(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} = "):
        Retraining(**wrong)
