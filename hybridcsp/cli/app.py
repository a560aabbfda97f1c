"""What all commands share: the application, the terminal, and how errors look."""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from hybridcsp import __version__
from hybridcsp.errors import HybridCSPError, InputError

if TYPE_CHECKING:
    from hybridcsp.archive import Archive

app = typer.Typer(
    name="hybridcsp",
    help="Crystal structure prediction through any ASE calculator.",
    epilog="Examples:\n\n"
    "  hybridcsp search TiO2\n\n"
    "  hybridcsp show TiO2 --plot tio2.png\n\n"
    "  hybridcsp export TiO2 --format cif --output best.cif --top 5 --cell conventional\n\n"
    "  hybridcsp resume TiO2 --relaxations 100",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console()
errors = Console(stderr=True)


def run() -> None:
    """Run the command line; errors of input end with 2, other known ones with 1, Ctrl-C with 130."""
    os.environ.setdefault("SPGLIB_WARNING", "OFF")  # it writes to the terminal, besides raising
    try:
        app()
    except HybridCSPError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, InputError) else 1)


def _version(value: bool) -> None:
    if value:
        console.print(f"hybridcsp {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def show_archive(archive: Archive, top: int) -> None:
    """Print the best minima, what each source has done, and totals."""
    from hybridcsp.analysis.report import minima_table, problem_of, sources_table

    ledger = archive.ledger
    if not ledger.settings:
        raise InputError("directory", str(archive.directory), "a search that was begun; this one has no events")
    minima = archive.minima(top)
    if minima:
        console.print(minima_table(minima, problem_of(archive)))
    else:
        console.print("No minimum has been found yet.")
    if ledger.tallies or ledger.last_errors:
        console.print(sources_table(archive))
    console.print(
        f"{ledger.relaxations} relaxations, {ledger.cost.force_calls} force calls, {archive.number_of_minima} minima"
        + (f"; last run ended: {ledger.stops[-1]}" if ledger.stops else ""),
        highlight=False,
    )


def number(key: str, text: str, allowed: str) -> float:
    """Read a finite number from an option, with our own words if it is none."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(key, text, allowed)
    return value


def parse_units(text: str) -> list[int]:
    """Read ``"2"`` or ``"1-4"``."""
    low, dash, high = text.partition("-")
    try:
        return [int(low), int(high if dash else low)]
    except ValueError:
        raise InputError("--formula-units", text, "a whole number, or two in order: 1-4") from None
