"""Values of the objectives of the package for crystals with known ones, and functions of the user."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from crystals import anatase, rutile
from diffraction import measured, write_pattern

from hybridcsp.errors import InputError
from hybridcsp.objectives.registry import OBJECTIVES, build_objective


def test_density_of_copper() -> None:
    copper = bulk("Cu", "fcc", 3.615)
    assert build_objective("density").value(copper) == pytest.approx(8.935, abs=0.01)
    assert build_objective("volume_per_atom").value(copper) == pytest.approx(3.615**3 / 4)


def test_magnetic_moment_is_that_of_the_cell() -> None:
    iron = bulk("Fe", cubic=True)
    iron.calc = SinglePointCalculator(iron, energy=0.0, magmoms=np.array([2.5, -1.5]))
    assert build_objective("magnetic_moment").value(iron) == pytest.approx(0.5)
    iron.calc = SinglePointCalculator(iron, energy=0.0)
    with pytest.raises(PropertyNotImplementedError):
        build_objective("magnetic_moment").value(iron)


def test_bulk_modulus_is_the_curvature_of_the_energy() -> None:
    copper = bulk("Cu", "fcc", 3.6)
    copper.calc = EMT()
    scales = np.linspace(0.985, 1.015, 7)
    volumes, energies = [], []
    for scale in scales:
        strained = bulk("Cu", "fcc", 3.6 * scale)
        strained.calc = EMT()
        volumes.append(strained.get_volume())
        energies.append(strained.get_potential_energy())
    curvature = 2 * np.polyfit(np.array(volumes) - copper.get_volume(), energies, 3)[1]
    expected = copper.get_volume() * curvature / units.GPa
    assert build_objective("bulk_modulus").value(copper) == pytest.approx(expected, rel=0.01)


def test_bulk_modulus_relaxes_the_positions() -> None:
    displaced = bulk("Cu", "fcc", 3.6, cubic=True)
    displaced.positions[1:] += [[0.06, 0.0, 0.0], [0.0, -0.05, 0.0], [0.0, 0.0, 0.04]]
    displaced.calc = EMT()
    regular = bulk("Cu", "fcc", 3.6)
    regular.calc = EMT()
    modulus = build_objective("bulk_modulus")
    assert modulus.value(displaced) == pytest.approx(modulus.value(regular), rel=0.02)


def test_a_function_of_a_file_is_an_objective(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("FACTOR = 2\n")
    file = tmp_path / "own.py"
    file.write_text("from beside import FACTOR\ndef atoms_twice(atoms):\n    return FACTOR * len(atoms)\n")
    built = build_objective(f"{file}:atoms_twice", {"unit": "atoms"})
    assert (built.value(bulk("Cu")), built.unit) == (2, "atoms")
    assert build_objective("operator:length_hint").value(bulk("Cu")) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{folder}/own.py:gpa", "did you mean 'gap'"),
        ("{folder}/nowhere.py:gap", "there is no file"),
        ("{folder}/own.py:number", "is not a function, but of the type int"),
        ("{folder}/broken.py:gap", "cannot be imported: SyntaxError"),
        ("{folder}/leaves.py:gap", "cannot be imported: SystemExit"),
        ("no_such_module:gap", "there is no Python module 'no_such_module'"),
        ("density:3:max", "takes no argument"),
    ],
)
def test_functions_that_cannot_be_used_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.py").write_text("number = 3\ndef gap(atoms):\n    return 1.0\n")
    (tmp_path / "broken.py").write_text("def gap(:\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(InputError, match=message):
        build_objective(text.format(folder=tmp_path))


def test_every_registered_objective_can_be_built_and_has_a_unit() -> None:
    for name in ("density", "volume_per_atom", "magnetic_moment", "bulk_modulus"):
        assert name in OBJECTIVES.entries()
        assert build_objective(name).unit


def test_similarity_to_a_powder_pattern(tmp_path: Path) -> None:
    file = write_pattern(measured(rutile(), size=0.015), tmp_path / "pattern.xy")
    objective = build_objective(f"xrd:{file}", {"wavelength": "CuKa"})
    assert objective.natural_goal == "max"
    assert objective.value(rutile()) > 0.95 > objective.value(anatase())
    unadjusted = build_objective(f"xrd:{file}", {"wavelength": 1.54184, "cell_change": 0})
    assert unadjusted.value(rutile()) < 0.8


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("xrd", {}, "it needs a measured pattern: xrd:pattern.xy"),
        ("xrd:nothing.xy", {}, "nothing.xy"),
        ("xrd:nothing.xy", {"wavelength": "CuKq"}, "CuKa"),
        ("xrd:nothing.xy", {"axis": "angle"}, "one of two-theta, q, d"),
    ],
)
def test_powder_pattern_that_cannot_be_used_is_refused(text: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_objective(text, options)
