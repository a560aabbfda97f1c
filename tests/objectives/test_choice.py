"""Choices of objectives: texts with goals, names, tables and bad input."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridcsp.errors import InputError
from hybridcsp.objectives import ObjectiveChoice
from hybridcsp.objectives.choice import absolute_objective, choices_of
from hybridcsp.objectives.simple import Density


@pytest.mark.parametrize(
    ("text", "objective", "goal", "name"),
    [
        ("density:max", "density", "max", "density"),
        ("volume_per_atom:12.5", "volume_per_atom", 12.5, "volume_per_atom"),
        ("bulk_modulus:report", "bulk_modulus", "report", "bulk_modulus"),
        ("my.py:gap:min", "my.py:gap", "min", "gap"),
        ("some.module:gap:-1e-3", "some.module:gap", -0.001, "gap"),
        ("density", "density", None, "density"),
        ("my.py:max_gap", "my.py:max_gap", None, "max_gap"),
    ],
)
def test_the_goal_is_the_last_part_of_the_text(text: str, objective: str, goal: object, name: str) -> None:
    choice = ObjectiveChoice.of(text)
    assert (choice.objective, choice.goal, choice.name) == (objective, goal, name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("densty:max", "did you mean 'density'"),
        ("density:maximum", "did you mean density:max"),
        ("density:nan", "a number near which values are preferred"),
        (":max", "a name"),
        ({"objective": "density", "gaol": "max"}, "the keys are objective, goal, name, unit, options"),
        ({"objective": "density", "name": "my density"}, "a word of letters"),
        ({"objective": "density", "name": "height"}, "in use already"),
        ({"objective": "density", "options": {"strain": 0.01}}, "it has no options"),
        ({"objective": "bulk_modulus", "options": {"strian": 0.01}}, "did you mean 'strain'"),
        ({"objective": "bulk_modulus", "options": {"strain": 2}}, "at most 0.05"),
        (7, "the name of an objective, an Objective, or a function"),
        (Density, "this is a class; give an object of it, Density()"),
    ],
)
def test_bad_input_is_refused_in_full_sentences(given: object, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(").replace(")", r"\)")):
        ObjectiveChoice.of(given).build()


def test_two_objectives_must_not_have_one_name() -> None:
    with pytest.raises(InputError, match="two objectives have this name"):
        choices_of(["density:max", "my.py:density:min"])


def test_objectives_and_functions_may_be_given_as_objects() -> None:
    def axial_ratio(atoms: object) -> float:
        return 1.0

    built, own = Density(), ObjectiveChoice(objective=axial_ratio, goal="max", unit="Å/Å")
    assert ObjectiveChoice(objective=built, goal="max").build() is built
    assert (own.name, own.build().unit) == ("axial_ratio", "Å/Å")
    record = own.record(own.build())
    assert record["name"] == "axial_ratio"
    assert record["objective"]["python"].endswith("axial_ratio")


def test_names_in_a_condition_are_computed_without_being_goals() -> None:
    density, modulus = choices_of("density:max", "density > 2 and bulk_modulus > 50 and height < 0.1")
    assert (density.goal, modulus.name, modulus.goal) == ("max", "bulk_modulus", "report")
    with pytest.raises(InputError, match="gap is no objective of this search"):
        choices_of([], "gap > 1")


def test_paths_are_relative_to_the_folder_of_the_file() -> None:
    assert absolute_objective("my.py:gap", Path("/data")) == "/data/my.py:gap"
    assert absolute_objective("my.module:gap", Path("/data")) == "my.module:gap"
    assert ObjectiveChoice.of("my.py:gap:max").in_folder(Path("/data")).objective == "/data/my.py:gap"


def test_only_functions_of_the_user_run_code() -> None:
    assert ObjectiveChoice.of("my.py:gap:max").runs_code
    assert not ObjectiveChoice.of("density:max").runs_code
