"""What the package is for, with a real potential."""

import subprocess
import sys

import ase.io
import pytest

from hybridcsp.structure.symmetry import SYMPREC_LOOSE, spacegroup

#: Space groups of rutile, anatase, brookite, TiO2-II, baddeleyite and TiO2(B), which is the lowest by CHGNet.
KNOWN_TITANIA = {136, 141, 61, 60, 14, 12}


@pytest.mark.slow
def test_search_for_titania_finds_known_polymorph(tmp_path):
    command = [
        sys.executable,
        "-m",
        "hybridcsp",
        "search",
        "TiO2",
        "--relaxations",
        "8",
        "--refine",
        "2",
        "--seed",
        "0",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Minima of TiO2" in done.stdout
    best = ase.io.read(tmp_path / "TiO2" / "minima.extxyz", 0)
    assert spacegroup(best, SYMPREC_LOOSE) in KNOWN_TITANIA
    assert best.info["enthalpy_per_atom"] < -9.35


@pytest.mark.slow
def test_random_search_alone_finds_rock_salt(tmp_path):
    command = [sys.executable, "-m", "hybridcsp", "search", "NaCl", "--formula-units", "1", "--source", "random"]
    done = subprocess.run(
        [*command, "--relaxations", "15", "--refine", "1"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    best = ase.io.read(tmp_path / "NaCl" / "minima.extxyz", 0)
    assert spacegroup(best, SYMPREC_LOOSE) == 225
