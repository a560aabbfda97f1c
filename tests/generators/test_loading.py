"""Generators by name, or by the folder of their weights."""

import json

import pytest

from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.generators.loading import find_generator


def test_a_name_is_a_name_and_a_folder_is_that_of_the_generator_that_wrote_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("mine", "flow", "12:30"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "card.json").write_text(json.dumps({"generator": "wyckoff"}))
    assert find_generator("flow")[0].name == "flow"
    for folder in ("mine", "./flow", "12:30"):
        entry, found = find_generator(folder)
        assert (entry.name, found.resolve().name) == ("wyckoff", folder.removeprefix("./"))


def test_what_is_neither_is_said_with_what_it_may_be():
    with pytest.raises(UnknownNameError, match=r"did you mean 'flow'. known: flow, wyckoff; or a folder of weights"):
        find_generator("flo")
    with pytest.raises(InputError, match=r"generator = 'scratch:x': .*without a colon.* :scratch, and nothing"):
        find_generator("scratch:x")


def test_a_card_that_does_not_say_whose_it_is_is_refused(tmp_path):
    (tmp_path / "card.json").write_text(json.dumps({"epochs": 3}))
    with pytest.raises(InputError, match="says of which generator the weights are"):
        find_generator(str(tmp_path))
