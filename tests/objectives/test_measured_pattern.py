"""Searches that a measured powder pattern guides: settings, values, conditions, resumption and bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import bulk
from crystals import InlineBackend
from diffraction import measured, write_pattern

from hybridcsp import Search, SearchSettings, config
from hybridcsp.errors import ArchiveError, InputError
from hybridcsp.objectives import MeasuredPattern, ObjectiveChoice
from hybridcsp.objectives.choice import choices_of
from hybridcsp.relaxation.relax import Relaxer


@pytest.fixture(scope="module")
def pattern(tmp_path_factory) -> Path:
    """The file of a pattern of hexagonal copper, whose cell is 2 % larger."""
    crystal = bulk("Cu", "hcp", a=2.56, c=4.18)
    return write_pattern(measured(crystal, size=0.02), tmp_path_factory.mktemp("pattern") / "hcp.xy")


def search(directory: Path, **options) -> Search:
    choices = choices_of(SearchSettings(**options).objectives)
    return Search(
        "Cu",
        formula_units=(1, 2),
        calculator="emt",
        sources=["random"],
        backend=InlineBackend(Relaxer(calculator="emt", objectives=choices)()),
        directory=directory,
        **options,
    )


class TestSettings:
    def test_a_pattern_is_an_objective_that_is_given_once(self, pattern):
        settings = SearchSettings(xrd=str(pattern), objectives=["density:max"])
        options = {"wavelength": "CuKa", "axis": "two-theta", "cell_change": 0.05}
        own = ObjectiveChoice(objective=f"xrd:{pattern}", goal="max", name="xrd", options=options)
        assert settings.objectives[1:] == (own,)
        assert SearchSettings(xrd=settings.xrd, objectives=settings.objectives, where=settings.where) == settings

    def test_a_smallest_similarity_is_a_condition_in_place_of_a_goal(self, pattern):
        measured = MeasuredPattern(pattern=str(pattern), at_least=0.8)
        settings = SearchSettings(xrd=measured, where="height < 0.2")
        assert settings.where == "height < 0.2 and xrd >= 0.8"
        assert [choice.goal for choice in settings.objectives] == ["report"]
        assert SearchSettings(xrd=measured, where=settings.where).where == settings.where

    def test_relative_paths_of_a_file_belong_to_its_folder(self, pattern, tmp_path):
        file = tmp_path / "search.toml"
        file.write_text('problem = {formula = "Cu"}\n[xrd]\npattern = "my.xy"\nwavelength = 0.7107\n')
        read = config.parse(config.read(file), str(file))
        assert read.xrd == MeasuredPattern(pattern=str(tmp_path / "my.xy"), wavelength=0.7107)
        config.write(read, tmp_path)
        assert config.parse(config.read(tmp_path / "config.toml"), "again").xrd == read.xrd

    def test_the_record_of_a_search_names_its_pattern(self, pattern):
        given = MeasuredPattern(pattern=str(pattern), wavelength="MoKa", axis="q", cell_change=0.0)
        record = {"objectives": [{"objective": {"python": "my.f"}}, given.choice.record(_Built())]}
        assert MeasuredPattern.of_record(record) == given
        assert MeasuredPattern.digest_of_record(record) == "4f"
        assert MeasuredPattern.of_record({}).pattern is None


class _Built:
    unit = ""
    digest = "4f"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"wavelength": "MoKa"}, "wavelength = 'MoKa' cannot be used: it belongs to a measured powder pattern"),
        ({"at_least": 0.5}, "at_least = 0.5 cannot be used: it belongs to a measured powder pattern"),
        ({"pattern": "p.xy", "wavelength": "CuKq"}, "did you mean 'CuKa'"),
        ({"pattern": "p.xy", "axis": "angle"}, "it must be one of two-theta, q, d"),
        ({"pattern": "p.xy", "at_least": 80}, "it must be a similarity from 0 to 1"),
        ({"pattern": "p.xy", "cell_change": 5}, "it must be a fraction from 0 to 0.2"),
        ({"pattern": ""}, "it must be the path of a measured pattern"),
    ],
)
def test_values_that_cannot_be_used_are_explained(values, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        MeasuredPattern(**values)


class TestSearches:
    def test_minima_have_their_similarity(self, pattern, tmp_path):
        with search(tmp_path / "Cu", xrd=pattern) as one:
            one.run(relaxations=4, refine=0)
            values = [minimum.objectives["xrd"] for minimum in one.minima()]
        assert len(values) > 1
        assert all(0 <= value <= 1 for value in values)

    def test_a_search_continues_with_its_pattern(self, pattern, tmp_path):
        for relaxations in (2, 4):
            with search(tmp_path / "parts", xrd=pattern) as parts:
                parts.run(relaxations=relaxations, refine=0)
        with search(tmp_path / "whole", xrd=pattern) as whole:
            whole.run(relaxations=4, refine=0)
            expected = [minimum.objectives for minimum in whole.minima()]
        assert [minimum.objectives for minimum in parts.minima()] == expected

    def test_a_pattern_whose_content_has_changed_is_another_one(self, pattern, tmp_path):
        file = tmp_path / "own.xy"
        file.write_bytes(pattern.read_bytes())
        search(tmp_path / "Cu", xrd=file).close()
        file.write_bytes(pattern.read_bytes().replace(b"5", b"6", 1))
        with pytest.raises(ArchiveError, match=r"own.xy has changed since the search in .*Cu began"):
            search(tmp_path / "Cu", xrd=file)
        file.write_bytes(pattern.read_bytes())
        search(tmp_path / "Cu", xrd=file).close()

    def test_a_pattern_that_cannot_be_used_is_an_error_before_there_is_a_directory(self, pattern, tmp_path):
        with pytest.raises(InputError, match="too large for Q in Å⁻¹; angles 2θ in degrees need axis = 'two-theta'"):
            search(tmp_path / "Cu", xrd=MeasuredPattern(pattern=str(pattern), axis="q"))
        (tmp_path / "one.xy").write_text("\n".join(map(str, range(100))))
        with pytest.raises(InputError, match=r"xrd = .*one.xy' cannot be used: it has one column of numbers"):
            search(tmp_path / "Cu", xrd=tmp_path / "one.xy")
        assert not (tmp_path / "Cu").exists()
