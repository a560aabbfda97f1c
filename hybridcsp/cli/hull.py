"""Provide the command ``hybridcsp hull``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console, errors
from hybridcsp.cli.output import AsCsv, AsJson, Predictors, check_formats, print_table
from hybridcsp.cli.values import read_number
from hybridcsp.errors import InputError

if TYPE_CHECKING:
    from hybridcsp.analysis.phases import Phase, Phases
    from hybridcsp.analysis.predicted_values import PredictedValues
    from hybridcsp.archive.archive import Archive

#: Default of ``--window`` in meV/atom.
_WINDOW = 25.0

#: Largest height that is asked for, in meV/atom.
_HIGHEST = 1e6

#: Most phases in the table for the terminal.
_LINES = 40


@app.command(
    epilog="Examples:\n\n  hybridcsp hull V-O\n\n  hybridcsp hull V-O --window 50 --lowest --plot hull.png\n\n"
    "  hybridcsp hull Mg-Mn-O --plot hull.html --snapshots 6   interactive, with the course of the search\n\n"
    "  hybridcsp hull V-O --window 30 --export phases/ --format cif --cell conventional\n\n"
    "  hybridcsp hull V-O --entries entries.json               for pymatgen's PhaseDiagram\n\n"
    "  hybridcsp hull V-O --predictor made                     how likely the phases can be made\n\n"
    "  hybridcsp hull V-O --json"
)
def hull(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIRECTORY", help="Run directory of a search of a chemical system; it may still be running."
        ),
    ],
    window: Annotated[
        str,
        typer.Option(
            metavar="N",
            help="Phases up to N meV/atom above the hull are listed, named in plots and exported.",
        ),
    ] = f"{_WINDOW:g}",
    lowest: Annotated[
        bool, typer.Option("--lowest", help="List and export only the lowest phase of each composition.")
    ] = False,
    plot: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Draw the hull to a .png, .pdf or .svg file, or an interactive .html page. Repeatable.",
            show_default="none",
        ),
    ] = None,
    snapshots: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Show the hull at N moments of the search, in table and plots.",
            min=2,
            show_default="none",
        ),
    ] = None,
    export: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Write the structures of the listed phases to a file or folder, as hybridcsp export does.",
            show_default="none",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Format of --export: extxyz, cif, poscar, res or json.",
            show_default="from the ending of the file",
        ),
    ] = None,
    cell: Annotated[
        str, typer.Option(metavar="CELL", help="Cell of --export: as-found, primitive or conventional.")
    ] = "as-found",
    entries: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Write the listed phases as entries of pymatgen, whose PhaseDiagram reads them.",
            show_default="none",
        ),
    ] = None,
    predictor: Predictors = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show the convex hull of a chemical system: stable phases, phases near the hull and their decompositions.

    The hull is that of the minima of the search and of known phases that were given with --reference, all by one
    calculator at one pressure. Corrections of data bases are not applied.
    """
    from hybridcsp.analysis.hull_report import (
        hull_summary,
        phase_rows,
        phase_table,
        snapshot_rows,
        snapshot_table,
    )
    from hybridcsp.analysis.phases import read_phases, snapshots_of, with_prototypes
    from hybridcsp.analysis.predicted_values import PredictedValues
    from hybridcsp.archive.archive import Archive

    check_formats(as_json=as_json, as_csv=as_csv)
    height = _window(window)
    _check_files(plot or (), export, format, cell, entries)
    predicted = PredictedValues.opened(predictor or ())
    with Archive(directory) as archive:
        phases = read_phases(archive)
        selected = phases.within(height, only_lowest=lowest)
        shown = selected if as_json or as_csv else selected[:_LINES]
        named = [*with_prototypes(shown, archive), *selected[len(shown) :]]
        rows = phase_rows(named, phases)
        if predicted.predictors:
            structures = [archive.structure(archive.state.basins[phase.id]) for phase in shown]
            rows[: len(shown)] = [row | own for row, own in zip(rows, predicted.of(structures), strict=False)]
        moments = snapshots_of(phases, snapshots) if snapshots else []
        history = snapshot_rows(moments) if moments else []
        if not print_table(
            rows, as_json=as_json, as_csv=as_csv, about=_content(phases, height, rows, history) if as_json else None
        ):
            console.print(phase_table(rows, phases, height, _LINES, predicted))
            for line in hull_summary(phases):
                console.print(line, highlight=False)
            if history:
                console.print()
                console.print(snapshot_table(history))
        messages = errors if as_json or as_csv else console
        for written in [
            *_draw(plot or (), phases, height, moments),
            *_export(archive, selected, phases, predicted, export, format, cell, entries),
        ]:
            messages.print(written, markup=False, highlight=False, soft_wrap=True)


def _window(text: str) -> float:
    """Return the window in eV/atom."""
    allowed = f"a number of meV/atom from 0 to {_HIGHEST:g}"
    value = read_number("--window", text, allowed)
    if not 0 <= value <= _HIGHEST:
        raise InputError("--window", text, allowed)
    return value / 1000


def _check_files(
    plots: Sequence[Path], export: str | None, format: str | None, cell: str, entries: Path | None
) -> None:
    """Check names of files and choices before anything is read."""
    from hybridcsp.analysis.pages import check_drawing
    from hybridcsp.io.export import CELLS
    from hybridcsp.io.structure_writer import format_of

    for plot in plots:
        check_drawing(plot, "--plot")
    if export is None:
        for option, value in (("--format", format), ("--cell", None if cell == "as-found" else cell)):
            if value is not None:
                raise InputError(option, value, reason="it is allowed only with --export")
    else:
        format_of(export, format, key="--export")
        if cell not in CELLS:
            raise InputError("--cell", cell, f"one of {', '.join(CELLS)}")
    if entries is not None and entries.suffix.lower() != ".json":
        raise InputError("--entries", entries, "a file whose name ends in .json")


def _content(
    phases: Phases, height: float, rows: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the hull and the listed phases as a JSON object."""
    return {
        "system": "-".join(phases.elements),
        "pressure_gpa": phases.pressure_gpa,
        "calculator": phases.calculator,
        "relaxations": phases.relaxations,
        "force_calls": phases.force_calls,
        "number_of_phases": len(phases.phases),
        "window_mev_per_atom": 1000 * height,
        "on_hull": list(phases.hull.stable),
        "facets": [list(facet) for facet in phases.hull.facets()],
        **({"snapshots": list(history)} if history else {}),
        "phases": list(rows),
    }


def _draw(plots: Sequence[Path], phases: Phases, height: float, moments: Sequence[Phases]) -> list[str]:
    """Draw the hull to files, and return messages about them."""
    from hybridcsp.analysis.hull_html import write_hull_page
    from hybridcsp.analysis.hull_plots import plot_hull
    from hybridcsp.analysis.pages import is_page

    for plot in plots:
        draw = write_hull_page if is_page(plot) else plot_hull
        draw(phases, plot, window=height, snapshots=moments, key="--plot")
    return [f"Wrote {plot}" for plot in plots]


def _export(
    archive: Archive,
    selected: Sequence[Phase],
    phases: Phases,
    predicted: PredictedValues,
    export: str | None,
    format: str | None,
    cell: str,
    entries: Path | None,
) -> list[str]:
    """Write the structures of phases to files, and return messages about them."""
    from hybridcsp.analysis.hull_report import phase_annotations
    from hybridcsp.analysis.phase_entries import write_entries
    from hybridcsp.io.export import export as write

    if export is None and entries is None:
        return []
    minima, written = archive.minima_of([phase.id for phase in selected]), []
    by_id = {phase.id: phase for phase in selected}
    count = f"{len(selected)} phase{'s' * (len(selected) != 1)}"
    if export is not None:
        files = write(
            minima,
            export,
            format=format,
            cell=cell,
            more=lambda minimum: (
                phase_annotations(by_id[minimum.id], phases) | predicted.annotations(minimum.final.atoms)
            ),
        )
        written.append(f"Wrote {count} to {files[0] if len(files) == 1 else files[0].parent}")
    if entries is not None:
        write_entries(selected, minima, phases, entries, "--entries")
        written.append(f"Wrote {count} to {entries} as entries of pymatgen")
    return written
