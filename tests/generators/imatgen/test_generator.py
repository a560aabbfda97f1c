"""Voxel images through autoencoders: learning, exact contents, the same training again, and bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.generators.base import Condition, Example, Reject, Request, Sample
from hybridcsp.generators.imatgen import IMatGen
from hybridcsp.generators.imatgen.sizes import SCALES, Scale, Sizes
from hybridcsp.generators.loading import new_generator, open_generator
from hybridcsp.structure.representations.base import DecodingError
from hybridcsp.structure.representations.voxel_grid import VoxelGrid
from hybridcsp.testing import check_generator

GRID = VoxelGrid(sites=16, cell=16, box=8.0, width=0.5, atoms=8, edge=8.0)
TINY = Scale(grid=GRID, sizes=Sizes(channels=2, site_code=16, cell_code=4, width=16, latent=4))
QUICK = {"epochs": 2, "batch_size": 2, "device": "cpu"}


def simple_cubic(symbol: str) -> Atoms:
    return bulk(symbol, "sc", a=3.3)


CRYSTALS = [bulk("CuAu", "cesiumchloride", a=3.0 + 0.1 * i) for i in range(3)] + [
    simple_cubic("Cu"),
    simple_cubic("Au"),
]

SEVEN = [simple_cubic(symbol) for symbol in ("Cu", "Au", "Ag", "Ni", "Pd", "Pt", "Fe")]


def examples(**properties: float) -> list[Example]:
    return [
        Example(
            atoms=atoms,
            energy_quantile=None if properties else i / 5,
            properties={name: value + i for name, value in properties.items()},
        )
        for i, atoms in enumerate(CRYSTALS)
    ]


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Weights of a generator that has learned two crystals by heart."""
    generator = IMatGen(scale=TINY)
    generator.fit(
        [Example(atoms=simple_cubic(symbol), energy_quantile=0.0) for symbol in ("Cu", "Au")],
        epochs=50,
        batch_size=2,
        learning_rate=2e-2,
        averaging=0.5,
        device="cpu",
    )
    path = tmp_path_factory.mktemp("imatgen") / "weights"
    generator.save(path)
    return path


def test_learned_crystals_are_sampled_and_reconstructed(learned):
    generator = open_generator(str(learned))
    answers = generator.sample([Request(contents={"Cu": 1})] * 4, np.random.default_rng(0))
    assert all(isinstance(answer, Sample) and answer.atoms.get_chemical_formula() == "Cu" for answer in answers)
    back, unknown, large = generator.reconstruct([simple_cubic("Cu"), bulk("Fe"), bulk("Cu", cubic=True) * (2, 2, 1)])
    assert back.get_chemical_formula() == "Cu"
    np.testing.assert_allclose(back.cell.cellpar(), [3.3, 3.3, 3.3, 90, 90, 90], rtol=0.1)
    assert isinstance(unknown, DecodingError)
    assert unknown.reason == "the model knows only Cu and Au"
    assert isinstance(large, DecodingError)
    assert "it has 16 atoms, more than 8" in large.reason


def test_conforms(learned, tmp_path):
    contents = ({"Cu": 1}, {"Au": 1}, {"Cu": 2, "Au": 1})
    check_generator(lambda: IMatGen.load(learned), tmp_path, contents=contents, fit_settings={**QUICK, "epochs": 1})


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ({"Cu": 1, "Fe": 1}, "the model knows only Cu and Au"),
        ({"Cu": 5, "Au": 4}, "the images hold at most 8 atoms"),
        ({"Cu": 0}, "not the contents of a cell"),
        ({"Cu": 3, "Au": 5}, None),
    ],
)
def test_requests_that_cannot_be_answered_are_rejected_with_a_reason(learned, contents, reason):
    (answer,) = IMatGen.load(learned).sample([Request(contents=contents)], np.random.default_rng(0))
    assert isinstance(answer, Reject)
    assert answer.reason == (reason or "the decoded images show other numbers of atoms")


@pytest.mark.parametrize("configuration", ["corrected", "published"])
def test_a_training_continues_bit_for_bit(configuration, tmp_path):
    given = examples(formation_energy=-1.0)
    whole = IMatGen(configuration, TINY)
    whole.fit(given, seed=3, **QUICK)

    class Interruption(Exception):
        pass

    def interrupt(at):
        def on_epoch(epoch):
            if (epoch.part, epoch.number) == at:
                raise Interruption

        return on_epoch

    for at in (("sites", 1), ("cells", 2), ("materials", 1)):
        with pytest.raises(Interruption):
            IMatGen(configuration, TINY).fit(
                given, seed=3, checkpoint=tmp_path / "state.safetensors", on_epoch=interrupt(at), **QUICK
            )
    pieced = IMatGen(configuration, TINY)
    pieced.fit(given, seed=3, checkpoint=tmp_path / "state.safetensors", **QUICK)
    for generator, name in ((whole, "whole"), (pieced, "pieced")):
        generator.save(tmp_path / name)
    first, second = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "pieced"))
    assert first == second
    assert whole.card["properties"] == ["formation_energy"]
    answers = whole.sample([Request(contents={"Cu": 1, "Au": 1})] * 2, np.random.default_rng(1))
    assert [answer.request for answer in answers] == [0, 1]


def test_energies_and_properties_decide_which_crystals_count_as_stable():
    by_energy, by_property = IMatGen(scale=TINY), IMatGen(scale=TINY)
    by_energy.fit(examples(), **{**QUICK, "epochs": 1})
    by_property.fit(examples(formation_energy=-1.0), **{**QUICK, "epochs": 1})
    assert by_energy.conditions == {Condition.ENERGY}
    assert by_energy.card["stability"] == {"quantity": "energy_quantile", "at_most": 0.4}
    assert not by_property.conditions
    assert by_property.card["stability"] == {"quantity": "formation_energy", "at_most": 1.0}


def test_retraining_leaves_the_image_networks_as_they_are(learned):
    generator = IMatGen.load(learned)
    before = {name: value.clone() for name, value in generator._networks.state_dict().items()}
    generator.fit(examples(), images=False, **QUICK)
    after = generator._networks.state_dict()
    changed = {name.partition(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"materials"}


class TestBadInput:
    @pytest.mark.parametrize(
        ("crystals", "settings", "message"),
        [
            ([], {}, "training needs at least one crystal"),
            ([bulk("Cu", cubic=True) * (3, 1, 1)] * 3, {}, "and 0 of these can .3 times: it has 12 atoms, more than 8"),
            ([simple_cubic("Cu")], {}, "needs at least 2 crystals that can be drawn as images, and 1 of these can"),
            (
                SEVEN,
                {},
                "the crystals have 7 elements, and imatgen learns one chemical system of at most 6",
            ),
            (CRYSTALS, {"epoch": 3}, "epoch"),
        ],
    )
    def test_training_refuses_what_it_cannot_learn(self, crystals, settings, message):
        with pytest.raises(InputError, match=message):
            IMatGen(scale=TINY).fit([Example(atoms=atoms) for atoms in crystals], **settings)

    def test_weights_keep_their_elements(self, learned):
        generator = IMatGen.load(learned)
        with pytest.raises(InputError, match="crystals of Cu, Au, and no other elements can be added"):
            generator.fit([Example(atoms=simple_cubic("Fe"))] * 2)

    def test_the_published_configuration_needs_one_property(self):
        with pytest.raises(InputError, match=r"name the property that holds them \(--property"):
            IMatGen("published", TINY).fit(examples())
        with pytest.raises(InputError, match="imatgen learns from one property"):
            IMatGen(scale=TINY).fit(examples(band_gap=1.0, formation_energy=-1.0))

    def test_an_untrained_generator_neither_samples_nor_saves(self, tmp_path):
        with pytest.raises(InputError, match="not trained; call fit"):
            IMatGen().sample([], np.random.default_rng(0))
        with pytest.raises(InputError, match="there are no weights to save"):
            IMatGen().save(tmp_path)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("sizes", {"channels": 10**9}),
            ("grid", {"sites": 1 << 30}),
            ("grid", {"box": "wide"}),
            ("elements", ["Cu"]),
            ("elements", ["Cu", "Xx"]),
            ("configuration", "improved"),
        ],
    )
    def test_damaged_cards_are_refused(self, learned, tmp_path, key, value):
        card = json.loads((learned / "card.json").read_text())
        card[key] = {**card[key], **value} if isinstance(value, dict) else value
        (tmp_path / "card.json").write_text(json.dumps(card))
        (tmp_path / "weights.safetensors").write_bytes((learned / "weights.safetensors").read_bytes())
        with pytest.raises(InputError, match="the card must be one of this generator"):
            IMatGen.load(tmp_path)


def test_configurations_and_sizes_have_names():
    assert list(IMatGen.configurations) == ["corrected", "published"]
    assert new_generator("imatgen").configuration == "corrected"
    published = new_generator("imatgen", "published")
    assert (published.configuration, published._scale) == ("published", SCALES["published"])
    with pytest.raises(UnknownNameError, match="improved"):
        new_generator("imatgen", "improved")
    with pytest.raises(InputError, match="has no weights in the package; train it"):
        open_generator("imatgen")
