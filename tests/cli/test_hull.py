"""The command hull on a search of a chemical system, as one types it."""

import csv
import io
import json
from itertools import pairwise

import ase.io
import pytest
from ase.build import bulk
from monty.serialization import loadfn
from pymatgen.analysis.phase_diagram import PhaseDiagram
from typer.testing import CliRunner

from hybridcsp import Archive, Search
from hybridcsp.cli import app
from hybridcsp.errors import InputError

OPTIONS = {"composition_grid": 4, "max_atoms": 4, "workers": 1, "sources": ["prototypes"], "calculator": "emt"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a finished search of Cu-Au with known phases, one without a hull yet, and one of a formula."""
    folder = tmp_path_factory.mktemp("hull")
    ase.io.write(folder / "known.extxyz", [bulk("Cu"), bulk("Au")])
    known = {**OPTIONS, "references": [folder / "known.extxyz"]}
    with Search("Cu-Au", directory=folder / "Cu-Au", **known) as search:
        search.run(relaxations=16, refine=0)
    with Search("Cu-Au", directory=folder / "early", **OPTIONS) as search:
        search.run(relaxations=1, refine=0)
    with Search("Cu", directory=folder / "Cu", max_atoms=1, calculator="emt", workers=1, sources=["random"]) as search:
        search.run(relaxations=1, refine=0)
    return folder


@pytest.fixture
def hull(folder, monkeypatch, tmp_path):
    """Return a function that runs the command, and returns what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def hull(directory, *arguments):
        done = CliRunner().invoke(app, ["hull", str(folder / directory), *map(str, arguments)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return hull


def test_the_table_lists_the_phases_near_the_hull(hull):
    output = hull("Cu-Au", "--snapshots", 3)
    for text in ("Phases of Cu-Au up to 25 meV/atom", "on hull", "known", "The hull during the search", "On the hull:"):
        assert text in output


def test_heights_are_those_of_the_archive(hull, folder):
    with Archive(folder / "Cu-Au") as archive:
        state = archive.state
        expected = {
            basin.id: state.height(basin)
            for basin in state.ranked()
            if state.height(basin) <= 0.05 and not basin.suspect
        }
        known, stable = set(state.references), list(state.hull.stable)
    content = json.loads(hull("Cu-Au", "--json", "--window", "50"))
    found = {row["minimum"]: row["above_hull_mev_per_atom"] / 1000 for row in content["phases"]}
    assert found == pytest.approx(expected, abs=2e-8)
    assert content["on_hull"] == stable
    assert {row["minimum"] for row in content["phases"] if row["known_phase"]} == known & set(found)
    assert {tuple(facet) for facet in content["facets"]} == set(pairwise(stable))
    rows = list(csv.DictReader(io.StringIO(hull("Cu-Au", "--csv", "--window", "50"))))
    assert [int(row["minimum"]) for row in rows] == list(found)


def test_everything_within_the_window_is_exported(hull):
    content = json.loads(hull("Cu-Au", "--json", "--window", "40", "--export", "near.extxyz"))
    structures = ase.io.read("near.extxyz", ":")
    assert [atoms.info["composition"] for atoms in structures] == [row["formula"] for row in content["phases"]]
    heights = [1000 * atoms.info["above_hull"] for atoms in structures]
    assert heights == pytest.approx([row["above_hull_mev_per_atom"] for row in content["phases"]], abs=1e-5)
    assert max(heights) <= 40


def test_only_the_lowest_of_each_composition_are_listed_on_request(hull):
    content = json.loads(hull("Cu-Au", "--json", "--window", "500", "--lowest"))
    formulas = [row["formula"] for row in content["phases"]]
    assert len(formulas) == len(set(formulas)) > 2


def test_entries_give_the_same_phase_diagram(hull):
    content = json.loads(hull("Cu-Au", "--json", "--window", "100", "--entries", "entries.json"))
    entries = loadfn("entries.json")
    diagram = PhaseDiagram(entries)
    for entry, row in zip(entries, content["phases"], strict=True):
        assert 1000 * diagram.get_e_above_hull(entry) == pytest.approx(row["above_hull_mev_per_atom"], abs=1e-4)


def test_pictures_and_pages_are_written(hull, tmp_path):
    output = hull("Cu-Au", "--plot", "hull.svg", "--plot", "pages/hull.html")
    assert "<svg" in (tmp_path / "hull.svg").read_text()
    assert "Plotly.newPlot" in (tmp_path / "pages" / "hull.html").read_text()
    assert "Wrote hull.svg" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Cu"], "it holds a search of Cu, and a convex hull needs a search of a chemical system"),
        (["early"], "no minimum yet, and a hull needs one of every element; continue the search with hybridcsp resume"),
        (["Cu-Au", "--window", "-5"], "--window = '-5' is not valid: it must be a number of meV/atom from 0"),
        (["Cu-Au", "--window", "nan"], "a number of meV/atom from 0"),
        (["Cu-Au", "--plot", "hull.jpg"], "a file whose name ends in .png, .pdf, .svg or .html"),
        (["Cu-Au", "--cell", "primitive"], "it is allowed only with --export"),
        (["Cu-Au", "--export", "a.cif", "--cell", "small"], "one of as-found, primitive, conventional"),
        (["Cu-Au", "--export", "a.xsf"], "a file name with a known extension"),
        (["Cu-Au", "--entries", "e.csv"], "a file whose name ends in .json"),
    ],
)
def test_mistakes_are_explained(hull, arguments, message):
    with pytest.raises(InputError) as error:
        hull(*arguments)
    assert message in str(error.value)


def test_fewer_than_two_snapshots_are_refused(hull):
    with pytest.raises(InputError, match="a whole number from 2"):
        hull("Cu-Au", "--snapshots", 1)
