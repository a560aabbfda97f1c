"""Every script in examples/ runs as it stands, and so does the README's Python."""

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.espresso import Espresso, EspressoProfile
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from command_line import run_script

from hybridcsp import Archive

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
#: Arguments for scripts that would take minutes.
SHORT = {"01_five_lines.py": ["4"], "12_quantum_espresso.py": ["2"], "06_two_levels.py": ["emt", "lj"]}

#: Packages that scripts need beside ours.
NEEDED = {"11_ase_ga_database.py": "ase_ga", "10_ase_ga_operator.py": "ase_ga", "13_dask_executor.py": "distributed"}

#: What scripts print when the thing that they are about has really taken part.
TAKES_PART = {
    "10_ase_ga_operator.py": r"ase-ga-rattle +[1-9]\d* relaxed(?s:.*)|ase-ga-cut-and-splice +[1-9]\d* relaxed",
    "02_ask_and_tell.py": r"^\d+ -?\d\.\d+ \d+$",
    "04_compare_with_random.py": r"random\+prototypes: 3 of 3 runs solved; relaxations: \d+ by random, [1-9]",
    "05_continue_from_ase_db.py": r" added (?s:.*) seeds ",
    "09_custom_generator.py": r"version 1, from \d+ examples(?s:.*)^[1-9]\d* of \d+ candidates are of trained versions",
    "08_custom_operator.py": r"slip made [1-9]\d* of 24 relaxations",
    "07_custom_source.py": r"strained: [1-9]\d* relaxed, [1-9]\d* new minima",
    "13_dask_executor.py": r"10 relaxations on 2 workers",
    "15_chemical_system.py": r"^on the hull: Cu .*CuAu.* Au$(?s:.*)^(Cu|Au) +\d\.\d meV/atom +\d+ known",
    "16_training_data.py": r"^[1-9]\d* of 12 relaxed(?s:.*)made by hybridcsp dataset convert",
    "17_predictor.py": r"(?s)^held-out error: .*\(no Ag was learned\).*eV/atom, predicted -?\d",
    "06_two_levels.py": r"^1\. +-\d+\.\d{4} eV/atom, space group +\d+; was \d\b",
}


@pytest.fixture
def espresso(tmp_path):
    """Return a folder with a pw.x that only this test has, and an empty pseudopotential."""
    folder = tmp_path / "espresso"
    folder.mkdir()
    program = (ROOT / "tests" / "fake_pw.py").read_text()
    (folder / "pw.x").write_text(f"#!{sys.executable} -IS\n{program}")
    (folder / "pw.x").chmod(0o755)
    (folder / "Si.pz-vbc.UPF").touch()
    return folder


def run(script, cwd, *arguments, **environment):
    return run_script(ROOT / "examples" / script, *arguments, cwd=cwd, **environment)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_example(script, tmp_path, espresso):
    if script in NEEDED and find_spec(NEEDED[script]) is None:
        pytest.skip(f"{NEEDED[script]} is not installed")
    path = f"{espresso}{os.pathsep}{os.environ['PATH']}"
    done = run(script, tmp_path, *SHORT.get(script, []), PATH=path, ESPRESSO_PSEUDO=str(espresso))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    databases = list(tmp_path.rglob("search.db"))
    assert databases
    for database in databases:
        assert ase.db.connect(database).count("event=relaxed") > 0
    if script == "11_ase_ga_database.py":
        _check_ase_ga(script, tmp_path, done.stdout)
    if script in TAKES_PART:
        assert re.search(TAKES_PART[script], done.stdout, re.MULTILINE), done.stdout
    if script == "04_compare_with_random.py":
        assert "not independent evidence" not in done.stdout
        assert "this compares" not in done.stdout
    if script == "06_two_levels.py":
        _check_two_levels(tmp_path, done.stdout)
    if script == "05_continue_from_ase_db.py":
        with Archive(tmp_path / "copper") as archive:
            assert archive.state.tallies["basin-hopping", "hop"].relaxed > 0


def _check_two_levels(folder, printed):
    """The second calculator relaxes the best minima of the first, and ranks them by its own energies."""
    lines = printed.splitlines()
    with Archive(folder / "two-levels") as archive:
        (level,) = archive.state.follow_ups.levels
        assert (archive.state.calculator.split()[0], level.label.split()[0]) == ("emt", "lj")
        assert archive.state.relaxations == 10
        assert level.results >= len(lines) >= 2
        followed = [minimum for minimum in archive.final_minima() if minimum.follow_ups]
        energies = [minimum.final.enthalpy_per_atom for minimum in followed]
    assert energies == sorted(energies)
    for minimum, line in zip(followed, lines, strict=True):
        assert f"{minimum.final.enthalpy_per_atom:.4f}" in line
        assert re.search(rf"was {minimum.search_rank}\b", line)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Put a srun on the PATH that notes its options and runs what it is given."""
    (tmp_path / "bin").mkdir()
    srun = tmp_path / "bin" / "srun"
    srun.write_text('#!/bin/bash\necho "$@" >> srun.log\nwhile [[ $1 == -* ]]; do shift; done\nexec "$@"\n')
    program = tmp_path / "bin" / "hybridcsp"
    program.write_text(f'#!/bin/bash\nexec {sys.executable} -P -m hybridcsp "$@"\n')
    for file in (srun, program):
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")

    def submit(*arguments):
        command = ["bash", str(ROOT / "examples" / "14_slurm.sbatch"), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return submit


@pytest.mark.slow
def test_the_slurm_script_goes_on_when_it_is_submitted_again(tmp_path, slurm):
    line = ["Cu", "--calculator", "emt", "--formula-units", "1-2", "--source", "random", "--relaxations", "3"]
    assert slurm(*line).returncode == 0
    with Archive(tmp_path / "Cu") as archive:
        assert archive.state.relaxations == 3
    assert slurm(*line).returncode == 0
    with Archive(tmp_path / "Cu") as archive:
        assert (archive.state.relaxations, len(archive.state.settings)) == (3, 2)
    first, second = (tmp_path / "srun.log").read_text().splitlines()
    assert " hybridcsp search Cu " in first
    assert first.endswith("--directory Cu --workers 1")
    assert second.endswith(" hybridcsp resume Cu --workers 1")


def test_the_slurm_script_is_sound():
    script = ROOT / "examples" / "14_slurm.sbatch"
    assert subprocess.run(["bash", "-n", script], capture_output=True, check=False).returncode == 0
    options = re.findall(r"^#SBATCH (--\S+)", script.read_text(), re.MULTILINE)
    assert "--nodes=1" in options
    assert any(option.startswith("--signal=TERM@") for option in options)


def _check_ase_ga(script, folder, printed):
    """What is in the database is what ase-ga asks for; a second run adds nothing."""
    rows = list(ase.db.connect(folder / "cuau-ga.db").select("hybridcsp"))
    assert len(rows) > 2
    for row in rows:
        assert row.numbers.tolist() == [29, 29, 79, 79]
        assert (row.gaid, row.relaxed, row.extinct) == (row.id, 1, 0)
        assert row.raw_score == pytest.approx(-row.energy)
        assert row.origin.startswith("hybridcsp ")
    assert "hybridcsp" in printed
    assert run(script, folder).stdout == printed
    assert len(list(ase.db.connect(folder / "cuau-ga.db").select("hybridcsp"))) == len(rows)


@pytest.mark.parametrize("script", SCRIPTS)
def test_examples_are_short_and_say_what_they_show(script):
    text = (ROOT / "examples" / script).read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 64


def test_where_quantum_espresso_is_missing_that_is_said(tmp_path, espresso):
    done = run("12_quantum_espresso.py", tmp_path, PATH=str(tmp_path), ESPRESSO_PSEUDO=str(espresso))
    assert done.returncode == 1
    assert done.stderr.startswith("pw.x is not on the PATH: install Quantum ESPRESSO")
    done = run("12_quantum_espresso.py", tmp_path, PATH=str(espresso), ESPRESSO_PSEUDO=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith(f"Si.pz-vbc.UPF is not in {tmp_path}: set ESPRESSO_PSEUDO")
    assert not (tmp_path / "silicon").exists()


def test_the_stand_in_for_pw_x_is_a_potential(tmp_path, espresso):
    """Energy, forces and stress that ASE reads from its answers belong together."""
    rng = np.random.default_rng(0)
    silicon = bulk("Si")
    silicon.rattle(0.1, rng=rng)
    silicon.set_cell(silicon.cell.array @ (np.eye(3) + rng.normal(0, 0.05, (3, 3))), scale_atoms=True)
    silicon.calc = Espresso(
        profile=EspressoProfile(str(espresso / "pw.x"), pseudo_dir=espresso),
        directory=tmp_path / "run",
        pseudopotentials={"Si": "Si.pz-vbc.UPF"},
        input_data={"control": {"tprnfor": True, "tstress": True}, "system": {"ecutwfc": 20}},
    )
    assert silicon.get_potential_energy() < -1
    assert silicon.get_stress() == pytest.approx(calculate_numerical_stress(silicon, eps=1e-3), abs=1e-5)
    assert silicon.get_forces() == pytest.approx(calculate_numerical_forces(silicon, eps=1e-2), abs=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("pw.x") is None or not Path("/usr/share/espresso/pseudo/Si.pz-vbc.UPF").exists(),
    reason="Quantum ESPRESSO is not installed",
)
def test_the_stand_in_for_pw_x_answers_as_the_real_one(tmp_path, espresso):
    """All that ASE reads from the one it reads from the other."""
    read = []
    for program in ("pw.x", str(espresso / "pw.x")):
        silicon = bulk("Si")
        silicon.calc = Espresso(
            profile=EspressoProfile(program, pseudo_dir="/usr/share/espresso/pseudo"),
            directory=tmp_path / f"run-{len(read)}",
            pseudopotentials={"Si": "Si.pz-vbc.UPF"},
            input_data={"control": {"tprnfor": True, "tstress": True}, "system": {"ecutwfc": 12}},
        )
        silicon.get_potential_energy()
        read.append(ase.io.read(tmp_path / f"run-{len(read)}" / "espresso.pwo"))
    real, fake = read
    assert fake.positions == pytest.approx(real.positions, abs=1e-5)
    assert fake.cell.array == pytest.approx(real.cell.array, abs=1e-5)
    assert {"energy", "forces", "stress"} <= set(real.calc.results)
    for name in ("energy", "forces", "stress"):
        assert np.shape(fake.calc.results[name]) == np.shape(real.calc.results[name])


def test_the_five_lines_of_the_readme_are_the_example():
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    example = (ROOT / "examples" / "01_five_lines.py").read_text()
    assert [line for line in code.splitlines() if "run(" not in line and line not in example.splitlines()] == []


def test_every_link_in_the_documentation_leads_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
