"""Searches of chemical systems as one types them: their compositions, and a kill in their middle."""

import json
import os
import signal
import sqlite3

from typer.testing import CliRunner

from hybridcsp import Archive
from hybridcsp.analysis.live_display import LineDisplay
from hybridcsp.cli import app

SMALL = ["--composition-grid", "2", "--max-atoms", "2", "--source", "random", "--workers", "1", "--refine", "0"]


def hybridcsp(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output


def killed_after(relaxations, *arguments):
    """Run a command in another process, which kills itself as soon as a number of relaxations has ended."""
    process = os.fork()
    if process:
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
        return

    def update(_, progress):
        if progress.relaxations == relaxations:
            os.kill(os.getpid(), signal.SIGKILL)

    LineDisplay.update = update
    try:
        hybridcsp(*arguments)
    finally:
        os._exit(1)


def events(directory):
    """Return the events of a search without those of its sessions, and without times."""
    with sqlite3.connect(directory / "search.db") as database:
        rows = database.execute("SELECT kind, data FROM hybridcsp_events ORDER BY sequence").fetchall()
    found = [(kind, json.loads(data)) for kind, data in rows if kind not in ("opened", "stopped")]
    for _, data in found:
        data.pop("cost", None)
    return found


def test_a_search_that_was_killed_continues_exactly_as_an_uninterrupted_one(tmp_path):
    search = ["search", "Cu-Au", "--calculator", "emt", *SMALL, "--relaxations", "5", "--directory"]
    hybridcsp(*search, tmp_path / "whole")
    killed_after(3, *search, tmp_path / "parts")
    with Archive(tmp_path / "parts") as archive:
        assert archive.state.relaxations == 3
    hybridcsp("resume", tmp_path / "parts")
    assert len(events(tmp_path / "whole")) > 12
    assert events(tmp_path / "parts") == events(tmp_path / "whole")


def test_the_options_of_a_system_choose_its_compositions(tmp_path):
    options = ["--calculator", "lj", "--relaxations", "1", *SMALL, "--charge-neutral", "--max-atoms", "4"]
    hybridcsp("search", "Mg-O", *options, "--composition-grid", "3", "--directory", tmp_path / "run")
    with Archive(tmp_path / "run") as archive:
        assert {"Mg", "MgO", "O"} <= set(archive.system.compositions) <= {"Mg", "MgO", "MgO2", "O"}  # not Mg2O
        assert archive.system.max_atoms == 4
