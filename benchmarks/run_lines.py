"""Files of runs: one line of JSON for each run, to which lines are only added."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of runs; none if there is no file yet."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def append_line(file: Path, line: Mapping[str, Any]) -> None:
    """Add a line to a file of runs, in a folder that is made if it does not exist."""
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as stream:
        stream.write(json.dumps(line) + "\n")
