import hashlib
import json

import pytest
import torch
from ase.build import bulk

from hybridcsp.errors import InputError
from hybridcsp.generators import weights_io
from hybridcsp.generators.base import Example

TENSORS = {"layer.weight": torch.linspace(-1, 1, 12).reshape(3, 4), "steps": torch.arange(5)}


@pytest.fixture
def folder(tmp_path):
    weights_io.save(tmp_path / "model", "toy", TENSORS, {"epochs": 3})
    return tmp_path / "model"


def test_saved_weights_and_card_are_read_back(folder):
    tensors, card = weights_io.load(folder, "toy")
    assert card["epochs"] == 3
    assert card["generator"] == "toy"
    assert tensors["layer.weight"].dtype == torch.float32
    assert torch.allclose(tensors["layer.weight"], TENSORS["layer.weight"], atol=1e-3)
    assert torch.equal(tensors["steps"], TENSORS["steps"])
    assert {file.name for file in folder.iterdir()} == {weights_io.WEIGHTS, weights_io.CARD}


def test_saving_again_replaces(folder):
    weights_io.save(folder, "toy", {"other": torch.ones(2)}, {"epochs": 4})
    tensors, card = weights_io.load(folder, "toy")
    assert list(tensors) == ["other"]
    assert card["epochs"] == 4


@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[:-7], lambda raw: raw[:40] + b"\x00\x01" + raw[42:], lambda raw: b"", lambda raw: raw + b"x"],
    ids=["truncated", "corrupted", "empty", "longer"],
)
def test_damaged_weights_are_refused(folder, damage):
    file = folder / weights_io.WEIGHTS
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match="is damaged"):
        weights_io.load(folder, "toy")


def test_a_file_that_is_no_safetensors_is_refused_even_if_its_hash_is_right(folder):
    (folder / weights_io.WEIGHTS).write_bytes(b"no tensors")
    card = json.loads((folder / weights_io.CARD).read_text())
    card["weights_sha256"] = hashlib.sha256(b"no tensors").hexdigest()
    (folder / weights_io.CARD).write_text(json.dumps(card))
    with pytest.raises(InputError, match="must be a safetensors file"):
        weights_io.load(folder, "toy")


@pytest.mark.parametrize("name", [weights_io.WEIGHTS, weights_io.CARD])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        weights_io.load(folder, "toy")


@pytest.mark.parametrize("text", ["{", "[]", "null"])
def test_invalid_card_is_refused(folder, text):
    (folder / weights_io.CARD).write_text(text)
    with pytest.raises(InputError, match="weights"):
        weights_io.load(folder, "toy")


def test_weights_of_another_generator_are_refused(folder):
    with pytest.raises(InputError, match="of the generator 'flow'"):
        weights_io.load(folder, "flow")


def test_weights_of_another_shape_are_refused(folder):
    tensors, _ = weights_io.load(folder, "toy")
    with pytest.raises(InputError, match="another version"):
        weights_io.fill(torch.nn.Linear(2, 2), tensors, folder)


def test_diverged_weights_are_not_saved(tmp_path):
    with pytest.raises(InputError, match="diverged"):
        weights_io.save(tmp_path, "toy", {"a": torch.tensor([float("inf")])}, {})
    assert not (tmp_path / weights_io.WEIGHTS).exists()


def test_the_card_tells_what_a_fair_benchmark_must_leave_out():
    examples = [Example(atoms=bulk("NaCl", "rocksalt", 5.6)), Example(atoms=bulk("Cu") * (2, 1, 1))]
    card = weights_io.describe_training(examples, {}, seed=1)
    assert card["crystals"] == 2
    assert card["largest"] == 2
    assert weights_io.overlap(card, ["ClNa", "O2Ti"]) == {"ClNa"}
    pressed = [Example(atoms=bulk("Ag"), pressure_gpa=20.0)]
    later = weights_io.describe_training(examples, weights_io.describe_training(pressed, card))
    assert weights_io.overlap(later, ["ClNa", "Ag", "O2Ti"]) == {"ClNa", "Ag"}  # of every training
    assert later["pressures_gpa"] == [20.0, 20.0]
    assert later["crystals"] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested"),
        (" " * (weights_io.LARGEST_CARD + 1), "MiB"),
        ('{"generator": "toy", "generator": 1}', "twice"),
    ],
)
def test_a_card_that_would_take_all_memory_is_refused(folder, text, said):
    (folder / weights_io.CARD).write_text(text)
    with pytest.raises(InputError, match=said):
        weights_io.load(folder, "toy")


def test_headers_that_claim_more_than_is_there_allocate_nothing(folder):
    header = json.dumps({"a": {"dtype": "F16", "shape": [1 << 40, 1 << 10], "data_offsets": [0, 1 << 51]}}).encode()
    data = len(header).to_bytes(8, "little") + header
    (folder / weights_io.WEIGHTS).write_bytes(data)
    card = json.loads((folder / weights_io.CARD).read_text())
    card["weights_sha256"] = hashlib.sha256(data).hexdigest()
    (folder / weights_io.CARD).write_text(json.dumps(card))
    with pytest.raises(InputError, match="must be a safetensors file"):
        weights_io.load(folder, "toy")
