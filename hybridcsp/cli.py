"""The command line: parses, builds, prints."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from hybridcsp import __version__
from hybridcsp.errors import HybridCSPError, InputError

if TYPE_CHECKING:
    from hybridcsp.archive import Archive
    from hybridcsp.config import Configuration
    from hybridcsp.registry import Registry
    from hybridcsp.search import Search

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

_LIMITS = "What ends it"
_PROBLEM = "What is searched"
_HOW = "How"


def main() -> None:
    """Run the command line; errors of input end with 2, other known ones with 1, Ctrl-C with 130."""
    try:
        app()
    except HybridCSPError as error:
        errors.print(f"[bold red]error:[/] {_escape(str(error))}", highlight=False, soft_wrap=True)
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


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp search TiO2\n\n"
    "  hybridcsp search MgSiO3 --formula-units 2-4 --pressure 25 --relaxations 300 --workers 4\n\n"
    "  hybridcsp search Ti4O8 --formula-units 1 --source random --source seeds:my_structures/\n\n"
    "  hybridcsp search TiO2 --calculator mace:my_model.model --hours 8 --stop-after-unchanged 100\n\n"
    "  hybridcsp search my_search.toml --directory run2 --seed 2"
)
def search(
    what: Annotated[str, typer.Argument(metavar="FORMULA_OR_CONFIG.toml", help="One formula unit, or a TOML file.")],
    formula_units: Annotated[
        str | None, typer.Option(help="Formula units in the primitive cell: 2 or 1-4.", rich_help_panel=_PROBLEM)
    ] = None,
    max_atoms: Annotated[
        int | None, typer.Option(help="Atoms in the primitive cell at most.", rich_help_panel=_PROBLEM)
    ] = None,
    min_atoms: Annotated[
        int | None, typer.Option(help="Atoms in the primitive cell at least.", rich_help_panel=_PROBLEM)
    ] = None,
    pressure: Annotated[
        str | None, typer.Option(metavar="GPA", help="External pressure in GPa.", rich_help_panel=_PROBLEM)
    ] = None,
    calculator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="chgnet, emt, lj, mace:PATH_OR_NAME or module:factory.", rich_help_panel=_HOW
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="random, seeds:PATH; may be repeated.", rich_help_panel=_HOW),
    ] = None,
    allocation: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Between sources: earnings (per force call) or equal.", rich_help_panel=_HOW),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all randomness.", rich_help_panel=_HOW)] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that relax.", rich_help_panel=_HOW)] = None,
    directory: Annotated[
        Path | None, typer.Option(help="The run directory; by default the formula.", rich_help_panel=_HOW)
    ] = None,
    relaxations: Annotated[int | None, typer.Option(help="Relaxations to start.", rich_help_panel=_LIMITS)] = None,
    force_calls: Annotated[int | None, typer.Option(help="Force calls.", rich_help_panel=_LIMITS)] = None,
    hours: Annotated[float | None, typer.Option(help="Wall time of this run.", rich_help_panel=_LIMITS)] = None,
    stop_after_unchanged: Annotated[
        int | None,
        typer.Option(help="Relaxations that did not lower the best by 1 meV/atom.", rich_help_panel=_LIMITS),
    ] = None,
    stop_at: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|ENERGY",
            help="End when a minimum matches the structure, or reaches the enthalpy (eV/atom).",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    refine: Annotated[
        int | None, typer.Option(help="Best minima to relax further at the end.", rich_help_panel=_LIMITS)
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Run the code that a config file names.")] = False,
) -> None:
    """Search for the crystal structures of a composition.

    Without a limit it ends after 100 relaxations. Everything is kept in the run directory; kill it at any moment, and
    hybridcsp resume goes on.
    """
    from hybridcsp import config

    given: dict[str, dict[str, Any]] = {
        "problem": {
            "formula_units": None if formula_units is None else _units(formula_units),
            "max_atoms": max_atoms,
            "min_atoms": min_atoms,
            "pressure_gpa": None if pressure is None else _number("--pressure", pressure, "a pressure in GPa"),
        },
        "search": {
            "calculator": calculator,
            "sources": source or None,
            "allocation": allocation,
            "seed": seed,
            "workers": workers,
            "directory": None if directory is None else str(directory),
        },
        "budget": {
            "relaxations": relaxations,
            "force_calls": force_calls,
            "hours": hours,
            "stop_after_unchanged": stop_after_unchanged,
            "stop_at": stop_at,
            "refine": refine,
        },
    }
    from_file = what.endswith(".toml")
    raw = config.read(Path(what)) if from_file else {"problem": {"formula": what}}
    for table, values in given.items():
        chosen = {key: value for key, value in values.items() if value is not None}
        if chosen:
            raw[table] = {**raw.get(table, {}), **chosen}
    configuration = config.parse(config.with_absolute_paths(raw, Path.cwd()), what if from_file else "the command line")
    if (configuration.directory / "search.db").exists():
        raise InputError(
            "directory",
            str(configuration.directory),
            f"holds a search already: hybridcsp resume {configuration.directory}, or choose another --directory",
        )
    _run(configuration, trust=trust or calculator is not None or not from_file)


@app.command(
    epilog="Examples:\n\n  hybridcsp resume TiO2                     finish what was interrupted\n\n"
    "  hybridcsp resume TiO2 --relaxations 100   and then do 100 more"
)
def resume(
    directory: Annotated[Path, typer.Argument(help="A run directory.")],
    relaxations: Annotated[
        int | None, typer.Option(metavar="MORE", help="Relaxations beyond those done.", min=1)
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that relax.", min=1)] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Run the code that its configuration names.")] = False,
) -> None:
    """Take up a search again where it stopped or was killed."""
    from hybridcsp import config
    from hybridcsp.archive import Archive

    configuration = config.of_directory(directory)
    changes: dict[str, Any] = {}
    if relaxations is not None:
        with Archive(directory) as archive:
            total = archive.ledger.relaxations + relaxations
        from dataclasses import replace

        changes["budget"] = replace(configuration.budget, relaxations=total)
    if workers is not None:
        changes["search"] = configuration.search.model_copy(update={"workers": workers})
    _run(configuration.model_copy(update=changes), trust=trust)


@app.command(epilog="Examples:\n\n  hybridcsp show TiO2\n\n  hybridcsp show TiO2 --top 20 --plot tio2.png")
def show(
    directory: Annotated[Path, typer.Argument(help="A run directory, also of a search that is running.")],
    top: Annotated[int, typer.Option(help="How many minima.", min=1)] = 10,
    plot: Annotated[Path | None, typer.Option(help="Draw its course to a .png, .pdf or .svg file.")] = None,
) -> None:
    """Show the best minima, and what each source has done."""
    from hybridcsp.archive import Archive

    with Archive(directory) as archive:
        _show(archive, top)
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


def _run(configuration: Configuration, *, trust: bool) -> None:
    from hybridcsp.analysis.export import export as write
    from hybridcsp.terminal import LiveProgress

    signal.signal(signal.SIGTERM, _interrupt)
    with configuration.build(trust=trust) as search:
        _greet(search)
        stopped = "interrupted"
        with LiveProgress(configuration.budget, console) as live, suppress(KeyboardInterrupt):
            stopped = search.run(configuration.budget, on_progress=live.update).stopped
        archive = search.archive
        _show(archive, 10)
        if archive.number_of_minima:
            write(archive.minima(), search.directory / "minima.extxyz")
        where = search.directory
        if stopped == "interrupted":
            console.print(f"Interrupted; go on with: hybridcsp resume {where}", highlight=False, soft_wrap=True)
            raise typer.Exit(130)
        console.print(
            f"Ended: {stopped}. All minima: {where}/minima.extxyz; more: hybridcsp show {where}",
            highlight=False,
            soft_wrap=True,
        )


def _greet(search: Search) -> None:
    problem = search.problem
    units = ", ".join(str(z) for z in problem.units)
    pressure = f" at {problem.pressure_gpa:g} GPa" if problem.pressure_gpa else ""
    console.print(
        f"[bold]{problem.formula}[/]{pressure}: {units} formula units, calculator {search.calculator}, "
        f"{search.workers} worker{'s' * (search.workers > 1)}, in {search.directory}",
        highlight=False,
        soft_wrap=True,
    )


def _show(archive: Archive, top: int) -> None:
    from hybridcsp.analysis.report import minima_table, problem_of, sources_table

    ledger = archive.ledger
    if not ledger.settings:
        raise InputError("directory", str(archive.directory), "a search that was begun; this one has no events")
    minima = archive.minima(top)
    if minima:
        console.print(minima_table(minima, problem_of(archive)))
    else:
        console.print("No minimum has been found yet.")
    if ledger.tallies:
        console.print(sources_table(archive))
    console.print(
        f"{ledger.relaxations} relaxations, {ledger.cost.force_calls} force calls, {archive.number_of_minima} minima"
        + (f"; last run ended: {ledger.stops[-1]}" if ledger.stops else ""),
        highlight=False,
    )


def _list(registry: Registry) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False)
    for entry in registry.entries().values():
        table.add_row(f"[bold]{entry.name}[/]", entry.summary, f"[dim]{entry.package}[/]")
    console.print(table)


def _units(text: str) -> list[int]:
    low, dash, high = text.partition("-")
    try:
        return [int(low), int(high if dash else low)]
    except ValueError:
        raise InputError("--formula-units", text, "a whole number, or two in order: 1-4") from None


def _number(key: str, text: str, allowed: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(key, text, allowed) from None


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
