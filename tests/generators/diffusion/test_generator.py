"""The generator ``diffusion``: exact contents, conditions, the same samples again, and learning one crystal."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from crystals import rutile

from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.generators.base import Condition, Example, Reject, Request, Sample
from hybridcsp.generators.diffusion import DiffusionGenerator, Sampling
from hybridcsp.generators.diffusion import generator as generator_room
from hybridcsp.generators.diffusion.configurations import CONFIGURATIONS
from hybridcsp.generators.diffusion.coordinates import CoordinateNoise
from hybridcsp.generators.diffusion.lattices import LatticeMatrices
from hybridcsp.generators.flow import Architecture
from hybridcsp.generators.loading import new_generator, open_generator
from hybridcsp.generators.metrics import evaluate
from hybridcsp.search import Search
from hybridcsp.testing import check_generator

SMALL = Architecture(width=16, message=12, pair=12, layers=1, frequencies=4)
CRYSTALS = [rutile(), bulk("NaCl", "rocksalt", a=5.64), bulk("ZnS", "zincblende", a=5.41), bulk("Cu")]
EXAMPLES = [Example(atoms=atoms, energy_quantile=0.5) for atoms in CRYSTALS]
TITANIA = Request(contents={"Ti": 2, "O": 4})


@pytest.fixture(scope="module", autouse=True)
def few_levels():
    """Give the published configuration 40 levels: it needs a step for each, which takes long with 1000."""
    few = replace(
        CONFIGURATIONS["published"],
        coordinates=CoordinateNoise(40),
        lattices=LatticeMatrices(40),
        sampling=Sampling(steps=40, correction=1e-5),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator_room, "CONFIGURATIONS", {**CONFIGURATIONS, "published": few})
        yield


def untrained(configuration):
    return DiffusionGenerator(
        configuration, SMALL, Sampling(steps=6, correction=0.0) if configuration == "corrected" else None
    )


@pytest.fixture(scope="module", params=["corrected", "published"])
def folder(request, tmp_path_factory):
    """Return the weights of a generator that has seen one crystal often enough to draw cells of likely volumes."""
    generator = untrained(request.param)
    examples = [EXAMPLES[2]] * 128
    generator.fit(examples, epochs=60, batch_size=32, learning_rate=5e-3, averaging=0.95, device="cpu")
    folder = tmp_path_factory.mktemp(request.param)
    generator.save(folder)
    return folder


def positions(answers):
    return [answer.atoms.positions if isinstance(answer, Sample) else answer.reason for answer in answers]


def test_both_configurations_conform(folder, tmp_path):
    check_generator(lambda: open_generator(str(folder)), tmp_path, contents=[{"Zn": 1, "S": 1}, {"Na": 1, "Cl": 1}])


def test_samples_have_the_requested_contents(folder):
    contents = [{"H": 1}, {"U": 3, "Ti": 1}, {"Na": 5, "Cl": 7}, {"Xx": 1}, {}]
    answers = open_generator(str(folder)).sample([Request(contents=one) for one in contents], np.random.default_rng(0))
    assert [answer.request for answer in answers] == list(range(5))
    for one, answer in zip(contents[:3], answers, strict=False):
        if isinstance(answer, Sample):
            assert Counter(answer.atoms.get_chemical_symbols()) == one
        else:
            assert answer.reason == "volume far from what is expected"
    assert list(answers[3:]) == [Reject(request=i, reason="not the contents of a cell") for i in (3, 4)]


def test_conditions_are_read_by_the_corrected_configuration_alone(folder):
    generator = open_generator(str(folder))
    asked = Request(contents=TITANIA.contents, energy_quantile=0.0, spacegroup=225)
    free, told = (positions(generator.sample([one] * 2, np.random.default_rng(1))) for one in (TITANIA, asked))
    if generator.configuration == "corrected":
        assert generator.conditions == {Condition.SPACEGROUP, Condition.ENERGY}
        assert told == ["not near the space group asked for"] * 2
    else:
        assert not generator.conditions
        assert all(np.array_equal(a, b) for a, b in zip(free, told, strict=True))


@pytest.mark.parametrize("configuration", ["corrected", "published"])
def test_training_resumes_bit_for_bit(configuration, tmp_path):
    class Stop(Exception):
        pass

    def stop(epoch):
        raise Stop

    settings = {"epochs": 3, "batch_size": 2, "device": "cpu"}
    whole, first, resumed = (untrained(configuration) for _ in range(3))
    whole.fit(EXAMPLES, **settings)
    with pytest.raises(Stop):
        first.fit(EXAMPLES, checkpoint=tmp_path / "c.safetensors", on_epoch=stop, **settings)
    resumed.fit(EXAMPLES, checkpoint=tmp_path / "c.safetensors", **settings)
    for (name, one), (_, other) in zip(
        whole._model.state_dict().items(), resumed._model.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name


def test_checkpoint_of_the_other_configuration_is_refused(tmp_path):
    settings = {"epochs": 1, "batch_size": 2, "device": "cpu", "checkpoint": tmp_path / "c.safetensors"}
    untrained("corrected").fit(EXAMPLES, **settings)
    with pytest.raises(InputError, match="checkpoint"):
        untrained("published").fit(EXAMPLES, **settings)


def test_weights_are_a_source_of_a_search(folder, tmp_path):
    search = Search("Cu", calculator="emt", sources=[f"generative:{folder}"], directory=tmp_path / "run", workers=1)
    search.run(relaxations=2)
    minima = search.minima(1)
    assert set(minima[0].atoms.symbols) == {"Cu"}
    assert minima[0].found_by.source.startswith("generative")


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("architecture", {"width": 10**9}),
        ("sampling", {"steps": 10**9}),
        ("sampling", {"leaps": 3}),
        ("lattice", {"mean": [0.0] * 8}),
    ],
)
def test_damaged_cards_are_refused(folder, tmp_path, entry, change):
    card = json.loads((folder / "card.json").read_text())
    card[entry] |= change
    (tmp_path / "card.json").write_text(json.dumps(card))
    (tmp_path / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"sizes|card|steps"):
        DiffusionGenerator.load(tmp_path)


def test_configurations_and_sizes_have_names():
    assert list(DiffusionGenerator.configurations) == ["corrected", "published"]
    large = new_generator("diffusion", "published", "gpu")
    assert (large.configuration, large.architecture.width) == ("published", 320)
    with pytest.raises(UnknownNameError, match="did you mean 'gpu'"):
        new_generator("diffusion", size="gpus")
    with pytest.raises(InputError, match="cgcnn"):
        DiffusionGenerator("cgcnn")
    with pytest.raises(InputError, match="has no weights in the package; train it"):
        open_generator("diffusion")


@pytest.mark.slow
@pytest.mark.parametrize("configuration", ["corrected", "published"])
def test_one_crystal_is_learned(configuration):
    atoms = bulk("ZnS", "zincblende", a=5.41)
    architecture = Architecture(width=24, message=16, pair=16, layers=2, frequencies=4)
    generator = DiffusionGenerator(configuration, architecture)
    generator.fit([Example(atoms=atoms)] * 256, epochs=60, batch_size=32, learning_rate=5e-3, averaging=0.99)

    def found(one):
        displacements = evaluate(one, [atoms], samples=20, seed=1)[0].displacements
        return sum(d is not None and d < 0.1 for d in displacements)

    assert found(generator) >= found(untrained_copy(generator)) + 4


def untrained_copy(trained):
    """Return a generator with random weights and the scale of another one."""
    other = DiffusionGenerator(trained.configuration, trained.architecture, trained.sampling)
    torch.manual_seed(0)
    other._model, other._scale = other._model_of(other.architecture), trained._scale
    return other
