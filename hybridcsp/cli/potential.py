"""Provide ``hybridcsp potential``: training of potentials on evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hybridcsp.cli.app import App, CommandGroup, app
from hybridcsp.cli.console import console
from hybridcsp.cli.generators import check_exists
from hybridcsp.cli.output import as_argument
from hybridcsp.cli.progress import busy
from hybridcsp.cli.training import Choices, checked_output, errors_of_options, finish, run_training
from hybridcsp.utils.interrupts import terminate_in_order

if TYPE_CHECKING:
    from collections.abc import Callable

    from hybridcsp.training.epoch import Epoch

potential_app = App(
    cls=CommandGroup,
    no_args_is_help=True,
    epilog="Examples:\n\n  hybridcsp potential train TiO2 --output my_potential\n\n"
    "  hybridcsp potential search TiO2 --calculator dft.toml",
)
app.add_typer(potential_app, name="potential")


@potential_app.callback()
def potential() -> None:
    """Train potentials on the evaluations of a calculator, also while a search goes on."""


@potential_app.command(
    epilog="Examples:\n\n"
    "  hybridcsp potential train TiO2 --output my_potential\n\n"
    "  hybridcsp potential train TiO2 more.extxyz --members 4 --size medium\n\n"
    "  hybridcsp search TiO2 --calculator committee:my_potential --directory with_mine"
)
def train(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            help="Run directories of searches with --keep-evaluations, and files or folders of structures with "
            "energies, forces and stresses.",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="New folder for the weights and their card.")] = Path(
        "potential-trained"
    ),
    members: Annotated[int, typer.Option(metavar="N", help="Number of networks, from 1 to 16.")] = 3,
    size: Annotated[str, typer.Option(metavar="NAME", help="Size of each network: small or medium.")] = "small",
    most: Annotated[
        int, typer.Option(metavar="N", help="Largest number of structures to learn from; the most different are taken.")
    ] = 2000,
    epochs: Annotated[int, typer.Option(metavar="N", help="Largest number of passes over the structures.")] = 60,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed.")] = 0,
) -> None:
    """Train a committee of small MACE potentials, whose spread says how uncertain it is.

    A tenth of the trajectories is held out; the errors on them are compared with a prediction that ignores structure.
    An interrupted training is continued by the same command. MACE must be installed.
    """
    for path in data:
        check_exists("PATH", path)
    with busy("loading the packages"):
        from dataclasses import replace

        from hybridcsp.potentials.architecture import sizes_named
        from hybridcsp.potentials.committee import TRAINING, Committee
        from hybridcsp.potentials.evaluations import read_evaluations

        committee = Committee(sizes_named(size))
        settings = replace(TRAINING, epochs=epochs)
    choices = Choices(data=data, output=output, settings={}, max_atoms=0, plot=None, seed=seed)
    folder, picture = checked_output(choices, "potential")
    with busy("reading evaluations"):
        found = read_evaluations(data, key="PATH")
    skipped = ", ".join(f"{n} {reason}" for reason, n in found.left_out.items())
    text = f"{len(found)} evaluations by {found.calculator or 'a calculator without a name'}"
    console.print(f"{text} (left out: {skipped})" if skipped else text, highlight=False, markup=False, soft_wrap=True)
    terminate_in_order()

    def fit(checkpoint: Path, on_epoch: Callable[[Epoch], None]) -> None:
        committee.fit(
            found,
            members=members,
            most=most,
            seed=seed,
            training=settings,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )

    with errors_of_options(choices, "PATH"):
        curve = run_training(fit, folder)
    committee.save(folder)
    finish(curve, folder, picture, f"committee, {committee.card['crystals']} structures", pretrained=False)
    for line in committee.assessment.lines() if committee.assessment else []:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"Wrote weights to {folder}. Relax with them: hybridcsp search FORMULA --calculator "
        f"committee:{as_argument(folder)}",
        highlight=False,
        soft_wrap=True,
    )
