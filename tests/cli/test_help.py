"""Tests of the help and of the lists of names."""

import subprocess
import sys

import pytest
from command_line import hybridcsp
from typer.testing import CliRunner

from hybridcsp import config
from hybridcsp.cli.app import app
from hybridcsp.cli.options import SETTINGS
from hybridcsp.cli.settings_command import further_keys
from hybridcsp.config.errors import keys_of

COMMANDS = [
    *(
        "search",
        "resume",
        "refine",
        "compare",
        "watch",
        "show",
        "hull",
        "front",
        "xrd",
        "export",
        "dataset",
        "generators",
        "predictors",
        "train",
        "sample",
        "predict",
        "evaluate",
        "design",
        "potential",
    ),
    *("import", "formats", "calculators", "sources", "operators", "objectives", "executors"),
]

DATASET = ["substitute", "augment", "relax", "convert", "from-search", "card"]

ENVIRONMENTS = ["install", "environments", "remove", "check", "template"]


def test_help_lists_commands_in_order(tmp_path):
    lines = hybridcsp("--help", cwd=tmp_path).stdout.splitlines()
    listed = [line.split()[1] for line in lines if line.startswith("│ ") and line[2].isalpha()]
    assert listed == COMMANDS


@pytest.mark.parametrize(
    "command",
    [
        *COMMANDS,
        *(f"calculators {name}" for name in ENVIRONMENTS),
        *(f"dataset {name}" for name in DATASET),
        "potential train",
        "potential search",
    ],
)
def test_help_fits_terminal_and_has_examples(command, monkeypatch):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    done = CliRunner().invoke(app, [*command.split(), "--help"])
    assert done.exit_code == 0, done.output
    assert f"hybridcsp {command}" in done.output.split("Usage")[1].split("Examples")[-1]
    assert max(map(len, done.output.splitlines())) <= 80


def test_help_shows_defaults_of_configuration(monkeypatch):
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


def test_every_key_has_option_or_is_named():
    keys = {
        f"{table}.{key}"
        for model in (config.Configuration, config.SystemConfiguration)
        for table in model.model_fields
        for key in keys_of(model, table)
    }
    options = {setting.key for setting in SETTINGS}
    assert options < keys
    further = further_keys()
    for key in keys - options - {"problem.formula", "problem.elements"}:
        assert key.split(".")[1] in further


def test_lists_contain_names(tmp_path):
    assert "chgnet" in hybridcsp("calculators", cwd=tmp_path).stdout
    assert "seeds" in hybridcsp("sources", cwd=tmp_path).stdout
    assert "soft-mutation" in hybridcsp("operators", cwd=tmp_path).stdout
    assert "uspex" in hybridcsp("formats", cwd=tmp_path).stdout
    assert hybridcsp("--version", cwd=tmp_path).stdout.startswith("hybridcsp ")


def test_help_imports_no_heavy_package(tmp_path):
    heavy = "{'torch', 'ase', 'pymatgen', 'scipy'}"
    script = f"import sys; from hybridcsp.cli import app; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
