"""Provide ``hybridcsp dataset relax``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.console import console, errors
from hybridcsp.cli.dataset import CRYSTALS, dataset_app, read_paths
from hybridcsp.cli.output import as_argument
from hybridcsp.cli.progress import RelaxationDisplay, busy
from hybridcsp.cli.values import read_number
from hybridcsp.errors import InputError
from hybridcsp.utils.interrupts import terminate_in_order
from hybridcsp.utils.quantities import read_quantity

if TYPE_CHECKING:
    from hybridcsp.datasets import Crystals, RelaxationProgress


@dataset_app.command(
    epilog="Examples:\n\n"
    "  hybridcsp dataset relax vo.extxyz --output vo_relaxed\n\n"
    "  hybridcsp dataset relax new.extxyz --output new_relaxed --calculator sevennet:l3i5 --workers 8 --fmax 0.02\n\n"
    "  hybridcsp dataset relax vo.extxyz --output vo_relaxed --batch auto\n\n"
    "  ase gui vo_relaxed/relaxed.extxyz      the crystals so far, also while the command is running",
)
def relax(
    paths: CRYSTALS,
    output: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Folder of the outcomes: a new one, or that of the same command before."),
    ],
    calculator: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Calculator: a name (see hybridcsp calculators), module:factory or a calculator file."
        ),
    ] = "chgnet",
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of worker processes.", min=1, show_default="one per core"),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(metavar="NAME", help="Where relaxations run (see hybridcsp executors), such as dask:ADDRESS."),
    ] = "local",
    batch: Annotated[
        str,
        typer.Option(
            metavar="N",
            help="Number of crystals that each worker relaxes at the same time with a batch calculator (chgnet, mace), "
            "or auto.",
        ),
    ] = "1",
    pressure: Annotated[
        str, typer.Option(metavar="GPA", help="External pressure in GPa, or with a unit: 500kbar.")
    ] = "0",
    fmax: Annotated[
        str, typer.Option(metavar="EV/Å", help="Largest force on an atom of a converged crystal.")
    ] = "0.05",
    max_steps: Annotated[int, typer.Option(metavar="N", help="Most force calls of a relaxation.", min=1)] = 500,
    time_limit: Annotated[str, typer.Option(metavar="SECONDS", help="Longest time of a relaxation.")] = "600",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Relax again what failed in an earlier run.")
    ] = False,
    python: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Python interpreter that runs the calculator.", show_default="found by name"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Device, such as cuda.", show_default="the calculator's")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Precision: float32 or float64.", show_default="the calculator's"),
    ] = None,
) -> None:
    """Relax the crystals of a data set with any calculator.

    The folder gets relaxed.extxyz with the converged crystals and failed.extxyz with the others and the reasons, one
    frame as soon as a relaxation ends. After an interruption, even by kill -9 or a power cut, the same command
    continues.
    """
    from hybridcsp.core.records import Limits
    from hybridcsp.datasets.relaxation import RelaxationProgress, relax_crystals
    from hybridcsp.relaxation.calculators.choice import CalculatorChoice, absolute_calculator
    from hybridcsp.relaxation.settings import RelaxationSettings

    allowed = "a positive number"
    try:
        settings = RelaxationSettings(
            pressure_gpa=read_quantity("--pressure", pressure, "GPa"),
            max_force=read_number("--fmax", fmax, allowed),
        )
        limits = Limits(force_calls=max_steps, seconds=read_number("--time-limit", time_limit, "a number from 0"))
        options = {"python": python, "device": device, "precision": precision}
        name = absolute_calculator(calculator, Path.cwd())
        plain = all(value is None for value in options.values())
        chosen: Any = name if plain else CalculatorChoice(calculator=name, **options)
    except InputError as error:
        raise error.renamed(_OPTIONS.get(error.key, error.key)) from None
    found = read_paths(paths)
    terminate_in_order()
    last = RelaxationProgress(total=len(found))
    with RelaxationDisplay(errors) as display:

        def show(progress: RelaxationProgress) -> None:
            nonlocal last
            last = progress
            display.update(progress)

        try:
            relax_crystals(
                found.atoms,
                output,
                calculator=chosen,
                settings=settings,
                limits=limits,
                workers=workers,
                executor=executor,
                batch=batch,
                retry_failed=retry_failed,
                on_progress=show,
            )
            interrupted = False
        except InputError as error:
            raise error.renamed(_OPTIONS.get(error.key, error.key)) from None
        except KeyboardInterrupt:
            interrupted = True
    if not interrupted or last.relaxed:
        with busy("writing the card"):
            _write_card(found, output, {"calculator": str(chosen), "pressure_gpa": settings.pressure_gpa, "fmax": fmax})
    _print(last, output, interrupted=interrupted)
    if interrupted:
        raise typer.Exit(130)


_OPTIONS = {
    "batch": "--batch",
    "calculator": "--calculator",
    "executor": "--executor",
    "python": "--python",
    "device": "--device",
    "precision": "--precision",
    "max_force": "--fmax",
    "pressure_gpa": "--pressure",
    "seconds": "--time-limit",
}


def _write_card(found: Crystals, output: Path, settings: dict[str, Any]) -> None:
    from hybridcsp.datasets.relaxation import write_relaxation_card

    write_relaxation_card(output, inputs=found.inputs, settings=settings)


def _print(progress: RelaxationProgress, output: Path, *, interrupted: bool) -> None:
    for reason, n in progress.reasons.most_common():
        console.print(f"{n} failed: {reason}", markup=False, highlight=False)
    console.print(
        f"{progress.relaxed} of {progress.total} crystals relaxed, {progress.failed} failed, "
        f"{progress.force_calls} force calls in this run.",
        markup=False,
        highlight=False,
    )
    where = as_argument(output)
    more = (
        "Interrupted. The same command continues."
        if interrupted
        else f"Collect the crystals without duplicates: hybridcsp dataset convert {where} --fold --output NAME.extxyz"
    )
    console.print(more, markup=False, highlight=False, soft_wrap=True)
