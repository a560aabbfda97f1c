"""Provide the command ``hybridcsp front``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console, errors
from hybridcsp.cli.output import AsCsv, AsJson, check_formats, print_table

if TYPE_CHECKING:
    from hybridcsp.analysis.fronts import FrontMember, Fronts
    from hybridcsp.archive.archive import Archive

#: Most minima in the table for the terminal.
_LINES = 40


@app.command(
    epilog="Examples:\n\n  hybridcsp front TiO2\n\n  hybridcsp front TiO2 --ranks 3 --plot front.png\n\n"
    "  hybridcsp front V-O --plot front.html                   interactive\n\n"
    "  hybridcsp front TiO2 --export front.extxyz              opens in ase gui\n\n"
    "  hybridcsp front TiO2 --json"
)
def front(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIRECTORY", help="Run directory of a search with objectives; it may still be running."),
    ],
    ranks: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Number of fronts: 1 for the Pareto front alone, 2 also for the front of the rest, and so on.",
            min=1,
        ),
    ] = 1,
    plot: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Draw the fronts to a .png, .pdf or .svg file, or an interactive .html page. Repeatable.",
            show_default="none",
        ),
    ] = None,
    export: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Write the structures with their values to a file or folder (.extxyz, .cif, ...), as hybridcsp "
            "export does.",
            show_default="none",
        ),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show the Pareto front of a search with objectives: minima that no other beats or equals in everything.

    Compared are the height above the best, or above the convex hull in a chemical system, and the objectives that have
    a goal. Minima that do not meet the condition of the search (--where) or have no value are counted and left out.
    """
    from hybridcsp.analysis.front_report import front_content, front_rows, front_summary, front_table
    from hybridcsp.analysis.fronts import read_fronts, with_prototypes
    from hybridcsp.analysis.pages import check_drawing
    from hybridcsp.archive.archive import Archive
    from hybridcsp.io.structure_writer import format_of

    check_formats(as_json=as_json, as_csv=as_csv)
    for file in plot or ():
        check_drawing(file, "--plot")
    if export is not None:
        format_of(export, None, key="--export")
    with Archive(directory) as archive:
        fronts = read_fronts(archive)
        shown = min(ranks, fronts.number)
        selected = fronts.up_to(shown)
        named = with_prototypes(selected if as_json or as_csv else selected[:_LINES], archive)
        members = [*named, *selected[len(named) :]]
        rows = front_rows(members, fronts)
        if not print_table(
            rows, as_json=as_json, as_csv=as_csv, about=front_content(rows, fronts) if as_json else None
        ):
            console.print(front_table(members, fronts, shown, _LINES))
            for line in front_summary(fronts):
                console.print(line, highlight=False, markup=False)
        messages = errors if as_json or as_csv else console
        for written in [*_draw(plot or (), fronts, shown), *_export(archive, members, export)]:
            messages.print(written, markup=False, highlight=False, soft_wrap=True)


def _draw(plots: Sequence[Path], fronts: Fronts, ranks: int) -> list[str]:
    """Draw fronts to files, and return messages about them."""
    from hybridcsp.analysis.front_html import write_front_page
    from hybridcsp.analysis.front_plots import plot_fronts
    from hybridcsp.analysis.pages import is_page

    for plot in plots:
        draw = write_front_page if is_page(plot) else plot_fronts
        draw(fronts, plot, ranks=ranks, key="--plot")
    return [f"Wrote {plot}" for plot in plots]


def _export(archive: Archive, members: Sequence[FrontMember], export: str | None) -> list[str]:
    """Write the structures of members to files, and return messages about them."""
    from hybridcsp.io.export import export as write

    if export is None:
        return []
    by_id = {member.id: member for member in members}
    files = write(
        archive.minima_of([member.id for member in members]),
        export,
        more=lambda minimum: {"front": by_id[minimum.id].front, "height": by_id[minimum.id].height},
    )
    count = f"{len(members)} minim{'um' if len(members) == 1 else 'a'}"
    return [f"Wrote {count} to {files[0] if len(files) == 1 else files[0].parent}"]
