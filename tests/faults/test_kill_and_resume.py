"""kill -9 at any moment loses nothing but the relaxations in flight."""

import os
import signal
import subprocess
import sys
import time

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
