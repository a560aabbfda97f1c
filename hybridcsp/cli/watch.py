"""Provide the command ``hybridcsp watch``, which supplies a running search of another code with seeds."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console
from hybridcsp.cli.import_export import print_unreadable
from hybridcsp.errors import CommandLineError, InputError
from hybridcsp.utils.interrupts import terminate_in_order

if TYPE_CHECKING:
    from hybridcsp.workflows.watch import Round

_CODE = "Folder of the other code (exactly one)"


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp watch TiO2-watch --uspex uspex_run            5 seeds per generation, until Ctrl-C\n\n"
    "  hybridcsp watch TiO2-watch --uspex uspex_run --once     a single update, for scripts and cron\n\n"
    "  hybridcsp watch TiO2-watch --calypso run --seeds 8 --source evolution --source random"
)
def watch(
    directory: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", help="Run directory; created if it does not exist.")
    ],
    uspex: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder that USPEX runs in.", show_default=False, rich_help_panel=_CODE),
    ] = None,
    calypso: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder that CALYPSO runs in (split mode).",
            show_default=False,
            rich_help_panel=_CODE,
        ),
    ] = None,
    xtalopt: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Working directory of XtalOpt; seeds for its next run.",
            show_default=False,
            rich_help_panel=_CODE,
        ),
    ] = None,
    cryspy: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder that CrySPY runs in; seeds for its next run.",
            show_default=False,
            rich_help_panel=_CODE,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Number of seeds per generation.", min=1)] = 5,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Source of seeds, as for hybridcsp search. Repeatable.",
            show_default="those of search",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed.", min=0)] = 0,
    calculator: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL", help="Name of the calculator of the energies.", show_default="the code, such as uspex:VASP"
        ),
    ] = None,
    every: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time between two updates in seconds.", min=0.1)
    ] = 30.0,
    once: Annotated[bool, typer.Option("--once", help="Update once and exit.")] = False,
) -> None:
    """Supply a running search of another code with seeds.

    At the end of each generation, its results are imported, the sources learn from them, and new seeds are written
    where the code reads them. Stop at any time with Ctrl-C, and continue with the same command.
    """
    from hybridcsp.io import formats
    from hybridcsp.sources.registry import DEFAULT_SOURCES
    from hybridcsp.workflows.watch import Watch

    given = {"uspex": uspex, "calypso": calypso, "xtalopt": xtalopt, "cryspy": cryspy}
    chosen = [(name, path) for name, path in given.items() if path is not None]
    if len(chosen) != 1:
        raise CommandLineError(
            "watch needs the folder of exactly one code: --uspex, --calypso, --xtalopt or --cryspy; "
            f"{len(chosen) or 'none'} {'was' if len(chosen) < 2 else 'were'} given."
        )
    ((name, path),) = chosen
    code = formats.load(name)
    try:
        watching = Watch(
            directory,
            path,
            code,
            sources=source or DEFAULT_SOURCES,
            seed=seed,
            seeds=seeds,
            calculator=calculator,
        )
    except InputError as error:
        raise (error.renamed(f"--{name}") if error.key == "path" else error) from None
    last = ""
    terminate_in_order()
    with suppress(KeyboardInterrupt):
        while True:
            found = watching.check()
            text = _describe(found)
            if text != last:
                console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, soft_wrap=True, markup=False)
                last = text
            if found.report is not None:
                print_unreadable(found.report)
            if once:
                return
            time.sleep(every)
    console.print(
        f"Stopped. Continue with the same command; show the results: hybridcsp show {directory}",
        highlight=False,
        soft_wrap=True,
    )


def _describe(found: Round) -> str:
    """Return in one line what an update found and did."""
    parts = [f"generation {found.finished} finished" if found.finished else "no generation has finished yet"]
    if found.report is not None:
        report = found.report
        parts.append(f"imported {report.relaxed} relaxed structures and {report.failed} failures")
        if report.linked:
            parts.append(f"{report.linked} of them from our seeds")
    if found.given_up:
        parts.append(f"{found.given_up} of our seeds were not relaxed")
    if found.note:
        parts.append(found.note)
    return "; ".join(parts)
