"""The command front on searches with objectives, as one types it."""

import csv
import io
import json

import ase.io
import pytest
from crystals import InlineBackend
from typer.testing import CliRunner

from hybridcsp import Archive, Search
from hybridcsp.cli import app
from hybridcsp.errors import InputError
from hybridcsp.objectives import ObjectiveChoice
from hybridcsp.relaxation.relax import Relaxer

OPTIONS = {"sources": ["prototypes", "random"], "calculator": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with searches that have one objective, two, none, only a reported one, and none relaxed yet."""
    folder = tmp_path_factory.mktemp("front")

    def run(name, problem, relaxations, **more):
        objectives = tuple(map(ObjectiveChoice.of, more.get("objectives", ())))
        backend = InlineBackend(Relaxer(calculator="emt", objectives=objectives)())
        with Search(problem, directory=folder / name, backend=backend, **OPTIONS, **more) as search:
            if relaxations:
                search.run(relaxations=relaxations, refine=0)

    two = {"objectives": ["density:11", "volume_per_atom:min"], "where": "height < 0.3 and 1 < density"}
    run("Cu", "Cu", 9, objectives=["density:9.1"], formula_units=(1, 4))
    run("Cu3Au", "Cu3Au", 7, max_atoms=4, **two)
    run("Cu-Au", "Cu-Au", 7, composition_grid=2, max_atoms=2, objectives=["density:min"])
    run("plain", "Cu", 1, max_atoms=1)
    run("reported", "Cu", 1, max_atoms=1, objectives=["density:report"])
    run("begun", "Cu", 0, max_atoms=1, objectives=["density:max"])
    run("excluded", "Cu", 2, max_atoms=1, objectives=["density:max"], where="density > 50")
    return folder


@pytest.fixture
def front(folder, monkeypatch, tmp_path):
    """Return a function that runs the command, and returns what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def front(directory, *arguments):
        done = CliRunner().invoke(app, ["front", str(folder / directory), *map(str, arguments)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return front


def beats(first, second):
    return all(a <= b for a, b in zip(first, second, strict=True)) and first != second


@pytest.mark.parametrize(
    ("directory", "criteria"),
    [
        ("Cu", lambda values: [abs(values["density"] - 9.1)]),
        ("Cu3Au", lambda values: [abs(values["density"] - 11), values["volume_per_atom"]]),
        ("Cu-Au", lambda values: [values["density"]]),
    ],
)
def test_the_front_holds_what_no_other_minimum_beats(front, folder, directory, criteria):
    with Archive(folder / directory) as archive:
        goals = archive.state.goals
        heights = archive.state.heights()
        points = {
            basin.id: [height, *criteria(basin.objectives)]
            for basin, height in heights
            if goals.allow(basin.objectives, height)
        }
    expected = {id_ for id_, own in points.items() if not any(beats(other, own) for other in points.values())}
    content = json.loads(front(directory, "--json"))
    assert {row["minimum"] for row in content["minima"]} == expected
    assert content["on_fronts"] == len(points)
    assert content["excluded_by_condition"] == len(heights) - len(points)


def test_further_fronts_are_listed_on_request(front):
    content = json.loads(front("Cu", "--ranks", 99, "--json"))
    ranks = [row["front"] for row in content["minima"]]
    assert sorted(ranks) == ranks
    assert set(ranks) == set(range(1, content["number_of_fronts"] + 1))
    assert len(ranks) == content["on_fronts"] > 2
    rows = list(csv.DictReader(io.StringIO(front("Cu", "--ranks", 99, "--csv"))))
    assert [int(row["front"]) for row in rows] == ranks
    values = [row["objective_density"] for row in content["minima"]]
    assert [float(row["objective_density"]) for row in rows] == values


def test_the_table_names_units_goals_and_the_condition(front):
    assert "The first 2 Pareto fronts of Cu" in front("Cu", "--ranks", 2)
    output = front("Cu3Au")
    for text in (
        "Pareto front of Cu3Au",
        "density: g/cm³, near 11",
        "volume_per_atom: Å³/atom, as small as possible",
        "not meet the condition height < 0.3 and 1 < density",
    ):
        assert text in output
    assert "meV/atom above the convex hull" in front("Cu-Au")


def test_exported_structures_have_their_values(front):
    content = json.loads(front("Cu3Au", "--json", "--export", "front.extxyz"))
    structures = ase.io.read("front.extxyz", ":")
    for atoms, row in zip(structures, content["minima"], strict=True):
        assert atoms.info["objective_density"] == pytest.approx(row["objective_density"])
        assert 1000 * atoms.info["height"] == pytest.approx(row["above_best_mev_per_atom"], abs=1e-4)
        assert atoms.info["front"] == 1
        assert atoms.get_potential_energy() == pytest.approx(row["enthalpy_ev_per_atom"] * len(atoms), abs=1e-5)


@pytest.mark.parametrize("directory", ["Cu", "Cu3Au"])
def test_pictures_and_pages_are_written(front, tmp_path, directory):
    output = front(directory, "--ranks", 2, "--plot", "front.svg", "--plot", "pages/front.html")
    assert "<svg" in (tmp_path / "front.svg").read_text()
    page = (tmp_path / "pages" / "front.html").read_text()
    assert "Plotly.newPlot" in page
    assert "density: " in page
    assert "Wrote front.svg" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plain"], "no objectives beside a low enthalpy; begin one that has, such as hybridcsp search Cu --objective"),
        (["reported"], "its objectives (density) are only reported and have no goal"),
        (["begun"], "no relaxation has ended in a minimum yet"),
        (["excluded"], "on a front ("),
        (["excluded"], "without density > 50"),
        (["Cu", "--plot", "front.jpg"], "a file whose name ends in .png, .pdf, .svg or .html"),
        (["Cu", "--export", "front.xsf"], "a file name with a known extension"),
    ],
)
def test_mistakes_are_explained(front, arguments, message):
    with pytest.raises(InputError) as error:
        front(*arguments)
    assert message in str(error.value)
