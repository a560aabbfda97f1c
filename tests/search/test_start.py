"""Searches that are killed while they start, or lose their directory."""

import os
import shutil
import signal
import sqlite3
import sys
import traceback
from dataclasses import replace

import pytest
from crystals import InlineBackend, P1Source, instant_relaxation

from hybridcsp import Search, config
from hybridcsp.archive.archive import Archive, is_begun
from hybridcsp.errors import ArchiveError

RAW = {
    "problem": {"formula": "Cu", "formula_units": 1},
    "search": {"calculator": "emt", "sources": ["random"], "workers": 1},
    "budget": {"relaxations": 7},
}


def configuration(directory):
    return config.parse({**RAW, "search": {**RAW["search"], "directory": str(directory)}}, "test")


def start_and_die(directory, step):
    """Start a search in another process, kill it at its n-th file operation, and return whether it survived."""
    process = os.fork()
    if process:
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert status in (0, -signal.SIGKILL)
        return status == 0
    steps = 0

    def count(*_):
        nonlocal steps
        steps += 1
        if steps == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event, arguments):
        files = ("open", "os.mkdir", "os.rename", "os.remove", "os.truncate")
        if event in files and str(directory) in str(arguments[0]):
            count()

    connect = sqlite3.connect

    def connect_and_count(*arguments, **options):
        count()
        connection = connect(*arguments, **options)
        connection.set_trace_callback(count)  # each statement
        return connection

    sqlite3.connect = connect_and_count
    status = 3
    try:
        sys.addaudithook(hook)
        configuration(directory).build(trust=False)
        status = 0
    except BaseException:  # noqa: BLE001  # whatever it is, pytest must not go on in this process
        traceback.print_exc()
    finally:
        os._exit(status)


def go_on(directory):
    """Return the configuration of a user who resumes, or who starts again if nothing was recorded."""
    if is_begun(directory):
        return config.of_directory(directory)
    with pytest.raises(ArchiveError, match="hybridcsp search"):
        config.of_directory(directory / "nothing")
    if (directory / config.FILE).exists():
        return config.of_directory(directory)
    return configuration(directory)


@pytest.mark.slow
def test_search_killed_at_any_step_of_its_start_is_resumed(tmp_path):
    (tmp_path / "nothing").mkdir()
    step, survived, left = 0, False, set()
    while not survived:
        step += 1
        directory = tmp_path / f"run{step}"
        survived = start_and_die(directory, step)
        left.add(frozenset(path.name for path in directory.iterdir()) if directory.exists() else None)
        directory.mkdir(exist_ok=True)
        (directory / "nothing").mkdir()
        (directory / "nothing" / "search.db").touch()
        found = go_on(directory)
        assert found.budget.relaxations == 7
        with found.build(trust=False) as search:
            assert search.archive.state.settings[-1]["calculator"] == "emt"
        assert config.of_directory(directory).budget.relaxations == 7
        files = {path.name for path in directory.iterdir()} - {"nothing"}
        assert {name for name in files if not name.endswith(".tmp")} == {"config.toml", "search.db", "search.lock"}
    assert step > 20
    assert len(left) >= 5  # it died in different states


def test_search_starts_in_a_directory_without_events(tmp_path):
    Archive(tmp_path, write=True).close()
    assert not is_begun(tmp_path)
    with configuration(tmp_path).build(trust=False):
        pass
    assert is_begun(tmp_path)


def test_refused_search_does_not_replace_the_configuration(tmp_path):
    configuration(tmp_path).build(trust=False).close()
    before = (tmp_path / config.FILE).read_text()
    other = configuration(tmp_path)
    other = other.model_copy(update={"search": other.search.model_copy(update={"seed": 5})})
    with pytest.raises(ArchiveError, match="another search"):
        other.build(trust=False)
    with Archive(tmp_path, write=True), pytest.raises(ArchiveError, match="in use"):
        replaced = configuration(tmp_path)
        replaced.model_copy(update={"budget": replace(replaced.budget, relaxations=99)}).build(trust=False)
    assert (tmp_path / config.FILE).read_text() == before


def test_removed_directory_ends_the_search(tmp_path):
    search = Search("Cu", calculator="emt", directory=tmp_path / "run", sources=["random"], workers=1, formula_units=1)

    def remove(progress):
        if progress.relaxations == 1:
            shutil.rmtree(tmp_path / "run", ignore_errors=True)

    with search, pytest.raises(ArchiveError, match="was removed"):
        search.run(relaxations=20, on_progress=remove)
    assert not (tmp_path / "run").exists()


def test_a_directory_that_cannot_be_written_is_refused_before_anything_is_built(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("hybridcsp.search.settings.check_calculator", lambda _: pytest.fail("it was checked before"))
    with pytest.raises(ArchiveError, match="cannot write to the run directory"):
        configuration(tmp_path / "file" / "run").build(trust=False)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_change_of_the_working_directory_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backend = InlineBackend(instant_relaxation, 1)
    with Search(
        "Cu", calculator=None, directory="run", sources=[P1Source()], backend=backend, formula_units=2
    ) as search:
        (tmp_path / "other").mkdir()
        monkeypatch.chdir("other")
        search.run(relaxations=2)
    assert search.directory == tmp_path / "run"
    assert list((tmp_path / "other").iterdir()) == []
    assert Archive(tmp_path / "run").state.relaxations == 2
