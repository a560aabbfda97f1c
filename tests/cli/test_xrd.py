"""Tests of the command that ranks structures by a measured powder pattern."""

import json

import pytest
from ase.build import bulk
from ase.io import write
from command_line import hybridcsp
from copper import search
from crystals import anatase, quartz, rutile
from diffraction import measured, write_pattern
from typer.testing import CliRunner

from hybridcsp.analysis.powder_report import compare_minima, ranked
from hybridcsp.archive.archive import Archive
from hybridcsp.cli.app import app
from hybridcsp.errors import InputError
from hybridcsp.powder import PatternSimilarity


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the pattern of rutile in a larger cell, and structures of which the second is rutile."""
    path = tmp_path_factory.mktemp("powder")
    write_pattern(measured(rutile(), size=0.02), path / "pattern.xy")
    write(path / "structures.extxyz", [anatase(), rutile(), quartz()])
    return path


def run(folder, *arguments):
    return CliRunner().invoke(app, ["xrd", str(folder / "structures.extxyz"), *map(str, arguments)])


def test_the_structure_of_the_pattern_is_first(folder):
    done = run(folder, "--pattern", folder / "pattern.xy", "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert rows[0]["structure"] == "structures.extxyz#2"
    assert rows[0]["spacegroup_symbol"] == "P4_2/mnm"
    assert rows[0]["similarity"] > 0.95 > rows[1]["similarity"]
    assert rows[0]["volume_change_percent"] == pytest.approx(6.1, abs=0.3)
    assert rows[0]["adjusted_primitive_cell"][0] == pytest.approx(4.6 * 1.02, abs=0.01)
    assert rows[0]["rank_in_search"] is None


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_table_and_plot_are_written(folder, tmp_path, ending):
    picture = tmp_path / f"match.{ending}"
    done = run(folder, "--pattern", folder / "pattern.xy", "--plot", picture, "--plots", 2, "--top", 2)
    assert done.exit_code == 0, done.output
    assert "Structures compared: 3." in done.stdout
    assert "I4_1/amd" in done.stdout or "P3_121" in done.stdout
    assert picture.stat().st_size > 10_000


def test_minima_of_a_search_keep_their_height(tmp_path):
    run_directory = tmp_path / "Cu"
    search(run_directory).run(relaxations=4)
    pattern = measured(bulk("Cu", "fcc", a=3.6), size=0.01)
    write_pattern(pattern, tmp_path / "pattern.xy")
    done = CliRunner().invoke(app, ["xrd", str(run_directory), "--pattern", str(tmp_path / "pattern.xy"), "--csv"])
    assert done.exit_code == 0, done.output
    assert "height_mev_per_atom" in done.stdout.splitlines()[0]
    with Archive(run_directory) as archive:
        found = ranked(compare_minima(archive, PatternSimilarity(pattern), 100))
        assert len(found) == archive.number_of_minima
    assert min(one.height for one in found) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--wavelength", "CuKq"], "--wavelength = 'CuKq' cannot be used: did you mean"),
        (["--axis", "Q"], "--axis = 'Q' is not valid: it must be one of two-theta, q, d"),
        (["--axis", "q"], "angles 2θ in degrees need --axis two-theta"),
        (["--cell-change", "2"], "--cell-change = 2.0 is not valid: it must be a fraction"),
        (["--plot", "match.gif"], "--plot = 'match.gif' is not valid"),
        (["--json", "--csv"], "cannot be combined"),
    ],
)
def test_values_that_cannot_be_used_are_explained(folder, arguments, message):
    done = run(folder, "--pattern", folder / "pattern.xy", *arguments)
    assert done.exit_code != 0
    assert message in str(done.exception)


def test_files_that_are_missing_or_swapped_are_explained(folder):
    done = run(folder, "--pattern", folder / "nothing.xy")
    assert isinstance(done.exception, InputError)
    assert "--pattern = " in str(done.exception)
    done = run(folder, "--pattern", folder / "structures.extxyz")
    assert "it has one column of numbers" in str(done.exception) or "two numbers" in str(done.exception)
    done = CliRunner().invoke(app, ["xrd", str(folder / "none"), "--pattern", str(folder / "pattern.xy")])
    assert "there is no such file or folder" in str(done.exception)


def test_structures_that_cannot_be_compared_are_named(folder, tmp_path):
    structures = tmp_path / "mixed.extxyz"
    write(structures, [rutile(), bulk("Og", "fcc", a=5.0)])
    done = hybridcsp("xrd", structures, "--pattern", folder / "pattern.xy", cwd=tmp_path)
    assert "Structures compared: 1." in done.stdout
    assert "Not compared: mixed.extxyz#2: " in done.stderr
    assert "no X-ray scattering factor of Og" in done.stderr


def test_a_search_with_a_pattern_is_drawn_with_it(tmp_path):
    write_pattern(measured(bulk("Cu", "hcp", a=2.56, c=4.18), size=0.01), tmp_path / "pattern.xy")
    options = ("--calculator", "emt", "--source", "random", "--formula-units", 2, "--workers", 1, "--refine", 0)
    hybridcsp("search", "Cu", "--xrd", "pattern.xy", *options, "--relaxations", 4, cwd=tmp_path)
    with Archive(tmp_path / "Cu") as archive:
        recorded = [minimum.objectives["xrd"] for minimum in archive.minima()]
    assert all(0 <= value <= 1 for value in recorded)
    pictures = ["--plot", tmp_path / "match.html", "--plot", tmp_path / "match.svg"]
    runner = CliRunner().invoke(app, ["xrd", str(tmp_path / "Cu"), "--json", *map(str, pictures)])
    assert runner.exit_code == 0, runner.output
    again = [row["similarity"] for row in json.loads(runner.stdout)]
    assert again == pytest.approx(sorted(recorded, reverse=True), abs=2e-3)
    page = (tmp_path / "match.html").read_text()
    assert "measured, without background" in page
    assert (tmp_path / "match.svg").stat().st_size > 10_000


def test_structures_need_a_pattern_and_a_search_may_have_one(folder, tmp_path):
    done = run(folder)
    assert "--pattern is missing: it is needed for structures, and for a search without --xrd" in str(done.exception)
    done = hybridcsp("search", "Cu", "--xrd", folder / "pattern.xy", "--xrd-axis", "q", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "--xrd = " in done.stderr
    assert "need --xrd-axis 'two-theta'" in " ".join(done.stderr.split())
    assert not (tmp_path / "Cu").exists()
