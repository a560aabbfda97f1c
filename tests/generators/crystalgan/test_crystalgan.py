"""The cross-domain networks of CrystalGAN."""

import json
import shutil

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from hybridcsp.errors import InputError
from hybridcsp.generators.base import Example, Reject, Request, Sample
from hybridcsp.generators.crystalgan.designs import CorrectedDesign, PublishedDesign
from hybridcsp.generators.crystalgan.domains import Domains, cartesian, fractional
from hybridcsp.generators.crystalgan.generator import CrystalGAN
from hybridcsp.generators.crystalgan.models import DistanceBounds, PublishedBounds
from hybridcsp.generators.crystalgan.networks import Sizes
from hybridcsp.generators.loading import open_generator
from hybridcsp.similarity import same_structure
from hybridcsp.testing.generators import check_generator

TINY = Sizes(width=4, layers=1, joined_layers=1)
CONTENTS = [{"Na": 1, "K": 1, "Cl": 1}, {"Na": 1, "K": 2, "Cl": 1}]
CRYSTALS = [
    bulk("NaCl", "rocksalt", a=5.6),
    bulk("NaCl", "cesiumchloride", a=3.4),
    bulk("KCl", "rocksalt", a=6.3),
    Atoms("K2Cl", scaled_positions=[[0.25] * 3, [0.75] * 3, [0, 0, 0]], cell=bulk("K", "fcc", a=7.0).cell, pbc=True),
]
EXAMPLES = [Example(atoms=atoms) for atoms in CRYSTALS]


@pytest.fixture(scope="module", params=["corrected", "published"])
def trained(request, tmp_path_factory):
    """Return the folder of a generator that was trained and saved."""
    folder = tmp_path_factory.mktemp(request.param)
    generator = CrystalGAN(request.param, TINY)
    generator.fit([*EXAMPLES, Example(atoms=bulk("Na"))], joined=8, epochs=2)
    generator.save(folder)
    return folder


def test_card_with_a_wider_network_than_the_weights_is_refused(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    card = json.loads((trained / "card.json").read_text())
    card["sizes"]["width"] = 3000
    (tmp_path / "copy" / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="incomplete"):
        open_generator(str(tmp_path / "copy"))
    assert open_generator(str(trained)).name == CrystalGAN.name


def test_generators_conform_and_are_described(trained, tmp_path):
    check_generator(lambda: open_generator(str(trained)), tmp_path, contents=CONTENTS)
    card = json.loads((trained / "card.json").read_text())
    assert card["domains"] == {"shared": "Cl", "first": "Na", "second": "K", "slots": [1, 1, 2]}
    assert card["left_out"] == 1
    for part in ("binaries", "ternaries"):
        assert {"critic", "generator", "validity", "coverage"} <= set(card["history"][part][0])


def test_contents_that_no_two_crystals_make_are_rejected(trained):
    generator = open_generator(str(trained))
    wanted = [*CONTENTS, {"Na": 2, "K": 1, "Cl": 1}, {"Na": 1, "Cl": 1}]
    answers = generator.sample([Request(contents=one) for one in wanted], np.random.default_rng(0))
    assert all(isinstance(answer, Sample) for answer in answers[:2])
    assert [answer.reason for answer in answers[2:] if isinstance(answer, Reject)] == [
        "no two crystals of the training data have these numbers of atoms together",
        "the elements must be those of the training data, Na, Cl and K",
    ]


@pytest.mark.parametrize("part", ["binaries", "ternaries"])
def test_interrupted_training_continues_bit_for_bit(tmp_path, part):
    whole = CrystalGAN(sizes=TINY)
    whole.fit(EXAMPLES, joined=8, epochs=2)

    def stop(epoch):
        if epoch.part == part:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CrystalGAN(sizes=TINY).fit(EXAMPLES, joined=8, epochs=2, checkpoint=tmp_path / "state", on_epoch=stop)
    continued = CrystalGAN(sizes=TINY)
    continued.fit(EXAMPLES, joined=8, epochs=2, checkpoint=tmp_path / "state")
    assert continued.card["history"] == whole.card["history"]


def test_systems_must_be_two_and_share_an_element():
    with pytest.raises(InputError, match=r"two binary systems that share an element.* there are 1 \(Na-Cl\)"):
        CrystalGAN(sizes=TINY).fit(EXAMPLES[:2])
    with pytest.raises(InputError, match=r"there are 2 \(Cu-Au, Na-Cl\)"):
        CrystalGAN(sizes=TINY).fit([EXAMPLES[0], Example(atoms=bulk("CuAu", "cesiumchloride", a=3))])


def test_rows_are_read_as_the_crystal():
    domains = Domains.of(EXAMPLES)
    rows = np.array([domains.encode(atoms) for atoms in CRYSTALS])
    assert domains.counts(rows).tolist() == [[1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 0, 2]]
    assert all(same_structure(domains.decode(row), atoms) for row, atoms in zip(rows, CRYSTALS, strict=True))
    back = fractional(cartesian(rows))
    assert np.allclose(back, rows, atol=1e-5)


def test_joined_crystals_have_atoms_of_both_others_and_the_corrected_ones_the_expected_volume():
    domains = Domains.of(EXAMPLES)
    first, second = (np.array([domains.encode(CRYSTALS[i])]) for i in (0, 3))
    for design in (PublishedDesign(), CorrectedDesign()):
        joined = design.join(domains, second, first, 1)
        assert domains.counts(joined).tolist() == [[1, 1, 2]]
        volume = abs(np.linalg.det(joined[0, :3, :3]))
        before = abs(np.linalg.det(second[0, :3, :3]))
        assert (volume == pytest.approx(before)) == isinstance(design, PublishedDesign)


def test_only_the_corrected_penalty_of_distances_has_a_gradient():
    rows = torch.tensor([[[4.0, 0, 0, 0], [0, 4.0, 0, 0], [0, 0, 4.0, 0], [0, 0, 0, 1], [0.25, 0, 0, 1]]])
    rows.requires_grad_()
    two = torch.ones(2, 2)
    near = DistanceBounds(1.5 * two, 3.0 * two)(rows, rows[:, 3:, :3])
    assert near.item() == pytest.approx(2 * 0.5**2, rel=1e-3)
    (gradient,) = torch.autograd.grad(near.sum(), rows)
    assert gradient[0, 4, 0] < 0 < gradient[0, 3, 0]
    far = DistanceBounds(0.5 * two, 0.8 * two)(rows, rows[:, 3:, :3])
    assert far.item() == pytest.approx(2 * 0.2**2, rel=1e-3)
    assert not PublishedBounds(torch.tensor([True, True]))(rows, rows[:, 3:, :3]).requires_grad


@pytest.mark.parametrize("design", [CorrectedDesign(), PublishedDesign()])
@pytest.mark.parametrize("part", ["binaries", "ternaries"])
def test_losses_are_computed_on_the_device_of_the_networks(design, part):
    """A device without memory refuses, as a GPU does, tensors that were left on the processor."""
    domains = Domains.of(EXAMPLES)
    model = getattr(design, part)(domains, TINY).to("meta")
    rows = torch.ones(3, 3 + sum(domains.slots), 4, device="meta")
    for turn in model.turns():
        terms = turn.losses({"first": rows, "second": rows, "joined": rows})
        assert {value.device.type for value in terms.values()} == {"meta"}
