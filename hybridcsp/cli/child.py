"""Run the command line in a process that ends with its parent, for :func:`hybridcsp.workflows.compare.execute`."""

from __future__ import annotations

import os
import sys

from hybridcsp.cli import main
from hybridcsp.utils.process_watch import end_with


def run(parent: str, death_signal: str, path: str, *arguments: str) -> None:
    """Run a command, and exit when the parent process ends.

    Parameters
    ----------
    parent
        Process id of the parent.
    death_signal
        See :func:`~hybridcsp.utils.processes.death_signal`.
    path
        Original value of ``PYTHONPATH``. It is restored because programs that a calculator starts may use another
        Python.
    *arguments
        Arguments of the command ``hybridcsp``.
    """
    end_with(int(parent), int(death_signal))
    os.environ["PYTHONPATH"] = path
    sys.argv = ["hybridcsp", *arguments]
    main()


if __name__ == "__main__":
    run(*sys.argv[1:])
