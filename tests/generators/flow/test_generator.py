"""Flow matching: what the network cannot see, exact contents, learning one crystal, and the same samples again."""

from __future__ import annotations

import json
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.data import chemical_symbols
from crystals import rutile
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.errors import InputError
from hybridcsp.generators.base import Condition, Example, Reject, Request, Sample
from hybridcsp.generators.datasets import is_held_out
from hybridcsp.generators.flow import Architecture, FlowGenerator, Integration
from hybridcsp.generators.flow.data import FlowData, straight_paths
from hybridcsp.generators.joint import generator as generator_room
from hybridcsp.generators.loading import open_generator
from hybridcsp.generators.metrics import evaluate
from hybridcsp.structure.validity import is_too_close

SMALL = Architecture(width=24, message=16, pair=16, layers=2, frequencies=4)

contents = st.dictionaries(
    st.sampled_from(["H", "O", "Ti", "Na", "Cl", "U"]), st.integers(1, 4), min_size=1, max_size=3
)


@pytest.fixture(scope="module")
def learned() -> FlowGenerator:
    """A generator that has seen a few crystals for a moment."""
    generator = FlowGenerator(SMALL, Integration(steps=8))
    crystals = [rutile(), bulk("NaCl", "rocksalt", a=5.64), bulk("ZnS", "zincblende", a=5.41), bulk("Cu")]
    generator.fit([Example(atoms=atoms, energy_quantile=0.5) for atoms in crystals], epochs=2, batch_size=2)
    return generator


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_straight_paths_lead_to_the_crystal(seed):
    rng = np.random.default_rng(seed)
    ends = np.array([rutile().get_scaled_positions()])
    numbers = np.array([[*rutile().numbers, 0]])
    ends = np.concatenate([ends, np.zeros((1, 1, 3))], axis=1)
    starts = rng.random(ends.shape)
    velocity = straight_paths(starts, ends, numbers, np.random.default_rng(seed))
    assert (velocity[:, 6] == 0).all()
    np.testing.assert_allclose(velocity.mean(1), 0, atol=1e-12)
    reached = rutile()
    reached.set_scaled_positions(starts[0, :6] + velocity[0, :6])
    np.testing.assert_allclose(
        np.sort(reached.get_all_distances(mic=True), axis=None),
        np.sort(rutile().get_all_distances(mic=True), axis=None),
        atol=1e-6,
    )
    only = straight_paths(starts, ends, numbers, np.random.default_rng(seed), trials=1)
    plain = ends - starts
    plain -= np.round(plain)
    assert (only**2).sum() <= ((plain[0, :6] - plain[0, :6].mean(0)) ** 2).sum() + 1.5  # assigned, not in file order
    more = straight_paths(starts, ends, numbers, np.random.default_rng(seed), trials=32)
    assert np.abs(more).max() <= 1.0


def test_straight_paths_use_the_shortest_assignment_and_translation():
    """Against brute force: every permutation of like atoms, after each of the translations that were drawn."""
    rng = np.random.default_rng(5)
    kinds = np.array([22, 22, 8, 8, 8, 0])
    orders = [(*a, *b) for a in permutations((0, 1)) for b in permutations((2, 3, 4))]
    for seed in range(10):
        starts, ends = rng.random((1, 6, 3)), rng.random((1, 6, 3))
        translations = np.random.default_rng(seed).random((1, 4, 1, 3))[0]
        steps = [(ends[0, list(order)] + t) - starts[0, :5] for t in translations for order in orders]
        steps = [step - np.round(step) for step in steps]
        nearest = min(steps, key=lambda step: (step**2).sum())
        velocity = straight_paths(starts, ends, kinds[None], np.random.default_rng(seed), trials=4)
        np.testing.assert_allclose(velocity[0, :5], nearest - nearest.mean(0), atol=1e-12)


def test_held_out_examples_are_not_learned(monkeypatch):
    seen = []

    class Watched:
        def __init__(self, model, training, held_out, settings, **options):
            seen.extend([training, held_out])

        def train(self):
            return []

    monkeypatch.setattr(generator_room, "Trainer", Watched)
    solids = [bulk(s, "fcc", a=4.0) for s in ("Ag", "Au", "Al", "Ni", "Pd", "Pt", "Rh", "Ir", "Pb", "Ca", "Sr")]
    aside = {atoms.get_chemical_formula() for atoms in solids if is_held_out(atoms.get_chemical_formula())}
    FlowGenerator(SMALL).fit([Example(atoms=atoms) for atoms in solids])
    learned, held = ({chemical_symbols[point.numbers[0]] for point in data.points} for data in seen)
    assert held == aside
    assert learned == {atoms.get_chemical_formula() for atoms in solids} - aside


@given(st.lists(contents, min_size=1, max_size=4))
@settings(deadline=None, max_examples=15)
def test_samples_have_the_requested_contents(learned, several):
    answers = learned.sample([Request(contents=one) for one in several], np.random.default_rng(0))
    assert [answer.request for answer in answers] == list(range(len(several)))
    for one, answer in zip(several, answers, strict=True):
        if isinstance(answer, Sample):
            assert Counter(answer.atoms.get_chemical_symbols()) == one
            assert answer.atoms.pbc.all()
            assert answer.atoms.cell.volume > 0
        else:
            assert "volume" in answer.reason


@pytest.mark.parametrize("wrong", [{}, {"Xx": 1}, {"Ti": 0}, {"X": 2}])
def test_invalid_contents_are_rejected_alone(learned, wrong):
    answers = learned.sample([Request(contents=wrong), Request(contents={"Na": 1, "Cl": 1})], np.random.default_rng(0))
    assert answers[0] == Reject(request=0, reason="not the contents of a cell")
    assert isinstance(answers[1], Sample)


def test_samples_follow_the_random_numbers_and_the_conditions(learned):
    plain = [Request(contents={"Ti": 2, "O": 4})] * 3

    def positions(requests, seed):
        return [answer.atoms.positions for answer in learned.sample(requests, np.random.default_rng(seed))]

    first = positions(plain, 7)
    np.testing.assert_array_equal(positions(plain, 7), first)
    assert not np.allclose(positions(plain, 8), first)
    assert not np.allclose(first[0], first[1])
    asked = [Request(contents={"Ti": 2, "O": 4}, energy_quantile=0.0)] * 3
    assert not np.allclose(positions(asked, 7), first)
    assert learned.conditions == {Condition.SPACEGROUP, Condition.ENERGY}


def test_samples_of_other_space_groups_are_rejected(learned):
    no_rock_salt = [Request(contents={"Ti": 2, "O": 4}, spacegroup=225)] * 3
    answers = learned.sample(no_rock_salt, np.random.default_rng(0))
    assert [(a.request, a.reason) for a in answers] == [(i, "not near the space group asked for") for i in range(3)]


def test_large_cells_can_be_sampled(learned):
    (answer,) = learned.sample([Request(contents={"Na": 12, "Cl": 12})], np.random.default_rng(0))
    assert isinstance(answer, Reject) or len(answer.atoms) == 24


def test_samples_that_are_too_close_are_drawn_again(learned, monkeypatch):
    requests = [Request(contents={"Na": 4, "Cl": 4})] * 12

    def close(redraws: int) -> int:
        monkeypatch.setattr(generator_room, "REDRAWS", redraws)
        answers = learned.sample(requests, np.random.default_rng(2))
        return sum(isinstance(one, Sample) and is_too_close(one.atoms) for one in answers)

    assert close(4) < close(0)


def test_loaded_generators_sample_the_same(learned, tmp_path):
    learned.save(tmp_path)
    first, second = (FlowGenerator.load(tmp_path) for _ in range(2))
    requests = [Request(contents={"Ti": 2, "O": 4}), Request(contents={"Zn": 1, "S": 1})]
    samples = [one.sample(requests, np.random.default_rng(1)) for one in (first, second, learned)]
    for a, b, before in zip(*samples, strict=True):
        np.testing.assert_array_equal(a.atoms.positions, b.atoms.positions)
        # weights are kept in half precision
        np.testing.assert_allclose(a.atoms.cell.cellpar(), before.atoms.cell.cellpar(), rtol=0.02)
    assert first.card["crystals"] == 4
    assert first.card["training_formulas"].split() == ["ClNa", "Cu", "O2Ti", "SZn"]
    assert first.architecture == SMALL


def test_invalid_cards_are_refused(learned, tmp_path):
    learned.save(tmp_path)
    card = (tmp_path / "card.json").read_text()
    (tmp_path / "card.json").write_text(card.replace('"frequencies"', '"harmonics"'))
    with pytest.raises(InputError, match="the card must be one of this generator"):
        FlowGenerator.load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("width", 10**9),
        ("layers", 10**9),
        ("pair", -1),
        ("width", "wide"),
        ("width", 1.5),
        ("steps", 10**9),
        ("mean", [0.0] * 8),
    ],
)
def test_cards_with_wrong_sizes_are_refused(learned, tmp_path, key, value):
    learned.save(tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    card[{"steps": "integration", "mean": "lattice"}.get(key, "architecture")][key] = value
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=r"sizes|not a card"):
        FlowGenerator.load(tmp_path)


def test_untrained_generators_are_refused(tmp_path):
    generator = FlowGenerator(SMALL)
    with pytest.raises(InputError, match="is not trained"):
        generator.sample([Request(contents={"Cu": 1})], np.random.default_rng(0))
    with pytest.raises(InputError, match="is not trained"):
        generator.save(tmp_path)
    with pytest.raises(InputError, match="at least one crystal"):
        generator.fit([])
    with pytest.raises(InputError, match="did you mean 'epochs'"):
        generator.fit([Example(atoms=bulk("Cu"))], epoch=1)


def test_batches_are_reproducible():
    data = FlowData.from_examples(
        [
            Example(atoms=rutile(), weight=2.0, energy_quantile=0.25, pressure_gpa=30.0),
            Example(atoms=bulk("Cu")),
        ]
    )
    assert data.sizes.tolist() == [6, 1]
    assert data.weights.tolist() == [2.0, 1.0]
    batches = [data.batch(np.array([0, 1]), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert batches[0]["numbers"].tolist() == [[22, 22, 8, 8, 8, 8], [29, 0, 0, 0, 0, 0]]
    assert batches[0]["spacegroup"].tolist() == [136, 225]
    assert batches[0]["energy"].tolist() == [[0.25, 1.0], [0.0, 0.0]]
    assert batches[0]["pressure"].tolist() == [[0.5, 1.0], [0.0, 0.0]]
    for key in batches[0]:
        torch.testing.assert_close(batches[0][key], batches[1][key])
    assert not torch.equal(batches[0]["positions"], batches[2]["positions"])


def test_shipped_weights_exclude_held_out_formulas_and_sample():
    generator = open_generator("flow")
    formulas = generator.card["training_formulas"].split()
    assert len(formulas) > 10_000
    assert not any(map(is_held_out, formulas))
    answers = generator.sample([Request(contents={"Ti": 2, "O": 4})] * 4, np.random.default_rng(0))
    assert [Counter(answer.atoms.get_chemical_symbols()) for answer in answers] == [Counter(Ti=2, O=4)] * 4


@pytest.mark.slow
def test_one_crystal_is_learned():
    atoms = bulk("ZnS", "zincblende", a=5.41)
    generator = FlowGenerator(SMALL, Integration(steps=25))
    generator.fit([Example(atoms=atoms)] * 256, epochs=60, batch_size=32, learning_rate=5e-3)
    found = evaluate(generator, [atoms], samples=20, seed=1)[0].displacements
    assert sum(d is not None and d < 0.05 for d in found) >= 18, found
