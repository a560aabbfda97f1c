import os
import subprocess
import sys
import time
import tomllib

import ase.db
import ase.io
import pytest
from ase import Atoms
from ase.build import bulk
from crystals import what_happened

from hybridcsp.sources import DEFAULT_SOURCES


def hybridcsp(*arguments, cwd, check=True):
    command = [sys.executable, "-m", "hybridcsp", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "120"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished search of copper in it."""
    folder = tmp_path_factory.mktemp("cli")
    ase.io.write(folder / "seed.cif", bulk("Cu", "bcc", a=2.9))
    options = ["--calculator", "emt", "--source", "random", "--source", "seeds:seed.cif", "--max-atoms", "3"]
    done = hybridcsp("search", "Cu", *options, "--relaxations", "6", "--workers", "1", cwd=folder)
    return folder, done.stdout


def test_a_search_ends_with_a_table_of_minima(finished):
    _, output = finished
    assert "Minima of Cu" in output
    assert "Fm-3m (225)" in output
    assert "6 relaxations" in output
    assert "relaxations used up" in output
    assert "hybridcsp show Cu" in output


def test_show_prints_it_again_and_draws_it(finished):
    folder, _ = finished
    output = hybridcsp("show", "Cu", "--top", "1", "--plot", "plots/cu.png", cwd=folder).stdout
    assert "Minima of Cu" in output
    assert "found" in output
    assert (folder / "plots" / "cu.png").read_bytes().startswith(b"\x89PNG")


def test_minima_are_exported_with_where_they_come_from(finished):
    folder, _ = finished
    hybridcsp("export", "Cu", "--output", "best.extxyz", "--top", "2", cwd=folder)
    best = ase.io.read(folder / "best.extxyz", ":")
    assert len(best) <= 2
    assert {"candidate", "enthalpy_per_atom", "spacegroup", "source", "operator", "relaxation"} <= set(best[0].info)
    assert best[0].info["enthalpy_per_atom"] == pytest.approx(best[0].get_potential_energy() / len(best[0]))


def test_resume_goes_on(finished):
    folder, _ = finished
    output = hybridcsp("resume", "Cu", "--relaxations", "2", cwd=folder).stdout
    assert "8 relaxations" in output


def test_the_resolved_configuration_runs_the_same_search(tmp_path):
    options = ["--calculator", "emt", "--max-atoms", "2", "--relaxations", "4", "--workers", "1", "--refine", "1"]
    hybridcsp("search", "CuAu", *options, "--directory", "first", cwd=tmp_path)
    hybridcsp("search", "first/config.toml", "--directory", "again", cwd=tmp_path)
    assert what_happened(tmp_path / "again") == what_happened(tmp_path / "first")


def test_structures_of_ones_own_are_templates(tmp_path):
    """A structure type that no library knows, with other elements: it comes first, with the elements of the search."""
    (tmp_path / "mine").mkdir()
    ase.io.write(
        tmp_path / "mine" / "zinc.cif", Atoms("ZnNi2", [(0, 0, 0), (0, 0, 2.1), (0, 0, 5.0)], cell=[3, 3.3, 7])
    )
    options = ["--calculator", "lj", "--formula-units", "1", "--relaxations", "4", "--workers", "1", "--refine", "0"]
    hybridcsp("search", "AgO2", *options, "--templates", "mine", "--source", "prototypes", cwd=tmp_path)
    written = tomllib.loads((tmp_path / "AgO2" / "config.toml").read_text())
    assert written["search"]["sources"] == [f"prototypes:{tmp_path / 'mine'}"]
    operators = {row.operator for row in ase.db.connect(tmp_path / "AgO2" / "search.db").select(event="proposed")}
    assert "template" in operators


def test_templates_go_into_the_default_sources(tmp_path):
    ase.io.write(tmp_path / "silver.cif", bulk("Ag"))
    options = ["--calculator", "emt", "--max-atoms", "2", "--relaxations", "1", "--workers", "1", "--refine", "0"]
    hybridcsp("search", "Cu", *options, "--templates", "silver.cif", cwd=tmp_path)
    written = tomllib.loads((tmp_path / "Cu" / "config.toml").read_text())
    expected = [f"prototypes:{tmp_path / 'silver.cif'}" if name == "prototypes" else name for name in DEFAULT_SOURCES]
    assert written["search"]["sources"] == expected


def test_the_database_opens_with_ase_db(finished):
    folder, _ = finished
    command = [sys.executable, "-m", "ase", "db", "Cu/search.db", "event=relaxed", "-c", "formula,source,spacegroup"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert "random" in done.stdout
    assert "seeds" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "Ti0"], "Ti occurs 0 times"),
        (["search", "TiO2", "--calculator", "chgnt"], "did you mean 'chgnet'"),
        (["search", "TiO2", "--calculator", "ase.calculators.emt:EM"], "did you mean 'EMT'"),
        (["search", "TiO2", "--source", "randm"], "did you mean 'random'"),
        (["search", "TiO2", "--pressure", "high"], "--pressure = 'high'"),
        (["search", "TiO2", "--formula-units", "four"], "--formula-units = 'four'"),
        (["search", "TiO2", "--formula-units", "4-1"], "two in order"),
        (["search", "TiO2", "--max-atoms", "2"], "TiO2 has 3 atoms"),
        (["search", "TiO2", "--workers", "0"], "search.workers = 0"),
        (["search", "TiO2", "--relaxations", "0"], "relaxations = 0"),
        (["search", "TiO2", "--stop-at", "nothing.cif"], "a structure file that exists"),
        (["search", "TiO2", "--stop-at", "silver.cif"], "a crystal of TiO2, not Ag"),
        (["search", "TiO2", "--source", "shake"], "name another one, too"),
        (["search", "TiO2", "--source", "seeds:nothing.cif"], "nothing.cif"),
        (["search", "TiO2", "--source", "seeds:empty.xyz"], "empty.xyz"),
        (["search", "TiO2", "--source", "seeds:/dev/null"], "holds no structure"),
        (["search", "TiO2", "--directory", "/proc/self"], "cannot write"),
        (["search", "TiO2", "--templates", "nothing/"], "no such file or folder"),
        (["search", "TiO2", "--source", "random", "--templates", "empty.xyz"], "goes with --source prototypes"),
        (["search", "TiO2", "--one-shot", "0"], "search.one_shot"),
        (["search", "nothing.toml"], "a TOML file that can be read"),
        (["search", "typo.toml"], "did you mean 'max_atoms'"),
        (["search", "code.toml"], "--trust"),
        (["compare", "TiO2", "--strategy", "random", "--strategy", "randm"], "did you mean 'random'"),
        (["compare", "TiO2", "--strategy", "random", "--target", "silver.cif"], "a crystal of TiO2, not Ag"),
        (["compare", "TiO2", "--strategy", "random", "--imported", "nowhere"], "no search.db"),
        (["resume", "."], "no search.db"),
        (["show", "nowhere"], "no search.db"),
        (["export", ".", "--format", "cif"], "no search.db"),
    ],
)
def test_wrong_input_is_said_in_one_line_and_leaves_nothing_behind(tmp_path, arguments, said):
    (tmp_path / "empty.xyz").write_text("")
    ase.io.write(tmp_path / "silver.cif", bulk("Ag"))
    (tmp_path / "typo.toml").write_text('problem = {formula = "TiO2", max_atom = 3}')
    (tmp_path / "code.toml").write_text('problem.formula = "Cu"\nsearch.calculator = "ase.calculators.emt:EMT"')
    before = sorted(tmp_path.iterdir())
    done = hybridcsp(*arguments, cwd=tmp_path, check=False)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_an_unknown_export_format_is_refused(finished):
    folder, _ = finished
    done = hybridcsp("export", "Cu", "--format", "cief", cwd=folder, check=False)
    assert done.returncode == 2
    assert "did you mean 'cif'" in done.stderr


def test_a_directory_that_holds_a_search_is_not_searched_anew(finished):
    folder, _ = finished
    done = hybridcsp("search", "Cu", "--calculator", "emt", cwd=folder, check=False)
    assert done.returncode == 2
    assert "hybridcsp resume Cu" in done.stderr


def test_commands_to_go_on_with_can_be_pasted_and_no_file_is_named_that_is_not_there(tmp_path):
    options = ["--calculator", "emt", "--source", "random", "--relaxations", "1", "--workers", "1"]
    output = hybridcsp("search", "Ti", *options, "--directory", "of titanium", cwd=tmp_path).stdout
    assert f"hybridcsp show '{tmp_path / 'of titanium'}'" in output
    assert "minima.extxyz" not in output
    assert "No EMT-potential for Ti" in " ".join(output.split())
    again = hybridcsp("search", "Ti", *options, "--directory", "of titanium", cwd=tmp_path, check=False)
    assert "hybridcsp resume '" in again.stderr


def test_a_search_that_relaxes_nothing_says_what_was_wrong_with_the_proposals(tmp_path):
    options = ["--calculator", "emt", "--source", "random", "--workers", "1"]
    output = hybridcsp("search", "Cu", *options, "--pressure", "1e9", cwd=tmp_path).stdout
    assert "no acceptable proposals (no source offered anything)" in output
    ase.io.write(tmp_path / "dense.cif", bulk("Cu", "fcc", a=2.0))
    options = ["--calculator", "emt", "--source", "seeds:dense.cif", "--workers", "1"]
    output = hybridcsp("search", "Cu", *options, "--directory", "one", cwd=tmp_path).stdout
    assert "sources exhausted (rejected: 1 volume)" in output
    output = hybridcsp("search", "Cu", *options, "--source", "shake", "--directory", "two", cwd=tmp_path).stdout
    assert "no acceptable proposals (rejected: 1 volume)" in output


def test_seeds_that_are_of_no_use_are_named(tmp_path):
    ase.io.write(tmp_path / "mixed.xyz", [bulk("Cu"), bulk("Ag")], format="extxyz")
    options = ["--calculator", "emt", "--source", "seeds:mixed.xyz", "--relaxations", "1", "--workers", "1"]
    output = hybridcsp("search", "Cu", *options, "--refine", "0", cwd=tmp_path).stdout
    assert "seeds: 1 structures are of no use" in output
    assert "mixed.xyz, frame 1: Ag is not a whole number of Cu" in " ".join(output.split())


@pytest.mark.parametrize("command", ["search", "resume", "show", "export", "compare"])
def test_help_has_examples(tmp_path, command):
    output = hybridcsp(command, "--help", cwd=tmp_path).stdout
    assert f"hybridcsp {command}" in output


def test_lists_name_what_can_be_used(tmp_path):
    assert "chgnet" in hybridcsp("calculators", cwd=tmp_path).stdout
    assert "seeds" in hybridcsp("sources", cwd=tmp_path).stdout
    assert "soft-mutation" in hybridcsp("operators", cwd=tmp_path).stdout
    assert "uspex" in hybridcsp("formats", cwd=tmp_path).stdout
    assert hybridcsp("--version", cwd=tmp_path).stdout.startswith("hybridcsp ")


def test_help_needs_none_of_the_heavy_packages(tmp_path):
    heavy = "{'torch', 'ase', 'pymatgen', 'scipy'}"
    script = f"import sys; from hybridcsp.cli import app; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


def test_ctrl_c_ends_with_a_summary_and_a_directory_to_resume(tmp_path):
    command = [sys.executable, "-m", "hybridcsp", "search", "Cu8", "--formula-units", "1", "--calculator", "emt"]
    process = subprocess.Popen(
        [*command, "--relaxations", "100000", "--workers", "1"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "Cu8" / "workers" / "worker-1.log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(3)
    process.send_signal(2)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "hybridcsp resume Cu8" in output
    assert "relaxations," in output
