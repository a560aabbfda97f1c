"""Fork a process for each command or script that is named on the standard input; see :mod:`command_line`.

The imports are those that many commands need, the slow ones that the package puts off among them, and the command line
itself, whose consoles take their width from the environment of this process.
"""

import gc
import json
import os
import runpy
import sys
from pathlib import Path

import pymatgen.analysis.structure_matcher  # noqa: F401
import pyxtal  # noqa: F401
import torch  # noqa: F401
import typer.rich_utils  # noqa: F401

import hybridcsp.cli
import hybridcsp.config.settings
import hybridcsp.search.search  # noqa: F401

gc.freeze()  # so that collections in the processes of commands do not copy the memory that they share
answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    request = json.loads(line)
    process = os.fork()
    if process == 0:
        break
    _, status = os.waitpid(process, 0)
    print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
else:
    sys.exit()

# In the process of the command.
answers.close()
for descriptor, file, mode in (
    (0, os.devnull, os.O_RDONLY),
    (1, request["stdout"], os.O_WRONLY),
    (2, request["stderr"], os.O_WRONLY),
):
    opened = os.open(file, mode)
    os.dup2(opened, descriptor)
    os.close(opened)
os.environ.clear()
os.environ.update(request["environment"])
os.chdir(request["cwd"])
folders = [str(Path(folder).absolute()) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
sys.path[:0] = [folder for folder in folders if folder not in sys.path]
if script := request["script"]:
    sys.argv = [script, *request["arguments"]]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")
else:
    sys.argv = ["hybridcsp", *request["arguments"]]
    runpy.run_module("hybridcsp", run_name="__main__", alter_sys=True)
