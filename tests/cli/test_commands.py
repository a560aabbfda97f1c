"""Tests of the commands search, resume, show and export on a finished search."""

import subprocess
import sys
import time
import tomllib

import ase.db
import ase.io
import pytest
from ase import Atoms
from ase.build import bulk
from command_line import hybridcsp, in_new_interpreter
from crystals import what_happened

from hybridcsp.sources.registry import DEFAULT_SOURCES


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished search of copper in it."""
    folder = tmp_path_factory.mktemp("cli")
    ase.io.write(folder / "seed.cif", bulk("Cu", "bcc", a=2.9))
    options = ["--calculator", "emt", "--source", "random", "--source", "seeds:seed.cif", "--max-atoms", "3"]
    done = hybridcsp("search", "Cu", *options, "--relaxations", "6", "--workers", "1", cwd=folder)
    return folder, done.stdout


def test_search_ends_with_table_of_minima(finished):
    _, output = finished
    assert "Minima of Cu" in output
    assert "Fm-3m (225)" in output
    assert "6 relaxations" in output
    assert "relaxations used up" in output
    assert "hybridcsp show Cu" in output


def test_show_prints_table_and_plots(finished):
    folder, _ = finished
    output = hybridcsp("show", "Cu", "--top", "1", "--plot", "plots/cu.png", cwd=folder).stdout
    assert "Minima of Cu" in output
    assert "found" in output
    assert (folder / "plots" / "cu.png").read_bytes().startswith(b"\x89PNG")


def test_exported_minima_have_their_origin(finished):
    folder, _ = finished
    hybridcsp("export", "Cu", "--output", "best.extxyz", "--top", "2", cwd=folder)
    best = ase.io.read(folder / "best.extxyz", ":")
    assert len(best) <= 2
    assert {"candidate", "enthalpy_per_atom", "spacegroup", "source", "operator", "relaxation"} <= set(best[0].info)
    assert best[0].info["enthalpy_per_atom"] == pytest.approx(best[0].get_potential_energy() / len(best[0]))


def test_resume_adds_relaxations(finished):
    folder, _ = finished
    output = hybridcsp("resume", "Cu", "--relaxations", "2", cwd=folder).stdout
    assert "8 relaxations" in output


def test_config_of_run_directory_repeats_search(tmp_path):
    options = ["--calculator", "emt", "--max-atoms", "2", "--relaxations", "4", "--workers", "1", "--refine", "1"]
    hybridcsp("search", "CuAu", *options, "--directory", "first", cwd=tmp_path)
    in_new_interpreter("search", "first/config.toml", "--directory", "again", cwd=tmp_path)
    assert what_happened(tmp_path / "again") == what_happened(tmp_path / "first")


def test_own_structures_become_prototypes(tmp_path):
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


def test_templates_extend_default_sources(tmp_path):
    ase.io.write(tmp_path / "silver.cif", bulk("Ag"))
    options = ["--calculator", "emt", "--max-atoms", "2", "--relaxations", "1", "--workers", "1", "--refine", "0"]
    hybridcsp("search", "Cu", *options, "--templates", "silver.cif", cwd=tmp_path)
    written = tomllib.loads((tmp_path / "Cu" / "config.toml").read_text())
    expected = [f"prototypes:{tmp_path / 'silver.cif'}" if name == "prototypes" else name for name in DEFAULT_SOURCES]
    assert written["search"]["sources"] == expected


def test_database_opens_with_ase_db(finished):
    folder, _ = finished
    command = [sys.executable, "-m", "ase", "db", "Cu/search.db", "event=relaxed", "-c", "formula,source,spacegroup"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert "random" in done.stdout
    assert "seeds" in done.stdout


def test_options_reach_configuration(tmp_path):
    """Each of them is read, with its unit where it has one, and written down."""
    options = {
        "--spacegroup": "225,139",
        "--min-distance": "Cu-Cu=1.9Å",
        "--volume-per-atom": "9-14",
        "--magmom": "Cu=0.5",
        "--charge": "Cu=1",
        "--pressure": "10 kbar",
        "--lengths": "2-9",
        "--angles": "50-130",
        "--fmax": "80 meV/Å",
        "--smax": "5kbar",
        "--max-steps": "77",
        "--time-limit": "2min",
        "--memory-limit": "2GiB",
        "--hours": "30min",
        "--relaxations": "2",
        "--refine": "0",
        "--workers": "1",
        "--calculator": "emt",
        "--source": "random",
        "--formula-units": "1-2",
    }
    hybridcsp("search", "Cu", *(word for option in options.items() for word in option), cwd=tmp_path)
    written = tomllib.loads((tmp_path / "Cu" / "config.toml").read_text())
    problem = written["problem"]
    assert problem["spacegroups"] == [139, 225]
    assert problem["min_distances"] == {"Cu-Cu": 1.9}
    assert problem["volume_per_atom"] == [9, 14]
    assert problem["initial_magmoms"] == {"Cu": 0.5}
    assert problem["initial_charges"] == {"Cu": 1}
    assert problem["pressure_gpa"] == 1
    assert (problem["length_bounds"], problem["angle_bounds"]) == ([2, 9], [50, 130])
    assert written["relaxation"]["max_force"] == pytest.approx(0.08)
    assert written["relaxation"]["max_stress_gpa"] == pytest.approx(0.5)
    assert written["limits"] == {"force_calls": 77, "seconds": 120, "memory": 2 * 1024**3}
    assert (written["budget"]["hours"], written["budget"]["relaxations"]) == (0.5, 2)


def test_resume_replaces_limits(finished):
    folder, _ = finished
    hybridcsp("resume", "Cu", "--force-calls", "5", "--time-limit", "1min", "--stop-at", "-1e3", cwd=folder)
    written = tomllib.loads((folder / "Cu" / "config.toml").read_text())
    assert "relaxations" not in written["budget"]
    assert written["budget"]["stop_at"] == -1000
    assert written["limits"]["seconds"] == 60
    output = hybridcsp("resume", "Cu", "--hours", "2s", "--stop-at", "none", cwd=folder).stdout
    written = tomllib.loads((folder / "Cu" / "config.toml").read_text())["budget"]
    assert set(written) == {"hours", "refine", "stop_after_failures"}
    assert "time used up" in output
    done = hybridcsp("resume", "Cu", "--relaxations", "few", "--workers", "0", cwd=folder, check=False)
    assert "2 mistakes" in done.stderr


def test_unknown_export_format_suggests_formats(finished):
    folder, _ = finished
    done = hybridcsp("export", "Cu", "--format", "cief", cwd=folder, check=False)
    assert done.returncode == 2
    assert "did you mean 'cif'" in done.stderr
    done = hybridcsp("export", "Cu", "--format", "vasp", cwd=folder, check=False)
    assert done.returncode == 2
    assert "files that end in .vasp have the format poscar" in done.stderr


def test_search_refuses_directory_with_search(finished):
    folder, _ = finished
    done = hybridcsp("search", "Cu", "--calculator", "emt", cwd=folder, check=False)
    assert done.returncode == 2
    assert "hybridcsp resume Cu" in done.stderr


def test_suggested_commands_are_quoted(tmp_path):
    options = ["--calculator", "emt", "--source", "random", "--relaxations", "1", "--workers", "1"]
    done = hybridcsp("search", "Ti", *options, "--directory", "of titanium", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "minima.extxyz" not in done.stdout
    assert "No EMT-potential for Ti" in " ".join(done.stdout.split())
    assert "none of 1 relaxations has succeeded" in done.stderr
    assert str(tmp_path / "of titanium" / "workers") in done.stderr
    again = hybridcsp("search", "Ti", *options, "--directory", "of titanium", cwd=tmp_path, check=False)
    assert "hybridcsp resume '" in again.stderr


def test_search_without_relaxations_explains_rejections(tmp_path):
    options = ["--calculator", "emt", "--source", "random", "--workers", "1"]
    # Copper atoms this far apart fit into the largest volume in one packing only.
    done = hybridcsp("search", "Cu", *options, "--min-distance", "Cu-Cu=3.4", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "no acceptable proposals (no source proposed a structure; the limits: Cu-Cu at least 3.4 Å" in done.stdout
    ase.io.write(tmp_path / "dense.cif", bulk("Cu", "fcc", a=1.7))
    options = ["--calculator", "emt", "--source", "seeds:dense.cif", "--workers", "1"]
    done = hybridcsp("search", "Cu", *options, "--directory", "one", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "sources exhausted (rejected: 1 distance; the limits: 4.7 to" in done.stdout
    done = hybridcsp("search", "Cu", *options, "--source", "shake", "--directory", "two", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "no acceptable proposals (rejected: 1 distance; the limits: 4.7 to" in done.stdout


def test_search_with_only_failures_stops_early(tmp_path):
    options = ["--calculator", "emt", "--source", "random", "--workers", "1", "--max-atoms", "2"]
    done = hybridcsp("search", "Ti", *options, "--stop-after-failures", "3", cwd=tmp_path, check=False)
    assert done.returncode == 1
    words = " ".join(done.stderr.split())
    assert "none of 3 relaxations has succeeded, and 3 failed for the same reason" in words
    assert "No EMT-potential for Ti" in words
    assert "Traceback" not in words
    done = hybridcsp("resume", "Ti", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "none of 6 relaxations has succeeded, and 3 failed" in " ".join(done.stderr.split())


def test_unusable_seeds_are_named(tmp_path):
    ase.io.write(tmp_path / "mixed.xyz", [bulk("Cu"), bulk("Ag")], format="extxyz")
    options = ["--calculator", "emt", "--source", "seeds:mixed.xyz", "--relaxations", "1", "--workers", "1"]
    output = hybridcsp("search", "Cu", *options, "--refine", "0", cwd=tmp_path).stdout
    assert "seeds: 1 structure cannot be used" in output
    assert "mixed.xyz, frame 1: Ag is not a whole number of Cu" in " ".join(output.split())


def test_ctrl_c_prints_summary_and_resume_command(tmp_path):
    command = [sys.executable, "-m", "hybridcsp", "search", "Cu8", "--formula-units", "1"]
    command += ["--calculator", "ase.calculators.emt:EMT"]  # runs code that the directory names: --trust
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
    assert "hybridcsp resume Cu8 --trust" in output
    assert "relaxations," in output
