import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_script

from hybridcsp.cli.options import SETTINGS
from hybridcsp.config.errors import keys_of
from hybridcsp.config.settings import Configuration, SystemConfiguration

ROOT = Path(__file__).parent.parent
# Builds into the folder of the script, prints the names in the reference, and fails if there is a warning.
BUILD = """
import sys
from pathlib import Path
from sphinx.application import Sphinx
folder, docs = Path(__file__).parent, Path("docs").absolute()
builder, *settings = sys.argv[1:]
settings = dict(setting.split("=") for setting in settings)
app = Sphinx(docs, docs, folder, folder / "doctrees", builder, settings, status=None, warningiserror=True)
app.build()
print(*app.env.domains.python_domain.objects, sep="\\n")
sys.exit(app.statuscode)
"""


def test_every_key_of_the_configuration_is_documented_with_its_default():
    text = (ROOT / "docs" / "user" / "configuration.md").read_text()
    tables = dict(re.findall(r"^## `\[(\w+)\]`\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    assert set(tables) == set(Configuration.model_fields)
    flags = {setting.key: setting.flag for setting in SETTINGS}
    for name in Configuration.model_fields:
        rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|", tables[name], re.MULTILINE)
        assert {key for key, _ in rows} == {*keys_of(Configuration, name), *keys_of(SystemConfiguration, name)}, name
        for key, option in rows:
            flag = (
                "argument"
                if key in ("formula", "elements")
                else f"`{flags[f'{name}.{key}']}`"
                if f"{name}.{key}" in flags
                else ""
            )
            assert option.strip() == flag, key


@pytest.mark.slow
def test_the_python_of_the_page_on_extending_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "dev" / "extending.md").read_text(), re.DOTALL)
    assert len(blocks) > 1
    script = "\n".join(blocks) + "\nprint(search.minima(1)[0].spacegroup)"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout) <= 230


@pytest.mark.slow
def test_the_python_of_the_page_on_follow_ups_runs(tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "user" / "follow-ups.md").read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ranks = [int(line.split()[1]) for line in done.stdout.splitlines()]
    assert len(ranks) == len(set(ranks)) == 3


@pytest.mark.slow
def test_documentation_has_no_warnings(tmp_path):
    """All pages are read, those of the reference from the docstrings, and all references resolved."""
    script = tmp_path / "build.py"
    script.write_text(BUILD)
    done = run_script(script, "dummy", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "hybridcsp.search.search.Search" in done.stdout.splitlines()


def test_pages_are_written_without_warnings(tmp_path):
    """The pages outside the reference: their code is highlighted and their pictures are copied now."""
    script = tmp_path / "build.py"
    script.write_text(BUILD)
    without_reference = ["extensions=myst_parser,sphinx.ext.autodoc", "exclude_patterns=_build,reference/generated"]
    done = run_script(script, "html", *without_reference, "suppress_warnings=toc", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "hybridcsp" in (tmp_path / "getting-started.html").read_text()


def test_spelling():
    done = subprocess.run(["codespell"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_docstrings_begin_with_a_statement():
    """The first line says what a thing is or does; it is no fragment or question."""
    fragments = ("What", "Who", "Of", "Whose", "Which", "How", "Where", "Whether it")
    found = []
    for file in sorted((ROOT / "hybridcsp").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = (ast.get_docstring(node) or "").split("\n")[0]
                if any(first == word or first.startswith(f"{word} ") for word in fragments):
                    found.append(f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: {first}")
    assert found == []
