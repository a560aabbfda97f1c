"""Whatever happens to a file, reading it yields records and complaints, and never raises."""

import ase.io
import pytest
from crystals import rutile
from foreign import cryspy_run, uspex_run, various
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridcsp.io import formats
from hybridcsp.io.formats import Record
from hybridcsp.io.frames import ReadFailure
from hybridcsp.io.poscar import write_poscar
from hybridcsp.structure.validity import is_finite_crystal

XTALOPT = (
    "[structure]\nversion=5\ngeneration=1\nid=1\nstatus=0\ncurrent\\energy=-3\ncurrent\\atomicNums\\size=1\n"
    "current\\atomicNums\\1\\value=22\ncurrent\\coords\\size=1\ncurrent\\coords\\1\\x=0\ncurrent\\coords\\1\\y=0\n"
    "current\\coords\\1\\z=0\n" + "".join(f"current\\cell\\{i}{j}={3 * (i == j)}\n" for i in range(3) for j in range(3))
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """For each format a folder, and the file in it that is damaged."""
    home = tmp_path_factory.mktemp("damage")
    run = uspex_run(home / "uspex", various(3), [-50.0, -49.0, -48.0])
    calypso = home / "calypso"
    (calypso / "results").mkdir(parents=True)
    (calypso / "input.dat").write_text("NameOfAtoms = Ti O\nICode = 1\nPopSize = 2\n")
    (calypso / "results" / "pso_opt_1").write_text("".join(f" -8.5\n{write_poscar(a, 'C')}" for a in various(2)))
    formats.write(various(2), home / "airss", "airss")
    (home / "xtalopt" / "00001x00001").mkdir(parents=True)
    (home / "xtalopt" / "00001x00001" / "structure.state").write_text(XTALOPT)
    cryspy = cryspy_run(home / "cryspy", various(2), various(2), {0: -8.0, 1: -8.5})
    (cryspy / "cryspy.stat").write_text("[status]\ngeneration = 2\n")
    (home / "plain").mkdir()
    ase.io.write(home / "plain" / "a.extxyz", [rutile(), rutile(4.7)])
    ase.io.write(home / "plain" / "b.cif", [rutile(), rutile(4.7)])
    return {
        "uspex": (run, ["results1/gatheredPOSCARS", "results1/Individuals", "INPUT.txt", "results1/BESTIndividuals"]),
        "calypso": (calypso, ["results/pso_opt_1", "input.dat"]),
        "airss": (home / "airss" / "hopper", [next((home / "airss" / "hopper").iterdir()).name]),
        "xtalopt": (home / "xtalopt", ["00001x00001/structure.state"]),
        "cryspy": (cryspy, ["data/opt_POSCARS", "data/cryspy_rslt", "data/ea_origin", "cryspy.in", "cryspy.stat"]),
        "plain": (home / "plain", ["a.extxyz", "b.cif"]),
    }


damages = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from(["cut", "delete", "double", "insert"]),
        st.sampled_from(["\n", " ", "x", "-", "1e999", "nan", "²", "7" * 5000, "\x00", "%", "[", "EA", "0", "=", "|"]),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("name", ["uspex", "calypso", "airss", "xtalopt", "cryspy", "plain"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 9), damages=damages)
def test_damage_never_raises(home, name, which, damages):
    folder, files = home[name]
    file = folder / files[which % len(files)]
    whole = file.read_text()
    text = whole
    for where, how, what in damages:
        at = int(where * len(text))
        end = at + 1 + len(what) % 7
        text = {
            "cut": text[:at],
            "delete": text[:at] + text[end:],
            "double": text[:end] + text[at:],
            "insert": text[:at] + what + text[at:],
        }[how]
    try:
        file.write_text(text)
        code = formats.load(name)
        code.recognises(folder)
        if hasattr(code, "finished"):
            assert code.finished_generations(folder) >= 0
        for found in code.read(folder):
            assert isinstance(found, Record | ReadFailure)
            if isinstance(found, Record):
                assert is_finite_crystal(found.atoms)
            else:
                assert str(found)
    finally:
        file.write_text(whole)
