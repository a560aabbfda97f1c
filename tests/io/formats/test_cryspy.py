import pickle

import pytest
from crystals import rutile
from foreign import CRYSPY_INPUT, cryspy_run, various
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Structure

from hybridcsp.errors import InputError
from hybridcsp.io import formats
from hybridcsp.io.formats.cryspy import Cryspy
from hybridcsp.io.frames import ReadFailure
from hybridcsp.similarity import same_structure
from hybridcsp.structure.conversion import from_pymatgen


def read(path):
    return list(formats.recognise(path).read(path))


def test_results_have_cell_energies_and_origins(tmp_path):
    starts, ends = various(5), various(5, seed=1)
    energies = {0: -8.5, 1: -8.25, 2: float("nan"), 3: -8.125, 4: -8.0}
    folder = cryspy_run(tmp_path / "run", starts, ends, energies, order=[1, 0, 2, 4, 3])
    found = read(folder)
    assert [r.id for r in found] == ["1", "0", "4", "3", "2"]
    assert [r.energy for r in found] == [-49.5, -51.0, -48.0, -48.75, None]
    assert [r.origin for r in found] == ["crossover", "random", "random", "permutation", "strain"]
    assert [r.generation for r in found] == [1, 1, 3, 2, 2]
    assert [r.converged for r in found] == [True, True, True, False, True]
    assert found[-1].failure
    assert all(r.calculator == "VASP" for r in found)
    for record in found:
        assert same_structure(record.start or record.atoms, starts[int(record.id)])
        if not record.failure:
            assert same_structure(record.atoms, ends[int(record.id)])


def test_run_without_results_gives_its_initial_structures(tmp_path):
    folder = cryspy_run(tmp_path / "run", various(2), various(2), {})
    (folder / "data" / "opt_POSCARS").unlink()
    assert [(r.id, r.energy) for r in read(folder)] == [("0", None), ("1", None)]


def test_run_in_which_all_relaxations_failed_is_read(tmp_path):
    folder = cryspy_run(tmp_path / "run", various(2), various(2), {0: float("nan"), 1: float("nan")})
    (folder / "data" / "opt_POSCARS").unlink()
    assert [bool(r.failure) for r in read(folder)] == [True, True]


def test_broken_lines_are_reported(tmp_path):
    folder = cryspy_run(tmp_path / "run", various(2), various(2), {0: -8.5, 1: -8.5})
    table = folder / "data" / "cryspy_rslt"
    table.write_text(table.read_text()[:-20])
    end = folder / "data" / "opt_POSCARS"
    end.write_text(end.read_text()[:-50])
    found = read(folder)
    assert [r.energy for r in found if not isinstance(r, ReadFailure)] == [-51.0, None]  # the start of what is cut off
    assert [r.file.name for r in found if isinstance(r, ReadFailure)] == ["opt_POSCARS", "cryspy_rslt"]


def test_pickles_are_never_read(tmp_path):
    folder = cryspy_run(tmp_path / "run", various(1), various(1), {0: -8.5})
    (folder / "data" / "pkl_data").mkdir()
    for name in ("init_struc_data", "opt_struc_data", "rslt_data"):
        (folder / "data" / "pkl_data" / f"{name}.pkl").write_bytes(pickle.dumps(_Bomb()))
    assert len(read(folder)) == 1


class _Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was read",)


def test_generation_ends_when_the_next_begins_or_nothing_remains(tmp_path):
    for text, ended in (
        ("generation = 3\nid_queueing = 4 5\nid_running = 3\n", 2),
        ("generation = 3\nid_queueing = \nid_running = \n", 3),
        ("", 0),
    ):
        (tmp_path / "cryspy.stat").write_text(f"[status]\n{text}")
        assert Cryspy().finished_generations(tmp_path) == ended


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_pickle_holds_pymatgen_structures_numbered_from_0_in_the_order_of_atype(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("cryspy")
    (folder / "cryspy.in").write_text(CRYSPY_INPUT.replace("Ti O", "O Ti").replace("2 4", "4 2"))
    made = various(3, seed=seed)
    note = formats.write(made, folder, "cryspy")
    held = pickle.loads((folder / "data" / "pkl_data" / "init_struc_data.pkl").read_bytes())
    assert list(held) == [0, 1, 2]
    assert "load_struc_flag = True" in note
    assert "at least 3" in note
    for number, record in enumerate(read(folder)):
        assert isinstance(held[number], Structure)
        assert [str(site.specie) for site in held[number]] == ["O"] * 4 + ["Ti"] * 2
        assert same_structure(from_pymatgen(held[number]), made[number])
        assert same_structure(record.atoms, made[number])


def test_seeds_that_cryspy_would_refuse_are_refused(tmp_path):
    (tmp_path / "cryspy.in").write_text(CRYSPY_INPUT)
    with pytest.raises(InputError, match="nat = 2 4"):
        formats.write([rutile(), rutile() * (1, 1, 2)], tmp_path, "cryspy")
    assert not (tmp_path / "data" / "init_POSCARS").exists()
    (tmp_path / "cryspy.stat").write_text("[status]\n")
    with pytest.raises(InputError, match="has not been started"):
        formats.write([rutile()], tmp_path, "cryspy")
