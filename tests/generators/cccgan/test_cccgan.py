"""The composition-conditioned GAN."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from hybridcsp.errors import InputError
from hybridcsp.generators.base import Example, Reject, Request, Sample
from hybridcsp.generators.cccgan.clouds import CloudData, RandomDescriptions, ReducedCells
from hybridcsp.generators.cccgan.generator import CompositionConditionedGAN
from hybridcsp.generators.cccgan.model import Sizes
from hybridcsp.generators.cccgan.pair_networks import PairNetworks
from hybridcsp.generators.loading import new_generator, open_generator
from hybridcsp.similarity import same_structure
from hybridcsp.structure.representations.point_cloud import InventedAtoms, PointCloud
from hybridcsp.testing.generators import check_generator

TINY = Sizes(width=4, noise=4)
QUICK = {"epochs": 2, "per_composition": 16, "batch_size": 8}
CRYSTALS = [
    bulk("CuAu", "cesiumchloride", a=3.1),
    bulk("CuAu", "rocksalt", a=5.2),
    Atoms("Cu3Au", scaled_positions=[[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0], [0, 0, 0]], cell=[3.8] * 3, pbc=True),
    Atoms("CuAu3", scaled_positions=[[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], cell=[4.0] * 3, pbc=True),
]
EXAMPLES = [Example(atoms=atoms) for atoms in CRYSTALS]


@pytest.fixture(scope="module", params=["corrected", "published"])
def trained(request, tmp_path_factory):
    """Return a generator that was trained, saved and loaded, as its weights are rounded when they are saved."""
    folder = tmp_path_factory.mktemp(request.param)
    generator = CompositionConditionedGAN(request.param, TINY)
    generator.fit(EXAMPLES, **QUICK)
    generator.save(folder)
    return open_generator(str(folder)), folder


def test_card_with_a_wider_network_than_the_weights_is_refused(trained, tmp_path):
    _, folder = trained
    shutil.copytree(folder, tmp_path / "copy")
    card = json.loads((folder / "card.json").read_text())
    card["sizes"]["width"] = 3000
    (tmp_path / "copy" / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="incomplete"):
        open_generator(str(tmp_path / "copy"))


def test_generators_conform(trained, tmp_path):
    _, folder = trained
    # As published, contents are read from samples; a network that has hardly learned makes few different ones.
    contents = [{"Cu": n, "Au": m} for n in (1, 2, 3) for m in (1, 2, 3)]
    settings = {**QUICK, "epochs": 1, "learning_rate": 1e-4, "anchor": 1.0}
    check_generator(lambda: open_generator(str(folder)), tmp_path, contents=contents, fit_settings=settings)


def test_requests_outside_of_the_training_data_are_rejected_with_a_reason(trained):
    generator, _ = trained
    wanted = [{"Cu": 1}, {"Cu": 4, "Au": 1}, {"Cu": 1, "Ag": 1}]
    answers = generator.sample([Request(contents=one) for one in wanted], np.random.default_rng(0))
    elements = "the elements must be those of the training data, Cu and Au"
    reasons = [elements, "more atoms of Cu than the 3 of the training data", elements]
    assert [answer.reason for answer in answers if isinstance(answer, Reject)] == reasons


def test_training_is_measured_and_described(trained):
    generator, folder = trained
    card = json.loads((folder / "card.json").read_text())
    assert card["slots"] == {"Cu": 3, "Au": 3}
    assert card["settings"]["per_composition"] == 16
    assert {"critic", "generator", "contents", "validity", "coverage"} <= set(card["history"][0])
    assert card["formulas"] == 3
    assert generator.configuration == card["configuration"]


def test_interrupted_training_continues_bit_for_bit(tmp_path):
    whole = CompositionConditionedGAN(sizes=TINY)
    whole.fit(EXAMPLES, seed=3, **QUICK)

    def stop(epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CompositionConditionedGAN(sizes=TINY).fit(
            EXAMPLES, seed=3, checkpoint=tmp_path / "state", on_epoch=stop, **QUICK
        )
    continued = CompositionConditionedGAN(sizes=TINY)
    continued.fit(EXAMPLES, seed=3, checkpoint=tmp_path / "state", **QUICK)
    assert continued.card["history"] == whole.card["history"]
    weights = [generator._model.state_dict() for generator in (continued, whole)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_crystals_of_subsystems_are_left_out_and_several_systems_are_refused():
    generator = CompositionConditionedGAN(sizes=TINY)
    generator.fit([*EXAMPLES, Example(atoms=bulk("Cu"))], **QUICK | {"epochs": 1})
    assert generator.card["left_out"] == 1
    apart = [Example(atoms=bulk("Cu")), Example(atoms=bulk("Au"))]
    with pytest.raises(InputError, match="must belong to one chemical system"):
        CompositionConditionedGAN(sizes=TINY).fit(apart)
    with pytest.raises(InputError, match="nonsense"):
        generator.fit(EXAMPLES, nonsense=1)
    with pytest.raises(InputError, match="not trained"):
        new_generator("cccgan", "published").sample([], np.random.default_rng(0))


def test_published_description_is_the_same_crystal_or_its_mirror_image():
    cloud = PointCloud.of(CRYSTALS)
    rng = np.random.default_rng(0)
    encoded = cloud.encode(CRYSTALS[2])
    copies = [RandomDescriptions().copy(encoded, cloud, rng) for _ in range(4)]
    assert all(same_structure(cloud.decode(copy), CRYSTALS[2]) for copy in copies)
    assert not any(np.allclose(one, other) for one, other in pairwise(copies))
    assert len(RandomDescriptions().crystals(CRYSTALS[0], cloud)) == 4
    assert len(RandomDescriptions().crystals(CRYSTALS[2], cloud)) == 1


def test_every_composition_has_as_many_point_clouds():
    cloud = PointCloud.of(CRYSTALS)
    data = CloudData.from_examples(EXAMPLES, cloud, ReducedCells(), 5, seed=0)
    contents, numbers = np.unique(data.counts, axis=0, return_counts=True)
    assert contents.tolist() == [[1, 1], [1, 3], [3, 1]]
    assert numbers.tolist() == [5, 5, 5]


def test_scores_of_the_corrected_critic_do_not_depend_on_the_description():
    torch.manual_seed(0)
    cloud = PointCloud.of(CRYSTALS)
    model = PairNetworks(cloud.slots, TINY)
    moved = CRYSTALS[2][[1, 2, 0, 3]]
    moved.positions += [0.3, 1.7, 2.9]
    moved.wrap()
    clouds = torch.tensor(np.array([cloud.encode(atoms) for atoms in (CRYSTALS[2], moved)]), dtype=torch.float32)
    counts = torch.tensor([[3, 1], [3, 1]])
    with torch.no_grad():
        scores = model.critic(clouds, counts, model.first_slots(counts))
    assert scores[0].item() == pytest.approx(scores[1].item(), abs=1e-5)


def test_published_reading_invents_an_atom_that_the_corrected_one_rejects():
    slots = {"Cu": 3, "Au": 3}
    empty = np.zeros((8, 3))
    empty[:2], empty[2] = [[0.2] * 3, [0.5] * 3], 0.5
    assert str(PointCloud(slots, InventedAtoms()).decode(empty).symbols) == "CuAu"
    assert CompositionConditionedGAN("published")._design.reading.__class__ is InventedAtoms


def test_corrected_samples_have_the_contents_and_published_ones_count_rejects():
    answers = {}
    for name in ("corrected", "published"):
        generator = CompositionConditionedGAN(name, TINY)
        generator.fit(EXAMPLES, **QUICK | {"epochs": 1})
        requests = [Request(contents={"Cu": 2, "Au": 3})] * 20
        answers[name] = generator.sample(requests, np.random.default_rng(0))
    assert all(isinstance(answer, Sample) for answer in answers["corrected"])
    rejected = {answer.reason for answer in answers["published"] if isinstance(answer, Reject)}
    assert rejected == {"other contents than requested"}
