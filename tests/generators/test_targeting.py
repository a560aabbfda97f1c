"""Selection of samples of any generator by predicted properties."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from cubes import Cubes, Volume

from hybridcsp.errors import InputError
from hybridcsp.generators.base import Reject, Request
from hybridcsp.generators.targeting import ROUNDS, SelectingGenerator, with_targets
from hybridcsp.generators.writing import write_samples
from hybridcsp.io.structure_files import read_structures
from hybridcsp.workflows.design_properties import predicted

WIDE = {"volume": (20.0, math.inf)}


def requests(n, element="Cu", targets=WIDE):
    return [Request(contents={element: 1}, targets=targets)] * n


def test_samples_are_within_the_target_and_carry_the_prediction():
    generator = with_targets(Cubes(), WIDE, [Volume()])
    answers = generator.sample(requests(20), np.random.default_rng(0))
    assert [answer.request for answer in answers] == list(range(20))
    for answer in answers:
        assert answer.properties["volume"] == pytest.approx(answer.atoms.get_volume())
        assert answer.properties["volume"] >= 20
    assert generator.targets == {"volume"}


def test_everything_that_was_drawn_is_counted():
    generator = with_targets(Cubes(), WIDE, [Volume()])
    generator.sample(requests(20), np.random.default_rng(0))
    counts = generator.counts
    assert counts.drawn == generator.generator.asked == counts.selected + counts.outside["volume"]
    assert 20 <= counts.selected < counts.drawn
    assert f"{counts.drawn} drawn, {counts.selected} of them within the target" in counts.in_words()


def test_target_that_is_not_reached_is_rejected_with_the_reason():
    generator = with_targets(Cubes(), {"volume": (100.0, 200.0)}, [Volume()])
    (answer,) = generator.sample(requests(1, targets={"volume": (100.0, 200.0)}), np.random.default_rng(0))
    assert answer == Reject(request=0, reason="outside the target of volume")
    assert generator.counts.drawn == sum(ROUNDS)


def test_reasons_of_the_generator_and_elements_that_the_predictor_does_not_know_are_told():
    generator = with_targets(Cubes(), WIDE, [Volume()])
    answers = generator.sample(requests(1, "Xe") + requests(1, "Ag"), np.random.default_rng(0))
    assert [answer.reason for answer in answers] == [
        "a noble gas",
        "because the predictor of volume was trained without Ag",
    ]
    assert set(generator.counts.others) == {answer.reason for answer in answers}


class Doubtful(Volume):
    """The volume, with cubes of more than 24 Å³ outside of what was learned."""

    def predict(self, crystals):
        prediction = super().predict(crystals)
        return replace(prediction, outside=tuple("too large" if value > 24 else "" for value in prediction.mean))


def test_samples_outside_of_what_the_predictor_has_learned_are_not_selected():
    answers = with_targets(Cubes(), WIDE, [Doubtful()]).sample(requests(20), np.random.default_rng(0))
    assert all(20 <= answer.atoms.get_volume() <= 24 for answer in answers if not isinstance(answer, Reject))
    larger = {"volume": (25.0, math.inf)}
    generator = with_targets(Cubes(), larger, [Doubtful()])
    (answer,) = generator.sample(requests(1, targets=larger), np.random.default_rng(0))
    assert isinstance(answer, Reject)
    assert generator.counts.others["unlike all crystals that the predictor of volume has learned from"] > 0
    cubes = [Atoms("Cu", cell=[edge] * 3, pbc=True) for edge in (2.5, 3.5)]
    np.testing.assert_allclose(predicted(Doubtful())(cubes), [15.625, math.nan])


def test_requests_without_a_target_get_the_samples_of_the_generator():
    generator = with_targets(Cubes(), WIDE, [Volume()])
    asked = requests(3, targets={})
    answers = generator.sample(asked, np.random.default_rng(1))
    plain = Cubes().sample(asked, np.random.default_rng(1))
    assert [a.atoms for a in answers] == [a.atoms for a in plain]


def test_generator_that_has_learned_all_targets_needs_no_predictor():
    generator = Cubes()
    generator.targets = frozenset({"volume"})
    assert with_targets(generator, WIDE, []) is generator
    assert isinstance(with_targets(generator, WIDE, [Volume()]), SelectingGenerator)


@pytest.mark.parametrize(
    ("targets", "predictors", "reason"),
    [
        ({"gap": (1.0, 2.0)}, [], "has not learned this property"),
        (WIDE, [Volume(), Volume()], "another predictor"),
        (WIDE, [Volume(), Volume("gap")], "no target is set"),
    ],
)
def test_targets_and_predictors_that_do_not_fit_are_refused(targets, predictors, reason):
    with pytest.raises(InputError, match=reason):
        with_targets(Cubes(), targets, predictors)


def test_written_samples_have_their_predicted_properties(tmp_path):
    generator = with_targets(Cubes(), WIDE, [Volume()])
    written = write_samples(tmp_path / "found.extxyz", generator, [(0, one) for one in requests(5)], seed=0)
    assert written.made == Counter({0: 5})
    found = [frame.atoms for frame in read_structures(tmp_path / "found.extxyz")]
    assert all(isinstance(atoms, Atoms) and atoms.info["predicted_volume"] >= 20 for atoms in found)
