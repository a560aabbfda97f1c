"""Generators by name, or by the folder of their weights."""

import json

import pytest

from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.generators.loading import find_generator


def test_generator_is_found_by_name_or_by_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("mine", "flow", "12:30"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "card.json").write_text(json.dumps({"generator": "wyckoff"}))
    assert find_generator("flow")[0].name == "flow"
    for folder in ("mine", "./flow", "12:30"):
        entry, found = find_generator(folder)
        assert (entry.name, found.resolve().name) == ("wyckoff", folder.removeprefix("./"))


def test_unknown_generator_lists_options():
    said = r"did you mean 'flow'. It must be one of .*flow, .*wyckoff; or a folder of weights"
    with pytest.raises(UnknownNameError, match=said):
        find_generator("flo")
    with pytest.raises(
        InputError, match=r"generator = 'scratch:x' is not valid: .*without a colon .*may end in :scratch"
    ):
        find_generator("scratch:x")


def test_card_without_the_name_of_the_generator_is_refused(tmp_path):
    (tmp_path / "card.json").write_text(json.dumps({"epochs": 3}))
    with pytest.raises(InputError, match="the card must name the generator"):
        find_generator(str(tmp_path))
