"""``hybridcsp compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app, number, parse_units
from hybridcsp.cli.console import console, errors
from hybridcsp.errors import InputError
from hybridcsp.interrupts import terminate_in_order

if TYPE_CHECKING:
    from ase import Atoms
    from rich.console import Console

    from hybridcsp.analysis.traces import Trace
    from hybridcsp.campaign import Planned

#: Keys of a file's budget that hold in a comparison, too.
_KEPT = ("stop_after_failures",)


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp compare TiO2 --strategy random --strategy evolution --seeds 5 --relaxations 60 --directory duel\n\n"
    "  hybridcsp compare TiO2 SiO2 --strategy random --strategy random+seeds:mine.cif --target -9.41\n\n"
    "  hybridcsp compare TiO2 --strategy random --target rutile.cif --directory duel"
)
def compare(
    what: Annotated[
        list[str], typer.Argument(metavar="FORMULA_OR_CONFIG.toml...", help="Problems: formulas or TOML files.")
    ],
    strategy: Annotated[
        list[str], typer.Option(metavar="NAME", help="A source, or several joined by +; the first is the baseline.")
    ],
    seeds: Annotated[int, typer.Option(help="Runs of each strategy on each problem.", min=1)] = 5,
    first_seed: Annotated[int, typer.Option(help="The seeds run from here.", min=0)] = 0,
    relaxations: Annotated[int, typer.Option(help="Of each run.", min=1)] = 60,
    target: Annotated[
        str,
        typer.Option(metavar="FILE|ENERGY|best", help="A structure, an enthalpy (eV/atom), or the best of all runs."),
    ] = "best",
    directory: Annotated[Path, typer.Option(help="Where runs and results go.")] = Path("comparison"),
    imported: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIRECTORY", help="Also tell when another code reached it (hybridcsp import); repeatable."
        ),
    ] = None,
    calculator: Annotated[str | None, typer.Option(metavar="NAME", help="As for search.")] = None,
    formula_units: Annotated[str | None, typer.Option(help="As for search.")] = None,
    max_atoms: Annotated[int | None, typer.Option(help="As for search.")] = None,
    parallel: Annotated[int | None, typer.Option(help="Runs at a time; by default one a core.", min=1)] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Run the code that a config file names.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, and messages elsewhere.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV, and messages elsewhere.")] = False,
) -> None:
    """Compare strategies with equal budgets and several seeds, and say how sure the difference is.

    Rerun it to go on where it was stopped, to add seeds, strategies or relaxations: only what is missing is done.
    Runs are searches like any other: hybridcsp show DIRECTORY/PROBLEM/STRATEGY/seed-0.
    """
    import os

    from hybridcsp import campaign
    from hybridcsp.analysis import acting
    from hybridcsp.analysis import compare as statistics
    from hybridcsp.archive import Archive
    from hybridcsp.cli.terminal import LiveCampaign
    from hybridcsp.utils.files import atomic_write, check_writable, make_folder

    if as_json and as_csv:
        raise InputError("--csv", "", "not beside --json: one or the other")
    said = errors if as_json or as_csv else console  # the standard output is for the data alone then
    if imported and len(set(what)) > 1:
        raise InputError("--imported", str(imported[0]), "goes with one problem, not several")
    for other in imported or ():
        Archive(other).close()  # what is not there is said before anything runs
    goal = _target(target)
    given = (calculator, formula_units, max_atoms, relaxations, target)
    problems: dict[str, dict[str, Any]] = {}
    for one in dict.fromkeys(what):
        if _name(one) in problems:
            raise InputError("problem", one, f"another name than {_name(one)}, which another problem has already")
        problems[_name(one)] = _tables(one, *given)
        _say_what_is_unused(one, said)
    runs = campaign.plan(
        problems,
        strategy,
        range(first_seed, first_seed + seeds),
        directory,
        trust=trust or calculator is not None,
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
            campaign.execute(runs, parallel=parallel or len(os.sched_getaffinity(0)), on_progress=live.update)
    except KeyboardInterrupt:
        said.print("Interrupted; the same command goes on from here.", highlight=False)
        raise typer.Exit(130) from None

    targets = _targets(runs, goal)
    traces = [_trace(run, targets[run.problem]) for run in runs]
    rows = statistics.compare(traces)
    notes = acting.notes(traces, {run.strategy: run.sources for run in runs})
    own = _calculator(runs[0].directory)
    others = [_told(where, next(iter(targets.values())), own) for where in imported or ()]
    named = target if goal is not None else "the best of all runs"
    said.print(statistics.table(rows, traces, named, notes))
    for line in others:
        said.print(line, highlight=False, soft_wrap=True, markup=False)
    about = {"target": named, "relaxations": relaxations, "load": os.getloadavg()[0]}
    texts = (statistics.as_json(rows, traces, about, notes), statistics.as_csv(traces))
    for file, text in zip(results, texts, strict=False):
        with atomic_write(file, key="--directory") as stream:
            stream.write(text)
    statistics.plot(traces, results[2], named, notes)
    said.print(f"wrote comparison.json, .csv and .png to {directory}", highlight=False, soft_wrap=True)
    if said is errors:
        typer.echo(texts[0] if as_json else statistics.rows_as_csv(rows), nl=False)


def _name(what: str) -> str:
    return Path(what).stem if what.endswith(".toml") else what


def _tables(
    what: str, calculator: str | None, units: str | None, max_atoms: int | None, relaxations: int, target: str
) -> dict[str, Any]:
    from hybridcsp import config
    from hybridcsp.analysis.traces import TOLERANCE
    from hybridcsp.budget import UNCHANGED

    goal = _target(target)
    raw = config.read(Path(what)) if what.endswith(".toml") else {"problem": {"formula": what}}
    problem: dict[str, Any] = {
        "formula_units": None if units is None else parse_units(units),
        "max_atoms": max_atoms,
    }
    raw["problem"] = raw["problem"] | {key: value for key, value in problem.items() if value is not None}
    if calculator is not None:
        raw["search"] = raw.get("search", {}) | {"calculator": calculator}
    # Only the search itself is compared; what comes after success would only cost time.
    budget: dict[str, Any] = {"relaxations": relaxations, "refine": 0}
    budget |= {key: value for key, value in raw.get("budget", {}).items() if key in _KEPT}
    if isinstance(goal, float):
        budget["stop_at"] = goal + TOLERANCE - UNCHANGED
    elif goal is not None:
        budget["stop_at"] = target
    raw["budget"] = budget
    return config.with_absolute_paths(raw, Path.cwd())


def _say_what_is_unused(what: str, said: Console) -> None:
    """Name the keys of a configuration file that a comparison replaces by its own."""
    from hybridcsp import config

    raw = config.read(Path(what)) if what.endswith(".toml") else {}
    unused = [f"budget.{key}" for key in raw.get("budget", {}) if key not in _KEPT]
    unused += [f"search.{key}" for key in raw.get("search", {}) if key in ("sources", "seed", "workers", "directory")]
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
    from hybridcsp.budget import read_target

    return read_target("--target", text)


def _targets(runs: list[Planned], goal: float | Atoms | None) -> dict[str, float | Atoms | None]:
    if goal is not None:
        return dict.fromkeys((run.problem for run in runs), goal)
    best: dict[str, float | Atoms | None] = {}
    for run in runs:
        lowest, known = _trace(run, None).best, best.setdefault(run.problem, None)
        if known is None or (lowest is not None and isinstance(known, float) and lowest < known):
            best[run.problem] = lowest
    return best


def _calculator(directory: Path) -> str | None:
    from hybridcsp.archive import Archive

    with Archive(directory) as archive:
        return archive.ledger.calculator


def _told(directory: Path, target: float | Atoms | None, calculator: str | None) -> str:
    """Say when a search of another code reached the target; in relaxations, which is all that other codes tell.

    Raises
    ------
    InputError
        If the target is an enthalpy of another calculator.
    """
    from hybridcsp.analysis.traces import trace_of
    from hybridcsp.archive import Archive

    with Archive(directory) as archive:
        theirs = archive.ledger.calculator
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


def _trace(run: Planned, target: float | Atoms | None) -> Trace:
    from hybridcsp.analysis.traces import trace_of
    from hybridcsp.archive import Archive

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
