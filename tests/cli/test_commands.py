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
from typer.testing import CliRunner

from hybridcsp import config
from hybridcsp.cli.app import app
from hybridcsp.cli.options import SETTINGS
from hybridcsp.cli.settings_command import further_keys
from hybridcsp.config.errors import keys_of
from hybridcsp.sources.registry import DEFAULT_SOURCES


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
        (["search", "TiO2", "--workers", "0"], "--workers = '0': a number from 1"),
        (["search", "TiO2", "--relaxations", "0"], "relaxations = 0"),
        (["search", "TiO2", "--stop-at", "nothing.cif"], "a structure file that exists"),
        (["search", "TiO2", "--stop-at", "silver.cif"], "a crystal of TiO2, not Ag"),
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
        (["compare", "TiO2", "--strategy", "random", "--target", "silver.cif"], "a crystal of TiO2, not Ag"),
        (["compare", "TiO2", "--strategy", "random", "--imported", "nowhere"], "no search.db"),
        (["search", "tio2"], "did you mean 'TiO2'"),
        (["search", "TiO2", "--calculator", "VASP"], "ase.calculators.vasp.Vasp"),
        (["search", "TiO2", "--calculator", "mace-mp"], "mace:medium is MACE-MP-0"),
        (["search", "TiO2", "--hours", "8x"], "known units: h, min, s, d"),
        (["search", "TiO2", "--min-distance", "Ti=1.7"], "A-B with A and B among Ti, O"),
        (["search", "TiO2", "--min-distance", "1.7"], "such as Ti-O=1.7"),
        (["search", "TiO2", "--spacegroup", "231"], "numbers from 1 to 230"),
        (["search", "TiO2", "--volume-per-atom", "14"], "joined by a dash"),
        (["search", "TiO2", "--volume-per-atom", "-3"], "'-3': two numbers in Å^3, joined by a dash"),
        (["search", "TiO2", "--cell", "4,4,4"], "six numbers"),
        (["search", "TiO2", "--magmom", "Fe=5"], "--magmom Fe = 5.0: an element of TiO2"),
        (["search", "TiO2", "--presure", "5"], "did you mean '--pressure'"),
        (["search", "TiO2", "--max-force", "0.1"], "did you mean --fmax"),
        (["search", "TiO2", "--replay-data", "x"], "can be set in the table [retraining]"),
        (["search", "TiO2", "--nonsense", "x"], "Further settings are available in a TOML file"),
        (["search", "TiO2", "--formula-units", "8"], "add --max-atoms 24"),
        (["search", "TiO2", "--source", "seeds:gone.cif"], "--source = 'seeds:"),
        (["search", "NaCl", "--spacegroup", "225", "--formula-units", "3"], "--spacegroup = (225,)"),
        (["search", "silver.cif"], "--source seeds:silver.cif"),
        (["search", "."], "hybridcsp resume ."),
        (["search", "TiO2.toml"], "to search for this formula: hybridcsp search TiO2"),
        (["TiO2", "--pressure", "5"], "did you mean hybridcsp search TiO2 --pressure 5"),
        (["serch", "TiO2"], "did you mean 'search'"),
        (["--pressure", "5", "search", "TiO2"], "options of a command must come after the command"),
        (["show", "TiO2", "--top", "few"], "'--top': a whole number"),
        (["search"], "Missing argument"),
        (["watch", "Cu"], "watch needs the folder of exactly one code"),
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


def test_everyday_options_reach_the_configuration(tmp_path):
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


def test_resume_takes_more_of_any_amount_instead_of_what_was_planned(finished):
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


def test_an_unknown_export_format_is_refused(finished):
    folder, _ = finished
    done = hybridcsp("export", "Cu", "--format", "cief", cwd=folder, check=False)
    assert done.returncode == 2
    assert "did you mean 'cif'" in done.stderr
    done = hybridcsp("export", "Cu", "--format", "vasp", cwd=folder, check=False)
    assert done.returncode == 2
    assert "files that end in .vasp have the format poscar" in done.stderr


def test_an_option_that_does_not_exist_is_said_without_an_empty_hint(tmp_path):
    done = hybridcsp("export", "Cu", "--nonsense", cwd=tmp_path, check=False)
    assert "unknown option --nonsense\n" in done.stderr


def test_a_directory_that_holds_a_search_is_not_searched_anew(finished):
    folder, _ = finished
    done = hybridcsp("search", "Cu", "--calculator", "emt", cwd=folder, check=False)
    assert done.returncode == 2
    assert "hybridcsp resume Cu" in done.stderr


def test_commands_to_go_on_with_can_be_pasted_and_no_file_is_named_that_is_not_there(tmp_path):
    options = ["--calculator", "emt", "--source", "random", "--relaxations", "1", "--workers", "1"]
    done = hybridcsp("search", "Ti", *options, "--directory", "of titanium", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "minima.extxyz" not in done.stdout
    assert "No EMT-potential for Ti" in " ".join(done.stdout.split())
    assert "none of 1 relaxations has succeeded" in done.stderr
    assert str(tmp_path / "of titanium" / "workers") in done.stderr
    again = hybridcsp("search", "Ti", *options, "--directory", "of titanium", cwd=tmp_path, check=False)
    assert "hybridcsp resume '" in again.stderr


def test_a_search_that_relaxes_nothing_says_what_was_wrong_with_the_proposals(tmp_path):
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


def test_a_search_in_which_everything_fails_ends_early_in_words(tmp_path):
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


def test_seeds_that_are_of_no_use_are_named(tmp_path):
    ase.io.write(tmp_path / "mixed.xyz", [bulk("Cu"), bulk("Ag")], format="extxyz")
    options = ["--calculator", "emt", "--source", "seeds:mixed.xyz", "--relaxations", "1", "--workers", "1"]
    output = hybridcsp("search", "Cu", *options, "--refine", "0", cwd=tmp_path).stdout
    assert "seeds: 1 structure cannot be used" in output
    assert "mixed.xyz, frame 1: Ag is not a whole number of Cu" in " ".join(output.split())


COMMANDS = [
    *("search", "resume", "compare", "watch", "show", "export", "generators", "train", "sample", "evaluate"),
    *("import", "formats", "calculators", "sources", "operators"),
]


def test_help_lists_the_commands_in_the_order_of_their_use(tmp_path):
    lines = hybridcsp("--help", cwd=tmp_path).stdout.splitlines()
    listed = [line.split()[1] for line in lines if line.startswith("│ ") and line[2].isalpha()]
    assert listed == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal_and_has_examples(command, monkeypatch):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0, done.output
    assert f"hybridcsp {command}" in done.output.split("Usage")[1].split("Examples")[-1]
    assert max(map(len, done.output.splitlines())) <= 80


def test_help_of_search_shows_the_defaults_of_the_configuration(monkeypatch):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    output = " ".join(CliRunner().invoke(app, ["search", "--help"]).output.replace("│", " ").split())
    configuration = config.parse({"problem": {"formula": "Cu"}}, "nowhere")
    for flag, default in (
        ("--formula-units", "1-4"),
        ("--max-atoms", configuration.problem.max_atoms),
        ("--calculator", configuration.search.calculator),
        ("--source", ", ".join(configuration.search.sources)),
        ("--fmax", configuration.relaxation.max_force),
        ("--max-steps", configuration.limits.force_calls),
        ("--relaxations", configuration.budget.relaxations),
        ("--workers", "one per core"),
    ):
        after = output.split(f" {flag} ", 1)[1].split(" --", 1)[0]
        assert f"[default: {default}]" in after, flag


def test_every_key_of_the_configuration_has_an_option_or_is_named_by_help():
    keys = {
        f"{table}.{key}" for table in config.Configuration.model_fields for key in keys_of(config.Configuration, table)
    }
    options = {setting.key for setting in SETTINGS}
    assert options < keys
    further = further_keys()
    for key in keys - options - {"problem.formula"}:
        assert key.split(".")[1] in further


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
