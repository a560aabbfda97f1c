"""Lists and tables for programs: JSON and CSV on the standard output."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from hybridcsp.errors import InputError
from hybridcsp.utils.text import printable

#: Options of every command that prints a table.
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print comma-separated values, for programs.")]


def print_table(
    rows: Sequence[Mapping[str, Any]], *, as_json: bool, as_csv: bool, about: Mapping[str, Any] | None = None
) -> bool:
    """Print rows as JSON or CSV on the standard output, where that was asked for.

    Parameters
    ----------
    rows
        With the same keys each; numbers as numbers, ``None`` where there is none, units in the keys.
    as_json, as_csv
        What was asked for.
    about
        Printed as the JSON instead of the rows: an object that holds them, and more.

    Returns
    -------
    bool
        Whether it was printed; then nothing else may be.

    Raises
    ------
    InputError
        If both were asked for.
    """
    if as_json and as_csv:
        raise InputError("--json", "--csv", "one of the two")
    if as_json:
        json.dump(_plain(rows if about is None else about), sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    elif as_csv and rows:
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return as_json or as_csv


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: no numpy, and no numbers that are none."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> Any:
    value = _plain(value)
    if isinstance(value, dict | list):
        value = json.dumps(value)
    return printable(value) if isinstance(value, str) else value
