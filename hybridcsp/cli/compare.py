"""Provide the command ``hybridcsp compare``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console, errors
from hybridcsp.cli.options import BY_FLAG, OPTIONS, SETTINGS
from hybridcsp.cli.output import AsCsv, AsJson, check_formats, print_table
from hybridcsp.cli.setting import OUTPUT, SEARCH
from hybridcsp.cli.settings_command import Given, SettingsCommand, names_calculator, read_given, with_settings
from hybridcsp.cli.values import read_number
from hybridcsp.errors import InputError
from hybridcsp.utils.interrupts import terminate_in_order

if TYPE_CHECKING:
    from ase import Atoms
    from rich.console import Console

    from hybridcsp.workflows.compare import PlannedRun

_COMPARISON = "Comparison"

#: Keys of the configuration that a comparison sets itself.
_OWN = {
    "search.sources",
    "search.seed",
    "search.workers",
    "search.directory",
    "budget.relaxations",
    "budget.force_calls",
    "budget.hours",
    "budget.stop_after_unchanged",
    "budget.stop_at",
    "budget.refine",
}

#: Keys that are written as an argument, and the words for it.
_ARGUMENTS = {"problem.formula": "formula", "problem.elements": "system"}

#: Options of search that apply to every run of a comparison.
COMPARE_SETTINGS = tuple(setting for setting in SETTINGS if setting.key not in _OWN)


class _Compare(SettingsCommand):
    settings = COMPARE_SETTINGS

    def explain_option(self, name: str) -> str:
        """Return which options of compare replace an option of search."""
        if name in BY_FLAG and BY_FLAG[name].key in _OWN:
            own = "strategies (--strategy), seeds (--seeds) and budget (--relaxations, --target)"
            return f"a comparison sets {own} itself."
        return super().explain_option(name)


@app.command(
    cls=_Compare,
    epilog="Examples:\n\n"
    "  hybridcsp compare TiO2 --strategy random --strategy random+prototypes\n\n"
    "  hybridcsp compare TiO2 --strategy random --strategy evolution --seeds 10\n\n"
    "  hybridcsp compare TiO2 SiO2 --strategy random --strategy flow --pressure 20\n\n"
    "  hybridcsp compare TiO2 --strategy random --target rutile.cif --directory duel\n\n"
    "  hybridcsp compare V-O --strategy random --strategy random+evolution --strategy separate:random+evolution "
    "--relaxations 200 --reference known.cif",
)
@with_settings(COMPARE_SETTINGS)
def compare(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="FORMULA|SYSTEM|FILE.toml...",
            help="Problems: formulas, chemical systems such as V-O, or TOML files.",
        ),
    ],
    strategy: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="Strategy: a source, or several joined by + that share the budget. Repeatable; the first is the "
            "baseline. In chemical systems, separate:STRATEGY searches each composition alone with an equal share.",
            rich_help_panel=_COMPARISON,
        ),
    ],
    seeds: Annotated[
        int,
        typer.Option(metavar="N", help="Number of runs per strategy and problem.", min=1, rich_help_panel=_COMPARISON),
    ] = 5,
    first_seed: Annotated[
        int, typer.Option(metavar="N", help="Random seed of the first run.", min=0, rich_help_panel=_COMPARISON)
    ] = 0,
    relaxations: Annotated[
        int, typer.Option(metavar="N", help="Number of relaxations per run.", min=1, rich_help_panel=_COMPARISON)
    ] = 60,
    target: Annotated[
        str,
        typer.Option(
            metavar="FILE|ENERGY|best",
            help="Target: a structure, an enthalpy in eV/atom, or the best of all runs.",
            rich_help_panel=_COMPARISON,
        ),
    ] = "best",
    parallel: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Number of runs at a time.",
            min=1,
            show_default="one per core",
            rich_help_panel=_COMPARISON,
        ),
    ] = None,
    imported: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Results of another code (see hybridcsp import) to list below the table. Repeatable.",
            show_default="none",
            rich_help_panel=_COMPARISON,
        ),
    ] = None,
    directory: Annotated[
        Path, typer.Option(metavar="PATH", help="Folder of the runs and results.", rich_help_panel=OUTPUT)
    ] = Path("comparison"),
    *,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Allow a TOML file to run the code and programs that it names.", rich_help_panel=SEARCH
        ),
    ] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    **values: Any,
) -> None:
    """Compare strategies with equal budgets and several random seeds.

    The table states how often and at what cost each strategy reached the target, with confidence intervals. Run the
    command again to continue, or to add seeds, strategies or relaxations; completed runs are kept. Each run is an
    ordinary search: hybridcsp show DIRECTORY/PROBLEM/STRATEGY/seed-0. In chemical systems the phases on the convex hull
    that are found are counted: those of known phases (--reference), which the searches are not shown, or of all runs.
    """
    from hybridcsp.archive.archive import Archive
    from hybridcsp.cli.progress import ComparisonDisplay
    from hybridcsp.utils.files import check_writable, make_folder
    from hybridcsp.utils.resources import available_cores, load_average
    from hybridcsp.workflows import compare
    from hybridcsp.workflows.compare_systems import plan_systems
    from hybridcsp.workflows.comparison_reports import FILES, report_on_formulas, report_on_systems

    check_formats(as_json=as_json, as_csv=as_csv)
    messages = errors if as_json or as_csv else console  # the standard output is then for the data alone
    if imported and len(set(what)) > 1:
        raise InputError("--imported", imported[0], reason="it is allowed only with a single problem")
    for other in imported or ():
        Archive(other).close()  # reports a missing archive before anything runs
    goal = _target(target)
    given = read_given(COMPARE_SETTINGS, values)
    problems: dict[str, dict[str, Any]] = {}
    for one in dict.fromkeys(what):
        if _name(one) in problems:
            raise InputError("problem", one, f"a name other than {_name(one)}, which another problem already has")
        _print_unused_keys(one, messages)
        problems[_name(one)] = _configuration(one, given, relaxations, target)
    on_systems = _are_systems(problems)
    if on_systems and target != "best":
        reason = (
            "runs on chemical systems are compared by the phases on the convex hull that they find; give known phases "
            "with --reference FILE"
        )
        raise InputError("--target", target, reason=reason)
    if on_systems and imported:
        raise InputError("--imported", imported[0], reason="it is allowed only with a single formula")
    planned = (problems, strategy, range(first_seed, first_seed + seeds), directory)
    trusted = trust or all(names_calculator(given, raw) for raw in problems.values())
    systems = plan_systems(*planned, trust=trusted, trust_commands=trust) if on_systems else None
    runs = systems.searches if systems else compare.plan(*planned, trust=trusted, trust_commands=trust)
    make_folder(directory, key="--directory")
    for name in FILES:
        check_writable(directory / name, key="--directory")
    missing = sum(run.relaxations - run.done() for run in runs)
    number = len(systems.runs) if systems else len(runs)
    messages.print(
        f"{number} runs of {relaxations} relaxations in {directory}; {missing} relaxations to do", highlight=False
    )
    terminate_in_order()
    try:
        with ComparisonDisplay(messages) as live:
            compare.execute(runs, parallel=parallel or available_cores(), on_progress=live.update)
    except KeyboardInterrupt:
        messages.print("Interrupted. Continue with the same command.", highlight=False)
        raise typer.Exit(130) from None

    about = {"relaxations": relaxations, "load": load_average()}
    named = target if goal is not None else "the best of all runs"
    report = report_on_systems(systems, about) if systems else report_on_formulas(runs, goal, named, about)
    messages.print(report.table)
    report.write(directory, key="--directory")
    messages.print(f"Wrote comparison.json, .csv and .png to {directory}", highlight=False, soft_wrap=True)
    best = min((result.best for result in report.results if result.best is not None), default=None)
    for other in imported or ():
        line = _describe_imported(other, best if goal is None else goal, _calculator(runs[0]))
        messages.print(line, highlight=False, soft_wrap=True, markup=False)
    print_table(report.records, as_json=as_json, as_csv=as_csv, about=report.content)


def _are_systems(problems: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether the problems are chemical systems.

    Raises
    ------
    InputError
        If there are both systems and formulas.
    """
    systems = [name for name, raw in problems.items() if "elements" in raw.get("problem", {})]
    if systems and len(systems) < len(problems):
        formula = next(name for name in problems if name not in systems)
        reason = (
            f"it is a chemical system and {formula} is a formula; their results differ in kind, so that each needs a "
            "comparison of its own"
        )
        raise InputError("problem", systems[0], reason=reason)
    return bool(systems)


def _name(what: str) -> str:
    return Path(what).stem if what.endswith(".toml") else what


def _configuration(what: str, given: Given, relaxations: int, target: str) -> dict[str, Any]:
    """Return the configuration of a problem with the options and the budget of the comparison, as TOML tables.

    Raises
    ------
    InputError
        Lists all mistakes, with the keys or options that contain them.
    """
    from hybridcsp import config
    from hybridcsp.analysis.run_results import TOLERANCE
    from hybridcsp.config.errors import Origin
    from hybridcsp.search.stopping import UNCHANGED
    from hybridcsp.utils.formulas import elements_of_system

    goal = _target(target)
    from_file = what.endswith(".toml")
    kind = "elements" if elements_of_system(what) else "formula"
    raw = given.merged_into(config.read(Path(what)) if from_file else {"problem": {kind: what}})
    # No refinement: only the search itself is compared.
    budget: dict[str, Any] = {"relaxations": relaxations, "refine": 0}
    if isinstance(goal, float):
        budget["stop_at"] = goal + TOLERANCE - UNCHANGED
    elif goal is not None:
        budget["stop_at"] = str(Path(target).resolve())
    if isinstance(before := raw.get("budget", {}), dict):
        raw["budget"] = {key: value for key, value in before.items() if f"budget.{key}" not in _OWN} | budget
    origin = (
        Origin(what, given.flags)
        if from_file
        else Origin("the command line", given.flags | _ARGUMENTS, options=OPTIONS)
    )
    config.parse(raw, origin, given.mistakes)
    return raw


def _print_unused_keys(what: str, messages: Console) -> None:
    """Name the keys of a TOML file that the comparison replaces."""
    from hybridcsp import config

    raw = config.read(Path(what)) if what.endswith(".toml") else {}
    tables = {table: content for table, content in raw.items() if isinstance(content, dict)}
    unused = [f"{table}.{key}" for table, content in tables.items() for key in content if f"{table}.{key}" in _OWN]
    if unused:
        messages.print(
            f"{what}: {', '.join(unused)} ignored, because a comparison sets strategies, seeds and budget itself.",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )


def _target(text: str) -> float | Atoms | None:
    """Read the target: a structure, an enthalpy (eV/atom), or ``None`` for the best of all runs."""
    if text == "best":
        return None
    if not Path(text).exists():
        return read_number("--target", text, "a structure file that exists, an enthalpy in eV/atom, or best")
    from hybridcsp.search.stopping import read_target

    return read_target("--target", text)


def _calculator(run: PlannedRun) -> str | None:
    from hybridcsp.archive.archive import Archive

    with Archive(run.directory) as archive:
        return archive.state.calculator


def _describe_imported(directory: Path, target: float | Atoms | None, calculator: str | None) -> str:
    """Return after how many relaxations a search of another code reached the target.

    Relaxations are the only cost that all codes report.

    Raises
    ------
    InputError
        If the target is an enthalpy from another calculator.
    """
    from hybridcsp.analysis.run_results import read_result
    from hybridcsp.archive.archive import Archive

    with Archive(directory) as archive:
        theirs = archive.state.calculator
        if isinstance(target, float) and theirs != calculator:
            raise InputError(
                "--imported",
                directory,
                reason=f"its energies are from {theirs} and ours from {calculator}, so that the target must be a "
                "structure (--target FILE)",
            )
        result = read_result(archive, problem="", strategy=directory.name, seed=0, target=target)
    if result.solved_at is None:
        return f"{directory} ({theirs}): target not reached in {result.relaxations} relaxations"
    return f"{directory} ({theirs}): target reached after {result.solved_at[0]} of {result.relaxations} relaxations"
