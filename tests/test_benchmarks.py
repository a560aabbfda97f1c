"""Benchmarks start: each prints its help, and every name that it imports from the package or another one is there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

# All benchmarks in one process, because most of their imports are the same. It prints what is wrong.
CHECK = """
import ast
import contextlib
import importlib
import importlib.util
import io
import runpy
import sys
from pathlib import Path

benchmarks = Path(sys.argv[1])
sys.path.insert(0, str(benchmarks))
own = {"hybridcsp", *(file.stem for file in benchmarks.iterdir())}
files = sorted((*benchmarks.glob("*.py"), *benchmarks.glob("peers/*.py")))
print("checked", len(files))

for file in files:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            wanted = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            wanted = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        for module, name in wanted:
            if module.split(".")[0] not in own:
                continue
            try:
                found = importlib.import_module(module)
            except ModuleNotFoundError as error:
                if error.name.split(".")[0] in own:
                    print(f"{file.name}: {error}")
                continue  # a library that only a peer's own environment has
            except ImportError as error:
                print(f"{file.name}: {error}")
                continue
            is_module = hasattr(found, "__path__") and importlib.util.find_spec(f"{module}.{name}")
            if name is not None and not hasattr(found, name) and not is_module:
                print(f"{file.name}: {module} has no {name}")

for file in files:
    if file.parent != benchmarks or "ArgumentParser" not in file.read_text():
        continue
    sys.argv = [str(file), "--help"]
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            runpy.run_path(str(file), run_name="__main__")
    except SystemExit as end:
        if end.code or not output.getvalue().startswith("usage:"):
            print(f"{file.name} --help ended with {end.code} and: {output.getvalue()[:200]}")
    except Exception as error:
        print(f"{file.name} --help: {type(error).__name__}: {error}")
    else:
        print(f"{file.name} --help went on without an end")
"""


def problems_of(benchmarks):
    root = str(BENCHMARKS.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", CHECK, benchmarks], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    checked, *problems = done.stdout.splitlines()
    assert int(checked.split()[1]) > 0
    return problems


def test_every_benchmark_starts():
    assert problems_of(BENCHMARKS) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("def f():\n    from hybridcsp.core.records import Nothing\n", "hybridcsp.core.records has no Nothing"),
        ("import hybridcsp.nothing\n", "No module named 'hybridcsp.nothing'"),
        ("from argparse import ArgumentParser\n1 / 0\n", "ZeroDivisionError"),
        ("from argparse import ArgumentParser\n", "went on without an end"),
    ],
)
def test_a_benchmark_that_does_not_start_is_noticed(tmp_path, text, problem):
    (tmp_path / "broken.py").write_text(text)
    (found,) = problems_of(tmp_path)
    assert found.startswith("broken.py")
    assert problem in found
