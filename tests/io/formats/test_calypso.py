import pytest
from ase import units
from crystals import rutile
from foreign import various, windows
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.io.vasp import Poscar

from hybridcsp.errors import InputError
from hybridcsp.io import formats
from hybridcsp.io.formats import Record, SeedSettings
from hybridcsp.io.formats.calypso import Calypso
from hybridcsp.io.frames import ReadFailure
from hybridcsp.io.poscar import write_poscar
from hybridcsp.similarity import same_structure

INPUT = """\
# a comment
SystemName = TiO2
NumberOfSpecies = 2
NAMEOFATOMS = Ti O   # in this order
NumberOfAtoms = 1 2
NumberOfFormula = 2 2
Volume = 32.0
@DistanceOfIon
2.0 1.5
1.5 2.0
@End
PopSize = 3
ICode = 1
Split = T
"""


def vasp4(atoms, title="CALYPSO"):
    lines = write_poscar(atoms, title, ("Ti", "O")).splitlines()
    return "\n".join([*lines[:5], *lines[6:]]) + "\n"


def run(folder, generations, *, pressure_kbar=None):
    """A run folder; each generation is a list of (enthalpy per atom, structure)."""
    results = folder / "results"
    results.mkdir(parents=True)
    (folder / "input.dat").write_text(INPUT)
    if pressure_kbar is not None:
        (folder / "INCAR_1").write_text("PSTRESS = 1\n")
        (folder / "INCAR_2").write_text(f"ISIF = 3\n  PSTRESS = {pressure_kbar}\n")
    for number, members in enumerate(generations, start=1):
        (results / f"pso_ini_{number}").write_text("".join(vasp4(atoms) for _, atoms in members))
        (results / f"pso_opt_{number}").write_text(
            "".join(f"  {enthalpy}\n{vasp4(atoms)}" for enthalpy, atoms in members)
        )
    return folder


def read(path):
    return list(formats.recognise(path).read(path))


def test_results_have_enthalpies_of_the_cell_and_symbols_from_input_dat(tmp_path):
    atoms = various(3)
    folder = run(
        tmp_path / "run", [list(zip([-8.5, -8.25, "610612509.000000"], atoms, strict=True))], pressure_kbar=100
    )
    assert formats.recognise(folder).name == formats.recognise(folder / "results").name == "calypso"
    found = read(folder)
    assert [r.enthalpy for r in found] == [-51.0, -49.5, None]
    assert [r.id for r in found] == ["1_1", "1_2", "1_3"]
    assert found[2].failure == "enthalpy 610612509.000000"
    assert all(r.generation == 1 and r.pressure_gpa == 10.0 and r.calculator == "VASP" for r in found)
    assert found[0].energy == pytest.approx(-51.0 - 10 * units.GPa * atoms[0].get_volume())
    for record, made in zip(found, atoms, strict=True):
        assert same_structure(record.atoms, made)
        assert same_structure(record.start, made)


def test_generations_come_in_order_and_the_running_one_is_unrelaxed(tmp_path):
    folder = run(tmp_path / "run", [[(-8.5, a)] for a in various(11)])
    (folder / "results" / "pso_opt_11").unlink()
    found = read(folder)
    assert [r.generation for r in found] == list(range(1, 12))
    assert found[-1].enthalpy is None


def test_truncated_file_with_windows_line_ends_is_read(tmp_path):
    folder = run(tmp_path / "run", [[(-8.5, a) for a in various(3)]])
    file = folder / "results" / "pso_opt_1"
    file.write_bytes(windows(file.read_text()[:-40]).encode())
    first, second, broken = read(folder)
    assert (first.enthalpy, second.enthalpy) == (-51.0, -51.0)
    assert isinstance(broken, ReadFailure)
    assert broken.file == file


def test_missing_input_dat_leaves_elements_unknown(tmp_path):
    folder = run(tmp_path / "run", [[(-8.5, rutile())]])
    (folder / "input.dat").unlink()
    (broken,) = read(folder / "results")
    assert "nor in the title" in broken.reason


def test_generation_ends_by_the_step_file_or_when_complete(tmp_path):
    folder = run(tmp_path / "run", [[(-8.5, a) for a in various(3)], [(-8.5, a) for a in various(2)]])
    assert Calypso().finished_generations(folder) == 1  # PopSize = 3, two are there
    (folder / "step").write_text("  3\n")
    assert Calypso().finished_generations(folder) == 2
    (folder / "step").write_text("2\n")
    assert Calypso().finished_generations(folder) == 1


def test_seeds_replace_the_last_poscars(tmp_path):
    (tmp_path / "input.dat").write_text(INPUT)
    note = formats.write([rutile()], tmp_path, "calypso")
    assert "Split = T" in note
    assert (tmp_path / "POSCAR_1").read_text().splitlines()[5].split() == ["Ti", "O"]
    for n in range(1, 13):
        (tmp_path / f"POSCAR_{n}").write_text("CALYPSO's own\n")
    note = formats.write([rutile(), rutile(4.7)], tmp_path, "calypso")
    assert "POSCAR_11 to POSCAR_12" in note
    assert (tmp_path / "POSCAR_10").read_text() == "CALYPSO's own\n"
    assert Poscar.from_file(tmp_path / "POSCAR_12", check_for_potcar=False).structure.formula == "Ti2 O4"
    with pytest.raises(InputError, match="Cu"):
        formats.write(various(1, "Cu2"), tmp_path, "calypso")


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), enthalpy=st.floats(-20, 0))
def test_results_as_calypso_writes_them_are_read(tmp_path_factory, seed, enthalpy):
    (atoms,) = various(1, seed=seed)
    folder = run(tmp_path_factory.mktemp("calypso") / "run", [[(enthalpy, atoms)]])
    (record,) = read(folder)
    assert isinstance(record, Record)
    assert record.enthalpy == pytest.approx(6 * enthalpy)
    assert same_structure(record.atoms, atoms)


def test_elements_can_be_given_by_the_user(tmp_path):
    formats.write([rutile()], tmp_path, "calypso", settings=SeedSettings(elements=("O", "Ti")))
    assert (tmp_path / "POSCAR_1").read_text().splitlines()[5].split() == ["O", "Ti"]


@pytest.mark.parametrize("damaged", ["-", "", "1e999", "nan", "12..5", "100,5,3"])
def test_damaged_pressure_is_reported_and_all_structures_are_read(tmp_path, damaged):
    atoms = various(1)
    home = run(tmp_path, [[(-8.5, atoms[0])], [(-8.4, atoms[0])]], pressure_kbar=damaged)
    broken, first, second = read(home)
    assert isinstance(broken, ReadFailure)
    assert "PSTRESS" in broken.reason
    assert broken.file == home / "INCAR_2"
    assert broken.line == 2
    for record in (first, second):
        assert record.enthalpy is not None
        assert (record.pressure_gpa, record.energy) == (None, None)


@pytest.mark.parametrize("text", ["500.0 ! kbar", "5.0D+02", "500;  NSW = 3", " 500 # as always"])
def test_pressure_is_read_as_by_vasp(tmp_path, text):
    (record,) = read(run(tmp_path, [[(-8.5, rutile())]], pressure_kbar=text))
    assert record.pressure_gpa == pytest.approx(50.0)


def test_damaged_code_number_is_reported(tmp_path):
    home = run(tmp_path, [[(-8.5, rutile())]])
    (home / "input.dat").write_text(INPUT.replace("ICode = 1", "ICode = 1x"))
    broken, record = read(home)
    assert "ICode = '1x'" in broken.reason
    assert (record.calculator, record.pressure_gpa) == ("", None)
