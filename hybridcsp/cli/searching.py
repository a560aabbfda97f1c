"""``hybridcsp search`` and ``hybridcsp resume``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app, console, number, parse_units, show_archive
from hybridcsp.errors import InputError
from hybridcsp.interrupts import terminate_in_order

if TYPE_CHECKING:
    from hybridcsp.config import Configuration
    from hybridcsp.ledger import Ledger
    from hybridcsp.search import Search

_LIMITS = "What ends it"
_PROBLEM = "What is searched"
_HOW = "How"


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp search TiO2\n\n"
    "  hybridcsp search MgSiO3 --formula-units 2-4 --pressure 25 --relaxations 300 --workers 4\n\n"
    "  hybridcsp search Ti4O8 --formula-units 1 --source random --source seeds:my_structures/\n\n"
    "  hybridcsp search TiO2 --templates my_dioxides/\n\n"
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
        typer.Option(
            metavar="NAME",
            help="random, wyckoff, seeds:PATH, … (hybridcsp sources); may be repeated.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    templates: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Structures of yours, a file or folder, as templates beside the known prototypes.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    allocation: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Between sources: earnings (per force call) or equal.", rich_help_panel=_HOW),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all randomness.", rich_help_panel=_HOW)] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that relax.", rich_help_panel=_HOW)] = None,
    one_shot: Annotated[
        int | None,
        typer.Option(
            metavar="STRUCTURES",
            help="Of so many structures of a generator the one of lowest energy is relaxed (default: 12).",
            rich_help_panel=_HOW,
        ),
    ] = None,
    retrain: Annotated[
        int | None,
        typer.Option(
            metavar="MINIMA", help="New minima after which generators learn from them; 0: never.", rich_help_panel=_HOW
        ),
    ] = None,
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
            "formula_units": None if formula_units is None else parse_units(formula_units),
            "max_atoms": max_atoms,
            "min_atoms": min_atoms,
            "pressure_gpa": None if pressure is None else number("--pressure", pressure, "a pressure in GPa"),
        },
        "search": {
            "calculator": calculator,
            "sources": source or None,
            "allocation": allocation,
            "seed": seed,
            "workers": workers,
            "one_shot": one_shot,
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
        "retraining": {"new_minima": retrain},
    }
    from_file = what.endswith(".toml")
    raw: dict[str, Any] = config.read(Path(what)) if from_file else {"problem": {"formula": what}}
    for table, values in given.items():
        chosen = {key: value for key, value in values.items() if value is not None}
        if chosen:
            raw[table] = {**raw.get(table, {}), **chosen}
    if templates is not None:
        raw["search"] = {**raw.get("search", {}), "sources": _with_templates(raw, templates)}
    configuration = config.parse(config.with_absolute_paths(raw, Path.cwd()), what if from_file else "the command line")
    if (configuration.directory / "search.db").exists():
        raise InputError(
            "directory",
            str(configuration.directory),
            f"holds a search already: hybridcsp resume {quote(str(configuration.directory))}, "
            "or choose another --directory",
        )
    _run(configuration, trust=trust or calculator is not None or not from_file, trust_commands=trust)


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
        changes["budget"] = replace(configuration.budget, relaxations=total)
    if workers is not None:
        changes["search"] = configuration.search.model_copy(update={"workers": workers})
    _run(configuration.model_copy(update=changes), trust=trust, trust_commands=trust)


def _with_templates(raw: Mapping[str, Any], templates: Path) -> list[str]:
    """Return the sources, with the person's own structures in that of prototypes."""
    from hybridcsp.sources import DEFAULT_SOURCES

    sources = list(raw.get("search", {}).get("sources", DEFAULT_SOURCES))
    if "prototypes" not in sources:
        raise InputError("--templates", str(templates), "goes with --source prototypes, which is not among the sources")
    return [f"prototypes:{templates}" if source == "prototypes" else source for source in sources]


def _run(configuration: Configuration, *, trust: bool, trust_commands: bool) -> None:
    from hybridcsp.analysis.export import export as write
    from hybridcsp.cli.terminal import LiveProgress

    terminate_in_order()
    with configuration.build(trust=trust, trust_commands=trust_commands) as search:
        _greet(search)
        stopped = "interrupted"
        with LiveProgress(configuration.budget, console) as live, suppress(KeyboardInterrupt):
            stopped = search.run(configuration.budget, on_progress=live.update).stopped
        archive = search.archive
        show_archive(archive, 10)
        all_minima = ""
        if archive.number_of_minima:
            file = search.directory / "minima.extxyz"
            write(archive.minima(), file)
            all_minima = f"all minima: {file}; "
        where = quote(str(search.directory))
        if stopped == "interrupted":
            console.print(f"Interrupted; go on with: hybridcsp resume {where}", highlight=False, soft_wrap=True)
            raise typer.Exit(130)
        why = _why_nothing(archive.ledger) if stopped in ("no acceptable proposals", "sources exhausted") else ""
        console.print(
            f"Ended: {stopped}{why}; {all_minima}more: hybridcsp show {where}",
            highlight=False,
            soft_wrap=True,
        )


def _why_nothing(ledger: Ledger) -> str:
    """Say what was wrong with the proposals of a search that ran out of them before it relaxed any."""
    if ledger.relaxations:
        return ""
    rejected = sum((tally.rejected for tally in ledger.tallies.values()), Counter[str]())
    if not rejected:
        return " (no source offered anything)"
    return f" (rejected: {', '.join(f'{count} {reason}' for reason, count in rejected.most_common())})"


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
    for name, source in search.sources.items():
        unusable = getattr(source, "unusable", ())
        if unusable:
            shown = "".join(f"\n  {where}: {reason}" for where, reason in unusable[:5])
            more = f"\n  and {len(unusable) - 5} more" if len(unusable) > 5 else ""
            console.print(
                f"{name}: {len(unusable)} structures are of no use{shown}{more}", markup=False, highlight=False
            )
