"""Provide the commands ``hybridcsp calculators install``, ``environments`` and ``remove``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.calculators import calculators_app
from hybridcsp.cli.console import console, errors
from hybridcsp.cli.output import AsCsv, AsJson, print_table
from hybridcsp.cli.progress import announced
from hybridcsp.errors import CalculatorError, CommandLineError, with_full_stop
from hybridcsp.utils.interrupts import terminate_in_order

if TYPE_CHECKING:
    from hybridcsp.relaxation.calculators.environments import Environment, Recipe

ENVIRONMENT = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of an environment, which is that of its calculator: sevennet, mace.")
]


@calculators_app.command(
    epilog="Examples:\n\n"
    "  hybridcsp calculators install sevennet\n\n"
    "  hybridcsp calculators install sevennet --requirements   the packages, for pip wheel on another machine\n\n"
    "  hybridcsp calculators install sevennet --wheels wheels/ --yes   without a network"
)
def install(
    name: ENVIRONMENT,
    wheels: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Take all packages from a folder of wheels and use no network.",
            show_default="the index of pip",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Install without asking.")] = False,
    requirements: Annotated[
        bool, typer.Option("--requirements", help="Print the pinned packages and install nothing.")
    ] = False,
) -> None:
    """Install a calculator in an environment of its own.

    The environment is a virtual environment of Python in the data folder of the user, or in the folder that the
    variable HYBRIDCSP_DATA names. pip uses the index for which it is configured.
    """
    from hybridcsp.relaxation.calculators.environments import find_recipe
    from hybridcsp.relaxation.calculators.environments import install as install_environment
    from hybridcsp.relaxation.calculators.environments.installation import gigabytes

    recipe = find_recipe(name)
    if requirements:
        sys.stdout.write(recipe.requirements)
        return
    present = _present(recipe)
    if present is None:
        _ask(recipe, wheels, yes=yes)
        terminate_in_order()
        with announced(f"installing {name}"):
            present = install_environment(recipe, wheels=wheels)
        done = "Installed"
    else:
        done = "Already installed:"
    shown = f"{done} {name} ({recipe.principal_packages()}; {gigabytes(present.size)}) in {present.folder}."
    console.print(shown, highlight=False, soft_wrap=True)
    console.print(f"hybridcsp calculators check {recipe.example} relaxes a small crystal with it.", highlight=False)


@calculators_app.command(
    epilog="Examples:\n\n  hybridcsp calculators environments\n\n  hybridcsp calculators environments --json"
)
def environments(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the installed environments with their sizes."""
    from hybridcsp.analysis.text_tables import Column, FittingTable
    from hybridcsp.relaxation.calculators.environments import RECIPES, listed
    from hybridcsp.relaxation.calculators.environments.folders import environments_folder
    from hybridcsp.relaxation.calculators.environments.installation import gigabytes

    found = listed()
    if print_table([_row(one) for one in found], as_json=as_json, as_csv=as_csv):
        return
    folder = environments_folder()
    if not found:
        console.print(f"No environment is installed in {folder}.", highlight=False, soft_wrap=True)
        console.print(f"hybridcsp calculators install NAME makes one for {' or '.join(RECIPES)}.", highlight=False)
        return
    columns = [
        Column(heading="name", words=True),
        Column(heading="size"),
        Column(heading="Python", dispensable=1),
        Column(heading="packages", words=True),
        Column(heading="state", words=True),
    ]
    rows = [
        (one.name, gigabytes(one.size) if one.size else "", one.python_version, _principal(one), one.state)
        for one in found
    ]
    console.print(FittingTable("Environments of calculators", columns, rows, [f"They lie in {folder}."]))


@calculators_app.command(epilog="Examples:\n\n  hybridcsp calculators remove sevennet")
def remove(name: ENVIRONMENT) -> None:
    """Remove an installed environment."""
    from hybridcsp.relaxation.calculators.environments import remove as remove_environment
    from hybridcsp.relaxation.calculators.environments.installation import gigabytes

    removed = remove_environment(name)
    size = f" ({gigabytes(removed.size)})" if removed.size else ""
    console.print(f"Removed {removed.folder}{size}.", highlight=False, soft_wrap=True)


def _present(recipe: Recipe) -> Environment | None:
    """Return the environment of a recipe if nothing needs to be installed."""
    from hybridcsp.relaxation.calculators.environments import environment

    try:
        found = environment(recipe.name)
    except CalculatorError as error:
        errors.print(with_full_stop(str(error)), highlight=False, soft_wrap=True)
        return None
    if found is not None and found.outdated:
        errors.print(f"{found.folder} holds other packages and is replaced.", highlight=False, soft_wrap=True)
        return None
    return found


def _ask(recipe: Recipe, wheels: Path | None, *, yes: bool) -> None:
    """Say what an installation does, check that there is space, and ask for confirmation in a terminal."""
    import platform

    from hybridcsp.relaxation.calculators.environments.folders import environments_folder
    from hybridcsp.relaxation.calculators.environments.installation import check_space, check_wheels, gigabytes

    if wheels is not None:
        check_wheels(wheels)
    folder = environments_folder()
    more = len(recipe.packages) - sum(name in recipe.packages for name in recipe.principal)
    source = "pip's index" if wheels is None else f"the wheels in {wheels}"
    errors.print(
        f"This installs {recipe.principal_packages()} and {more} more packages, all of pinned versions, from {source} "
        f"in a virtual environment of Python {platform.python_version()}: {folder / recipe.name}\n"
        f"It takes about {gigabytes(recipe.size)} with a torch for CPUs ({gigabytes(recipe.size + recipe.download)} "
        "while it is installed), and several GB more with a torch for CUDA"
        f"{', if pip chooses one' if wheels is None else ''}.",
        highlight=False,
        soft_wrap=True,
    )
    check_space(folder, recipe)
    if yes:
        return
    if not is_terminal():
        raise CommandLineError("the installation needs a confirmation: run the command in a terminal, or add --yes.")
    if not typer.confirm("Install it?", default=True, err=True):
        raise typer.Exit(1)


def is_terminal() -> bool:
    """Return whether a person can answer questions."""
    return sys.stdin.isatty()


def _principal(environment: Environment) -> str:
    """Return the most important packages of an environment with their versions."""
    from hybridcsp.relaxation.calculators.environments import RECIPES

    recipe = RECIPES.get(environment.name)
    names = recipe.principal if recipe else tuple(environment.packages)[:3]
    return ", ".join(f"{name} {environment.packages[name]}" for name in names if name in environment.packages)


def _row(environment: Environment) -> dict[str, Any]:
    return {
        "name": environment.name,
        "state": environment.state,
        "usable": not environment.fault,
        "size_bytes": environment.size,
        "python": environment.python,
        "python_version": environment.python_version,
        "folder": str(environment.folder),
        "packages": dict(environment.packages),
    }
