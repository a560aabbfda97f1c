"""Provide ``hybridcsp potential search``: a search with a potential that learns from an expensive calculator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hybridcsp.cli.console import console
from hybridcsp.cli.output import as_argument, print_search
from hybridcsp.cli.potential import potential_app
from hybridcsp.cli.progress import busy
from hybridcsp.cli.values import read_formula_units
from hybridcsp.utils.interrupts import terminate_in_order

if TYPE_CHECKING:
    from hybridcsp.workflows.learned_rounds import LearningAccount


@potential_app.command(
    epilog="Examples:\n\n"
    "  hybridcsp potential search TiO2 --calculator dft.toml\n\n"
    "  hybridcsp potential search TiO2 --calculator dft.toml --formula-units 1-4 --pressure 10 --rounds 6\n\n"
    "  hybridcsp show TiO2"
)
def search(
    formula: Annotated[str, typer.Argument(metavar="FORMULA", help="Formula, such as TiO2.")],
    *,
    calculator: Annotated[
        str, typer.Option(metavar="NAME", help="Expensive calculator, whose energies are the results.")
    ],
    formula_units: Annotated[
        str, typer.Option(metavar="N|LOW-HIGH", help="Number of formula units in the primitive cell.")
    ] = "1-4",
    pressure: Annotated[
        str, typer.Option(metavar="GPA", help="External pressure in GPa, or with a unit: 500kbar.")
    ] = "0",
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Source of candidates. Repeatable.", show_default="those of a search"),
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Run directory.", show_default="the formula")
    ] = None,
    rounds: Annotated[int, typer.Option(metavar="N", help="Number of rounds after the start.")] = 4,
    start: Annotated[
        int, typer.Option(metavar="N", help="Relaxations with the expensive calculator before the first training.")
    ] = 10,
    relaxations: Annotated[int, typer.Option(metavar="N", help="Relaxations with the committee in each round.")] = 60,
    selected: Annotated[
        int, typer.Option(metavar="N", help="Largest number of structures for the expensive calculator in each round.")
    ] = 8,
    window: Annotated[
        float, typer.Option(metavar="EV/ATOM", help="Energy above the committee's best of promising minima.")
    ] = 0.1,
    limit: Annotated[
        float, typer.Option(metavar="EV/Å", help="Uncertainty of forces that ends a relaxation with the committee.")
    ] = 0.3,
    max_steps: Annotated[
        int, typer.Option(metavar="N", help="Force calls of one relaxation with the expensive calculator.")
    ] = 40,
    time_limit: Annotated[
        str,
        typer.Option(
            metavar="SECONDS", help="Time of one relaxation with the expensive calculator, or with a unit: 12h."
        ),
    ] = "4h",
    members: Annotated[int, typer.Option(metavar="N", help="Number of networks, from 2 to 16.")] = 3,
    size: Annotated[str, typer.Option(metavar="NAME", help="Size of each network: small or medium.")] = "small",
    epochs: Annotated[int, typer.Option(metavar="N", help="Largest number of epochs of a training.")] = 40,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed.")] = 0,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Number of worker processes.", show_default="one per core")
    ] = None,
) -> None:
    """Search with a committee of potentials that learns from an expensive calculator.

    In each round a committee is trained on all evaluations so far, and a search runs with it. The promising minima and
    the structures about which the committee is uncertain are relaxed by the expensive calculator. All results are those
    of the expensive calculator. An interrupted search is continued by the same command.
    """
    with busy("loading the packages"):
        from hybridcsp.archive.archive import Archive
        from hybridcsp.core.problem import Problem
        from hybridcsp.io.export import export
        from hybridcsp.relaxation.calculators.choice import absolute_calculator
        from hybridcsp.sources.registry import DEFAULT_SOURCES
        from hybridcsp.utils.quantities import read_quantity
        from hybridcsp.workflows.learned_rounds import LearningPlan
        from hybridcsp.workflows.learned_search import LearnedSearch

        low, high = read_formula_units(formula_units)
        problem = Problem(formula, formula_units=(low, high), pressure_gpa=read_quantity("--pressure", pressure, "GPa"))
        plan = LearningPlan(
            rounds=rounds,
            start=start,
            relaxations=relaxations,
            selected=selected,
            window=window,
            limit=limit,
            max_steps=max_steps,
            seconds=read_quantity("--time-limit", time_limit, "seconds"),
            members=members,
            size=size,
            epochs=epochs,
            seed=seed,
        )
    where = directory or Path(problem.formula)
    terminate_in_order()
    try:
        with busy(f"searching {problem.formula}") as show:
            LearnedSearch(
                problem,
                absolute_calculator(calculator, Path.cwd()),
                plan,
                directory=where,
                sources=source or DEFAULT_SOURCES,
                workers=workers,
                on_progress=show,
            ).run(_print_account)
    except KeyboardInterrupt:
        console.print("Interrupted. Continue with the same command.")
        raise typer.Exit(130) from None
    with Archive(where) as archive:
        print_search(archive, 10)
        export(archive.stream_final_minima(), where / "minima.extxyz", follow=False)
    console.print(f"Show again: hybridcsp show {as_argument(where)}", markup=False, highlight=False, soft_wrap=True)


def _print_account(account: LearningAccount) -> None:
    """Print one line about a complete round."""
    best = "" if account.best is None else f", best {account.best:.4f} eV/atom"
    results = f"{account.force_calls} force calls, {account.minima} minima{best}"
    if not account.number:
        text = f"Start: {account.selected.get('start', 0)} relaxations, {results}"
    else:
        errors = account.errors
        learned = f"learned from {account.learned} structures"
        if errors:
            learned += f" (errors {1000 * errors['energy']:.0f} meV/atom, {1000 * errors['forces']:.0f} meV/Å)"
        chosen = ", ".join(f"{n} {why}" for why, n in account.selected.items()) or "nothing new"
        text = (
            f"Round {account.number}: {learned}; {account.relaxed + account.stopped} relaxations with the committee, "
            f"of which {account.stopped} uncertain; {chosen}; {results}"
        )
    console.print(text, highlight=False, markup=False, soft_wrap=True)
