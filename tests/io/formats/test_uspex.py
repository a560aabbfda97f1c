import numpy as np
import pytest
from ase import units
from crystals import rutile
from foreign import HEADER, individual, structures, uspex_poscar, uspex_run, various, windows
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.io.vasp import Poscar

from hybridcsp.errors import InputError
from hybridcsp.io import formats
from hybridcsp.io.formats import Record, SeedSettings
from hybridcsp.io.formats.uspex import Uspex
from hybridcsp.io.frames import ReadFailure
from hybridcsp.similarity import same_structure


def read(path):
    return list(formats.recognise(path).read(path))


def test_results_have_enthalpy_origin_generation_pressure_and_code(tmp_path):
    atoms = various(4)
    run = uspex_run(tmp_path / "run", atoms, [-50.0, -49.0, -48.5, 100000.0], pressure=10.0)
    assert formats.recognise(run).name == "uspex"
    found = read(run)
    assert [(r.id, r.origin, r.generation) for r in found] == [
        ("1", "Random", 1), ("2", "Heredity", 1), ("3", "softmutate", 1), ("4", "Permutate", 1)
    ]  # fmt: skip
    assert [r.enthalpy for r in found] == [-50.0, -49.0, -48.5, None]
    assert found[3].failure == "enthalpy 100000.000"
    assert all(r.pressure_gpa == 10.0 and r.calculator == "VASP" for r in found)  # the code of the last step
    assert found[0].energy == pytest.approx(-50.0 - 10 * units.GPa * atoms[0].get_volume(), abs=1e-4)
    for record, made in zip(found, atoms, strict=True):
        assert same_structure(record.atoms, made)
        assert same_structure(record.start, made)
    assert found[1].file == run / "results1" / "gatheredPOSCARS"
    assert found[1].line == 1 + 14  # 8 lines and 6 atoms


@pytest.mark.parametrize("where", ["results1", "results1/gatheredPOSCARS"])
def test_results_folder_and_single_file_are_recognised(tmp_path, where):
    run = uspex_run(tmp_path / "run", various(2), [-50.0, -49.0])
    assert [r.enthalpy for r in read(run / where)] == [-50.0, -49.0]


def test_results_of_restarts_are_read_from_further_folders(tmp_path):
    run = uspex_run(tmp_path / "run", various(2), [-50.0, -49.0])
    second = uspex_run(tmp_path / "second", various(1, seed=7), [-51.0])
    (second / "results1").rename(run / "results10")
    assert [r.id for r in read(run)] == ["results1/1", "results1/2", "results10/1"]


def test_titles_without_space_group_windows_line_ends_and_truncated_files_are_read(tmp_path):
    run = uspex_run(tmp_path / "run", various(1), [-50.0])
    gathered = run / "results1" / "gatheredPOSCARS"
    title = "EA2   4.600 4.600 2.960 90.00 90.00 90.00 no SG"
    cut = "\n".join(uspex_poscar(3, rutile()).splitlines()[:-2])
    gathered.write_bytes(windows(uspex_poscar(1, various(1)[0]) + uspex_poscar(2, rutile(), title) + cut).encode())
    with (run / "results1" / "Individuals").open("a") as stream:
        stream.write(individual(1, 2, "Seeds", -53.0))
    first, second, broken = read(run)
    assert (first.enthalpy, second.enthalpy, second.origin) == (-50.0, -53.0, "Seeds")
    assert isinstance(broken, ReadFailure)
    assert "ends after 4 of 6 atoms" in broken.reason


def test_truncated_individual_gives_a_structure_without_enthalpy(tmp_path):
    run = uspex_run(tmp_path / "run", various(2), [-50.0, -49.0])
    (run / "results1" / "Individuals").write_text(
        HEADER + individual(1, 1, "Random", -50.0) + "   1    2  Heredity [ 2"
    )
    found = read(run)
    assert [r.enthalpy for r in found if isinstance(r, Record)] == [-50.0, None]
    (broken,) = [r for r in found if isinstance(r, ReadFailure)]
    assert (broken.file.name, broken.line) == ("Individuals", 4)


def test_tables_of_the_python_release_and_of_uspex_25_are_read(tmp_path):
    for name, table, title in (
        (
            "python",
            "+----+----------+-------------+----------------+\n"
            "| ID |  Origin  | Composition | Enthalpy (eV)  |\n"
            "+----+----------+-------------+----------------+\n"
            "| 7  | heredity |   [2 4]     |     -52.125    |\n",
            "EA7",
        ),
        (
            "25",
            "generation number num_atoms_all energy cell_volume density space_group origin parents\n"
            "3 7 [ 2 4 ] -52.125 62.6 4.2 136 heredity [ 3 5 ]\n",
            "number=7 Ti2O4",
        ),
    ):
        results = tmp_path / name / "results1"
        results.mkdir(parents=True)
        (results / "Individuals").write_text(table)
        (results / "gatheredPOSCARS").write_text(uspex_poscar(7, rutile(), title))
        (record,) = read(tmp_path / name)
        assert (record.id, record.enthalpy, record.origin) == ("7", -52.125, "heredity"), name
        assert record.generation == (3 if name == "25" else None)


def test_origins_are_read_from_the_origin_file_without_individuals(tmp_path):
    run = uspex_run(tmp_path / "run", various(2), [-50.0, -49.0])
    (run / "results1" / "Individuals").unlink()
    (run / "results1" / "origin").write_text("ID Origin Enthalpy\n 1 Random -8.1\n 2 Heredity -8.2 [1 2]\n")
    assert [(r.origin, r.enthalpy) for r in read(run)] == [("Random", None), ("Heredity", None)]


def test_generation_ends_when_its_best_structure_is_written(tmp_path):
    run = uspex_run(tmp_path / "run", various(2), [-50.0, -49.0])
    assert Uspex().finished_generations(run) == 1
    with (run / "results1" / "Individuals").open("a") as stream:
        stream.write(individual(2, 3, "Heredity", -50.0))
    assert Uspex().finished_generations(run) == 1
    assert Uspex().finished_generations(tmp_path) == 0


def test_seeds_are_written_where_uspex_reads_them_in_its_order_of_elements(tmp_path):
    (tmp_path / "INPUT.txt").write_text("% atomType\nO Ti Mg\n% EndAtomType\n")
    note = formats.write(structures(2), tmp_path, "uspex", settings=SeedSettings(generation=5))
    text = (tmp_path / "Seeds" / "POSCARS_5").read_text()
    lines = text.splitlines()
    assert "generation 5" in note
    assert lines[0].startswith("EA1    4.")
    assert lines[0].endswith("no SG")
    assert "[" not in lines[0]  # USPEX evaluates what stands in brackets
    assert lines[5].split() == ["O", "Ti", "Mg"]
    assert lines[6].split() == ["4", "2", "0"]
    assert lines[7] == "Direct"
    assert lines[14].startswith("EA2 ")
    formats.write(structures(1), tmp_path, "uspex")
    assert (tmp_path / "Seeds" / "POSCARS").exists()
    assert not Uspex().ready_for_seeds(tmp_path)


def test_waiting_seeds_are_not_overwritten_and_failed_writes_leave_no_files(tmp_path):
    formats.write(structures(1), tmp_path, "uspex")
    before = (tmp_path / "Seeds" / "POSCARS").read_text()
    with pytest.raises(InputError, match="not read the seeds"):
        formats.write(structures(2), tmp_path, "uspex")
    assert (tmp_path / "Seeds" / "POSCARS").read_text() == before
    with pytest.raises(InputError, match="only Ti Mg"):
        formats.write(structures(2), tmp_path, "uspex", settings=SeedSettings(elements=("Ti", "Mg"), generation=2))
    with pytest.raises(InputError, match="there is no structure"):
        formats.write([], tmp_path, "uspex", settings=SeedSettings(generation=2))
    assert [file.name for file in (tmp_path / "Seeds").iterdir()] == ["POSCARS"]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 4))
def test_round_trip_keeps_all_structures_and_pymatgen_reads_them(tmp_path_factory, seed, n):
    folder = tmp_path_factory.mktemp("uspex")
    made = various(n, seed=seed)
    formats.write(made, folder, "uspex")
    file = folder / "Seeds" / "POSCARS"
    found = read(file)
    blocks = ["EA" + text for text in file.read_text().split("EA")[1:]]
    for atoms, record, block in zip(made, found, blocks, strict=True):
        witness = Poscar.from_str(block).structure
        assert witness.volume == pytest.approx(atoms.get_volume())
        assert np.allclose(np.sort(witness.distance_matrix.ravel()), np.sort(distances(record.atoms)), atol=1e-6)
        assert same_structure(record.atoms, atoms)


def distances(atoms):
    return atoms.get_all_distances(mic=True).ravel()


def test_damaged_pressure_is_reported_and_all_structures_are_read(tmp_path):
    home = uspex_run(tmp_path / "run", [rutile()], [-50.0])
    text = (home / "INPUT.txt").read_text()
    (home / "INPUT.txt").write_text(text.replace("0.0 : ExternalPressure", "1O.0 : ExternalPressure"))
    assert (home / "INPUT.txt").read_text() != text
    broken, record = formats.recognise(home).read(home)
    assert "ExternalPressure is '1O.0'" in broken.reason
    assert (record.enthalpy, record.pressure_gpa, record.energy) == (-50.0, None, None)
