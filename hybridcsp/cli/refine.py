"""Provide the command ``hybridcsp refine``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console
from hybridcsp.cli.output import as_argument, print_search
from hybridcsp.cli.progress import setting_up
from hybridcsp.errors import CalculatorError, InputError
from hybridcsp.utils.interrupts import terminate_in_order


@app.command(
    epilog="Examples:\n\n  hybridcsp refine TiO2 --with sevennet:l3i5\n\n"
    "  hybridcsp refine TiO2 --with sevennet --with vasp.toml --best 5 --window 0.02"
)
def refine(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Run directory of a search or an import.")],
    *,
    with_: Annotated[
        list[str],
        typer.Option(
            "--with",
            metavar="NAME",
            help="Follow-up calculator: a name (see hybridcsp calculators), module:factory or a calculator file. "
            "Repeatable: each relaxes the best minima by the one before.",
        ),
    ],
    best: Annotated[
        int, typer.Option(metavar="N", help="Number of best minima; of similar ones only the lowest.", min=1)
    ] = 20,
    window: Annotated[
        float,
        typer.Option(
            metavar="EV/ATOM", help="Energy above the best within which all further minima are relaxed.", min=0
        ),
    ] = 0.1,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of worker processes.", min=1, show_default="one per core"),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(metavar="NAME", help="Where relaxations run (see hybridcsp executors), such as dask:ADDRESS."),
    ] = "local",
    python: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Python interpreter that runs the calculators.", show_default="found by name"
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Device, such as cuda.", show_default="the calculator's")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Precision: float32 or float64.", show_default="the calculator's"),
    ] = None,
) -> None:
    """Relax the best minima of a search again with other calculators.

    The last of the calculators decides the ranking. What has been relaxed with them before is not repeated, so that an
    interrupted run is continued by the same command. Results of follow-up calculators that are not named are kept, and
    count again when they are named.
    """
    with ExitStack() as setup:
        setup.enter_context(setting_up(f"reading {directory}"))
        from hybridcsp.analysis.follow_ups import disagreement
        from hybridcsp.analysis.live_display import display
        from hybridcsp.archive.archive import Archive
        from hybridcsp.io.export import export
        from hybridcsp.relaxation.calculators.choice import CalculatorChoice, absolute_calculator
        from hybridcsp.search.failures import why_none_succeeded
        from hybridcsp.search.follow_up import FollowUp
        from hybridcsp.search.stopping import StoppingCriteria
        from hybridcsp.workflows.refine import refine as run

        with Archive(directory) as archive:
            done, threshold = archive.state.relaxations, disagreement(archive)
        options = {"python": python, "device": device, "precision": precision}
        # As the names that --then gives, so that this goes on with the results of a search.
        names = [absolute_calculator(name, Path.cwd()) for name in with_]
        plain = all(value is None for value in options.values())
        try:
            follow_up = FollowUp(
                calculators=tuple(name if plain else CalculatorChoice(calculator=name, **options) for name in names),
                best=best,
                window=window,
                disagreement=threshold,
            )
            follow_up.check()
        except InputError as error:
            raise error.renamed("--with" if error.key == "calculators" else f"--{error.key}") from None
    terminate_in_order()
    where = as_argument(directory)
    try:
        with display(StoppingCriteria(relaxations=max(1, done)), console) as live:
            run(directory, follow_up, workers=workers, executor=executor, on_progress=live.update)
    except KeyboardInterrupt:
        console.print(f"Interrupted. The same command continues with {where}.", markup=False, highlight=False)
        raise typer.Exit(130) from None
    with Archive(directory) as archive:
        print_search(archive, 10)
        export(
            archive.stream_final_minima(), directory / "minima.extxyz", follow=False, disagreement=disagreement(archive)
        )
        failed = [why for level in archive.state.follow_ups if (why := why_none_succeeded(level, archive.directory))]
        if failed and len(failed) == len(archive.state.follow_ups.levels):
            raise CalculatorError(failed[-1])
        console.print(f"Show again: hybridcsp show {where}", markup=False, highlight=False, soft_wrap=True)
