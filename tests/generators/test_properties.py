"""Properties on which generators are conditioned: scales, features, and networks that learn them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from hybridcsp.errors import InputError
from hybridcsp.generators.base import Example, Request, Sample
from hybridcsp.generators.flow import Architecture, FlowGenerator, Integration
from hybridcsp.generators.properties import LearnedProperties, PropertyScale, is_within
from hybridcsp.generators.wyckoff import WyckoffGenerator
from hybridcsp.generators.wyckoff.transformer import Size

GAPS = (0.0, 0.0, 0.0, 0.5, 1.0, 2.0, 3.0, 5.0)

REQUESTS = [Request(contents={"Na": 1, "Cl": 1})] * 3 + [Request(contents={"Cu": 2})]


def crystals() -> list[Example]:
    """Rock salt with a large volume and a gap, and caesium chloride with a small volume and none."""
    examples = []
    for scale in (0.98, 1.0, 1.02, 1.04):
        wide, narrow = bulk("NaCl", "rocksalt", a=5.6 * scale), bulk("NaCl", "cesiumchloride", a=3.0 * scale)
        examples += [
            Example(atoms=wide, properties={"gap": 5.0 + scale}),
            Example(atoms=narrow, properties={"gap": scale / 2}),
        ]
    return examples


def small(kind):
    if kind is WyckoffGenerator:
        return WyckoffGenerator(Size(width=16, blocks=1, heads=2), Size(width=16, blocks=1, heads=2))
    return FlowGenerator(Architecture(width=16, message=12, pair=12, layers=1, frequencies=4), Integration(steps=4))


def networks_of(generator):
    return list(generator._networks) if isinstance(generator, WyckoffGenerator) else [generator._model]


def fit(generator, examples, **settings):
    generator.fit(examples, **{"epochs": 1, "batch_size": 4, "device": "cpu", **settings})
    return generator


def drawn(generator, requests=REQUESTS, seed=0):
    found = generator.sample(requests, np.random.default_rng(seed))
    return [(a.atoms.cell.array, a.atoms.positions) if isinstance(a, Sample) else a.reason for a in found]


def same(first, second):
    return all(
        one == other
        if isinstance(one, str) or isinstance(other, str)
        else all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
        for one, other in zip(first, second, strict=True)
    )


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40).filter(lambda values: np.ptp(values) > 1e-3))
def test_features_of_values_increase_and_an_unknown_value_has_none(values):
    scale = PropertyScale.from_values("gap", values)
    rows = np.array([scale.features(value) for value in sorted(values)])
    assert (np.diff(rows, axis=0) >= 0).all()
    assert (rows[:, 0] == 1).all()
    assert not scale.features(None).any()
    low, high = scale.features(min(values) - 1), scale.features(max(values) + 1)
    assert low[1] < rows[0, 1]
    assert high[-1] > rows[-1, -1]


def test_values_are_drawn_within_a_target_and_near_it_if_none_is_known():
    scale = PropertyScale.from_values("gap", GAPS)
    rng = np.random.default_rng(0)
    assert all(1.5 <= scale.draw(1.5, 2.5, rng) <= 2.5 for _ in range(20))
    assert len({scale.draw(1.0, math.inf, rng) for _ in range(20)}) > 10
    assert scale.draw(7.0, 9.0, rng) == 7.0
    assert scale.draw(-math.inf, -1.0, rng) == -1.0


@pytest.mark.parametrize(("values", "reason"), [([1.0, 1.0], "nothing to learn"), ([1.0, math.nan], "not finite")])
def test_property_that_cannot_be_learned_is_refused(values, reason):
    with pytest.raises(InputError, match=reason):
        PropertyScale.from_values("gap", values)


def test_scales_return_from_a_card_and_a_damaged_one_is_refused():
    learned = LearnedProperties().extended(crystals())
    card = learned.card()
    assert LearnedProperties.from_card(card) == learned
    card["properties"]["gap"]["quantiles"] = [1.0, 2.0]
    with pytest.raises(InputError, match="quantiles"):
        LearnedProperties.from_card(card)


def test_known_scales_stay_and_new_properties_follow():
    first = LearnedProperties().extended(crystals())
    others = [Example(atoms=bulk("Cu"), properties={"density": d, "gap": 100.0 * d}) for d in (1.0, 2.0)]
    second = first.extended(others)
    assert list(second.scales) == ["gap", "density"]
    assert second.scales["gap"] == first.scales["gap"]


def test_limits_belong_to_a_target_and_missing_values_do_not():
    assert is_within(1.0, (1.0, 2.0))
    assert is_within(1e9, (1.0, math.inf))
    assert not is_within(math.nan, (-math.inf, math.inf))


@pytest.fixture(scope="module", params=[WyckoffGenerator, FlowGenerator])
def learned(request):
    """A small generator that has learned the gap."""
    return fit(small(request.param), crystals(), epochs=12, learning_rate=0.02, warm_up=1, averaging=0.0)


def test_property_that_is_new_to_a_trained_generator_does_not_change_its_samples(learned, tmp_path):
    learned.save(tmp_path)
    wider = type(learned).load(tmp_path)
    before = drawn(wider)
    more = [Example(atoms=bulk("Cu"), properties={"density": density}) for density in (1.0, 2.0)]
    wider._properties = wider._properties.extended(more)
    for network in networks_of(wider):
        network.learn_properties(wider._properties.n_features)
    assert wider.targets == {"gap", "density"}
    assert same(before, drawn(wider))
    aimed = [Request(contents={"Na": 1, "Cl": 1}, targets={"density": (1.2, 1.4)})] * 2
    assert any(not isinstance(one, str) for one in drawn(wider, aimed))


def test_target_of_a_learned_property_changes_the_samples(learned):
    aimed = [Request(contents={"Na": 1, "Cl": 1}, targets={"gap": (5.0, math.inf)})] * 4
    other = [Request(contents={"Na": 1, "Cl": 1}, targets={"density": (5.0, math.inf)})] * 4
    free = [Request(contents={"Na": 1, "Cl": 1})] * 4
    assert not same(drawn(learned, aimed), drawn(learned, free))
    assert same(drawn(learned, other), drawn(learned, free))
    for network in networks_of(learned):
        terms = [value for name, value in network.named_parameters() if name.endswith("properties.weight")]
        assert terms
        assert all(value.abs().max() > 0 for value in terms)


def test_learned_property_is_kept_in_the_files_and_by_a_training_without_it(learned, tmp_path):
    learned.save(tmp_path)
    first, second = type(learned).load(tmp_path), type(learned).load(tmp_path)
    aimed = [Request(contents={"Na": 1, "Cl": 1}, targets={"gap": (5.0, math.inf)})] * 4
    assert first.targets == {"gap"}
    assert same(drawn(first, aimed), drawn(second, aimed))
    fit(second, [Example(atoms=example.atoms) for example in crystals()])  # as in a search
    assert second.targets == {"gap"}
    assert set(second.card["properties"]) == {"gap"}


@pytest.mark.parametrize("kind", [WyckoffGenerator, FlowGenerator])
def test_training_with_a_property_resumes_bit_for_bit(kind, tmp_path):
    class Stop(Exception):
        pass

    def stop(epoch):
        if epoch.number == 1:
            raise Stop

    whole = fit(small(kind), crystals(), epochs=2)
    with pytest.raises(Stop):
        fit(small(kind), crystals(), epochs=2, checkpoint=tmp_path / "c.safetensors", on_epoch=stop)
    resumed = fit(small(kind), crystals(), epochs=2, checkpoint=tmp_path / "c.safetensors")
    for one, other in zip(networks_of(whole), networks_of(resumed), strict=True):
        for (name, value), (_, again) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
            assert torch.equal(value, again), name
