"""Record the golden searches anew, after their behaviour was changed on purpose: ``python tests/golden/record.py``.

The difference of the records belongs to the commit that causes it. The old run directory stays as it is: later
versions are to read what earlier ones have written. ``--old-run`` makes it anew all the same.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import golden_searches as golden


def record(names: list[str]) -> None:
    """Record these searches, by default all of them and how the old one goes on."""
    for name in names or [*golden.SEARCHES, "old_run"]:
        with tempfile.TemporaryDirectory() as folder:
            if name == "old_run":
                made = golden.continue_old_run(Path(folder))
            else:
                made = golden.read_search(golden.run(golden.SEARCHES[name], Path(folder)))
            golden.write_record(name, made)
            sys.stdout.write(f"{golden.path_of(name)}: {golden.path_of(name).stat().st_size} bytes\n")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if "--old-run" in arguments:
        arguments.remove("--old-run")
        with tempfile.TemporaryDirectory() as folder:
            golden.write_old_run(Path(folder))
    record(arguments)
