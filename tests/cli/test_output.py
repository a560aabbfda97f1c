import csv
import json
from io import StringIO

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from crystals import ListSource
from typer.testing import CliRunner

from hybridcsp import Search
from hybridcsp.cli import app
from hybridcsp.errors import CommandLineError, InputError

LISTS = ["calculators", "sources", "operators", "formats"]


def run(*arguments, **environment):
    return CliRunner().invoke(app, list(map(str, arguments)), env=environment, catch_exceptions=False)


@pytest.fixture
def directory(tmp_path):
    with Search("Cu", calculator=None, directory=tmp_path / "run", sources=[ListSource([])], max_atoms=30) as search:
        for atoms in (bulk("Cu", "bcc", a=2.87), bulk("Cu"), bulk("Cu", "hcp", a=2.55, c=4.2)):
            atoms.calc = EMT()
            search.add(atoms, force_calls=3)
    return tmp_path / "run"


@pytest.mark.parametrize("command", LISTS)
def test_lists_as_json_and_csv(command):
    rows = json.loads(run(command, "--json").stdout)
    assert all(set(row) == {"name", "summary", "package"} for row in rows)
    assert list(csv.DictReader(StringIO(run(command, "--csv").stdout))) == rows


def test_show_json_contains_numbers_only_on_standard_output(directory, tmp_path):
    result = run("show", directory, "--json", "--top", 2, "--plot", tmp_path / "x.png")
    shown = json.loads(result.stdout)
    assert shown["formula"] == "Cu"
    assert [row["rank"] for row in shown["minima"]] == [1, 2]
    assert shown["number_of_minima"] == 3
    assert shown["minima"][0]["prototype"] in ("fcc", "hcp")
    assert isinstance(shown["minima"][0]["enthalpy_ev_per_atom"], float)
    rows = list(csv.DictReader(StringIO(run("show", directory, "--csv").stdout)))
    assert [float(row["enthalpy_ev_per_atom"]) for row in rows][:2] == [
        row["enthalpy_ev_per_atom"] for row in shown["minima"]
    ]


def test_show_counts_the_minima_that_meet_the_condition(tmp_path):
    sources = [ListSource([])]
    with Search("Cu", calculator=None, directory=tmp_path, sources=sources, where="volume_per_atom < 11.8") as search:
        for atoms in (bulk("Cu", "bcc", a=2.87), bulk("Cu")):
            atoms.calc = EMT()
            search.add(atoms, force_calls=3)
    assert "1 of 2 minima meet the condition volume_per_atom < 11.8" in run("show", tmp_path).stdout


def test_json_and_csv_cannot_be_combined(directory):
    for command in (["show", directory], ["sources"]):
        with pytest.raises(CommandLineError, match="cannot be combined"):
            run(*command, "--json", "--csv")


def test_unknown_plot_format_is_refused_first(directory):
    with pytest.raises(InputError, match=r"--plot = .*\.png or \.pdf or \.svg"):
        run("show", directory, "--plot", "x.tiff")


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("command", ["show", *LISTS])
def test_every_table_fits_terminal(command, width, directory):
    arguments = [command, directory] if command == "show" else [command]
    output = run(*arguments, COLUMNS=str(width)).stdout
    assert output.strip()
    assert max(map(len, output.splitlines())) <= width


def test_best_minimum_can_be_piped(directory):
    result = run("export", directory, "--output", "-", "--format", "cif", "--top", 1)
    assert result.stdout.startswith("data_rank1_Cu")
    assert "wrote 1 minima" not in result.stdout
