"""``hybridcsp generators``, and what the commands on generators share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console
from hybridcsp.cli.output import AsCsv, AsJson, print_table
from hybridcsp.core.registry import OURS, Entry

GENERATOR = Annotated[
    str, typer.Argument(metavar="GENERATOR", help="A name (hybridcsp generators), or a folder of weights.")
]
DATA = Annotated[list[Path], typer.Option("--data", metavar="PATH", help="Files or folders of crystals; repeatable.")]
SEED = Annotated[int, typer.Option(help="Random seed.", min=0)]
MAX_ATOMS = Annotated[int, typer.Option(help="Leave out larger primitive cells.", min=1)]


@app.command(epilog="Examples:\n\n  hybridcsp generators\n\n  hybridcsp generators --json")
def generators(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the generators, and what each was trained on."""
    from hybridcsp.analysis.text_tables import list_table
    from hybridcsp.generators.registry import GENERATORS

    rows = [
        {"name": entry.name, "summary": entry.summary, "trained_on": _weights(entry), "package": entry.package}
        for entry in GENERATORS.entries().values()
    ]
    if print_table(rows, as_json=as_json, as_csv=as_csv):
        return
    console.print(list_table([(row["name"], f"{row['summary']}; {row['trained_on']}") for row in rows]))
    console.print("A folder of weights that hybridcsp train has written is a generator, too.", highlight=False)


def _weights(entry: Entry) -> str:
    """Say what the weights of a generator come from."""
    from hybridcsp.generators.loading import read_card
    from hybridcsp.generators.weights_io import CARD, shipped

    if entry.package != OURS:
        return f"from {entry.package}"
    if not (shipped(entry.name) / CARD).exists():
        return "no weights here: train it"
    return _trained_on(read_card(shipped(entry.name)))


def _trained_on(card: Mapping[str, Any]) -> str:
    shown = [f"trained on {card.get('crystals', '?')} crystals of {card.get('formulas', '?')} formulas"]
    data = card.get("data")
    if isinstance(data, str):
        shown.append(data)
    elif isinstance(data, Mapping):
        shown += [str(file["name"]) for file in data.get("files", [])]
    return ", ".join(shown)
