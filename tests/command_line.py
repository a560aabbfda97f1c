"""Run the command line in a process of its own."""

import os
import subprocess
import sys


def hybridcsp(*arguments, cwd, check=True):
    command = [sys.executable, "-m", "hybridcsp", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "120"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done
