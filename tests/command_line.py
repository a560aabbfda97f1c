"""Run the command line, or a script that uses the package, in a process of its own.

Starting an interpreter and importing the package takes longer than most commands. So a server imports what commands
need, once for all tests of a process, and forks for each command. What a command does is the same in a new interpreter,
which :func:`in_new_interpreter` starts.
"""

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess


def hybridcsp(*arguments, cwd, check=True, **environment):
    """Run a command in a terminal of 120 columns; return its end with its output."""
    done = _run(None, arguments, cwd, environment)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def run_script(script, *arguments, cwd, **environment):
    """Run a Python script; return its end with its output."""
    return _run(str(script), arguments, cwd, environment)


def _run(script, arguments, cwd, environment):
    arguments = [str(argument) for argument in arguments]
    with tempfile.NamedTemporaryFile("r") as stdout, tempfile.NamedTemporaryFile("r") as stderr:
        request = {
            "script": script,
            "arguments": arguments,
            "cwd": str(cwd),
            "environment": os.environ | environment,
            "stdout": stdout.name,
            "stderr": stderr.name,
        }
        server = _server()
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        status = server.stdout.readline()
        assert status, "the server of the command line has ended"
        return CompletedProcess(arguments, int(status), stdout.read(), stderr.read())


def in_new_interpreter(*arguments, cwd):
    """Run a command as it is run by a shell, with another seed of hashes for example."""
    command = [sys.executable, "-P", "-m", "hybridcsp", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "120"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@cache
def _server():
    """Start the server, which ends with this process."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("command_server.py"))]
    environment = os.environ | {"COLUMNS": "120"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
