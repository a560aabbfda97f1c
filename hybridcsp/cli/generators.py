"""Provide the command ``hybridcsp generators``, and options that the commands for generators share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console
from hybridcsp.cli.output import AsCsv, AsJson, print_table
from hybridcsp.core.registry import OURS, Entry
from hybridcsp.errors import InputError

GENERATOR = Annotated[
    str,
    typer.Argument(metavar="GENERATOR", help="Name of a generator (see hybridcsp generators), or a folder of weights."),
]
DATA = Annotated[
    list[Path], typer.Option("--data", metavar="PATH", help="File or folder of crystal structures. Repeatable.")
]
SEED = Annotated[int, typer.Option(metavar="N", help="Random seed.", min=0)]
MAX_ATOMS = Annotated[
    int,
    typer.Option(
        metavar="N", help="Largest number of atoms in the primitive cell; larger crystals are skipped.", min=1
    ),
]


@app.command(epilog="Examples:\n\n  hybridcsp generators\n\n  hybridcsp generators --json")
def generators(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the generators and their training data."""
    from hybridcsp.analysis.text_tables import list_table
    from hybridcsp.generators.registry import GENERATORS

    rows = [
        {"name": entry.name, "summary": entry.summary, "trained_on": _training_data(entry), "package": entry.package}
        for entry in GENERATORS.entries().values()
    ]
    if print_table(rows, as_json=as_json, as_csv=as_csv):
        return
    console.print(list_table([(row["name"], f"{row['summary']}; {row['trained_on']}") for row in rows]))
    console.print("A folder of weights from hybridcsp train can be used in place of a name.", highlight=False)


def check_exists(option: str, path: Path) -> None:
    """Check that the path after an option exists.

    Raises
    ------
    InputError
        If it does not.
    """
    if not path.exists():
        raise InputError(option, path, reason="there is no such file or folder")


def _training_data(entry: Entry) -> str:
    """Return the origin of the weights of a generator."""
    from hybridcsp.generators.loading import read_card
    from hybridcsp.generators.weights_io import CARD, shipped

    if entry.package != OURS:
        return f"from {entry.package}"
    if not (shipped(entry.name) / CARD).exists():
        return "without weights; train it first"
    return _describe_training(read_card(shipped(entry.name)))


def _describe_training(card: Mapping[str, Any]) -> str:
    parts = [f"trained on {card.get('crystals', '?')} crystals of {card.get('formulas', '?')} formulas"]
    data = card.get("data")
    if isinstance(data, str):
        parts.append(data)
    elif isinstance(data, Mapping):
        parts += [str(file["name"]) for file in data.get("files", [])]
    return ", ".join(parts)
