"""Provide ``hybridcsp calculators``: the list of calculators, and their check with a small crystal."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import App, CommandGroup, app
from hybridcsp.cli.console import console
from hybridcsp.cli.lists import print_registry
from hybridcsp.cli.output import AsCsv, AsJson, print_table
from hybridcsp.cli.progress import announced
from hybridcsp.errors import CalculatorError, CommandLineError, InputError, with_full_stop
from hybridcsp.utils.interrupts import terminate_in_order

if TYPE_CHECKING:
    from hybridcsp.relaxation.calculators.choice import CalculatorChoice
    from hybridcsp.relaxation.trial import Trial

_OWN = "the calculator's own"

calculators_app = App(
    cls=CommandGroup,
    invoke_without_command=True,
    epilog="Examples:\n\n"
    "  hybridcsp calculators\n\n"
    "  hybridcsp calculators --json\n\n"
    "  hybridcsp calculators install sevennet\n\n"
    "  hybridcsp calculators check sevennet:l3i5\n\n"
    "  hybridcsp calculators template quantum-espresso > dft.toml",
)
app.add_typer(calculators_app, name="calculators")


@calculators_app.callback()
def calculators(context: typer.Context, as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the names for --calculator, install some of them, and check them.

    Potentials whose packages conflict with those of hybridcsp are installed in an environment of their own, from which
    they are used by name.
    """
    if context.invoked_subcommand is not None:
        if as_json or as_csv:
            raise CommandLineError(f"--json and --csv must come after the command {context.invoked_subcommand}.")
        return
    from hybridcsp.relaxation.calculators.environments import RECIPES, listed
    from hybridcsp.relaxation.calculators.registry import CALCULATORS

    installed = [] if as_json or as_csv else [one.name for one in listed() if not one.fault]
    print_registry(
        CALCULATORS,
        as_json,
        as_csv,
        "Any other ASE calculator: module:factory, where factory is a class or function without arguments.\n"
        f"hybridcsp calculators install NAME makes an environment for {' or '.join(RECIPES)}; "
        f"installed: {', '.join(installed) or 'none'}.",
    )


@calculators_app.command(
    epilog="Examples:\n\n"
    "  hybridcsp calculators check sevennet:l3i5\n\n"
    "  hybridcsp calculators check dft.toml --element Si --time-limit 1h\n\n"
    "  hybridcsp calculators check my_module:factory --python ~/envs/theirs/bin/python"
)
def check(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE.toml", help="A calculator as for --calculator: a name, module:factory or a TOML file."
        ),
    ],
    python: Annotated[
        str | None, typer.Option(metavar="PATH", help="Python interpreter of the calculator.", show_default=_OWN)
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Device of torch, such as cuda.", show_default=_OWN)
    ] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="NAME", help="float32 or float64.", show_default=_OWN)
    ] = None,
    structure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Crystal to relax.", show_default="one of Cu, Si, NaCl, MgO, C and GaN with 2 atoms"
        ),
    ] = None,
    element: Annotated[
        str | None,
        typer.Option(metavar="SYMBOL", help="Element to compute with a DFT file.", show_default="one that it has"),
    ] = None,
    time_limit: Annotated[
        str,
        typer.Option(metavar="SECONDS", help="Time limit of the start and of the relaxation: 300, 10min."),
    ] = "300",
    as_json: AsJson = False,
) -> None:
    """Relax one small crystal with a calculator and report what came of it.

    The calculator runs as in a search, in a worker process. The exit status is 1 unless the relaxation converges. With
    a DFT file, one calculation of a crystal of one element is made, without a relaxation.
    """
    from hybridcsp.relaxation.calculators.choice import CalculatorChoice
    from hybridcsp.relaxation.calculators.dft.chosen import is_dft
    from hybridcsp.relaxation.calculators.registry import check_calculator, prepare_calculator
    from hybridcsp.relaxation.trial import run_trial
    from hybridcsp.search.stopping import read_target
    from hybridcsp.utils.quantities import read_quantity

    choice = CalculatorChoice.of(CalculatorChoice(calculator=name, python=python, device=device, precision=precision))
    seconds = read_quantity("--time-limit", time_limit, "seconds")
    crystals = [] if structure is None else [read_target("--structure", str(structure))]
    if is_dft(choice):
        from hybridcsp.cli.dft import check_dft

        crystal = crystals[0] if crystals else None
        check_dft(name, choice, element=element, crystal=crystal, seconds=seconds, as_json=as_json)
        return
    if element is not None:
        raise InputError("--element", element, reason="it is for DFT files; use --structure for a crystal of your own")
    check_calculator(choice)
    terminate_in_order()
    with TemporaryDirectory() as logs, announced(f"checking {name}"):
        prepare_calculator(choice)
        trial = run_trial(choice, crystals=crystals, seconds=seconds, log_directory=Path(logs) / "log")
    row = _trial_row(name, choice, trial)
    if not print_table([row], as_json=as_json, as_csv=False, about=row):
        _print_trial(row)
    if not trial.passed:
        raise CalculatorError(with_full_stop(_verdict(name, trial, structure)))


def _trial_row(name: str, choice: CalculatorChoice, trial: Trial) -> dict[str, Any]:
    """Return the results of a trial as JSON shows them."""
    from ase.units import GPa

    before, after = trial.before, trial.after
    row: dict[str, Any] = {
        "calculator": name,
        "passed": trial.passed,
        "label": before.calculator if before else None,
        "python": _interpreter(choice),
        "device": choice.device,
        "precision": choice.precision,
        "crystal": trial.crystal,
        "atoms": trial.n_atoms,
        "seconds_to_start": trial.seconds_to_start,
        "energy_before_ev_per_atom": before.energy / trial.n_atoms if before else None,
        "energy_after_ev_per_atom": after.evaluation.energy / trial.n_atoms if after else None,
        "force_calls": after.cost.force_calls if after else None,
        "milliseconds_per_call": None if trial.seconds_per_call is None else 1000 * trial.seconds_per_call,
        "converged": bool(after and after.converged),
        "max_force_ev_per_angstrom": after.evaluation.max_force if after else None,
        "max_stress_gpa": None,
        "failures": trial.failures,
    }
    if after and after.evaluation.max_stress_residual is not None:
        row["max_stress_gpa"] = after.evaluation.max_stress_residual / GPa
    return row


def _print_trial(row: dict[str, Any]) -> None:
    from rich.table import Table

    def number(key: str, digits: int, unit: str) -> str:
        return "-" if row[key] is None else f"{row[key]:.{digits}f} {unit}"

    table = Table(box=None, show_header=False)
    for heading, text in (
        ("calculator", row["label"] or row["calculator"]),
        ("interpreter", row["python"]),
        ("started in", number("seconds_to_start", 1, "s")),
        ("crystal", f"{row['crystal']}, {row['atoms']} atoms"),
        ("energy before", number("energy_before_ev_per_atom", 4, "eV/atom")),
        ("energy after", number("energy_after_ev_per_atom", 4, "eV/atom")),
        ("largest force after", number("max_force_ev_per_angstrom", 3, "eV/Å")),
        ("largest stress after", number("max_stress_gpa", 2, "GPa")),
        ("force calls", "-" if row["force_calls"] is None else str(row["force_calls"])),
        ("time per call", number("milliseconds_per_call", 1, "ms")),
        ("converged", "yes" if row["converged"] else "no"),
    ):
        table.add_row(heading, text)
    for crystal, reason in row["failures"].items():
        table.add_row("failed for", f"{crystal}: {reason}")
    console.print(table)


def _verdict(name: str, trial: Trial, structure: Path | None) -> str:
    """Return a sentence about a trial that has not passed."""
    if trial.after is not None:
        return (
            f"{name} does not converge: {trial.crystal} is not relaxed after {trial.after.cost.force_calls} force calls"
        )
    first, *others = dict.fromkeys(trial.failures.values())
    crystals = ", ".join(trial.failures)
    hint = "; give a crystal of elements that it knows with --structure" if structure is None and not others else ""
    return f"{name} fails for {crystals}: {first}{hint}"


def _interpreter(choice: CalculatorChoice) -> str:
    """Return the path of the interpreter in which a calculator computes."""
    from hybridcsp.relaxation.calculators.interpreters import find_interpreter

    found = find_interpreter(choice)
    return sys.executable if found is None else found.path
