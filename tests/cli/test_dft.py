"""The commands for DFT files."""

import json
import tomllib

import pytest
from dft_programs import dft_file, fake_pw
from typer.testing import CliRunner

from hybridcsp.cli import app
from hybridcsp.errors import CalculatorError, InputError


def run(*arguments):
    return CliRunner().invoke(app, ["calculators", *map(str, arguments)], catch_exceptions=False)


def test_template_is_printed_or_written_but_replaces_nothing(tmp_path):
    printed = run("template", "vasp").stdout
    assert tomllib.loads(printed)["code"] == "vasp"
    run("template", "vasp", "--output", tmp_path / "dft.toml")
    assert (tmp_path / "dft.toml").read_text() == printed
    with pytest.raises(InputError, match=r"--output = .*a new file; this one exists"):
        run("template", "gpaw", "--output", tmp_path / "dft.toml")
    with pytest.raises(InputError, match=r"did you mean 'vasp'"):
        run("template", "vap")


def test_check_computes_one_small_crystal(tmp_path):
    fake_pw(tmp_path / "espresso")
    path = dft_file(tmp_path / "dft.toml", stages=[{"cutoff": "6 Ry"}, {}])
    row = json.loads(run("check", path, "--json").stdout)
    assert (row["crystal"], row["atoms"], row["stages"]) == ("Si", 2, 2)
    assert row["label"].startswith("quantum-espresso 6.7MaX (cutoff=163.268")
    assert row["energy_ev_per_atom"] < 0
    assert row["max_force_ev_per_angstrom"] > 0
    assert row["max_stress_gpa"] > 0
    assert row["seconds"] > 0
    shown = " ".join(run("check", path, "--element", "Si").stdout.split())
    assert "stages 2, of which the last was computed" in shown
    assert list((tmp_path).glob("dft")) == []


def test_check_explains_what_is_wrong(tmp_path):
    path = dft_file(tmp_path / "dft.toml", pseudopotentials={"folder": "espresso", "Si": "Si.UPF"})
    with pytest.raises(InputError, match=r"folder = .*espresso' is not valid"):
        run("check", path)
    fake_pw(tmp_path / "espresso", after="sys.exit('Error in routine electrons')")
    with pytest.raises(InputError, match=r"pseudopotentials.O is missing"):
        run("check", path, "--element", "O")
    with pytest.raises(InputError, match=r"element = 'Sq' is not valid: it must be the symbol of an element"):
        run("check", path, "--element", "Sq")
    with pytest.raises(
        CalculatorError, match=r"dft.toml fails for Si: .*exit status 1(?s:.*)Error in routine electrons"
    ):
        run("check", path)
    without_code = tmp_path / "without-code.toml"
    without_code.write_text(path.read_text().replace("code =", "# code ="))
    with pytest.raises(InputError, match=r"only the keys calculator, .*, and a DFT file has the key code too"):
        run("check", without_code)
    with pytest.raises(InputError, match=r"--element = 'Si' cannot be used: it is for DFT files"):
        run("check", "emt", "--element", "Si")
