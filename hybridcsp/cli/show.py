"""``hybridcsp show``, ``export``, and the lists of what can be named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hybridcsp.cli.app import app, show_archive
from hybridcsp.cli.console import console, errors
from hybridcsp.cli.output import AsCsv, AsJson, print_table
from hybridcsp.core.registry import OURS
from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.utils.files import is_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hybridcsp.core.registry import Registry
    from hybridcsp.io.formats import SeedSettings


@app.command(epilog="Examples:\n\n  hybridcsp show TiO2\n\n  hybridcsp show TiO2 --top 20 --plot tio2.png")
def show(
    directory: Annotated[Path, typer.Argument(help="A run directory, also of a search that is running.")],
    top: Annotated[int, typer.Option(help="How many minima.", min=1)] = 10,
    plot: Annotated[Path | None, typer.Option(help="Draw its course to a .png, .pdf or .svg file.")] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show the best minima, and what each source has done."""
    from hybridcsp.analysis.plots import check_picture, plot_search
    from hybridcsp.analysis.report import minima_rows, problem_of, sources_rows
    from hybridcsp.archive.archive import Archive

    if plot is not None:
        check_picture(plot, "--plot")
    with Archive(directory) as archive:
        state = archive.state
        if not (as_json or as_csv):
            show_archive(archive, top)
            if state.stops:
                console.print(f"The last run ended: {state.stops[-1]}", highlight=False)
        elif state.settings:
            problem = problem_of(archive)
            rows = minima_rows(archive.minima(top), problem)
            about = {
                "formula": problem.formula,
                "pressure_gpa": problem.pressure_gpa,
                "calculator": state.calculator,
                "relaxations": state.relaxations,
                "force_calls": state.cost.force_calls,
                "seconds_of_computing": state.cost.seconds,
                "number_of_minima": archive.number_of_minima,
                "ended": state.stops[-1] if state.stops else None,
                "minima": rows,
                "sources": sources_rows(archive),
            }
            print_table(rows, as_json=as_json, as_csv=as_csv, about=about)
        else:
            raise InputError("directory", str(directory), "a search that was begun; this one has no events")
        if plot is not None:
            plot_search(archive, plot, problem_of(archive).formula)
            messages = errors if as_json or as_csv else console
            messages.print(f"wrote {plot}", markup=False, highlight=False, soft_wrap=True)


@app.command(
    epilog="Examples:\n\n  hybridcsp export TiO2 --output minima.extxyz\n\n"
    "  hybridcsp export TiO2 --output cifs/ --format cif --top 20 --cell conventional\n\n"
    "  hybridcsp export TiO2 --output seeds/ --format poscar --top 20 --cell primitive\n\n"
    "  hybridcsp export TiO2 --format uspex --output uspex_run --top 10 --generation 5\n\n"
    "  hybridcsp export TiO2 --format airss --output airss_run --pending\n\n"
    "  hybridcsp export samples.extxyz --format cryspy --output cryspy_run"
)
def export(
    directory: Annotated[Path, typer.Argument(help="A run directory; for seeds, also structure files.")],
    format: Annotated[
        str | None,
        typer.Option(
            help="extxyz, cif, poscar, res or json; by default what the ending of --output says, else extxyz. "
            "As seeds: uspex, calypso, airss, xtalopt, cryspy."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="A file (best.cif, best.extxyz.gz, - for the standard output); a folder (best/) gets a file for each "
            "minimum; for seeds, the folder the code runs in. By default DIRECTORY/minima.*",
        ),
    ] = None,
    top: Annotated[int | None, typer.Option(help="How many minima; by default all.", min=1)] = None,
    cell: Annotated[str, typer.Option(help="as-found, primitive or conventional.")] = "as-found",
    generation: Annotated[
        int | None, typer.Option(help="For USPEX: which is to begin with the seeds; by default the next.", min=1)
    ] = None,
    elements: Annotated[
        str | None, typer.Option(help="For seeds: all elements in the code's order, \"Ti O\"; by default its input's.")
    ] = None,
    pending: Annotated[
        bool, typer.Option("--pending", help="For seeds: candidates that wait to be relaxed, instead of minima.")
    ] = False,
) -> None:
    """Write the unique minima, best first, to files that other programs open, or as seeds of another code."""
    from hybridcsp.archive.archive import Archive
    from hybridcsp.io.export import export as write
    from hybridcsp.io.formats import FORMATS as CODES
    from hybridcsp.io.structure_writer import FORMATS, format_of

    if format is not None and format not in FORMATS:
        if format not in CODES.entries():
            named = next((name for name, one in FORMATS.items() if f".{format}" in one.endings), None)
            hint = f"files that end in .{format} are of the format {named}" if named else ""
            raise UnknownNameError("--format", format, [*FORMATS, *CODES.entries()], hint)
        _seed(directory, format, None if output is None else Path(output), top, cell, generation, elements, pending)
        return
    for option, value in (("--generation", generation), ("--elements", elements), ("--pending", pending or None)):
        if value is not None:
            raise InputError(option, value, "goes with the formats of search codes only")
    chosen = format_of(output, format, key="--output") if output else FORMATS[format or "extxyz"]
    folder = chosen.single and top != 1
    default = directory / (f"minima-{chosen.name}" if folder else f"minima{chosen.endings[0]}")
    with Archive(directory) as archive:
        minima = archive.minima(top)
        files = write(minima, output or default, format=format, cell=cell, follow=output is not None)
    where = files[0] if len(files) == 1 else files[0].parent
    messages = errors if is_stream(where) else console
    kind = f", {len(files)} files of {chosen.name}" if len(files) > 1 else ""
    messages.print(f"wrote {len(minima)} minima to {where}{kind}", highlight=False, soft_wrap=True, markup=False)


def _seed(
    directory: Path,
    format: str,
    output: Path | None,
    top: int | None,
    cell: str,
    generation: int | None,
    elements: str | None,
    pending: bool,
) -> None:
    from hybridcsp.analysis.report import problem_of
    from hybridcsp.archive.archive import Archive
    from hybridcsp.core.records import USER, WORKERS
    from hybridcsp.io import formats
    from hybridcsp.io.export import records_of

    if output is None:
        raise InputError("--output", None, f"the folder that {format} runs in")
    settings = formats.SeedSettings(elements=tuple((elements or "").split()), generation=generation)
    if directory.exists() and not (directory / "search.db").exists():
        _convert(directory, format, output, top, settings)
        return
    with Archive(directory) as archive:
        if pending:
            waiting = [*archive.pending(USER), *archive.pending(WORKERS)][:top]
            records = [
                formats.Record(atoms=candidate.atoms, id=str(candidate.id), origin=candidate.operator)
                for candidate in waiting
            ]
        else:
            records = records_of(archive.minima(top), cell, problem_of(archive).pressure_gpa)
    if not records:
        raise InputError("--pending" if pending else "directory", str(directory), "something to write: there is none")
    note = formats.write(records, output, format, settings=settings)
    console.print(note, highlight=False, soft_wrap=True, markup=False)


def _convert(path: Path, format: str, output: Path, top: int | None, settings: SeedSettings) -> None:
    """Write structures of files, a generator's samples for instance, as seeds."""
    from itertools import islice

    from hybridcsp.io import formats
    from hybridcsp.io.frames import ReadFailure

    broken: list[ReadFailure] = []

    def good() -> Iterator[formats.Record]:
        for record in formats.recognise(path).read(path):
            if isinstance(record, ReadFailure):
                broken.append(record)
            else:
                yield record

    note = formats.write(islice(good(), top), output, format, settings=settings)
    console.print(note, highlight=False, soft_wrap=True, markup=False)
    if broken:
        console.print(f"{len(broken)} could not be read; the first: {broken[0]}", markup=False, soft_wrap=True)


@app.command()
def calculators(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the calculators that can be named."""
    from hybridcsp.relaxation.calculators.registry import CALCULATORS

    _list(
        CALCULATORS, as_json, as_csv, "Any other ASE calculator: module:factory, a class or function without arguments."
    )


@app.command()
def sources(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the sources of candidates that can be named."""
    from hybridcsp.sources.registry import SOURCES

    _list(SOURCES, as_json, as_csv)


@app.command()
def operators(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the operators of evolution that can be named: evolution:NAME,NAME uses these only."""
    from hybridcsp.operators.registry import DEFAULT, OPERATOR_REGISTRY

    _list(OPERATOR_REGISTRY, as_json, as_csv, f"evolution:{DEFAULT},NAME adds an operator to the default ones.")


@app.command()
def formats(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the codes whose files can be written and read."""
    from hybridcsp.io.formats import FORMATS

    _list(FORMATS, as_json, as_csv)


def _list(registry: Registry, as_json: bool, as_csv: bool, note: str = "") -> None:
    from hybridcsp.analysis.text_tables import list_table

    entries = registry.entries().values()
    rows = [{"name": entry.name, "summary": entry.summary, "package": entry.package} for entry in entries]
    if not print_table(rows, as_json=as_json, as_csv=as_csv):
        others = {row["name"]: "" if row["package"] == OURS else f" (from {row['package']})" for row in rows}
        console.print(list_table([(row["name"], row["summary"] + others[row["name"]]) for row in rows]))
        if note:
            console.print(note, highlight=False)
