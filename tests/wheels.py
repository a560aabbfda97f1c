"""Tiny wheels, from which environments are installed without a network."""

import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

from hybridcsp.relaxation.calculators.environments import recipes

#: Packages and versions of the environment ``sevennet`` in tests.
PINNED = {"sevenn": "0.13.0", "tiny-dependency": "1.0"}


def write_wheel(folder, name, version, modules):
    """Write a wheel of pure Python that holds modules, given as a dictionary from path to source."""
    plain = name.replace("-", "_")
    information = f"{plain}-{version}.dist-info"
    files = {
        **modules,
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{information}/RECORD"])
    with zipfile.ZipFile(folder / f"{plain}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{information}/RECORD": record}.items():
            wheel.writestr(path, text)


def sevennet_wheels(folder, source=""):
    """Write wheels of a package ``sevenn`` whose module ``sevenn.calculator`` has the given source."""
    folder.mkdir(parents=True, exist_ok=True)
    write_wheel(folder, "sevenn", "0.13.0", {"sevenn/__init__.py": "", "sevenn/calculator.py": source})
    write_wheel(folder, "tiny-dependency", "1.0", {"tiny_dependency.py": ""})
    return folder


def pin_tiny_packages(folder, monkeypatch):
    """Make the recipe ``sevennet`` consist of the tiny packages."""
    folder.mkdir()
    lines = "".join(f"{name}=={version}\n" for name, version in PINNED.items())
    (folder / "sevennet.txt").write_text(f"# for tests\n{lines}")
    monkeypatch.setattr(recipes, "REQUIREMENTS", folder)


def in_another_process(folder, script, **variables):
    """Start a process that installs from the tiny packages of :func:`pin_tiny_packages` in the way of a script."""
    beginning = f"""
        import sys
        from pathlib import Path
        from hybridcsp.relaxation.calculators.environments import RECIPES, install, recipes
        recipes.REQUIREMENTS = Path({str(folder)!r})
        sys.executable = {sys.executable!r}
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(beginning) + textwrap.dedent(script)],
        env=os.environ | variables | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )
