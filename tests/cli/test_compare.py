"""``hybridcsp compare``, and what configuration files of others may not do."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time

import ase.io
import command_line
import psutil
import pytest
from ase.build import bulk

COPPER = ["compare", "Cu", "--calculator", "emt", "--max-atoms", "2", "--strategy", "random"]


def hybridcsp(*arguments, cwd, **environment):
    return command_line.hybridcsp(*arguments, cwd=cwd, check=False, **environment)


@pytest.mark.slow
def test_comparison_names_inactive_sources(tmp_path):
    line = [*COPPER, "--strategy", "random+evolution", "--seeds", "1", "--relaxations", "2", "--directory", "duel"]
    done = hybridcsp(*line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = " ".join(done.stdout.split())
    assert "no interval: one seed" in printed
    assert (
        "evolution contributed 0 of 2 relaxations (it starts after 6 minima); this compares random with random."
        in printed
    )
    assert "relaxed identical candidates in 1 of 1 run" in printed

    again = hybridcsp(*line, "--json", cwd=tmp_path)
    content = json.loads(again.stdout)
    assert "0 relaxations to do" in again.stderr
    assert content == json.loads((tmp_path / "duel" / "comparison.json").read_text())
    assert (content["rows"][1]["ratio"], content["rows"][1]["ratio_low"]) == (1.0, None)
    assert content["rows"][1]["shares"][1] == {"source": "evolution", "relaxations": 0, "share": 0.0, "random": 0}
    assert content["same_runs"] == [{"strategies": ["random", "random+evolution"], "runs": 1, "of": 1}]
    assert len(content["notes"]) == 2

    rows = list(csv.DictReader(io.StringIO(hybridcsp(*line, "--csv", cwd=tmp_path).stdout)))
    assert [row["strategy"] for row in rows] == ["random", "random+evolution"]
    assert rows[1]["ratio_low"] == ""


@pytest.mark.slow
def test_systems_are_compared_by_the_phases_on_their_hull(tmp_path):
    options = ["--composition-grid", "2", "--max-atoms", "2", "--seeds", "1", "--relaxations", "4", "--json"]
    line = [
        "compare",
        "Cu-Au",
        "--calculator",
        "emt",
        *options,
        "--strategy",
        "random",
        "--strategy",
        "separate:random",
    ]
    done = hybridcsp(*line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 runs of 4 relaxations" in done.stderr
    content = json.loads(done.stdout)
    assert [run["relaxations"] for run in content["runs"]] == [4, 4]
    assert set(content["phases_ev_per_atom"]["Cu-Au"]) >= {"Cu", "Au"}
    assert [row["found"] for row in content["rows"]] == [2, 2]
    # CuAu is not on the hull of so few relaxations: the elements alone have no distance whose ratio could be told.
    assert {row["area_ratio"] for row in content["rows"]} == {None}
    assert (tmp_path / "comparison" / "comparison.png").exists()

    again = hybridcsp(*line, cwd=tmp_path)
    assert "0 relaxations to do" in again.stderr
    assert json.loads(again.stdout)["runs"] == content["runs"]


@pytest.mark.slow
def test_exhausted_strategy_does_not_look_cheap(tmp_path):
    ase.io.write(tmp_path / "bcc.extxyz", bulk("Cu", "bcc", a=2.9))
    options = ["--strategy", "seeds:bcc.extxyz", "--seeds", "1", "--relaxations", "4", "--target", "-1000", "--json"]
    done = hybridcsp(*COPPER, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    random, seeds = content["rows"]
    assert seeds["mean_force_calls"] == random["mean_force_calls"] == content["runs"][0]["force_calls"]
    assert content["runs"][1]["relaxations"] == 1
    assert "1 of 1 runs ended early without success (sources exhausted)" in content["notes"][0]
    assert (seeds["ratio"], seeds["no_interval"], seeds["p_value"]) == (None, "nothing was solved", None)


@pytest.mark.slow
def test_terminated_comparison_can_be_continued(tmp_path):
    line = [*COPPER, "--seeds", "1", "--relaxations", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "hybridcsp", *line], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    database = tmp_path / "comparison" / "Cu" / "random" / "seed-0" / "search.db"
    end = time.monotonic() + 60
    while not database.exists() or len(psutil.Process(process.pid).children(recursive=True)) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted. Continue with the same command." in output
    assert not [child for child in started if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["compare", "Cu", "Cu.toml", "--strategy", "random"], "a name other than Cu"),
        ([*COPPER, "--seeds", "0"], "--seeds = '0' is not valid: it must be a whole number from 1"),
        ([*COPPER, "--strategy", "random+seeds:nothing.cif"], "no such file or folder"),
        ([*COPPER, "--strategy", "shake"], "cannot run alone; add another source"),
        (["compare", "Cu", "Cu-Au", "--strategy", "random"], "each needs a comparison of its own"),
        (["compare", "Cu-Au", "--strategy", "random", "--target", "-3"], "give known phases with --reference FILE"),
        ([*COPPER, "--reference", "known.cif"], "known phases are those of chemical systems"),
        ([*COPPER, "--target", "low"], "an enthalpy in eV/atom"),
        ([*COPPER, "--target", "nan"], "an enthalpy in eV/atom"),
        ([*COPPER, "--json", "--csv"], "cannot be combined"),
        ([*COPPER, "--pressure", "5furlong", "--fmax", "-1"], "has 2 mistakes: --pressure"),
        (
            [*COPPER, "--hours", "3"],
            "unknown option --hours: a comparison sets strategies (--strategy)",
        ),
    ],
)
def test_mistakes_are_reported_before_computing(tmp_path, arguments, expected):
    (tmp_path / "Cu.toml").write_text('problem.formula = "Cu"\n')
    done = hybridcsp(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert expected in " ".join(done.stderr.replace("│", " ").split())
    assert [file.name for file in tmp_path.iterdir()] == ["Cu.toml"]


def test_ignored_keys_of_file_are_named(tmp_path):
    (tmp_path / "Cu.toml").write_text(
        'problem.formula = "Cu"\nbudget = {force_calls = 10, stop_after_failures = 3}\n'
        'search = {seed = 3, calculator = "emtt"}\n'
    )
    done = hybridcsp("compare", "Cu.toml", "--strategy", "random", cwd=tmp_path)
    assert "Cu.toml: budget.force_calls, search.seed ignored" in done.stdout
    assert "did you mean 'emt'" in done.stderr


@pytest.mark.parametrize("command", ["search", "compare", "resume", "show"])
def test_code_named_in_file_needs_trust(tmp_path, command):
    """Not even the package that a submodule lies in."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text("open('RAN', 'w').close()\n")
    (tmp_path / "theirs" / "inner.py").write_text("from ase.calculators.emt import EMT as make\n")
    tables = (
        '[problem]\nformula = "Cu"\nmax_atoms = 2\n[search]\ncalculator = "theirs.inner:make"\nsources = ["random"]\n'
    )
    (tmp_path / "Cu.toml").write_text(tables + "[budget]\nrelaxations = 1\nrefine = 0\n")
    path = {"PYTHONPATH": os.pathsep.join([".", *filter(None, [os.environ.get("PYTHONPATH")])])}
    arguments = {
        "search": ["search", "Cu.toml"],
        "compare": ["compare", "Cu.toml", "--strategy", "random"],
        "resume": ["resume", "Cu", "--relaxations", "5"],
        "show": ["show", "Cu"],
    }[command]
    if command in ("resume", "show"):
        assert hybridcsp("search", "Cu.toml", "--trust", "--workers", "1", cwd=tmp_path, **path).returncode == 0
        (tmp_path / "RAN").unlink()
    done = hybridcsp(*arguments, cwd=tmp_path, **path)
    assert not (tmp_path / "RAN").exists()
    if command != "show":
        assert done.returncode == 2
        assert "add --trust" in done.stderr
