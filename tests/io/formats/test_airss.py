import ase.io.res
import pytest
from ase import units
from crystals import rutile
from foreign import various, windows
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.io.res import AirssProvider

from hybridcsp.io import formats
from hybridcsp.io.formats import Record
from hybridcsp.io.frames import ReadFailure
from hybridcsp.similarity import same_structure

BODY = """\
CELL 1.54180    4.6000    4.6000    2.9600   90.0000   90.0000   90.0000
LATT -1
SFAC Ti O
Ti  1 0.0000000000000 0.0000000000000 0.0000000000000 1.0
Ti  1 0.5000000000000 0.5000000000000 0.5000000000000 1.0
O   2 0.3050000000000 0.3050000000000 0.0000000000000 1.0
O   2 0.6950000000000 0.6950000000000 0.0000000000000 1.0
O   2 0.8050000000000 0.1950000000000 0.5000000000000 1.0
O   2 0.1950000000000 0.8050000000000 0.5000000000000 1.0
END
"""
TITLE = "TITL Ti2O4-1 10.0 62.63 -50.0 0.00 0.00 6 (P42/mnm) n - 1\nREM in the style of AIRSS\n"


def read(tmp_path, text, name="a.res"):
    (tmp_path / name).write_bytes(text.encode())
    return list(formats.recognise(tmp_path).read(tmp_path))


@pytest.mark.parametrize(
    "title",
    [
        "TITL Ti2O4-1 10.0 62.63 -50.0 (P42/mnm) n - 1",
        "TITL Ti2O4-1 10.0 62.63 -50.0 0.00 (P42/mnm) n - 1",
        "TITL Ti2O4-1 10.0 62.63 -50.0 0.00 0.00 (P42/mnm) n - 1",
        "TITL Ti2O4-1 10.0 62.63 -50.0 0.00 0.00 6 (P42/mnm) n - 1",
        "TITL Ti2O4-1 10.0 62.63 -50.0 0.00 0.00 6 0.5 (P42/mnm) n - 1",
    ],
    ids=["5 words", "6 words", "7 words", "8 words", "9 words"],
)
def test_titles_of_all_versions_are_read(tmp_path, title):
    (record,) = read(tmp_path, f"{title}\n{BODY}")
    assert (record.id, record.enthalpy, record.pressure_gpa) == ("Ti2O4-1", -50.0, 10.0)
    assert record.energy == pytest.approx(-50.0 - 10 * units.GPa * rutile().get_volume())
    assert same_structure(record.atoms, rutile())


def test_short_title_gives_no_energy(tmp_path):
    (record,) = read(tmp_path, f"TITL mine\n{BODY}")
    assert (record.id, record.enthalpy, record.energy) == ("mine", None, None)


def test_several_structures_in_one_file_with_windows_line_ends_are_read(tmp_path):
    text = "".join(TITLE.replace("-1 ", f"-{n} ") + BODY + "\n" for n in range(1, 101))
    found = read(tmp_path, windows(text))
    assert [r.id for r in found] == [f"Ti2O4-{n}" for n in range(1, 101)]


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (lambda t: t.replace(" 6 (", " 7 ("), 1, "7 atoms, but there are 6"),
        (lambda t: t.replace("END\n", ""), 11, "not end with END"),
        (lambda t: t.replace("O   2 0.305", "O   2 0.3x5"), 8, "expected an atom"),
        (lambda t: t.replace("O   2 0.305", "Q   2 0.305"), 8, "not an element"),
        (lambda t: t.replace("0.0000000000000 1.0\nTi", "0.0000000000000 0.5\nTi"), 6, "not 0.5 of one"),
        (lambda t: t.replace("2.9600   90.0000", "2.9600"), 3, "CELL"),
        (lambda t: t.replace("90.0000   90.0000\n", "20.0000   30.0000\n"), 3, None),
        (lambda t: t.replace("-50.0", "**.*"), 1, "numbers are expected"),
        (lambda t: t.replace("SFAC", "SFUC"), 12, "no atom after SFAC"),
        (lambda t: t.replace("TITL", "TITEL"), 1, None),
    ],
)
def test_broken_structure_is_reported_and_the_next_is_read(tmp_path, change, line, said):
    whole = TITLE + BODY
    first, broken, last = read(tmp_path, whole + change(whole) + whole.replace("-1 ", "-9 "))
    assert isinstance(first, Record)
    assert last.id == "Ti2O4-9"
    assert isinstance(broken, ReadFailure)
    assert broken.line == 12 + line
    assert said is None or said in broken.reason


def test_seeds_are_written_into_the_hopper_under_names_that_crud_accepts(tmp_path):
    (tmp_path / "TiO2.cell").write_text("")
    (tmp_path / "TiO2-out.cell").write_text("")
    note = formats.write([Record(atoms=rutile(), enthalpy=-50.0, pressure_gpa=10.0, id="17")], tmp_path, "airss")
    assert "crud.pl" in note
    (file,) = (tmp_path / "hopper").iterdir()
    assert file.name == "TiO2-hybridcsp-00001.res"
    assert file.read_text().splitlines()[0].endswith("(P42/mnm) n - 1")


def test_message_names_the_cell_file_that_crud_looks_for(tmp_path):
    (tmp_path / "Ti-O2.cell").write_text("")
    note = formats.write([Record(atoms=rutile(), enthalpy=-50.0)], tmp_path, "airss")
    (file,) = (tmp_path / "hopper").iterdir()
    assert file.name == "Ti_O2-hybridcsp-00001.res"
    assert "it needs Ti_O2.cell and Ti_O2.param" in note


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), enthalpy=st.floats(-500, 100), pressure=st.floats(-10, 500))
def test_res_files_are_exchanged_with_ase_and_pymatgen(tmp_path_factory, seed, enthalpy, pressure):
    folder = tmp_path_factory.mktemp("airss")
    (atoms,) = various(1, seed=seed)
    formats.write([Record(atoms=atoms, enthalpy=enthalpy, pressure_gpa=pressure)], folder, "airss")
    (file,) = (folder / "hopper").iterdir()
    (ours,) = formats.load("airss").read(file)
    of_ase = ase.io.res.Res.from_file(file)
    of_pymatgen = AirssProvider.from_file(file)
    assert ours.enthalpy == pytest.approx(enthalpy)
    assert ours.pressure_gpa == pytest.approx(pressure)
    assert (of_ase.energy, of_ase.pressure) == pytest.approx((enthalpy, pressure))
    assert (of_pymatgen.energy, of_pymatgen.pressure) == pytest.approx((enthalpy, pressure))
    assert of_pymatgen.structure.volume == pytest.approx(atoms.get_volume())
    assert same_structure(ours.atoms, atoms)
    assert same_structure(of_ase.atoms, atoms)
    ase.io.res.Res(atoms, name="from-ase", pressure=pressure, energy=enthalpy).write_file(folder / "theirs.res")
    (theirs,) = formats.load("airss").read(folder / "theirs.res")
    assert theirs.enthalpy == pytest.approx(enthalpy)
    assert same_structure(theirs.atoms, atoms)


@pytest.mark.parametrize("symmetry", ["LATT 1", "LATT 3\nSYMM -X, -Y, Z", "LATT -1\nSYMM -X, -Y, Z"])
def test_symmetry_operations_are_refused(tmp_path, symmetry):
    (broken,) = read(tmp_path, TITLE + BODY.replace("LATT -1", symmetry))
    assert "without symmetry" in broken.reason


def test_folder_with_other_structure_files_is_read_completely(tmp_path):
    (tmp_path / "a.res").write_text(TITLE + BODY)
    ase.io.write(tmp_path / "b.cif", rutile())
    first, second = formats.recognise(tmp_path).read(tmp_path)
    assert (first.id, first.enthalpy, first.pressure_gpa) == ("Ti2O4-1", -50.0, 10.0)
    assert same_structure(second.atoms, first.atoms)
