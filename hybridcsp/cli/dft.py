"""Provide ``hybridcsp calculators template``, and the check of a DFT code by one calculation."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.calculators import calculators_app
from hybridcsp.cli.console import console
from hybridcsp.cli.output import print_table
from hybridcsp.cli.progress import announced
from hybridcsp.errors import CalculatorError, InputError, with_full_stop
from hybridcsp.utils.interrupts import terminate_in_order

if TYPE_CHECKING:
    from ase import Atoms

    from hybridcsp.relaxation.calculators.choice import CalculatorChoice

#: Elements that are tried first for a check, because their crystals are small and their calculations quick.
_EASY = ("Si", "Al", "Mg", "Na", "C", "Cu")


@calculators_app.command(
    epilog="Examples:\n\n"
    "  hybridcsp calculators template quantum-espresso > dft.toml\n\n"
    "  hybridcsp calculators template vasp --output vasp.toml"
)
def template(
    code: Annotated[
        str, typer.Argument(metavar="CODE", help="quantum-espresso, vasp, gpaw, abinit or cp2k.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="File to write; - is the standard output.")
    ] = Path("-"),
) -> None:
    """Write a DFT file with comments, to be edited, for --calculator.

    Program, pseudopotentials, k-points and cutoffs must be set. hybridcsp calculators check FILE tries it.
    """
    from hybridcsp.relaxation.calculators.dft.codes import template as text_of
    from hybridcsp.utils.files import atomic_write

    text = text_of(code)
    if output == Path("-"):
        sys.stdout.write(text)
        return
    if output.exists():
        raise InputError("--output", output, "a new file; this one exists")
    with atomic_write(output, key="--output", follow=True) as stream:
        stream.write(text)


def check_dft(
    name: str, choice: CalculatorChoice, *, element: str | None, crystal: Atoms | None, seconds: float, as_json: bool
) -> None:
    """Compute one small crystal with a DFT file, and print what came of it.

    Parameters
    ----------
    name
        The calculator as the user wrote it.
    choice
        The same as a choice.
    element
        Element of the crystal; ``None`` for one that has a pseudopotential.
    crystal
        The crystal; ``None`` for that of the element.
    seconds
        Time limit.
    as_json
        Whether to print JSON.

    Raises
    ------
    InputError, CalculatorError
        If the file has a mistake, or the calculation fails.
    """
    from ase.units import GPa

    from hybridcsp.core.outcomes import Failed
    from hybridcsp.relaxation.calculators.dft.chosen import dft_file
    from hybridcsp.relaxation.calculators.registry import check_calculator
    from hybridcsp.relaxation.trial import crystal_of, run_single_point

    file = dft_file(choice)
    if crystal is None:
        if element is None:
            known = file.last.elements
            element = next((one for one in (*_EASY, *known) if one in known), "Si")
        crystal = crystal_of(element)
    file.check_elements(sorted(set(crystal.symbols)))
    check_calculator(choice)
    terminate_in_order()
    with TemporaryDirectory() as folder, announced(f"checking {name}"):
        outcome, started = run_single_point(choice, crystal, seconds=seconds, folder=Path(folder))
    formula = crystal.get_chemical_formula(empirical=True)
    if isinstance(outcome, Failed):
        raise CalculatorError(with_full_stop(f"{name} fails for {formula}: {outcome.detail or outcome.reason}"))
    found = outcome.evaluation
    row: dict[str, Any] = {
        "calculator": name,
        "label": found.calculator,
        "crystal": formula,
        "atoms": len(crystal),
        "seconds_to_start": started,
        "seconds": outcome.cost.seconds,
        "energy_ev_per_atom": found.energy / len(crystal),
        "max_force_ev_per_angstrom": found.max_force,
        "max_stress_gpa": None if found.max_stress_residual is None else found.max_stress_residual / GPa,
        "stages": len(file.stages),
    }
    if not print_table([row], as_json=as_json, as_csv=False, about=row):
        _print(row)


def _print(row: dict[str, Any]) -> None:
    from rich.table import Table

    force, stress = row["max_force_ev_per_angstrom"], row["max_stress_gpa"]
    table = Table(box=None, show_header=False)
    for heading, text in (
        ("calculator", row["label"]),
        ("crystal", f"{row['crystal']}, {row['atoms']} atom{'s' * (row['atoms'] > 1)}"),
        ("energy", f"{row['energy_ev_per_atom']:.4f} eV/atom"),
        ("largest force", "not available" if force is None else f"{force:.3f} eV/Å"),
        ("largest stress", "not available: cells cannot be relaxed" if stress is None else f"{stress:.2f} GPa"),
        ("calculation", f"{row['seconds']:.1f} s"),
        ("started in", f"{row['seconds_to_start']:.1f} s"),
        ("stages", f"{row['stages']}, of which the last was computed" if row["stages"] > 1 else "1"),
    ):
        table.add_row(heading, text)
    console.print(table)
