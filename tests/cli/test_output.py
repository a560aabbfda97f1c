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
def test_lists_are_json_and_csv_for_programs(command):
    rows = json.loads(run(command, "--json").stdout)
    assert all(set(row) == {"name", "summary", "package"} for row in rows)
    assert list(csv.DictReader(StringIO(run(command, "--csv").stdout))) == rows


def test_show_gives_numbers_as_numbers_and_nothing_else_on_the_standard_output(directory, tmp_path):
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


def test_both_at_once_are_refused(directory):
    for command in (["show", directory], ["sources"]):
        with pytest.raises(CommandLineError, match="cannot be combined"):
            run(*command, "--json", "--csv")


def test_a_plot_of_an_unknown_kind_is_refused_before_anything_is_printed(directory):
    with pytest.raises(InputError, match=r"--plot = .*\.png or \.pdf or \.svg"):
        run("show", directory, "--plot", "x.tiff")


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("command", ["show", *LISTS])
def test_every_table_fits(command, width, directory):
    arguments = [command, directory] if command == "show" else [command]
    output = run(*arguments, COLUMNS=str(width)).stdout
    assert output.strip()
    assert max(map(len, output.splitlines())) <= width


def test_the_best_minimum_can_be_piped_into_another_program(directory):
    result = run("export", directory, "--output", "-", "--format", "cif", "--top", 1)
    assert result.stdout.startswith("data_rank1_Cu")
    assert "wrote 1 minima" not in result.stdout
