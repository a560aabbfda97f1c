"""Tests of the messages for wrong input."""

import ase.io
import pytest
from ase.build import bulk
from command_line import hybridcsp
from typer.testing import CliRunner

from hybridcsp.cli import app
from hybridcsp.errors import HybridCSPError


def error_of(*arguments):
    """Return the message of the error with which a command ends."""
    done = CliRunner().invoke(app, list(arguments))
    assert isinstance(done.exception, HybridCSPError), done.output or repr(done.exception)
    return str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["search", "Ti0"], "it contains no atom of Ti"),
        (["search", "TiO2", "--calculator", "chgnt"], "did you mean 'chgnet'"),
        (["search", "TiO2", "--calculator", "ase.calculators.emt:EM"], "did you mean 'EMT'"),
        (["search", "TiO2", "--source", "randm"], "did you mean 'random'"),
        (["search", "TiO2", "--pressure", "high"], "--pressure = 'high'"),
        (["search", "TiO2", "--formula-units", "four"], "--formula-units = 'four'"),
        (["search", "TiO2", "--formula-units", "4-1"], "the smaller first"),
        (["search", "TiO2", "--max-atoms", "2"], "TiO2 has 3 atoms"),
        (["search", "TiO2", "--workers", "0"], "--workers = '0' is not valid: it must be a number from 1"),
        (["search", "TiO2", "--relaxations", "0"], "relaxations = 0"),
        (["search", "TiO2", "--stop-at", "nothing.cif"], "a structure file that exists"),
        (["search", "TiO2", "--stop-at", "silver.cif"], "a structure file of TiO2, not of Ag"),
        (["search", "TiO2", "--source", "shake"], "cannot run alone; add another source"),
        (["search", "TiO2", "--source", "seeds:nothing.cif"], "nothing.cif"),
        (["search", "TiO2", "--source", "seeds:empty.xyz"], "empty.xyz"),
        (["search", "TiO2", "--source", "seeds:/dev/null"], "it is a device, not a file"),
        (["search", "(" * 900 + "C" + ")" * 900], "at most 250 characters"),
        (["search", "TiO2", "--formula-units", "7"], "7 formula units are 21 atoms: add --max-atoms 21"),
        (["search", "TiO2", "--directory", "/proc/self"], "cannot write"),
        (["search", "TiO2", "--templates", "nothing/"], "no such file or folder"),
        (
            ["search", "TiO2", "--source", "random", "--templates", "empty.xyz"],
            "only with the source prototypes",
        ),
        (["search", "TiO2", "--one-shot", "0"], "--one-shot = '0'"),
        (["search", "nothing.toml"], "there is no such file"),
        (["search", "typo.toml"], "did you mean 'max_atoms'"),
        (["search", "code.toml"], "--trust"),
        (["compare", "TiO2", "--strategy", "random", "--strategy", "randm"], "did you mean 'random'"),
        (["compare", "TiO2", "--strategy", "random", "--target", "silver.cif"], "a structure file of TiO2, not of Ag"),
        (["compare", "TiO2", "--strategy", "random", "--imported", "nowhere"], "no search.db"),
        (["search", "tio2"], "did you mean 'TiO2'"),
        (["search", "TiO2", "--calculator", "VASP"], "hybridcsp calculators template vasp > dft.toml"),
        (["search", "TiO2", "--calculator", "mace-mp"], "mace:medium is MACE-MP-0"),
        (["search", "TiO2", "--calculator", "7net-0"], "sevennet is SevenNet-0"),
        (["search", "TiO2", "--hours", "8x"], "the known units are h, min, s, d"),
        (["search", "TiO2", "--min-distance", "Ti=1.7"], "A-B with A and B among Ti, O"),
        (["search", "TiO2", "--min-distance", "1.7"], "such as Ti-O=1.7"),
        (["search", "TiO2", "--spacegroup", "231"], "a number from 1 to 230"),
        (["search", "TiO2", "--volume-per-atom", "14"], "with a dash between them"),
        (["search", "TiO2", "--volume-per-atom", "-3"], "'-3' is not valid: it must be two numbers in Å^3 with a dash"),
        (["search", "TiO2", "--cell", "4,4,4"], "six numbers"),
        (["search", "TiO2", "--magmom", "Fe=5"], "--magmom Fe = 5.0 cannot be used: Fe is not an element of TiO2"),
        (["search", "TiO2", "--presure", "5"], "did you mean '--pressure'"),
        (["search", "TiO2", "--max-force", "0.1"], "did you mean --fmax"),
        (["search", "TiO2", "--replay-data", "x"], "can be set in the table [retraining]"),
        (["search", "TiO2", "--nonsense", "x"], "Further settings are available in a TOML file"),
        (["search", "TiO2", "--formula-units", "8"], "add --max-atoms 24"),
        (["search", "TiO2", "--source", "seeds:gone.cif"], "--source = 'seeds:"),
        (["search", "NaCl", "--spacegroup", "225", "--formula-units", "3"], "--spacegroup = (225,)"),
        (["search", "silver.cif"], "--source seeds:silver.cif"),
        (["search", "."], "hybridcsp resume ."),
        (["search", "V-O", "--compositions", "VO,"], "'VO,' is not valid: it must be a formula, or several"),
        (["search", "Cu-Ag", "--charge-neutral"], "cancel; search without --charge-neutral."),
        (["search", "TiO2.toml"], "run hybridcsp search TiO2 to search for this formula"),
        (["TiO2", "--pressure", "5"], "did you mean hybridcsp search TiO2 --pressure 5"),
        (["serch", "TiO2"], "did you mean 'search'"),
        (["--pressure", "5", "search", "TiO2"], "options of a command must come after the command"),
        (["show", "TiO2", "--top", "few"], "--top = 'few' is not valid: it must be a whole number"),
        (["search"], "Missing argument"),
        (["watch", "Cu"], "watch needs the folder of exactly one code"),
        (["resume", "."], "no search.db"),
        (["show", "nowhere"], "no search.db"),
        (["export", ".", "--format", "cif"], "no search.db"),
    ],
)
def test_wrong_input_is_explained_and_leaves_no_files(tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.xyz").write_text("")
    ase.io.write(tmp_path / "silver.cif", bulk("Ag"))
    (tmp_path / "typo.toml").write_text('problem = {formula = "TiO2", max_atom = 3}')
    (tmp_path / "code.toml").write_text('problem.formula = "Cu"\nsearch.calculator = "ase.calculators.emt:EMT"')
    before = sorted(tmp_path.iterdir())
    assert expected in error_of(*arguments)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["search", "Cu", "--where", ""], "--where = ''"),
        (["search", "Cu", "--where=  "], "--where = '  '"),
        (["search", "Cu-Au", "--compositions", ""], "--compositions = ''"),
        (["resume", "Cu", "--hours="], "--hours = ''"),
        (["export", "Cu", "--output", ""], "--output = ''"),
        (["train", "flow", "--data", ""], "--data = ''"),
        (["search", ""], "FORMULA|SYSTEM|FILE.toml = ''"),
        (["show", " "], "DIRECTORY = ' '"),
    ],
)
def test_empty_values_are_refused_by_every_command(arguments, named):
    assert error_of(*arguments).startswith(f"{named} cannot be used: it is empty; give a value")


def test_errors_about_options_name_them_and_those_about_a_file_its_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cu.toml").write_text('problem.formula = "Cu"\nsearch.calculator = "emt"\nsearch.where = "height < 0"')
    assert error_of("search", "cu.toml").startswith("where = 'height < 0'")
    assert error_of("search", "cu.toml", "--where", "height < -1").startswith("--where = 'height < -1'")
    assert error_of("search", "Cu", "--calculator", "emt", "--where", "height < 0").startswith("--where = 'height < 0'")
    (tmp_path / "rutile.cif").touch()
    assert error_of("search", "Cu", "--reference", "rutile.cif").startswith("--reference = ")
    assert error_of("front", "Cu", "--ranks", "0") == "--ranks = '0' is not valid: it must be a whole number from 1."
    assert error_of("front", "Cu", "--ranks", "few") == "--ranks = 'few' is not valid: it must be a whole number."


def test_errors_are_printed_without_a_traceback(tmp_path):
    done = hybridcsp("search", "Ti0", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_unknown_option_has_no_empty_suggestion(tmp_path):
    done = hybridcsp("export", "Cu", "--nonsense", cwd=tmp_path, check=False)
    assert "unknown option --nonsense\n" in done.stderr
