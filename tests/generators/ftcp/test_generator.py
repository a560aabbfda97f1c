"""FTCP: learning and reproducing crystals, exact contents, wanted properties, resumption, files, and bad input."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk

from hybridcsp.errors import InputError
from hybridcsp.generators.base import Example, Reject, Request, Sample
from hybridcsp.generators.ftcp import FtcpArchitecture, FtcpGenerator, sampling
from hybridcsp.generators.ftcp.configurations import CONFIGURATIONS
from hybridcsp.generators.ftcp.data import FourierCrystals, FourierData, Scale, property_table
from hybridcsp.generators.loading import new_generator
from hybridcsp.generators.metrics import displacement
from hybridcsp.structure.representations.base import DecodingError
from hybridcsp.testing.generators import check_generator

SMALL = FtcpArchitecture(channels=8, hidden=48, latent=8, branch=8)
LIMITS = {"elements": 2, "sites": 3}
QUICK = {"batch_size": 8, "device": "cpu", "patience": 1000, "warm_up": 5, "averaging": 0.9, "checkpoint_epochs": 100}
CRYSTALS = [  # of formulas that are not held out
    bulk("NaCl", "rocksalt", a=5.64),
    bulk("ZnS", "zincblende", a=5.41),
    bulk("CsCl", "cesiumchloride", a=4.12),
    bulk("Cu"),
]
GAPS = [5.0, 3.6, 5.1, 0.0]
EXAMPLES = [Example(atoms=atoms, properties={"gap": gap}) for atoms, gap in zip(CRYSTALS, GAPS, strict=True)]


def small(configuration="corrected"):
    return FtcpGenerator(configuration, SMALL, **LIMITS)


@pytest.fixture(scope="module")
def learned():
    """A generator of the corrected configuration that has learned the crystals by heart."""
    generator = small()
    generator.fit(EXAMPLES * 8, epochs=25, learning_rate=0.01, **QUICK)
    return generator


@pytest.fixture(scope="module")
def published():
    """A generator of the published configuration, which needs many more steps, after a short training."""
    generator = small("published")
    generator.fit(EXAMPLES * 2, epochs=12, learning_rate=0.01, **QUICK)
    return generator


def test_crystals_learned_by_heart_are_reconstructed(learned):
    for atoms, found in zip(CRYSTALS, learned.reconstruct(CRYSTALS), strict=True):
        assert Counter(found.numbers) == Counter(atoms.numbers)
        distance, _ = displacement(found, atoms)
        assert distance is not None
        assert distance < 0.1


def test_published_configuration_learns(published):
    losses = [epoch["train"] for epoch in published.card["history"]]
    assert losses[-1] < 0.5 * losses[0]
    assert (published.card["settings"]["clip"], published.card["configuration"]) == (1e9, "published")


def test_crystals_without_a_matrix_cannot_be_reconstructed(learned):
    (found,) = learned.reconstruct([bulk("Cu") * (4, 1, 1)])
    assert isinstance(found, DecodingError)
    assert "more than 3" in found.reason


@pytest.mark.parametrize("configuration", list(CONFIGURATIONS))
def test_all_weights_have_gradients(configuration):
    generator = small(configuration)
    torch.manual_seed(0)
    generator.architecture = replace(SMALL, branch=32)  # some of few rectified units have no gradient
    network = generator._untrained(1).train()
    data = data_of(generator)
    sum(term.sum() for term in network(data.batch(np.arange(4), np.random.default_rng(0))).values()).backward()
    for name, parameter in network.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        # Batch normalisation removes the biases of the convolutions before it.
        assert parameter.grad.abs().max() > 0 or name.endswith("bias"), name


def data_of(generator, examples=EXAMPLES):
    components = CONFIGURATIONS[generator.configuration]
    representation = components.representation(2, 3)
    crystals = FourierCrystals(representation, [components.prepare(example.atoms) for example in examples])
    table = property_table(examples, ["gap"])
    return FourierData(crystals, np.ones(len(examples)), table, Scale.of(crystals, table))


def test_unknown_values_of_a_property_do_not_count():
    generator = small()
    missing = [EXAMPLES[0], Example(atoms=CRYSTALS[1]), *EXAMPLES[2:]]
    batch = data_of(generator, missing).batch(np.arange(4), np.random.default_rng(0))
    assert batch["known"].flatten().tolist() == [1, 0, 1, 1]
    network = generator._untrained(1).eval()
    first = network(batch)["properties"]
    second = network(batch | {"properties": batch["properties"] + (1 - batch["known"])})["properties"]
    torch.testing.assert_close(first, second)
    assert first[1] == 0


def test_matrices_are_scaled_to_numbers_from_0_to_1_and_back():
    generator = small()
    components = CONFIGURATIONS["corrected"]
    crystals = FourierCrystals(components.representation(2, 3), [components.prepare(atoms) for atoms in CRYSTALS])
    scale = Scale.of(crystals, {})
    assert np.array_equal(Scale.from_card(json.loads(json.dumps(scale.to_card()))).low, scale.low)
    for index in range(len(crystals)):
        scaled = scale.encode(crystals.matrix(index))
        assert (scaled.min(), scaled.max()) == (0, 1)
        assert len(scaled) % 4 == 0
        np.testing.assert_allclose(scale.decode(scaled), crystals.matrix(index), atol=1e-4)
    assert generator.targets == frozenset()


@pytest.mark.parametrize("configuration", list(CONFIGURATIONS))
def test_interrupted_trainings_continue_bit_for_bit(configuration, tmp_path):
    class Stop(Exception):
        pass

    def stop(epoch):
        if epoch.number == 2:
            raise Stop

    settings = {"epochs": 3, **QUICK, "batch_size": 3, "seed": 4, "learning_rate": 0.01}
    whole, parts = small(configuration), small(configuration)
    whole.fit(EXAMPLES, **settings)
    with pytest.raises(Stop):
        parts.fit(EXAMPLES, **settings, checkpoint=tmp_path / "c.safetensors", on_epoch=stop)
    again = small(configuration)
    again.fit(EXAMPLES, **settings, checkpoint=tmp_path / "c.safetensors")
    expected = whole._model.network.state_dict()
    for name, value in again._model.network.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_samples_have_the_requested_contents_and_follow_the_random_numbers(learned):
    requests = [Request(contents={"Na": 1, "Cl": 1})] * 4 + [Request(contents={"K": 1, "Br": 1})] * 2
    first, second, other = (learned.sample(requests, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert [answer.request for answer in first] == list(range(6))
    samples = [answer for answer in first if isinstance(answer, Sample)]
    assert len(samples) >= 4
    for answer in samples:
        assert answer.atoms.symbols.formula.count() == requests[answer.request].contents
    assert all(getattr(a, "atoms", 0) == getattr(b, "atoms", 0) for a, b in zip(first, second, strict=True))
    assert first[0].atoms != other[0].atoms


def test_published_samples_of_other_contents_are_rejected(published):
    answers = published.sample([Request(contents={"K": 1, "Br": 1})] * 3, np.random.default_rng(0))
    assert {answer.reason for answer in answers} <= {"other elements", "other numbers of atoms"}


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ({}, "not the contents of a cell"),
        ({"Xx": 1}, "not the contents of a cell"),
        ({"Na": 0}, "not the contents of a cell"),
        ({"Na": 1, "Cl": 1, "Br": 1}, "more elements or sites than the model has learned"),
        ({"Na": 3, "Cl": 3}, "more elements or sites than the model has learned"),
        ({"Na": 1, "Cl": 2}, "no known crystal with these numbers of atoms"),
    ],
)
def test_requests_without_an_answer_are_rejected_with_a_reason(learned, contents, reason):
    answers = learned.sample([Request(contents=contents), Request(contents={"Cu": 1})], np.random.default_rng(0))
    assert answers[0] == Reject(request=0, reason=reason)
    assert answers[1].request == 1


class TestTargets:
    def test_learned_properties_are_targets(self, learned):
        assert learned.targets == {"gap"}
        assert learned.card["properties"] == {"gap": {"crystals": 32, "smallest": 0.0, "largest": 5.1}}

    def test_samples_have_wanted_predicted_values(self, learned):
        wanted = {"gap": (3.0, 4.5), "hardness": (0.0, 1.0)}  # the latter is not learned and ignored
        requests = [Request(contents={"Zn": 1, "S": 1}, targets=wanted)] * 6
        samples = [a.atoms for a in learned.sample(requests, np.random.default_rng(0)) if isinstance(a, Sample)]
        assert samples
        predicted = learned._model.predict(learned._model.encode(samples))[:, 0] * 5.1
        assert ((predicted >= 3.0) & (predicted <= 4.5)).all()

    def test_published_samples_start_from_crystals_with_the_nearest_values(self, published, monkeypatch):
        monkeypatch.setattr(sampling, "_around", lambda model, starts, *rest: {0: starts})
        request = Request(contents={"K": 1, "Cl": 1}, targets={"gap": (5.05, 5.5)})
        starts = sampling.sample(published._model, [request], np.random.default_rng(0))[0]
        expected = published._model.encode([CRYSTALS[2], CRYSTALS[0]])
        torch.testing.assert_close(starts[:2], expected)

    def test_unreachable_values_are_rejected(self, learned):
        request = Request(contents={"Zn": 1, "S": 1}, targets={"gap": (7.0, np.inf)})
        (answer,) = learned.sample([request], np.random.default_rng(0))
        assert answer == Reject(request=0, reason="wanted value of a property beyond those of the training set")


class TestFiles:
    def test_loaded_generators_sample_alike(self, learned, tmp_path):
        learned.save(tmp_path)
        first, second = (FtcpGenerator.load(tmp_path) for _ in range(2))
        requests = [Request(contents={"Na": 1, "Cl": 1}, targets={"gap": (1.0, 5.5)})] * 3
        samples = [one.sample(requests, np.random.default_rng(1)) for one in (first, second)]
        for a, b in zip(*samples, strict=True):
            assert getattr(a, "atoms", a) == getattr(b, "atoms", b)
        assert (first.configuration, first.architecture, first.targets) == ("corrected", SMALL, {"gap"})
        assert first.card["training_formulas"].split() == ["ClCs", "ClNa", "Cu", "SZn"]

    def test_generators_conform(self, learned, tmp_path):
        learned.save(tmp_path / "weights")
        (tmp_path / "empty").mkdir()
        contents = [{"Na": 1, "Cl": 1}, {"Zn": 1, "S": 1}, {"Cu": 1}]
        check_generator(lambda: FtcpGenerator.load(tmp_path / "weights"), tmp_path / "empty", contents=contents)

    @pytest.mark.parametrize(
        ("keys", "value"),
        [
            (("architecture", "channels"), 10**9),
            (("architecture", "latent"), "many"),
            (("architecture", "width"), 8),
            (("limits", "sites"), 10**9),
            (("limits", "sites"), 4),
            (("configuration",), "improved"),
            (("scale", "low"), [0.0]),
            (("scale", "properties"), {}),
            (("scale", "properties"), {"gap": [1.0, 1.0]}),
        ],
    )
    def test_wrong_cards_are_refused(self, learned, tmp_path, keys, value):
        learned.save(tmp_path)
        card = json.loads((tmp_path / "card.json").read_text())
        entry = card
        for key in keys[:-1]:
            entry = entry[key]
        entry[keys[-1]] = value
        (tmp_path / "card.json").write_text(json.dumps(card))
        with pytest.raises(InputError, match=r"sizes|the card must be one of this generator"):
            FtcpGenerator.load(tmp_path)


class TestTrainedFurther:
    def test_known_crystals_are_joined_without_duplicates(self, learned, tmp_path):
        learned.save(tmp_path)
        more = [Example(atoms=CRYSTALS[0]), Example(atoms=bulk("LiF", "rocksalt", a=4.03))]
        for remember, expected in ((True, 5), (False, 4)):
            generator = FtcpGenerator.load(tmp_path)
            generator.fit(more, epochs=1, anchor=1.0, remember=remember, **QUICK)
            assert len(generator._model.known) == expected
            assert generator.targets == {"gap"}

    def test_other_sizes_and_properties_are_refused(self, learned, tmp_path):
        learned.save(tmp_path)
        generator = FtcpGenerator.load(tmp_path)
        with pytest.raises(InputError, match="the trained network has 48"):
            generator.fit(EXAMPLES, hidden=64)
        with pytest.raises(InputError, match="has learned gap; train a new one"):
            generator.fit([Example(atoms=CRYSTALS[0], properties={"density": 2.2})])


class TestBadInput:
    def test_untrained_generators_are_refused(self, tmp_path):
        for use in (lambda g: g.sample([], np.random.default_rng(0)), lambda g: g.save(tmp_path)):
            with pytest.raises(InputError, match="the generator is not trained"):
                use(small())

    @pytest.mark.parametrize(
        ("examples", "settings", "reason"),
        [
            ([], {}, "training needs at least one crystal"),
            ([Example(atoms=bulk("Cu") * 5)], {}, "at most 2 elements and 3 atoms"),
            (EXAMPLES, {"epoch": 1}, "did you mean 'epochs'"),
            (EXAMPLES, {"channels": 0}, "a whole number above 0"),
            (EXAMPLES, {"channels": 6}, "a multiple of 4"),
            ([Example(atoms=a, properties={"gap": 1.0}) for a in CRYSTALS], {}, "all 4 crystals .* nothing to learn"),
            ([Example(atoms=a, properties={"gap": np.nan}) for a in CRYSTALS], {}, "0 of the 4 crystals"),
            ([EXAMPLES[0], Example(atoms=CRYSTALS[1])], {}, "1 of the 2 crystals .* 2 are needed"),
        ],
    )
    def test_what_cannot_be_learned_is_refused_in_a_sentence(self, examples, settings, reason):
        with pytest.raises(InputError, match=reason):
            small().fit(examples, **settings)

    def test_sizes_and_limits_are_settings_of_the_first_training(self):
        generator = new_generator("ftcp", "published")
        generator.fit(EXAMPLES[:3], epochs=1, channels=4, hidden=8, latent=3, branch=4, sites=2, elements=2)
        assert generator.architecture == FtcpArchitecture(channels=4, hidden=8, latent=3, branch=4)
        assert generator.reconstruct([bulk("Cu") * 3])[0].reason == "it has 27 atoms, more than 2"
        with pytest.raises(InputError, match="corrected"):
            new_generator("ftcp", "improved")
