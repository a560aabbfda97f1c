"""import, watch and export to other codes, as one types them."""

import sys
from pathlib import Path

import ase.io
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from foreign import FakeUspex, append_results, uspex_run, various
from typer.testing import CliRunner

from hybridcsp.cli import app
from hybridcsp.errors import CommandLineError, InputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return uspex_run(tmp_path / "uspex", various(3), [-50.0, -49.0, -48.0])


def hybridcsp(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_import_show_and_export_to_every_code(run, tmp_path):
    output = hybridcsp("import", "uspex")
    assert "Imported into TiO2-uspex, energies by uspex:VASP: 3 relaxed, 0 failed" in output
    assert "uspex/heredity" in hybridcsp("show", "TiO2-uspex")
    assert len(ase.io.read("TiO2-uspex/minima.extxyz", ":")) == 3
    for code, made in (
        ("uspex", "Seeds/POSCARS"),
        ("calypso", "POSCAR_2"),
        ("airss", "hopper/TiO2-hybridcsp-00002.res"),
        ("xtalopt", "seeds/seedStructures"),
        ("cryspy", "data/pkl_data/init_struc_data.pkl"),
    ):
        output = hybridcsp("export", "TiO2-uspex", "--format", code, "--output", tmp_path / code / "run", "--top", 2)
        assert output.startswith("2 "), code
        assert (tmp_path / code / "run" / made).exists()
    res = (tmp_path / "airss/run/hopper/TiO2-hybridcsp-00001.res").read_text().split()
    assert (res[2], res[4]) == ("0", "-50")


def test_structure_files_are_seeds_too(run):
    ase.io.write("samples.extxyz", various(3))
    with Path("samples.extxyz").open("a") as stream:
        stream.write("7\nLattice\n")
    output = hybridcsp("export", "samples.extxyz", "--format", "uspex", "--output", "uspex")
    assert output.startswith("3 seeds in uspex/Seeds/POSCARS")
    assert "1 structure could not be read" in output
    assert (run / "Seeds" / "POSCARS").read_text().splitlines()[5].split() == ["Ti", "O"]


def test_repeated_import_counts_known_structures(run):
    hybridcsp("import", "uspex", "--directory", "d", "--calculator", "PBE")
    append_results(run, various(1, seed=9), [-47.0], first=4, generation=2)
    output = hybridcsp("import", "uspex", "--directory", "d", "--calculator", "PBE")
    assert "1 relaxed, 0 failed, 0 without an energy, 3 imported before" in output


def test_unreadable_structures_are_named(run):
    with (run / "results1" / "gatheredPOSCARS").open("a") as stream:
        stream.write("EA9\n1.0\n1 0 0\n0 1 0\n0 0 1\nTi O\n1 2\nDirect\n0 0 0\n")
    output = hybridcsp("import", "uspex")
    assert "1 structure could not be read:" in output
    assert "gatheredPOSCARS, line" in output
    with pytest.raises(InputError, match=r"--strict .* ends after 1 of 3 atoms"):
        hybridcsp("import", "uspex", "--directory", "other", "--strict")
    with pytest.raises(InputError, match="--strict"):
        hybridcsp("import", "uspex", "--output", "all.extxyz", "--strict")


def test_conversion_to_file_takes_every_composition(run):
    append_results(run, various(2, "Ti3O5"), [-60.0, -61.0], first=4, generation=2)
    output = hybridcsp("import", "uspex", "--output", "all.extxyz")
    assert "5 structures in all.extxyz" in output
    frames = ase.io.read("all.extxyz", ":")
    assert [round(frame.get_potential_energy(), 3) for frame in frames] == [-50.0, -49.0, -48.0, -60.0, -61.0]
    assert frames[1].info["origin"] == "Heredity"
    output = hybridcsp("import", "uspex", "--directory", "d")
    assert "Skipped 2 structures of other compositions: Ti3O5 (2)" in output


def test_watch_once_prints_its_update(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = FakeUspex(tmp_path / "uspex")
    arguments = ("watch", "ours", "--uspex", "uspex", "--once", "--source", "random", "--seeds", 2)
    assert "no generation has finished yet" in hybridcsp(*arguments)
    code.run_generation()
    output = hybridcsp(*arguments)
    assert (
        "generation 1 finished; imported 6 relaxed structures and 0 failures; 2 seeds in uspex/Seeds/POSCARS" in output
    )
    assert code.run_generation() == 2
    assert "2 of them from our seeds" in hybridcsp(*arguments)
    output = hybridcsp("export", "ours", "--format", "airss", "--output", "airss", "--pending")
    assert output.startswith("2 structures")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["import", "nowhere"], "no such file or folder"),
        (
            ["import", "truncated.cif"],
            r"path = 'truncated.cif' cannot be used: there is no structure .* \(truncated.cif, line 1: ",
        ),
        (["import", "uspex", "--format", "usqex"], "did you mean 'uspex'"),
        (["import", "uspex", "--formula", "SiO2"], r"a composition that occurs: TiO2 \(3\)"),
        (["import", "uspex", "--output", "a.extxyz", "--directory", "d"], "cannot be combined"),
        (["import", "uspex", "--pressure", "high"], "a pressure in GPa"),
        (["watch", "ours"], "none was given"),
        (["watch", "ours", "--uspex", "uspex", "--cryspy", "uspex"], "2 were given"),
        (["watch", "ours", "--calypso", "nowhere"], "--calypso = 'nowhere' .* the folder that the other code runs in"),
        (["watch", "ours", "--cryspy", "uspex"], "--cryspy = 'uspex' .* it holds results of uspex and not of cryspy"),
        (["import", "uspex", "--format", "calypso"], "it holds results of uspex and not of calypso"),
        (["export", "nowhere", "--format", "uspex"], "--output"),
        (["export", "nowhere", "--generation", "3"], "another code that seeds are written for"),
    ],
)
def test_wrong_input_is_explained(run, arguments, expected):
    Path("truncated.cif").write_text("data_Cu\n_cell_length_a 2.55\nloop_\n  _atom_site_type_symbol\n  _atom_si")
    with pytest.raises((InputError, CommandLineError), match=expected):
        hybridcsp(*arguments)


def test_formats_import_no_heavy_package(tmp_path, monkeypatch):
    import subprocess

    code = "import sys, hybridcsp.io.formats as f; f.load('uspex'); print({'torch', 'pymatgen'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_import_of_other_calculator_is_compared_by_structure(run):
    from hybridcsp.cli.compare import _describe_imported as describe

    hybridcsp("import", "uspex", "--directory", "d")
    second = various(3)[1]
    assert describe(Path("d"), second, "chgnet").endswith("(uspex:VASP): target reached after 2 of 3 relaxations")
    assert describe(Path("d"), various(1, seed=8)[0], "chgnet").endswith("target not reached in 3 relaxations")
    assert describe(Path("d"), -50.0 / 6, "uspex:VASP").endswith("target reached after 1 of 3 relaxations")
    with pytest.raises(InputError, match="target must be a structure"):
        describe(Path("d"), -50.0 / 6, "chgnet")


def test_energies_of_several_calculators_in_one_file_are_not_mixed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    structures = various(3)
    for atoms, name, energy in zip(
        structures, ["chgnet 0.3", "chgnet 0.3", "better 1"], [-50, -49, -9000], strict=True
    ):
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
        atoms.info["calculator"] = name
    ase.io.write("minima.extxyz", structures)
    output = hybridcsp("import", "minima.extxyz", "--directory", "most")
    assert "energies by plain:chgnet 0.3: 2 relaxed" in output
    assert "Skipped 1 structures with energies of other calculators, which cannot be compared: better 1 (1)" in output
    assert "1 relaxed" in hybridcsp("import", "minima.extxyz", "--directory", "one", "--calculator", "better 1")
    assert "3 relaxed" in hybridcsp("import", "minima.extxyz", "--directory", "all", "--calculator", "the same PBE")
