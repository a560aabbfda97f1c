import io
import time
import tracemalloc

import ase.io
import numpy as np
import pytest
from crystals import random_crystal, rutile
from foreign import uspex_poscar, various, windows
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.io.vasp import Poscar

from hybridcsp.errors import InputError
from hybridcsp.io.frames import ReadFailure
from hybridcsp.io.poscar import Block, read_poscars, write_poscar
from hybridcsp.similarity import same_structure

HEAD = "TiO2\n1.0\n 4 0 0\n 0 4 0\n 0 0 4\n"


def read(tmp_path, text, elements=()):
    file = tmp_path / "POSCARS"
    file.write_bytes(text.encode())
    return list(read_poscars(file, elements))


def only(found):
    (one,) = found
    assert isinstance(one, Block), one
    return one


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), symbols=st.sampled_from(["Ti2O4", "Cu", "AuCu3", "Mg2Si2O6", "XeF2"]))
def test_written_poscars_are_read_back_by_us_ase_and_pymatgen(tmp_path_factory, seed, symbols):
    atoms = random_crystal(symbols, 12.0, np.random.default_rng(seed))
    text = write_poscar(atoms, "a title")
    back = only(read(tmp_path_factory.mktemp("poscar"), text))
    assert back.title == "a title"
    witnesses = {
        "ours": back.atoms,
        "ase": ase.io.read(io.StringIO(text), format="vasp"),
        "pymatgen": Poscar.from_str(text).structure.to_ase_atoms(),
    }
    for name, found in witnesses.items():
        assert np.allclose(found.cell, atoms.cell, atol=1e-12) or name == "ours", name
        assert abs(found.get_volume()) == pytest.approx(atoms.get_volume(), abs=1e-9), name
        assert sorted(found.symbols) == sorted(atoms.symbols), name
        assert same_distances(found, atoms), name


def same_distances(one, other):
    """All distances between periodic images agree."""
    a, b = (np.sort(x.get_all_distances(mic=True).ravel()) for x in (one, other))
    return np.allclose(a, b, atol=1e-6)


def test_all_elements_are_written_in_the_given_order():
    lines = write_poscar(rutile(), "t", ("O", "Ti", "Mg")).splitlines()
    assert lines[5].split() == ["O", "Ti", "Mg"]
    assert lines[6].split() == ["4", "2", "0"]
    assert all(len(line.split()) == 3 for line in lines[8:])  # MATLAB's str2num takes nothing behind the coordinates
    with pytest.raises(InputError, match="only Ti Mg"):
        write_poscar(rutile(), "t", ("Ti", "Mg"))


def test_windows_line_ends_cartesian_coordinates_and_selective_dynamics_are_read(tmp_path):
    plain = only(read(tmp_path, HEAD + "Ti O\n1 2\nDirect\n0 0 0\n.5 .5 0\n0 .5 .5\n")).atoms
    for mode, scale in (("Cartesian", 4), ("Selective dynamics\nkartesian", 4), ("Selective dynamics\nDirect", 1)):
        flags = " T T F" if "Selective" in mode else ""
        places = [(0, 0, 0), (0.5, 0.5, 0), (0, 0.5, 0.5)]
        rows = "".join(f"{x * scale} {y * scale} {z * scale}{flags}\n" for x, y, z in places)
        found = only(read(tmp_path, windows(HEAD + f"Ti O\n1 2\n{mode}\n{rows}"))).atoms
        assert np.allclose(found.positions, plain.positions)
        assert list(found.symbols) == ["Ti", "O", "O"]


@pytest.mark.parametrize(
    ("scale", "volume"), [("2.0", 512.0), ("-100", 100.0), ("1 2 1", 128.0)], ids=["factor", "volume", "three"]
)
def test_scale_is_a_factor_a_volume_or_three_factors(tmp_path, scale, volume):
    found = only(read(tmp_path, HEAD.replace("1.0", scale) + "Ti\n1\nDirect\n0.5 0.5 0.5\n"))
    assert found.atoms.get_volume() == pytest.approx(volume)
    assert np.allclose(found.atoms.get_scaled_positions(), 0.5)


def test_left_handed_cell_becomes_right_handed_without_changing_the_crystal(tmp_path):
    atoms = random_crystal("Ti2O4", 12.0, np.random.default_rng(3))
    left = atoms.copy()
    left.set_cell(atoms.cell.array[[1, 0, 2]])
    assert left.cell.handedness == -atoms.cell.handedness
    found = only(read(tmp_path, write_poscar(left, "left"))).atoms
    assert found.cell.handedness == 1
    assert same_structure(found, atoms)


def test_symbols_missing_in_a_poscar_are_taken_from_other_places(tmp_path):
    vasp4 = HEAD + "1 2\nDirect\n0 0 0\n.5 .5 0\n0 .5 .5\n"
    assert str(only(read(tmp_path, vasp4, ("Ti", "O"))).atoms.symbols) == "TiO2"
    assert str(only(read(tmp_path, vasp4.replace("TiO2", "Mg Cl whatever"))).atoms.symbols) == "MgCl2"
    (broken,) = read(tmp_path, vasp4)
    assert broken.line == 6
    assert "VASP 4" in broken.reason


def test_decorated_symbols_of_vasp_are_read_as_elements(tmp_path):
    found = only(read(tmp_path, HEAD + "Ti_pv O/8f2a\n1 2\nDirect\n0 0 0\n.5 .5 0\n0 .5 .5\n"))
    assert str(found.atoms.symbols) == "TiO2"


CSCL = "CsCl\n1.0\n4.0 0 0\n0 4.0 0\n0 0 4.0\nCs Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"


@pytest.mark.parametrize(
    "text",
    [
        CSCL.replace("1.0\n", "1.0  ! scale, 1 2 3\n", 1).replace("1 1\n", "1 1  # atoms\n"),
        CSCL.replace("4.0 0 0\n", "4.0D+00 0.0d0 0Q0 first vector\n").replace("0.5 0.5 0.5", ".5 5.D-1 0.05D1 Cl"),
        CSCL.replace("4.0 0 0\n", "4.0, 0, 0\n"),
        CSCL.replace("CsCl\n", "\n", 1),
        CSCL.replace("CsCl", "3 4 5"),
        CSCL.replace("Direct", "fractional, says somebody"),
        CSCL.replace("Direct", "d"),
        CSCL.replace("Direct\n", "k\n").replace("0.5 0.5 0.5", "2 2 2 T T T"),
        CSCL.replace("Direct\n", "sel\ncART\n").replace("0.5 0.5 0.5", "2 2 2 F F F"),
        CSCL.replace("Cs Cl\n", "Cs_sv_GW/1f2e Cl/9\n"),
        CSCL.replace("Cs Cl\n", "CS CL ! two\n"),
        CSCL.replace("Cs Cl\n1 1\n", "Cs\nCl\n1\n 1\n"),
        "whatever" + CSCL[4:].replace("Cs Cl\n", "").replace("0 0 0\n0.5 0.5 0.5", "0 0 0 Cs\n.5 .5 .5 Cl"),
        CSCL.replace("CsCl\n", "whatever\n")
        .replace("Cs Cl\n", "")
        .replace("Direct\n", "Selective\nDirect\n")
        .replace("0 0 0\n0.5 0.5 0.5", "0 0 0 T T F Cs\n.5 .5 .5 T T T Cl"),
        CSCL.replace("CsCl\n", "Cs Cl by VASP 4\n").replace("Cs Cl\n1", "1"),
        CSCL.replace("1.0\n", "-64\n", 1),
        CSCL.replace("1.0\n", "2 2 2 three\n", 1).replace("4.0", "2.0"),
        CSCL.replace("\n", "\r"),
        "\ufeff" + CSCL,
    ],
)  # fmt: skip
def test_poscars_that_vasp_accepts_are_read(tmp_path, text):
    atoms = only(read(tmp_path, text)).atoms
    assert str(atoms.symbols) == "CsCl"
    assert np.allclose(atoms.cell, 4 * np.eye(3))
    assert np.allclose(atoms.positions, [(0, 0, 0), (2, 2, 2)])


VELOCITIES = "Cartesian\n 0.1 0.2 0.3\n -0.1E-02 0 0\n"
LATTICE_VELOCITIES = "Lattice velocities and vectors\n 1\n" + " 0.0 0.0 0.0\n" * 3 + " 4.0 0 0\n 0 4.0 0\n 0 0 4.0\n"
PREDICTOR = "\n 1\n 0.1E+01\n 0.0 0.0 0.0 0.0\n" + " 0.5 0.5 0.5\n" * 6


@pytest.mark.parametrize(
    "dynamics",
    ["\n", VELOCITIES, VELOCITIES.replace("Cartesian", ""), VELOCITIES + PREDICTOR, LATTICE_VELOCITIES,
     LATTICE_VELOCITIES + VELOCITIES, LATTICE_VELOCITIES + VELOCITIES + PREDICTOR],
)  # fmt: skip
def test_output_of_molecular_dynamics_after_the_atoms_is_ignored(tmp_path, dynamics):
    found = read(tmp_path, 3 * (CSCL + dynamics))
    assert [block.title for block in found if isinstance(block, Block)] == ["CsCl"] * 3
    assert len(found) == 3


def test_velocities_written_by_pymatgen_are_ignored(tmp_path):
    structure = Poscar.from_str(CSCL).structure
    rng = np.random.default_rng(0)
    text = Poscar(
        structure, velocities=rng.random((2, 3)).tolist(), lattice_velocities=rng.random((6, 3)).tolist()
    ).get_str()
    assert same_structure(only(read(tmp_path, text)).atoms, only(read(tmp_path, CSCL)).atoms)


def test_deuterium_is_read_as_hydrogen(tmp_path):
    assert str(only(read(tmp_path, HEAD + "D O\n2 1\nDirect\n0 0 0\n.5 .5 0\n0 .5 .5\n")).atoms.symbols) == "H2O"


@pytest.mark.parametrize("scale", ["0", "1 -1 1", "-1 -1 -1", "1 1"])
def test_invalid_scales_are_refused(tmp_path, scale):
    text = HEAD.replace("1.0", scale) + "Ti\n1\nDirect\n0.5 0.5 0.5\n"
    assert all(isinstance(found, ReadFailure) for found in read(tmp_path, text))


def test_velocities_after_a_blank_line_are_ignored(tmp_path):
    only(read(tmp_path, HEAD + "Ti\n1\nDirect\n0 0 0\n\n 0.1 0.2 0.3\n"))


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (lambda rows: [*rows[:-1], rows[-1][:6]], 20, "needs three coordinates"),
        (lambda rows: rows[:-2], 18, "ends after"),
        (lambda rows: rows[:5], 5, "ends within a POSCAR"),
        (lambda rows: [*rows[:5], " Ti Q", *rows[6:]], 6, "'Q' is not an element"),
        (lambda rows: [*rows[:6], " 2", *rows[7:]], 7, "1 numbers of atoms for 2 elements"),
        (lambda rows: [*rows[:6], " 2 x", *rows[7:]], 7, "numbers of atoms"),
        (lambda rows: [*rows[:6], " 0 0", *rows[7:]], 7, "0 atoms"),
        (lambda rows: [*rows[:6], " 2 99999999", *rows[7:]], 7, "atoms"),
        (lambda rows: [*rows[:7], "Dunno", *rows[8:]], None, None),
        (lambda rows: [*rows[:7], "?", *rows[8:]], 8, "expected Direct or Cartesian"),
        (lambda rows: [*rows[:9], " nan 0 0", *rows[10:]], 1, "not finite"),
        (lambda rows: [*rows[:2], *[rows[2]] * 3, *rows[5:]], 1, "Å³"),
        (lambda rows: [*rows[:10], " ******** 0.1 0.2", *rows[11:]], 11, "********"),
    ],
)
def test_broken_block_is_reported_and_the_next_is_read(tmp_path, change, line, said):
    rows = write_poscar(various(1, "Ti4O8")[0], "EA1", ("Ti", "O")).splitlines()
    whole = write_poscar(rutile(), "EA2", ("Ti", "O"))
    broken = "\n".join(change(rows)) + "\n"
    alone = read(tmp_path, broken)
    between = read(tmp_path, whole + broken + whole.replace("EA2", "EA3"))
    assert [block.title for block in between if isinstance(block, Block) and block.title != "EA1"] == ["EA2", "EA3"]
    if said is None:  # anything that begins with D is Direct, as VASP reads it
        assert isinstance(alone[0], Block)
        return
    (complaint,) = alone
    assert isinstance(complaint, ReadFailure)
    assert said in complaint.reason
    assert complaint.line == line
    complaints = [found for found in between if isinstance(found, ReadFailure)]
    assert len(complaints) == 1
    assert str(tmp_path) in str(complaints[0])


@pytest.mark.slow
def test_reading_many_structures_takes_little_memory(tmp_path):
    file = tmp_path / "gatheredPOSCARS"
    texts = [uspex_poscar(0, atoms) for atoms in various(50, "Ti2")]
    n = 8_000
    with file.open("w") as stream:
        for number in range(n):
            stream.write(texts[number % 50])
    tracemalloc.start()
    began = time.process_time()
    found = 0
    peaks = []
    for block in read_poscars(file):
        found += isinstance(block, Block)
        if found in (1_000, 3_000):
            peaks.append(tracemalloc.get_traced_memory()[0])
        if found == 3_000:
            tracemalloc.stop()
            began = time.process_time()
    assert found == n
    assert peaks[1] - peaks[0] < 200_000  # bytes
    assert (n - 3_000) / (time.process_time() - began) > 2_000
