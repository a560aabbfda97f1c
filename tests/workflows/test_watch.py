import json

import pytest
from foreign import FakeUspex, cryspy_run, various

from hybridcsp.archive.archive import Archive
from hybridcsp.core.records import USER
from hybridcsp.errors import ArchiveError, InputError
from hybridcsp.io import formats
from hybridcsp.io.poscar import read_poscars, write_poscar
from hybridcsp.workflows.watch import FILE, Watch


def watch(tmp_path, **options):
    options = {"sources": ["random", "evolution"], "seeds": 3} | options
    return Watch(tmp_path / "ours", tmp_path / "uspex", formats.load("uspex"), **options)


@pytest.fixture
def code(tmp_path):
    return FakeUspex(tmp_path / "uspex")


def waiting(tmp_path):
    file = tmp_path / "uspex" / "Seeds" / "POSCARS"
    return len(list(read_poscars(file))) if file.exists() else 0


def test_each_generation_is_imported_and_followed_by_seeds(tmp_path, code):
    assert watch(tmp_path).check().note == "waiting for generation 1 to end"
    for generation in range(1, 4):
        taken = code.run_generation()
        found = watch(tmp_path).check()  # each time anew, as after a restart
        assert (found.finished, found.seeds, waiting(tmp_path)) == (generation, 3, 3)
        assert found.report.relaxed == 6
        assert found.report.linked == taken == (3 if generation > 1 else 0)
        assert watch(tmp_path).check().report is None  # nothing new
    with Archive(tmp_path / "ours") as archive:
        assert archive.state.relaxations == 18
        assert archive.state.calculator == "uspex:VASP"
        ours = {source for source, _ in archive.state.tallies if source != "uspex"}
        assert ours == {"random", "evolution"}
        assert sum(t.relaxed for (source, _), t in archive.state.tallies.items() if source in ours) == 6


def test_unread_seeds_stay_and_are_not_duplicated(tmp_path, code):
    code.run_generation()
    assert watch(tmp_path).check().seeds == 3
    file = tmp_path / "uspex" / "Seeds" / "POSCARS"
    text = file.read_text()
    aside = file.rename(file.with_name("aside"))
    code.run_generation()  # it began before the seeds were there
    aside.rename(file)
    found = watch(tmp_path).check()
    assert (found.seeds, found.note) == (0, "the code has not read the previous seeds yet")
    assert file.read_text() == text
    with Archive(tmp_path / "ours") as archive:
        assert len(archive.pending(USER)) == 3


def test_seeds_discarded_by_the_code_are_given_up(tmp_path, code):
    code.run_generation()
    watch(tmp_path).check()
    (tmp_path / "uspex" / "Seeds" / "POSCARS").unlink()
    given_up = []
    for _ in range(2):
        code.run_generation()
        given_up.append(watch(tmp_path).check().given_up)
        (tmp_path / "uspex" / "Seeds" / "POSCARS").unlink()
    assert given_up == [0, 3]
    with Archive(tmp_path / "ours") as archive:
        assert [archive.status(id_) for id_ in (7, 8, 9)] == ["rejected"] * 3


def test_candidates_of_an_interrupted_check_are_given_first(tmp_path, code, monkeypatch):
    code.run_generation()
    cut = watch(tmp_path)
    monkeypatch.setattr(type(cut.code), "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cut.check()
    monkeypatch.undo()
    code.run_generation()
    assert watch(tmp_path).check().seeds == 3
    with Archive(tmp_path / "ours") as archive:
        assert len(archive.pending(USER)) == 3  # and not six


def test_seeds_for_a_code_that_reads_them_at_its_start_are_for_the_next_run(tmp_path):
    folder = cryspy_run(tmp_path / "cryspy", various(4), various(4, seed=1), {n: -8.0 - n for n in range(4)})
    (folder / "cryspy.stat").write_text("[status]\ngeneration = 2\nid_queueing = 5\n")
    found = Watch(tmp_path / "ours", folder, formats.load("cryspy"), sources=["random"], seeds=2).check()
    assert found.finished == 1
    assert found.report.relaxed == 2  # those of the first generation
    assert "only when it starts" in found.note
    assert (tmp_path / "ours" / "next_run" / "data" / "pkl_data" / "init_struc_data.pkl").exists()


def test_invalid_folder_or_code_is_refused(tmp_path, code):
    with pytest.raises(InputError, match="a code that searches in generations"):
        Watch(tmp_path / "ours", tmp_path, formats.load("airss"), sources=["random"])
    with pytest.raises(InputError, match="the folder that the other code runs in"):
        Watch(tmp_path / "ours", tmp_path / "nowhere", formats.load("uspex"), sources=["random"])
    code.run_generation()
    watch(tmp_path).check()
    assert json.loads((tmp_path / "ours" / FILE).read_text())["state"]["read"] == 1
    with pytest.raises(InputError, match="already watches"):
        Watch(tmp_path / "ours", tmp_path, formats.load("uspex"), sources=["random"])


@pytest.mark.parametrize("name", ["uspex", "calypso", "xtalopt", "cryspy"])
def test_a_run_directory_of_ours_and_results_of_another_code_are_refused(tmp_path, name):
    Archive(tmp_path / "run", write=True).close()
    with pytest.raises(InputError, match="it is a run directory of hybridcsp"):
        Watch(tmp_path / "ours", tmp_path / "run", formats.load(name), sources=["random"])
    (tmp_path / "other").mkdir()
    if name == "uspex":
        (tmp_path / "other" / "pso_opt_1").touch()
    else:
        (tmp_path / "other" / "gatheredPOSCARS").touch()
    other = "calypso" if name == "uspex" else "uspex"
    with pytest.raises(InputError, match=f"it holds results of {other} and not of {name}"):
        Watch(tmp_path / "ours", tmp_path / "other", formats.load(name), sources=["random"])
    (tmp_path / "empty").mkdir()  # the code has not begun yet
    assert Watch(tmp_path / "ours", tmp_path / "empty", formats.load(name), sources=["random"]).check().finished == 0
    with pytest.raises(InputError, match="another folder than the one that the other code runs in"):
        Watch(tmp_path / "empty", tmp_path / "empty", formats.load(name), sources=["random"])


@pytest.mark.parametrize(
    "content",
    ["{", "[" * 100000, "[]", '{"code": "uspex", "path": "/", "state": {"read": 1, "given": {"../x": "y"}}}'],
)
def test_damaged_state_is_an_error(tmp_path, code, content):
    code.run_generation()
    watch(tmp_path).check()
    (tmp_path / "ours" / FILE).write_text(content)
    with pytest.raises(ArchiveError, match=r"watch\.json is damaged(?s:.*)import the results again"):
        watch(tmp_path)


def test_calypso_seeds_replace_its_last_poscars(tmp_path):
    folder = tmp_path / "calypso"
    (folder / "results").mkdir(parents=True)
    (folder / "input.dat").write_text("NameOfAtoms = O Ti\nPopSize = 4\nICode = 1\nSplit = T\n")

    def generation(number, structures):
        for kind, before in (("ini", ""), ("opt", "  -8.5\n")):
            text = "".join(before + write_poscar(atoms, "CALYPSO", ("O", "Ti")) for atoms in structures)
            (folder / "results" / f"pso_{kind}_{number}").write_text(text)
        (folder / "step").write_text(f"{number + 1}\n")
        for n, atoms in enumerate(various(4, seed=number), start=1):
            (folder / f"POSCAR_{n}").write_text(write_poscar(atoms, "its own", ("O", "Ti")))

    def check_once():
        return Watch(tmp_path / "ours", folder, formats.load("calypso"), sources=["random"], seeds=2).check()

    generation(1, various(4, seed=10))
    found = check_once()
    assert (found.report.relaxed, found.seeds) == (4, 2)
    titles = [(folder / f"POSCAR_{n}").read_text().splitlines() for n in (1, 2, 3, 4)]
    assert [lines[0] for lines in titles] == ["its own", "its own", "hybridcsp_3", "hybridcsp_4"]
    assert titles[3][5].split() == ["O", "Ti"]
    started = [block.atoms for n in (1, 2, 3, 4) for block in read_poscars(folder / f"POSCAR_{n}")]
    generation(2, started)
    found = check_once()
    assert (found.report.relaxed, found.report.linked, found.seeds) == (4, 2, 2)
