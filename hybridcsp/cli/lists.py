"""Provide the commands that list names: ``hybridcsp sources``, ``operators``, ``executors`` and ``formats``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console
from hybridcsp.cli.output import AsCsv, AsJson, print_table
from hybridcsp.core.registry import OURS

if TYPE_CHECKING:
    from hybridcsp.core.registry import Registry


@app.command(epilog="Examples:\n\n  hybridcsp sources\n\n  hybridcsp sources --json")
def sources(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the names for --source."""
    from hybridcsp.sources.registry import SOURCES

    print_registry(SOURCES, as_json, as_csv)


@app.command(epilog="Examples:\n\n  hybridcsp objectives\n\n  hybridcsp objectives --json")
def objectives(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the names for --objective."""
    from hybridcsp.objectives.registry import OBJECTIVES

    note = "Any function of Atoms that returns a number: module:function or file.py:function."
    print_registry(OBJECTIVES, as_json, as_csv, note)


@app.command(epilog="Examples:\n\n  hybridcsp operators\n\n  hybridcsp operators --json")
def operators(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the variation operators for --source evolution:NAME,NAME."""
    from hybridcsp.operators.registry import DEFAULT, OPERATOR_REGISTRY

    note = f"evolution:NAME,NAME uses only the named operators; evolution:{DEFAULT},NAME adds NAME to the default ones."
    print_registry(OPERATOR_REGISTRY, as_json, as_csv, note)


@app.command(epilog="Examples:\n\n  hybridcsp executors\n\n  hybridcsp executors --json")
def executors(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the names for --executor."""
    from hybridcsp.relaxation.backends.executors import EXECUTORS

    print_registry(EXECUTORS, as_json, as_csv)


@app.command(epilog="Examples:\n\n  hybridcsp formats\n\n  hybridcsp formats --json")
def formats(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the other codes whose files can be read and written."""
    from hybridcsp.io.formats import FORMATS

    print_registry(FORMATS, as_json, as_csv)


def print_registry(registry: Registry, as_json: bool, as_csv: bool, note: str = "") -> None:
    """Print the entries of a registry as a table, JSON or CSV, with a note below the table."""
    from hybridcsp.analysis.text_tables import list_table

    entries = registry.entries().values()
    rows = [{"name": entry.name, "summary": entry.summary, "package": entry.package} for entry in entries]
    if not print_table(rows, as_json=as_json, as_csv=as_csv):
        packages = {row["name"]: "" if row["package"] == OURS else f" (from {row['package']})" for row in rows}
        console.print(list_table([(row["name"], row["summary"] + packages[row["name"]]) for row in rows]))
        if note:
            console.print(note, highlight=False)
