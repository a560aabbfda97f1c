"""``hybridcsp generators``, and what the commands on generators share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console

GENERATOR = Annotated[
    str, typer.Argument(metavar="GENERATOR", help="A name (hybridcsp generators), or a folder of weights.")
]
DATA = Annotated[list[Path], typer.Option("--data", metavar="PATH", help="Files or folders of crystals; repeatable.")]
SEED = Annotated[int, typer.Option(help="Random seed.", min=0)]
MAX_ATOMS = Annotated[int, typer.Option(help="Leave out larger primitive cells.", min=1)]


@app.command()
def generators() -> None:
    """List the generators, and what each was trained on."""
    from rich.table import Table

    from hybridcsp.generators import GENERATORS
    from hybridcsp.generators.opening import read_card
    from hybridcsp.generators.storage import CARD, shipped
    from hybridcsp.registry import OURS

    table = Table(box=None, show_header=False)
    for entry in GENERATORS.entries().values():
        if entry.package != OURS:
            trained = f"from {entry.package}"
        elif (shipped(entry.name) / CARD).exists():
            trained = _trained_on(read_card(shipped(entry.name)))
        else:
            trained = "no weights here: train it"
        table.add_row(f"[bold]{entry.name}[/]", entry.summary, f"[dim]{trained}[/]")
    console.print(table)
    console.print("Or a folder of weights that hybridcsp train has written.")


def _trained_on(card: Mapping[str, Any]) -> str:
    shown = [f"trained on {card.get('crystals', '?')} crystals of {card.get('formulas', '?')} formulas"]
    data = card.get("data")
    if isinstance(data, str):
        shown.append(data)
    elif isinstance(data, Mapping):
        shown += [str(file["name"]) for file in data.get("files", [])]
    return ", ".join(shown)
