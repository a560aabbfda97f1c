"""kill -9 at any moment loses nothing but the relaxations in flight."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from crystals import what_happened

from hybridcsp import Archive

COMMAND = [sys.executable, "-m", "hybridcsp"]
OPTIONS = ["--calculator", "emt", "--max-atoms", "4", "--seed", "3", "--workers", "1", "--refine", "3"]


def start(arguments, folder):
    return subprocess.Popen(
        [*COMMAND, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def ends(directory):
    """Return the number of relaxations and follow-up relaxations that have ended."""
    with Archive(directory) as archive:
        levels = archive.state.follow_ups.levels
        return archive.state.relaxations + sum(level.results + level.given_up + level.unconverged for level in levels)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "kills"),
    [
        (["--source", "random", "--source", "evolution", "--source", "basin-hopping"], (3, 8)),
        (["--source", "random", "--then", "lj", "--then-every", "5"], (6, 9, 18)),
    ],
)
def test_a_search_killed_again_and_again_is_the_uninterrupted_search(tmp_path, options, kills):
    search = ["search", "CuAu", *OPTIONS, "--relaxations", "14", *options]
    whole = start([*search, "--directory", "whole"], tmp_path)
    output, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, output

    part = start([*search, "--directory", "parts"], tmp_path)
    for done in kills:
        deadline = time.monotonic() + 120
        while not (tmp_path / "parts" / "config.toml").exists() or ends(tmp_path / "parts") < done:
            assert time.monotonic() < deadline
            assert part.poll() is None
            time.sleep(0.02)
        os.killpg(part.pid, signal.SIGKILL)
        part.wait()
        part = start(["resume", "parts"], tmp_path)
    output, _ = part.communicate(timeout=300)
    assert part.returncode == 0, output

    assert what_happened(tmp_path / "parts") == what_happened(tmp_path / "whole")


SEARCH_THAT_IS_KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from crystals import InlineBackend, instant_relaxation
    from hybridcsp import Archive, Search

    directory, deadly = sys.argv[1], int(sys.argv[2])
    calls, record_call, record_outcomes = 0, Archive.record_call, Archive.record_outcomes

    def counted(self, *arguments):
        global calls
        recorded = record_call(self, *arguments)
        calls += 1
        if calls == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return recorded

    def printed(self, outcomes, *arguments, **options):
        recorded = record_outcomes(self, outcomes, *arguments, **options)
        for outcome in recorded:
            print(outcome.candidate.id, flush=True)
        return recorded

    Archive.record_call, Archive.record_outcomes = counted, printed
    backend = InlineBackend(instant_relaxation, capacity=6)
    options = {"sources": ["random", "evolution"], "calculator": "emt", "seed": 2, "max_atoms": 4}
    with Search("CuAu", directory=directory, backend=backend, **options) as search:
        search.run(relaxations=14, refine=0)
    """
)


def killed_in_call(deadly, directory):
    """Run the search until a call of this number is recorded; return the exit status and the candidates that ended."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SEARCH_THAT_IS_KILLED, str(directory), str(deadly)]
    done = subprocess.run(command, env=environment, cwd=Path(directory).parent, capture_output=True, text=True)
    return done.returncode, [int(line) for line in done.stdout.split()]


def test_a_search_killed_while_it_fills_its_workers_has_every_outcome_and_repeats_the_calls(tmp_path):
    """Calls that fill the workers are kept together, so that some are lost; none of the outcomes before them is."""
    assert killed_in_call(0, tmp_path / "whole")[0] == 0
    ended = []
    for deadly in (4, 9, 3):
        status, own = killed_in_call(deadly, tmp_path / "parts")
        assert status == -signal.SIGKILL
        ended += own
        with Archive(tmp_path / "parts") as archive:
            assert [id_ for id_, kind in archive.state.terminal.items() if kind == "relaxed"] == ended
    assert killed_in_call(0, tmp_path / "parts")[0] == 0
    assert what_happened(tmp_path / "parts") == what_happened(tmp_path / "whole")
