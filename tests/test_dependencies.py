"""Parts of other packages that are used here although their documentation does not promise to keep them.

Each of these packages has an upper bound in pyproject.toml. Run these tests with a new version before raising a bound.
"""

import gzip
import inspect
import json
import re
import tomllib
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

#: Packages and the modules of hybridcsp that use their internals.
USED_BY = {
    "ase": ("archive/structure_rows.py", "relaxation/optimizer.py"),
    "chgnet": ("relaxation/calculators/chgnet.py",),
    "deap": ("sources/evolution.py",),
    "mace-torch": ("relaxation/calculators/server/mace_calculator.py",),
    "pymatgen": ("prototypes/library.py", "relaxation/calculators/chgnet_graphs.py"),
    "pyxtal": ("structure/wyckoff.py", "structure/normalizer.py", "structure/orbits.py", "structure/placement.py"),
    "typer": ("cli/app.py",),
}


def requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["mace"]]
    return {re.match(r"[\w-]+", line)[0]: line for line in lines}


@pytest.mark.parametrize("package", USED_BY)
def test_packages_with_used_internals_have_an_upper_bound(package):
    bound = re.search(r"<([\d.]+)", requirements()[package])
    assert bound, f"{package} needs an upper bound in pyproject.toml"
    installed = [int(part) for part in re.findall(r"\d+", version(package))]
    assert installed < [int(part) for part in bound[1].split(".")]
    for module in USED_BY[package]:
        assert (ROOT / "hybridcsp" / module).is_file()


def test_no_private_name_of_another_package_is_used():
    """Attributes and imports with a leading underscore are only those of this package."""
    private_import = re.compile(r"^\s*(?:from|import) (?!hybridcsp|__future__)[\w.]*\b(?:\._\w+|import .*\b_[a-z]\w*)")
    foreign = re.compile(r"\b(?:ase|spglib|pyxtal|pymatgen|chgnet|mace|torch|np|scipy|deap|tools)\.(?:\w+\.)*_[a-z]")
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in sorted((ROOT / "hybridcsp").rglob("*.py"))
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if private_import.search(line) or (foreign.search(line) and "``" not in line)
    ]
    assert found == []


def test_ase_tables_have_the_version_that_is_written_here():
    from ase.db import sqlite
    from ase.db.core import check, now, object_to_bytes

    from hybridcsp.archive import structure_rows

    assert sqlite.VERSION == structure_rows.VERSION
    assert any("CREATE TABLE systems" in statement for statement in sqlite.init_statements)
    assert all(statement.startswith("CREATE INDEX") for statement in sqlite.index_statements)
    check({"share": 0.5})
    assert now() > 0
    assert isinstance(object_to_bytes({}), bytes)


def test_ase_bfgs_has_the_methods_that_are_overridden():
    from ase.filters import UnitCellFilter
    from ase.optimize import BFGS

    assert list(inspect.signature(BFGS.update).parameters) == ["self", "pos", "forces", "pos0", "forces0"]
    assert list(inspect.signature(BFGS.initialize).parameters) == ["self"]
    assert {"cell_factor", "scalar_pressure"} <= set(inspect.signature(UnitCellFilter).parameters)


def test_pyxtal_has_the_tables_that_are_read():
    from pyxtal.lattice import Lattice
    from pyxtal.msg import VolumeError
    from pyxtal.symmetry import get_pbc_and_lattice, get_wyckoffs, letter_from_index, pyxtal_hall_numbers

    orbits = get_wyckoffs(225)
    assert (len(orbits), letter_from_index(0, orbits), letter_from_index(len(orbits) - 1, orbits)) == (12, "l", "a")
    assert get_pbc_and_lattice(225, 3)[1] == "cubic"
    assert len(pyxtal_hall_numbers) == 230
    assert issubclass(VolumeError, Exception)
    assert Lattice("cubic", 64.0, random_state=np.random.default_rng(0)).matrix.shape == (3, 3)
    for name in ("symbols", "wyckoff_sets"):
        assert json.loads(files("pyxtal").joinpath(f"database/{name}.json").read_text(encoding="utf-8"))


def test_pymatgen_brings_the_prototypes_of_aflow():
    from hybridcsp.prototypes.library import _aflow_file

    with gzip.open(_aflow_file(), "rt", encoding="utf-8") as file:
        first = json.load(file)[0]
    assert {"snl", "tags"} <= set(first)


def test_pymatgen_finds_points_within_spheres():
    from pymatgen.optimization.neighbors import find_points_in_spheres

    points, lattice, periodic = np.zeros((1, 3)), 2.5 * np.eye(3), np.ones(3, dtype=np.int64)
    centre, _, image, distance = find_points_in_spheres(points, points, r=2.6, pbc=periodic, lattice=lattice, tol=1e-8)
    assert (len(centre), len(image)) == (7, 7)
    assert sorted(distance.round(6)) == [0.0] + [2.5] * 6


def test_chgnet_has_the_internals_of_the_fast_calculator(caplog):
    from hybridcsp.relaxation.calculators.registry import build_calculator

    _, label = build_calculator("chgnet")
    assert "its own calculator" not in label
    assert not caplog.records


def test_mace_has_a_calculator_that_takes_loaded_models():
    from hybridcsp.relaxation.calculators.server.mace import mace_environment
    from hybridcsp.utils.quiet import quiet

    with quiet(), mace_environment():
        from mace.calculators import MACECalculator

    assert {"models", "device", "default_dtype"} <= set(inspect.signature(MACECalculator).parameters)


def test_deap_draws_from_python_random_numbers():
    import random

    from deap import base, tools

    class Fitness(base.Fitness):
        weights = (1.0,)

    class Individual:
        fitness = Fitness((1.0,))

    individuals = [Individual() for _ in range(4)]
    draws = []
    for _ in range(2):
        random.seed(1)
        draws.append(tools.selStochasticUniversalSampling(individuals, k=2))
    assert draws[0] == draws[1]


def test_typer_errors_have_a_common_base_class():
    import typer

    assert typer.BadParameter.__mro__[1].__name__ == "UsageError"
