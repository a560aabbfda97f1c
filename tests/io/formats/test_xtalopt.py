import re
from pathlib import Path

import pytest
from ase import units
from crystals import rutile
from foreign import various
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.io.vasp import Poscar

from hybridcsp.io import formats
from hybridcsp.io.formats.xtalopt import XtalOpt
from hybridcsp.io.frames import ReadFailure
from hybridcsp.similarity import same_structure


def state(atoms, generation, number, *, status=0, energy=-50.0, enthalpy=None, parents="Randomly generated"):
    """A structure.state as version 5 writes it: keys in the order of QSettings."""
    keys = {
        "version": 5, "generation": generation, "id": number, "status": status, "parents": parents,
        "saveSuccessful": "true", r"current\energy": energy, r"current\hasEnthalpy": str(enthalpy is not None).lower(),
        r"current\enthalpy": enthalpy or 0, r"current\atomicNums\size": len(atoms), r"current\coords\size": len(atoms),
    }  # fmt: skip
    for i, (z, place) in enumerate(zip(atoms.numbers, atoms.positions, strict=True), start=1):
        keys[rf"current\atomicNums\{i}\value"] = z
        keys |= {rf"current\coords\{i}\{axis}": repr(float(x)) for axis, x in zip("xyz", place, strict=True)}
    keys |= {rf"current\cell\{i}{j}": repr(float(atoms.cell[i, j])) for i in range(3) for j in range(3)}
    return "[structure]\n" + "".join(f"{key}={value}\n" for key, value in sorted(keys.items()))


def old_state(atoms, generation, number, *, status):
    """As versions before 4 wrote it: the history only, here with two steps."""
    lines = ["[structure]", "version=2", f"generation={generation}", f"id={number}", "parents=Crossover: 1x1 (40%)"]
    lines += [f"status={status}", r"history\atomicNums\size=2"]
    for step, structure in enumerate((rutile(), atoms), start=1):
        at = f"{step}\\{{}}-{step - 1}"
        for i, (z, place) in enumerate(zip(structure.numbers, structure.positions, strict=True), start=1):
            lines.append(rf"history\atomicNums\{at.format('atomicNums')}\{i}\value={z}")
            lines += [rf"history\coords\{at.format('coords')}\{i}\{a}={x}" for a, x in zip("xyz", place, strict=True)]
        lines.append(rf"history\atomicNums\{at.format('atomicNums')}\size={len(structure)}")
        lines += [rf"history\cells\{step}\{i}{j}={structure.cell[i, j]}" for i in range(3) for j in range(3)]
        lines += [rf"history\energies\{step}\value={-40 - step}", rf"history\enthalpies\{step}\value=0"]
    return "\n".join(lines) + "\n"


def put(folder, tag, text):
    (folder / tag).mkdir(parents=True)
    (folder / tag / "structure.state").write_text(text)


def read(path):
    return list(formats.recognise(path).read(path))


def test_finished_structures_are_read_by_generation(tmp_path):
    a, b, c = various(3)
    put(tmp_path, "00010x00001", state(a, 10, 1, energy=-51.0, enthalpy=-49.0, parents="Stripple: 1x1"))
    put(tmp_path, "00001x00002", state(b, 1, 2, status=8))
    put(tmp_path, "00001x00001", state(c, 1, 1))
    put(tmp_path, "00010x00002", state(c, 10, 2, status=3))
    first, failed, last = read(tmp_path)
    assert [first.id, failed.id, last.id] == ["1x1", "1x2", "10x1"]
    assert (first.energy, first.enthalpy, first.pressure_gpa) == (-50.0, -50.0, 0.0)
    assert first.origin == "Randomly generated"
    assert (failed.failure, failed.energy) == ("failed", None)
    assert (last.energy, last.enthalpy, last.generation, last.origin) == (-51.0, -49.0, 10, "Stripple")
    assert last.pressure_gpa == pytest.approx(2.0 / a.get_volume() / units.GPa, abs=1e-6)
    assert same_structure(last.atoms, a)


def test_old_state_files_are_read_and_status_ten_is_a_duplicate(tmp_path):
    (atoms,) = various(1)
    put(tmp_path, "00002x00003", old_state(atoms, 2, 3, status=10))
    (record,) = read(tmp_path)
    assert (record.energy, record.enthalpy, record.origin) == (-42.0, -42.0, "Crossover")
    assert same_structure(record.atoms, atoms)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.replace("saveSuccessful=true", "saveSuccessful=false"), "saveSuccessful"),
        (lambda t: t.replace("generation=1\n", ""), "generation"),
        (lambda t: re.sub(r"current.coords.6.z=.*\n", "", t), "is missing"),
        (lambda t: t.replace(r"current\atomicNums\1\value=22", r"current\atomicNums\1\value=0"), "atomic numbers"),
        (lambda t: re.sub(r"(current.cell.00=).*", r"\g<1>oops", t), "oops"),
        (lambda t: re.sub(r"(current.energy=).*", r"\g<1>-5o.0", t), "'-5o.0', not a number"),
        (lambda t: re.sub(r"(current.cell.0[012]=).*", r"\g<1>0", t), "three directions"),
    ],
)
def test_broken_parts_are_reported(tmp_path, change, said):
    put(tmp_path, "00001x00001", change(state(rutile(), 1, 1)))
    put(tmp_path, "00001x00002", state(rutile(), 1, 2))
    broken, whole = read(tmp_path)
    assert isinstance(broken, ReadFailure)
    assert said in broken.reason
    assert whole.id == "1x2"


def test_generation_ends_when_complete_and_followed_by_another(tmp_path):
    put(tmp_path, "00001x00001", state(rutile(), 1, 1))
    assert XtalOpt().finished_generations(tmp_path) == 0
    put(tmp_path, "00002x00001", state(rutile(), 2, 1, status=3))
    assert XtalOpt().finished_generations(tmp_path) == 1
    put(tmp_path, "00003x00001", state(rutile(), 3, 1))
    assert XtalOpt().finished_generations(tmp_path) == 1


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_seeds_are_poscars_named_in_one_line(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("xtalopt")
    made = various(2, seed=seed)
    note = formats.write(made, folder, "xtalopt")
    line = (folder / "seeds" / "seedStructures").read_text().strip()
    assert "xtalopt.in" in note
    key, _, value = line.partition(" = ")
    assert key == "seedStructures"
    for file, atoms in zip(value.split(", "), made, strict=True):
        (record,) = formats.load("plain").read(Path(file))
        assert same_structure(record.atoms, atoms)
        assert Poscar.from_file(file, check_for_potcar=False).structure.volume == pytest.approx(atoms.get_volume())
