"""The generator ccdcgan: learning, exact contents, targets, the same training again, and bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.generators.base import Condition, Example, Reject, Request, Sample
from hybridcsp.generators.ccdcgan import ConstrainedGAN
from hybridcsp.generators.ccdcgan.answering import Drawn, Unconditional
from hybridcsp.generators.ccdcgan.designs import closer_than_half_an_angstrom
from hybridcsp.generators.ccdcgan.quantities import Quantities, StandardUnits, with_predictions
from hybridcsp.generators.ccdcgan.sizes import SCALES, Scale, Sizes
from hybridcsp.generators.loading import new_generator, open_generator
from hybridcsp.generators.properties import LearnedProperties
from hybridcsp.predictors.base import Prediction
from hybridcsp.structure.representations.base import DecodingError
from hybridcsp.structure.representations.voxel_grid import VoxelGrid
from hybridcsp.testing import check_generator

GRID = VoxelGrid(sites=16, cell=16, box=8.0, width=0.5, atoms=8, edge=8.0)
TINY = Scale(grid=GRID, sizes=Sizes(channels=2, site_code=16, cell_code=4, width=16, dense=32, noise=4))
QUICK = {"epochs": 2, "batch_size": 2, "steps": 3, "device": "cpu"}


def simple_cubic(symbol: str) -> Atoms:
    return bulk(symbol, "sc", a=3.3)


CRYSTALS = [bulk("CuAu", "cesiumchloride", a=3.0 + 0.1 * i) for i in range(3)] + [
    simple_cubic("Cu"),
    simple_cubic("Au"),
]


def examples(*, energies: bool = False, **properties: float) -> list[Example]:
    return [
        Example(
            atoms=atoms,
            energy_quantile=i / 5 if energies else None,
            properties={name: value + i for name, value in properties.items()},
        )
        for i, atoms in enumerate(CRYSTALS)
    ]


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Weights of a generator that has learned two crystals by heart."""
    generator = ConstrainedGAN(scale=TINY)
    generator.fit(
        [Example(atoms=simple_cubic(symbol), properties={"hardness": n}) for n, symbol in enumerate(("Cu", "Au"))],
        epochs=60,
        batch_size=2,
        steps=1,
        learning_rate=1e-2,
        averaging=0.5,
        device="cpu",
    )
    path = tmp_path_factory.mktemp("ccdcgan") / "weights"
    generator.save(path)
    return path


def test_learned_crystals_are_sampled_and_reconstructed(learned):
    generator = open_generator(str(learned))
    answers = generator.sample([Request(contents={"Cu": 1})] * 4, np.random.default_rng(0))
    assert all(isinstance(answer, Sample) and answer.atoms.get_chemical_formula() == "Cu" for answer in answers)
    back, unknown, large = generator.reconstruct([simple_cubic("Cu"), bulk("Fe"), bulk("Cu", cubic=True) * (2, 2, 1)])
    np.testing.assert_allclose(back.cell.cellpar(), [3.3, 3.3, 3.3, 90, 90, 90], rtol=0.1)
    assert isinstance(unknown, DecodingError)
    assert unknown.reason == "the model knows only Cu and Au"
    assert "it has 16 atoms, more than 8" in large.reason


def test_targets_are_honoured_by_the_constraint(learned):
    generator = open_generator(str(learned))
    assert generator.targets == {"hardness"}
    near, far = (
        generator.sample([Request(contents={"Cu": 1}, targets={"hardness": target})], np.random.default_rng(0))[0]
        for target in ((-0.5, 0.6), (30.0, 40.0))
    )
    assert isinstance(near, Sample)
    assert -0.5 <= near.properties["hardness"] <= 0.6
    assert isinstance(far, Reject)
    assert far.reason == "the predicted hardness is outside of the target"


def test_conforms(learned, tmp_path):
    contents = ({"Cu": 1}, {"Au": 1}, {"Cu": 2, "Au": 1})
    check_generator(
        lambda: ConstrainedGAN.load(learned), tmp_path, contents=contents, fit_settings={**QUICK, "epochs": 1}
    )


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ({"Cu": 1, "Fe": 1}, "the model knows only Cu and Au"),
        ({"Cu": 5, "Au": 4}, "the images hold at most 8 atoms"),
        ({"Cu": 0}, "not the contents of a cell"),
        ({"Cu": 3, "Au": 5}, "the decoded images show other numbers of atoms"),
    ],
)
def test_requests_that_cannot_be_answered_are_rejected_with_a_reason(learned, contents, reason):
    (answer,) = ConstrainedGAN.load(learned).sample([Request(contents=contents)], np.random.default_rng(0))
    assert isinstance(answer, Reject)
    assert answer.reason == reason


@pytest.mark.parametrize("configuration", ["corrected", "published"])
def test_a_training_continues_bit_for_bit(configuration, tmp_path):
    given = examples(formation_energy=-1.0)
    whole = ConstrainedGAN(configuration, TINY)
    whole.fit(given, seed=3, **QUICK)

    class Interruption(Exception):
        pass

    def interrupt(at):
        def on_epoch(epoch):
            if (epoch.part, epoch.number) == at:
                raise Interruption

        return on_epoch

    for at in (("sites", 1), ("cells", 2), ("constraint", 1), ("networks", 1)):
        with pytest.raises(Interruption):
            ConstrainedGAN(configuration, TINY).fit(
                given, seed=3, checkpoint=tmp_path / "state.safetensors", on_epoch=interrupt(at), **QUICK
            )
    pieced = ConstrainedGAN(configuration, TINY)
    pieced.fit(given, seed=3, checkpoint=tmp_path / "state.safetensors", **QUICK)
    for generator, name in ((whole, "whole"), (pieced, "pieced")):
        generator.save(tmp_path / name)
    first, second = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "pieced"))
    assert first == second
    assert list(whole.card["properties"]) == ["formation_energy"]
    assert {"critic", "generator", "validity", "coverage"} <= set(whole.card["history"][0])


def test_energies_are_a_condition_and_properties_are_targets():
    generator = ConstrainedGAN(scale=TINY)
    generator.fit(examples(energies=True, hardness=1.0), **{**QUICK, "epochs": 1})
    assert generator.conditions == {Condition.ENERGY}
    assert generator.targets == {"hardness"}
    assert list(generator.card["properties"]) == ["hardness"]
    plain = ConstrainedGAN(scale=TINY)
    plain.fit(examples(), **{**QUICK, "epochs": 1})
    assert not plain.conditions
    assert not plain.targets
    assert "constraint" not in plain.card["metrics"]


def test_retraining_changes_only_the_networks_that_compete(learned):
    generator = ConstrainedGAN.load(learned)
    before = {name: value.clone() for name, value in generator._networks.state_dict().items()}
    generator.fit(examples(hardness=0.0), images=False, **QUICK)
    after = generator._networks.state_dict()
    changed = {".".join(name.split(".")[:2]) for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"networks.generator", "networks.critic"}


class Fives:
    """Predictor of the number 5 for crystals without gold."""

    quantity = "hardness"

    def predict(self, crystals):
        n = len(crystals)
        gold = [79 in atoms.numbers for atoms in crystals]
        return Prediction(
            mean=np.full(n, 5.0),
            standard_deviation=np.ones(n),
            interval_50=np.zeros((n, 2)),
            interval_90=np.zeros((n, 2)),
            unseen=tuple(("Au",) if one else () for one in gold),
        )


def test_values_are_learned_in_standard_deviations_and_extreme_ones_are_cut_off():
    given = [Example(atoms=simple_cubic("Cu"), properties={"energy": x}) for x in (*range(99), 10**6)]
    quantities = Quantities(LearnedProperties().extended(given), StandardUnits())
    values = quantities.values([*given, Example(atoms=simple_cubic("Cu"))])[:, 0]
    assert values[98] < 2 < 4 == values[99]
    assert np.isnan(values[100])
    np.testing.assert_allclose(quantities.in_own_units(values[:99, None])[:, 0], range(99), atol=1e-9)


def test_a_predictor_fills_in_values_within_what_it_has_learned():
    given = [examples(hardness=1.0)[0], *examples()[1:]]
    found, n = with_predictions(given, Fives())
    assert n == 1
    assert [example.properties.get("hardness") for example in found] == [1.0, None, None, 5.0, None]
    with pytest.raises(InputError, match="no crystal is within what it has learned from"):
        with_predictions(examples()[:3], Fives())


class TestPublished:
    def test_samples_answer_requests_of_the_contents_that_they_have(self):
        requests = [Request(contents=one) for one in ({"Cu": 1, "Au": 1}, {"Cu": 1}, {"Cu": 1, "Au": 1})]
        drawn = [Drawn(reason="the images show no atoms"), Drawn(atoms=CRYSTALS[0]), Drawn(atoms=CRYSTALS[4])]
        first, second, third = Unconditional().matched(drawn, requests)
        assert first.atoms is CRYSTALS[0]
        assert second.reason == third.reason == "the decoded images show other numbers of atoms"

    def test_atoms_may_be_half_an_angstrom_apart(self):
        close, closer = (Atoms("CuAu", [[0, 0, 0], [0, 0, d]], cell=[3] * 3, pbc=True) for d in (0.6, 0.4))
        assert not closer_than_half_an_angstrom(close)
        assert closer_than_half_an_angstrom(closer)
        assert not closer_than_half_an_angstrom(simple_cubic("Cu"))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (examples(), r"minimises one property, .* \(--property formation_energy_per_atom\)"),
            (examples(hardness=1.0, energy=0.0), "minimises one property"),
            (examples(bulk_modulus=100.0), "its largest value is 104, .* which must be at most 20"),
        ],
    )
    def test_it_needs_one_property_whose_exponential_function_can_be_minimised(self, given, message):
        with pytest.raises(InputError, match=message):
            ConstrainedGAN("published", TINY).fit(given)


class TestBadInput:
    @pytest.mark.parametrize(
        ("crystals", "settings", "message"),
        [
            ([], {}, "training needs at least one crystal"),
            ([bulk("Cu", cubic=True) * (3, 1, 1)] * 3, {}, "and 0 of these can .3 times: it has 12 atoms, more than 8"),
            (
                [simple_cubic(symbol) for symbol in ("Cu", "Au", "Ag", "Ni", "Pd", "Pt", "Fe")],
                {},
                "the crystals have 7 elements, and ccdcgan learns one chemical system of at most 6",
            ),
            (CRYSTALS, {"sizes": "compact"}, "sizes"),
            (CRYSTALS, {"epoch": 3}, "epoch"),
            (CRYSTALS, {"steps": 0}, "a whole number from 1"),
            (CRYSTALS, {"strength": -1}, "a number from 0"),
            (CRYSTALS, {"predictor": "nowhere"}, "a folder with the weights of a predictor"),
        ],
    )
    def test_training_refuses_what_it_cannot_learn(self, crystals, settings, message):
        with pytest.raises(InputError, match=message):
            ConstrainedGAN(scale=TINY).fit([Example(atoms=atoms) for atoms in crystals], **settings)

    def test_weights_keep_their_elements_and_properties(self, learned):
        generator = ConstrainedGAN.load(learned)
        with pytest.raises(InputError, match="crystals of Cu, Au, and no other elements can be added"):
            generator.fit([Example(atoms=simple_cubic("Fe"))] * 2)
        with pytest.raises(InputError, match="these weights have learned hardness, and no other can be added"):
            generator.fit(examples(band_gap=1.0))

    def test_an_untrained_generator_does_nothing_but_learn(self, tmp_path):
        for use in (lambda g: g.sample([], np.random.default_rng(0)), lambda g: g.reconstruct([])):
            with pytest.raises(InputError, match="not trained; call fit"):
                use(ConstrainedGAN())
        with pytest.raises(InputError, match="there are no weights to save"):
            ConstrainedGAN().save(tmp_path)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("sizes", {"channels": 10**9}),
            ("grid", {"box": "wide"}),
            ("elements", ["Cu"]),
            ("elements", ["Cu", "Xx"]),
            ("constraint", {"properties": {}}),
            ("configuration", "improved"),
        ],
    )
    def test_damaged_cards_are_refused(self, learned, tmp_path, key, value):
        card = json.loads((learned / "card.json").read_text())
        card[key] = {**card[key], **value} if isinstance(value, dict) else value
        (tmp_path / "card.json").write_text(json.dumps(card))
        (tmp_path / "weights.safetensors").write_bytes((learned / "weights.safetensors").read_bytes())
        with pytest.raises(InputError, match="the card must be one of this generator"):
            ConstrainedGAN.load(tmp_path)


def test_configurations_and_sizes_have_names():
    assert list(ConstrainedGAN.configurations) == ["corrected", "published"]
    assert new_generator("ccdcgan").configuration == "corrected"
    published = new_generator("ccdcgan", "published")
    assert (published.configuration, published._scale) == ("published", SCALES["published"])
    assert new_generator("ccdcgan", "published", "compact")._scale == SCALES["compact"]
    with pytest.raises(UnknownNameError, match="improved"):
        new_generator("ccdcgan", "improved")
    with pytest.raises(UnknownNameError, match="huge"):
        new_generator("ccdcgan", size="huge")
