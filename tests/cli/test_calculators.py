"""Tests of the commands for environments of calculators."""

import csv
import json
import shutil
import sys
from collections import namedtuple
from io import StringIO

import pytest
from typer.testing import CliRunner
from wheels import PINNED, pin_tiny_packages, sevennet_wheels

from hybridcsp.cli import app
from hybridcsp.errors import CalculatorError, CommandLineError, InputError, InstallationError
from hybridcsp.relaxation.calculators.environments import RECIPES


def run(*arguments, **options):
    return CliRunner().invoke(app, ["calculators", *map(str, arguments)], catch_exceptions=False, **options)


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("HYBRIDCSP_DATA", str(tmp_path / "data"))
    pin_tiny_packages(tmp_path / "requirements", monkeypatch)
    return tmp_path / "data"


@pytest.fixture
def terminal(monkeypatch):
    """Make the standard input of a command look like a terminal."""
    monkeypatch.setattr("hybridcsp.cli.environments.is_terminal", lambda: True)


def test_list_names_the_calculators_and_their_environments(data):
    output = " ".join(run().stdout.split())
    assert "chgnet" in output
    assert "hybridcsp calculators install NAME makes an environment for sevennet or mace; installed: none." in output
    with pytest.raises(CommandLineError, match="must come after the command environments"):
        run("--json", "environments")


@pytest.mark.slow
def test_environment_from_wheels(data, tmp_path):
    wheels = sevennet_wheels(tmp_path / "wheels")
    done = run("install", "sevennet", "--wheels", wheels, "--yes")
    assert done.exit_code == 0
    said = " ".join(done.stderr.split())
    assert f"sevenn 0.13.0 and 1 more packages, all of pinned versions, from the wheels in {wheels}" in said
    assert f"{data}/environments/sevennet" in said
    assert "about 1.6 GB" in said
    assert "Installed sevennet" in done.stdout
    assert "Already installed: sevennet" in run("install", "sevennet").stdout
    shown = run("environments").stdout
    assert "sevenn 0.13.0" in shown
    assert "ready" in shown
    assert "installed: sevennet." in run().stdout
    (row,) = json.loads(run("environments", "--json").stdout)
    assert row["usable"]
    assert row["packages"]["sevenn"] == "0.13.0"
    assert row["python"] == f"{data}/environments/sevennet/bin/python"
    (line,) = csv.DictReader(StringIO(run("environments", "--csv").stdout))
    assert line["size_bytes"] == str(row["size_bytes"])
    assert f"Removed {data}/environments/sevennet" in run("remove", "sevennet").stdout
    assert "No environment is installed" in run("environments").stdout
    assert json.loads(run("environments", "--json").stdout) == []


def test_requirements_for_another_machine(data):
    done = run("install", "sevennet", "--requirements")
    assert done.stdout.splitlines() == [f"{name}=={version}" for name, version in PINNED.items()]
    assert not data.exists()


def test_without_a_terminal_a_confirmation_is_needed(data):
    with pytest.raises(CommandLineError, match="add --yes"):
        run("install", "sevennet")
    assert not data.exists()


def test_declining_installs_nothing(data, terminal):
    done = run("install", "sevennet", input="n\n")
    assert done.exit_code == 1
    assert "Install it?" in done.output
    assert not data.exists()


def test_space_is_checked_before_asking(data, terminal, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**9))
    with pytest.raises(InstallationError, match=r"needs 1.9 GB .* has 1.0 GB left"):
        run("install", "sevennet")


def test_unknown_names_and_commands(data):
    with pytest.raises(InputError, match="did you mean 'sevennet'"):
        run("install", "sevenn")
    with pytest.raises(InputError, match=f"no environment is installed in {data}/environments"):
        run("remove", "sevennet")
    with pytest.raises(CommandLineError, match=r"unknown command 'insta': did you mean 'install'\? The commands are"):
        run("insta", "sevennet")
    with pytest.raises(CommandLineError, match="did you mean '--wheels'"):
        run("install", "sevennet", "--wheel", "x")


def test_folder_of_wheels_is_checked_before_the_question(data, tmp_path):
    (tmp_path / "empty").mkdir()
    for wheels, words in ((tmp_path / "none", "an existing folder of wheels"), (tmp_path / "empty", "no wheel")):
        with pytest.raises(InputError, match=f"--wheels .*{words}"):
            run("install", "sevennet", "--wheels", wheels)


def test_environment_that_cannot_be_used_is_listed(data):
    folder = data / "environments" / "sevennet"
    (folder / "bin").mkdir(parents=True)
    assert "unusable: its installation did not end" in " ".join(run("environments").stdout.split())
    description = {"format": 1, "packages": PINNED, "size": 10, "python": "3.11.7", "requirements": "earlier"}
    (folder / "environment.json").write_text(json.dumps(description))
    (folder / "bin" / "python").symlink_to(sys.executable)
    assert json.loads(run("environments", "--json").stdout)[0]["state"].startswith("other packages than this version")
    assert RECIPES["sevennet"].digest != "earlier"


def test_check_reports_a_relaxation():
    done = run("check", "emt")
    assert done.exit_code == 0
    lines = {line.split("  ")[0].strip(): line.split("  ", 1)[1].strip() for line in done.stdout.splitlines()}
    assert lines["calculator"].startswith("emt (ase ")
    assert lines["interpreter"] == sys.executable
    assert lines["crystal"] == "Cu, 2 atoms"
    assert lines["converged"] == "yes"
    assert float(lines["energy after"].split()[0]) < float(lines["energy before"].split()[0])
    assert int(lines["force calls"]) > 3


def test_check_as_json_with_a_crystal_and_a_calculator_file(tmp_path):
    from ase.build import bulk

    bulk("Al").write(tmp_path / "al.cif")
    (tmp_path / "effective.toml").write_text('calculator = "emt"\n')
    found = json.loads(run("check", tmp_path / "effective.toml", "--structure", tmp_path / "al.cif", "--json").stdout)
    assert found["passed"]
    assert found["crystal"] == "Al"
    assert found["label"].startswith("emt")
    assert found["force_calls"] >= 1


def test_check_that_fails_has_exit_status_1(tmp_path):
    from ase.build import bulk

    bulk("Si").write(tmp_path / "si.cif")
    with pytest.raises(CalculatorError, match=r"^emt fails for Si: NotImplementedError: .*Si.*\.$"):
        run("check", "emt", "--structure", tmp_path / "si.cif")


def test_check_of_wrong_input():
    with pytest.raises(InputError, match="did you mean 'emt'"):
        run("check", "emtt")
    with pytest.raises(InputError, match="time-limit"):
        run("check", "emt", "--time-limit", "soon")
    with pytest.raises(InputError, match="precision"):
        run("check", "emt", "--precision", "half")
    with pytest.raises(InputError, match="structure"):
        run("check", "emt", "--structure", "missing.cif")
