"""``hybridcsp compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app, number
from hybridcsp.cli.console import console, errors
from hybridcsp.cli.options import BY_FLAG, OPTIONS, SEARCH, SETTINGS
from hybridcsp.cli.output import AsCsv, AsJson, print_table
from hybridcsp.cli.settings_command import Given, SettingsCommand, read_given, with_settings
from hybridcsp.errors import InputError
from hybridcsp.utils.interrupts import terminate_in_order

if TYPE_CHECKING:
    from ase import Atoms
    from rich.console import Console

    from hybridcsp.analysis.run_results import Trace
    from hybridcsp.workflows.compare import PlannedRun

_COMPARISON = "Comparison"

#: What a comparison decides itself, and an option or a file's key cannot.
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

#: Options of search that hold for every run.
COMPARED = tuple(setting for setting in SETTINGS if setting.key not in _OWN)


class _Compare(SettingsCommand):
    settings = COMPARED

    def explain_option(self, name: str) -> str:
        """Say of options of search that a comparison decides these itself."""
        if name in BY_FLAG and BY_FLAG[name].key in _OWN:
            return "strategies (--strategy), seeds (--seeds) and budget (--relaxations, --target) are the comparison's."
        return super().explain_option(name)


@app.command(
    cls=_Compare,
    epilog="Examples:\n\n"
    "  hybridcsp compare TiO2 --strategy random --strategy random+prototypes\n\n"
    "  hybridcsp compare TiO2 --strategy random --strategy evolution --seeds 10\n\n"
    "  hybridcsp compare TiO2 SiO2 --strategy random --strategy flow --pressure 20\n\n"
    "  hybridcsp compare TiO2 --strategy random --target rutile.cif --directory duel",
)
@with_settings(COMPARED)
def compare(
    what: Annotated[list[str], typer.Argument(metavar="FORMULA|FILE.toml...", help="Problems: formulas, TOML files.")],
    strategy: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="A source, or several joined by +, which share the budget; repeatable. The first is the baseline.",
            rich_help_panel=_COMPARISON,
        ),
    ],
    seeds: Annotated[
        int,
        typer.Option(metavar="N", help="Runs of each strategy on each problem.", min=1, rich_help_panel=_COMPARISON),
    ] = 5,
    first_seed: Annotated[
        int, typer.Option(metavar="N", help="Seed of the first of these.", min=0, rich_help_panel=_COMPARISON)
    ] = 0,
    relaxations: Annotated[
        int, typer.Option(metavar="N", help="Relaxations of each run.", min=1, rich_help_panel=_COMPARISON)
    ] = 60,
    target: Annotated[
        str,
        typer.Option(
            metavar="FILE|ENERGY|best",
            help="What is to be found: a structure, an enthalpy in eV/atom, or the best of all runs.",
            rich_help_panel=_COMPARISON,
        ),
    ] = "best",
    directory: Annotated[
        Path, typer.Option(help="Folder of the runs and the results.", rich_help_panel=_COMPARISON)
    ] = Path("comparison"),
    imported: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Results of another code (hybridcsp import), told beside the table; repeatable.",
            show_default="none",
            rich_help_panel=_COMPARISON,
        ),
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Runs at a time.", min=1, show_default="one a core", rich_help_panel=_COMPARISON
        ),
    ] = None,
    *,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Run the code and programs that a TOML file names.", rich_help_panel=SEARCH),
    ] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    **values: Any,
) -> None:
    """Compare strategies with equal budgets and several seeds, and say how sure the difference is.

    Run it again to go on where it was stopped, or to add seeds, strategies or relaxations: only what is missing is
    done. Runs are searches like any other: hybridcsp show DIRECTORY/PROBLEM/STRATEGY/seed-0.
    """
    import json

    from hybridcsp.analysis import source_activity
    from hybridcsp.analysis import statistics as statistics
    from hybridcsp.archive.archive import Archive
    from hybridcsp.cli.comparison_progress import LiveCampaign
    from hybridcsp.utils.files import atomic_write, check_writable, make_folder
    from hybridcsp.utils.resources import available_cores, load_average
    from hybridcsp.workflows import compare

    if as_json and as_csv:
        raise InputError("--json", "--csv", "one of the two")
    said = errors if as_json or as_csv else console  # the standard output is for the data alone then
    if imported and len(set(what)) > 1:
        raise InputError("--imported", str(imported[0]), "goes with one problem, not several")
    for other in imported or ():
        Archive(other).close()  # what is not there is said before anything runs
    goal = _target(target)
    given = read_given(COMPARED, values)
    problems: dict[str, dict[str, Any]] = {}
    for one in dict.fromkeys(what):
        if _name(one) in problems:
            raise InputError("problem", one, f"another name than {_name(one)}, which another problem has already")
        _say_what_is_unused(one, said)
        problems[_name(one)] = _tables(one, given, relaxations, target)
    runs = compare.plan(
        problems,
        strategy,
        range(first_seed, first_seed + seeds),
        directory,
        trust=trust or "search.calculator" in given.flags,
        trust_commands=trust,
    )
    results = [directory / f"comparison.{suffix}" for suffix in ("json", "csv", "png")]
    make_folder(directory, key="--directory")
    for file in results:
        check_writable(file, key="--directory")
    missing = sum(run.relaxations - run.done() for run in runs)
    said.print(
        f"{len(runs)} runs of {relaxations} relaxations in {directory}; {missing} relaxations to do", highlight=False
    )
    terminate_in_order()
    try:
        with LiveCampaign(said) as live:
            compare.execute(runs, parallel=parallel or available_cores(), on_progress=live.update)
    except KeyboardInterrupt:
        said.print("Interrupted; the same command goes on from here.", highlight=False)
        raise typer.Exit(130) from None

    targets = _targets(runs, goal)
    traces = [_trace(run, targets[run.problem]) for run in runs]
    rows = statistics.compare(traces)
    notes = source_activity.notes(traces, {run.strategy: run.sources for run in runs})
    own = _calculator(runs[0].directory)
    others = [_told(where, next(iter(targets.values())), own) for where in imported or ()]
    named = target if goal is not None else "the best of all runs"
    said.print(statistics.table(rows, traces, named, notes))
    for line in others:
        said.print(line, highlight=False, soft_wrap=True, markup=False)
    about = {"target": named, "relaxations": relaxations, "load": load_average()}
    content = statistics.as_content(rows, traces, about, notes)
    texts = (json.dumps(content, indent=1, allow_nan=False) + "\n", statistics.as_csv(traces))
    for file, text in zip(results, texts, strict=False):
        with atomic_write(file, key="--directory") as stream:
            stream.write(text)
    statistics.plot(traces, results[2], named, notes)
    said.print(f"wrote comparison.json, .csv and .png to {directory}", highlight=False, soft_wrap=True)
    print_table(statistics.as_records(rows), as_json=as_json, as_csv=as_csv, about=content)


def _name(what: str) -> str:
    return Path(what).stem if what.endswith(".toml") else what


def _tables(what: str, given: Given, relaxations: int, target: str) -> dict[str, Any]:
    """Return the configuration of a problem, with the options and the budget of the comparison.

    Raises
    ------
    InputError
        Lists all mistakes, by the names that the person has given the keys.
    """
    from hybridcsp import config
    from hybridcsp.analysis.run_results import TOLERANCE
    from hybridcsp.config.errors import Origin
    from hybridcsp.search.stopping import UNCHANGED

    goal = _target(target)
    from_file = what.endswith(".toml")
    raw = config.read(Path(what)) if from_file else {"problem": {"formula": what}}
    for table, chosen in config.with_absolute_paths(given.tables, Path.cwd()).items():
        if isinstance(before := raw.get(table, {}), dict):  # what else it is, is a mistake that parsing lists
            raw[table] = {**before, **chosen}
    # Only the search itself is compared; what comes after success would only cost time.
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
        else Origin("the command line", given.flags | {"problem.formula": "formula"}, options=OPTIONS)
    )
    config.parse(raw, origin, given.mistakes)
    return raw


def _say_what_is_unused(what: str, said: Console) -> None:
    """Name the keys of a configuration file that a comparison replaces by its own."""
    from hybridcsp import config

    raw = config.read(Path(what)) if what.endswith(".toml") else {}
    tables = {table: content for table, content in raw.items() if isinstance(content, dict)}
    unused = [f"{table}.{key}" for table, content in tables.items() for key in content if f"{table}.{key}" in _OWN]
    if unused:
        said.print(
            f"{what}: {', '.join(unused)} not used: strategies, seeds and budget are those of the comparison.",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )


def _target(text: str) -> float | Atoms | None:
    if text == "best":
        return None
    if not Path(text).exists():
        return number("--target", text, "a structure file that exists, an enthalpy in eV/atom, or best")
    from hybridcsp.search.stopping import read_target

    return read_target("--target", text)


def _targets(runs: list[PlannedRun], goal: float | Atoms | None) -> dict[str, float | Atoms | None]:
    if goal is not None:
        return dict.fromkeys((run.problem for run in runs), goal)
    best: dict[str, float | Atoms | None] = {}
    for run in runs:
        lowest, known = _trace(run, None).best, best.setdefault(run.problem, None)
        if known is None or (lowest is not None and isinstance(known, float) and lowest < known):
            best[run.problem] = lowest
    return best


def _calculator(directory: Path) -> str | None:
    from hybridcsp.archive.archive import Archive

    with Archive(directory) as archive:
        return archive.state.calculator


def _told(directory: Path, target: float | Atoms | None, calculator: str | None) -> str:
    """Say when a search of another code reached the target; in relaxations, which is all that other codes tell.

    Raises
    ------
    InputError
        If the target is an enthalpy of another calculator.
    """
    from hybridcsp.analysis.run_results import trace_of
    from hybridcsp.archive.archive import Archive

    with Archive(directory) as archive:
        theirs = archive.state.calculator
        if isinstance(target, float) and theirs != calculator:
            raise InputError(
                "--imported",
                str(directory),
                f"comparable by structure only, since its energies are of {theirs} and ours of {calculator}: "
                f"--target FILE",
            )
        trace = trace_of(archive, problem="", strategy=directory.name, seed=0, target=target)
    if trace.solved_at is None:
        return f"{directory} ({theirs}): not reached in {trace.relaxations} relaxations"
    return f"{directory} ({theirs}): reached after {trace.solved_at[0]} of {trace.relaxations} relaxations"


def _trace(run: PlannedRun, target: float | Atoms | None) -> Trace:
    from hybridcsp.analysis.run_results import trace_of
    from hybridcsp.archive.archive import Archive

    with Archive(run.directory) as archive:
        return trace_of(
            archive,
            problem=run.problem,
            strategy=run.strategy,
            seed=run.seed,
            target=target,
            roles=run.sources,
            relaxations=run.relaxations,
        )
