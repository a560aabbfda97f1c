"""Positive-unlabelled learning of which crystals have been made, and crystals outside of what was learned."""

import dataclasses
import json

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from labelled_crystals import crystals
from typer.testing import CliRunner

from hybridcsp.cli.app import app
from hybridcsp.errors import InputError
from hybridcsp.objectives.registry import build_objective
from hybridcsp.predictors.cgcnn import Architecture
from hybridcsp.predictors.domain import KnownRegion
from hybridcsp.predictors.labelled import Labelled, read_labelled
from hybridcsp.predictors.loading import new_predictor, open_predictor
from hybridcsp.predictors.synthesizability.bags import draw_bags, equal_weights
from hybridcsp.predictors.synthesizability.reliability import LogisticScale, area, crossed, recall, reliability, scores

SMALL = Architecture(width=8, layers=1, hidden=8, gaussians=8)
QUICK = {"batch_size": 16, "device": "cpu", "learning_rate": 0.02}


def marked(n=80, seed=0):
    """Return crystals of which rock salts have been made; the mark is missing for some of them."""
    rng = np.random.default_rng(seed)
    found, values = [], []
    for i, crystal in enumerate(crystals(n, seed)):
        made = i % 2 == 0 and rng.random() < 0.8
        found.append(crystal)
        values.append(0.0 if made else 1.0)
    return Labelled(crystals=tuple(found), values=np.array(values), name="theoretical")


def trained(data=None, **settings):
    predictor = new_predictor("synthesizability", "corrected")
    predictor.architecture = SMALL
    predictor.fit(data or marked(), **{**QUICK, "members": 2, "epochs": 8, **settings})
    return predictor


@pytest.fixture(scope="module")
def predictor():
    return trained(epochs=20)


def test_crystals_like_those_made_have_a_higher_probability(predictor):
    found = predictor.predict(crystals(24, seed=7)).mean
    assert area(found, np.arange(24) % 2 == 0) > 0.9
    assert ((found > 0) & (found < 1)).all()
    assert predictor.card["held_out"]["area"] > 0.7
    assert "area under the curve" in predictor.assessment()


def test_card_counts_crystals_and_has_the_reliability(predictor):
    card = predictor.card
    assert (card["property"], card["mark"], card["members"]) == ("synthesizability", "theoretical", 2)
    assert card["bag"] == card["made"]
    assert {"area", "recall", "calibration_error", "reliability", "before_calibration"} <= set(card["held_out"])
    assert sum(row["crystals"] for row in card["held_out"]["reliability"]) == card["held_out"]["crystals"]
    json.dumps(card, allow_nan=False)


def test_crystals_unlike_the_known_ones_are_outside(predictor):
    like = predictor.predict(crystals(30, seed=5)).outside
    assert sum(not reason for reason in like) >= 25
    gold = crystals(1)[0]
    gold.numbers[0] = 79
    dense = bulk("LiF", "rocksalt", 2.4)
    wide = bulk("LiF", "rocksalt", 9.0)
    found = predictor.predict([gold, dense, wide])
    assert found.outside[0].startswith("there is no Au in the training set")
    assert "its volume, in units of that expected for its elements, is 0.18" in found.outside[1]
    assert "its volume, in units of that expected for its elements, is 9" in found.outside[2]


def test_saved_predictor_predicts_the_same(predictor, tmp_path):
    predictor.save(tmp_path / "made")
    loaded, new = open_predictor(tmp_path / "made"), crystals(6, seed=9)
    before, after = predictor.predict(new), loaded.predict(new)
    assert np.array_equal(before.mean, after.mean)
    assert before.outside == after.outside
    card = json.loads((tmp_path / "made" / "card.json").read_text())
    for key, value in (
        ("geometry", {"volume": [0, 1]}),
        ("largest_distance", -1),
        ("calibration", {"slope": 0}),
        ("architecture", {"width": 4}),
    ):
        (tmp_path / "made" / "card.json").write_text(json.dumps(card | {key: value}))
        with pytest.raises(InputError, match="weights"):
            open_predictor(tmp_path / "made")


def test_published_configuration_is_not_calibrated():
    published = new_predictor("synthesizability", "published")
    assert published.usual_members == 100
    published.architecture = SMALL
    published.fit(marked(), members=2, epochs=2, batch_size=16, device="cpu")
    held_out = published.card["held_out"]
    assert held_out["reliability"] == held_out["before_calibration"]["reliability"]


class TestBags:
    made = np.arange(50) < 12

    def test_each_bag_has_equal_numbers_of_both_kinds(self):
        for bag in draw_bags(self.made, 4, None, seed=1):
            assert (self.made[bag].sum(), (~self.made[bag]).sum(), len(set(bag))) == (12, 12, 24)
        small = draw_bags(self.made, 2, 5, seed=1)
        assert [self.made[bag].sum() for bag in small] == [5, 5]
        assert not np.array_equal(*small)

    def test_bags_do_not_depend_on_their_number(self):
        for one, other in zip(draw_bags(self.made, 2, 5, seed=3), draw_bags(self.made, 4, 5, seed=3), strict=False):
            assert np.array_equal(one, other)

    def test_few_others_are_drawn_again(self):
        bag = draw_bags(~self.made, 1, None, seed=0)[0]
        assert len(bag) == 76

    def test_weights_make_both_kinds_equal(self):
        weights = equal_weights(self.made)
        assert weights[self.made].sum() == pytest.approx(weights[~self.made].sum())
        assert weights.mean() == pytest.approx(1)


class TestReliability:
    rng = np.random.default_rng(0)
    made = rng.random(4000) < 0.3
    values = rng.normal(np.where(made, 1.0, -1.0))

    def test_area_and_recall(self):
        made = np.array([True, True, False, False, False, False])
        assert area(np.array([3.0, 1.0, 2.0, 0.0, 0.0, 0.0]), made) == pytest.approx(7 / 8)
        assert recall(np.array([3.0, 1.0, 2.0, 0.0, 0.0, 0.0]), made, 0.25) == pytest.approx(0.5)
        for share in (0.1, 0.5):
            assert recall(np.zeros(6), made, share) == pytest.approx(share)

    def test_calibration_mends_probabilities(self):
        wrong = 1 / (1 + np.exp(-(0.3 * self.values + 1)))
        folds = np.arange(4000) % 2
        right = crossed(wrong, self.made, folds, LogisticScale.fitted)
        assert scores(wrong, self.made)["calibration_error"] > 0.15
        assert scores(right, self.made)["calibration_error"] < 0.03
        assert LogisticScale.fitted(wrong, self.made).slope == pytest.approx(2 / 0.3, rel=0.15)
        assert all(abs(row["probability"] - row["made"]) < 0.1 for row in reliability(right, self.made))

    def test_crystals_that_can_be_separated_have_a_finite_calibration(self):
        made = np.arange(20) < 10
        found = LogisticScale.fitted(np.where(made, 0.9, 0.1), made).apply(np.array([0.9, 0.1]))
        assert found[0] > 0.9 > 0.1 > found[1]


def test_region_flags_the_farthest():
    features = np.random.default_rng(0).normal(size=(300, 5))
    region = KnownRegion.fitted(features[:200], features[200:], seed=0)
    assert sum(bool(reason) for reason in region.reasons(features[200:])) <= 2
    assert region.reasons(np.full((1, 5), 9.0))[0]


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (dataclasses.replace(marked(40), values=np.zeros(40)), {}, "5 others are needed at least; add a file"),
        (dataclasses.replace(marked(40), values=np.ones(40)), {}, "0 crystals of 40 have theoretical = 0"),
        (dataclasses.replace(marked(40), values=np.full(40, 0.5)), {}, "0 for a crystal that has been made .* not 0.5"),
        (None, {"logarithmic": True}, "has no logarithm"),
        (None, {"bag": 0}, "bag = 0 is not valid: it must be a whole number above 0"),
    ],
)
def test_data_and_settings_that_cannot_be_used(data, settings, message):
    with pytest.raises(InputError, match=message):
        trained(data, **settings)


def test_crystals_without_the_mark_are_taken_for_others(tmp_path):
    made = crystals(4)
    for number, crystal in enumerate(made[:3]):
        crystal.info["theoretical"] = bool(number)
    ase.io.write(tmp_path / "data.extxyz", made)
    assert read_labelled([tmp_path / "data.extxyz"], "theoretical", max_atoms=9, missing=1.0).values.tolist() == [
        0,
        1,
        1,
        1,
    ]
    assert len(read_labelled([tmp_path / "data.extxyz"], "theoretical", max_atoms=9).values) == 3


def test_command_trains_predicts_and_names_what_is_outside(tmp_path):
    data = marked(30)
    for crystal, value in zip(data.crystals, data.values, strict=True):
        if value == 0:
            crystal.info["theoretical"] = False
    ase.io.write(tmp_path / "data.extxyz", data.crystals)
    gold = crystals(1)[0]
    gold.numbers[0] = 79
    ase.io.write(tmp_path / "new.extxyz", [crystals(1)[0], gold])
    folder = tmp_path / "made"

    def run(*arguments):
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert done.exit_code == 0, done.exception
        return done

    options = ("--epochs", "1", "--members", "1", "--set", "batch_size=16", "--set", "device=cpu")
    output = run("train", "synthesizability", "--data", tmp_path / "data.extxyz", "--output", folder, *options).output
    assert "recall of those made" in " ".join(output.split())
    assert (folder / "held-out.png").exists()
    rows = json.loads(run("predict", folder, tmp_path / "new.extxyz", "--json").stdout)["crystals"]
    assert 0 < rows[0]["synthesizability"] < 1
    assert "Au" in rows[1]["outside"]
    objective = build_objective(f"predictor:{folder}")
    with pytest.raises(ValueError, match="without Au"):
        objective.value(gold)
