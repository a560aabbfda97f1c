"""``hybridcsp show``, ``export``, and the lists of what can be named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hybridcsp.cli.app import app, console, show_archive

if TYPE_CHECKING:
    from hybridcsp.registry import Registry


@app.command(epilog="Examples:\n\n  hybridcsp show TiO2\n\n  hybridcsp show TiO2 --top 20 --plot tio2.png")
def show(
    directory: Annotated[Path, typer.Argument(help="A run directory, also of a search that is running.")],
    top: Annotated[int, typer.Option(help="How many minima.", min=1)] = 10,
    plot: Annotated[Path | None, typer.Option(help="Draw its course to a .png, .pdf or .svg file.")] = None,
) -> None:
    """Show the best minima, and what each source has done."""
    from hybridcsp.archive import Archive

    with Archive(directory) as archive:
        show_archive(archive, top)
        if plot is not None:
            from hybridcsp.analysis.plots import plot_search
            from hybridcsp.analysis.report import problem_of

            plot_search(archive, plot, problem_of(archive).formula)
            console.print(f"wrote {plot}")


@app.command(
    epilog="Examples:\n\n  hybridcsp export TiO2 --output minima.extxyz\n\n"
    "  hybridcsp export TiO2 --format poscar --output seeds --top 20 --cell primitive"
)
def export(
    directory: Annotated[Path, typer.Argument(help="A run directory.")],
    format: Annotated[str, typer.Option(help="extxyz, cif or poscar.")] = "extxyz",
    output: Annotated[
        Path | None, typer.Option(help="A file; a folder for several POSCARs. By default DIRECTORY/minima.*")
    ] = None,
    top: Annotated[int | None, typer.Option(help="How many minima; by default all.", min=1)] = None,
    cell: Annotated[str, typer.Option(help="as-found, primitive or conventional.")] = "as-found",
) -> None:
    """Write the unique minima, best first, to files that other programs open."""
    from hybridcsp.analysis.export import FORMATS
    from hybridcsp.analysis.export import export as write
    from hybridcsp.archive import Archive

    with Archive(directory) as archive:
        minima = archive.minima(top)
        files = write(minima, output or directory / f"minima.{FORMATS.get(format, format)}", format=format, cell=cell)
    where = files[0] if len(files) == 1 else files[0].parent
    console.print(f"wrote {len(minima)} minima to {where}", highlight=False, soft_wrap=True)


@app.command()
def calculators() -> None:
    """List the calculators that can be named."""
    from hybridcsp.relaxation.calculators import CALCULATORS

    _list(CALCULATORS)
    console.print("Any other ASE calculator: module:factory, a class or function without arguments.")


@app.command()
def sources() -> None:
    """List the sources of candidates that can be named."""
    from hybridcsp.sources import SOURCES

    _list(SOURCES)


@app.command()
def operators() -> None:
    """List the operators of evolution that can be named: evolution:NAME,NAME uses these only."""
    from hybridcsp.operators.choosing import DEFAULT, NAMED

    _list(NAMED)
    console.print(f"evolution:{DEFAULT},NAME uses one more beside those that it uses anyway.", highlight=False)


@app.command()
def formats() -> None:
    """List the codes whose files can be written and read."""
    from hybridcsp.formats import FORMATS

    _list(FORMATS)


def _list(registry: Registry) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False)
    for entry in registry.entries().values():
        table.add_row(f"[bold]{entry.name}[/]", entry.summary, f"[dim]{entry.package}[/]")
    console.print(table)
