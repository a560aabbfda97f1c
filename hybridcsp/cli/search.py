"""``hybridcsp search`` and ``hybridcsp resume``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from hybridcsp.cli.app import app, as_argument, show_archive
from hybridcsp.cli.console import console
from hybridcsp.cli.options import BY_FLAG, OPTIONS, SEARCH, SETTINGS
from hybridcsp.cli.progress import setting_up
from hybridcsp.cli.settings_command import SettingsCommand, read_given, with_settings
from hybridcsp.errors import InputError, RelaxationsFailedError, did_you_mean
from hybridcsp.utils.interrupts import terminate_in_order

if TYPE_CHECKING:
    from hybridcsp.archive.state import SearchState
    from hybridcsp.config.errors import Origin
    from hybridcsp.config.settings import Configuration
    from hybridcsp.core.problem import Problem
    from hybridcsp.search.search import Search

#: Stopping criteria that bound what a run may use; one of them that is given to resume takes the place of all.
_AMOUNTS = ("relaxations", "force_calls", "hours")

#: Criteria that resume can lift.
_LIFTED = ("stop_at", "stop_after_unchanged")

_AS_BEFORE = {
    "--workers": "",
    "--one-shot": "",
    "--retrain": "",
    "--max-steps": "",
    "--time-limit": "",
    "--memory-limit": "",
    "--relaxations": "Relaxations beyond those done.",
    "--force-calls": "Force calls beyond those done.",
    "--hours": "Wall time of this run in hours, or with its unit: 30min.",
    "--stop-after-unchanged": "As for search; none lifts it.",
    "--stop-at": "As for search; none lifts it.",
    "--stop-after-failures": "",
    "--refine": "",
}

#: What may change when a search goes on, and how its options differ from those of search.
RESUMED = tuple(
    replace(BY_FLAG[flag], help=text or BY_FLAG[flag].help, default="as before")
    if BY_FLAG[flag].key not in ("budget.relaxations", "budget.force_calls")
    else replace(BY_FLAG[flag], help=text, metavar="MORE", default="as before")
    for flag, text in _AS_BEFORE.items()
)


class _Search(SettingsCommand):
    settings = SETTINGS


class _Resume(SettingsCommand):
    settings = RESUMED

    def closing(self) -> str:
        """Say that all else stays."""
        return "Everything else stays as it was when the search began; the run directory's config.toml holds it."


@app.command(
    cls=_Search,
    epilog="Examples:\n\n"
    "  hybridcsp search TiO2\n\n"
    "  hybridcsp search MgSiO3 --formula-units 2-4 --pressure 25 --relaxations 300\n\n"
    "  hybridcsp search Ti4O8 --formula-units 1 --source random --source seeds:my/\n\n"
    "  hybridcsp search Fe2O3 --magmom Fe=5 --min-distance Fe-O=1.7\n\n"
    "  hybridcsp search TiO2 --spacegroup 136 --templates my_dioxides/\n\n"
    "  hybridcsp search TiO2 --calculator mace:my.model --time-limit 10min\n\n"
    "  hybridcsp search my_search.toml --directory run2 --seed 2",
)
@with_settings(SETTINGS)
def search(
    what: Annotated[str, typer.Argument(metavar="FORMULA|FILE.toml", help="One formula unit, or a TOML file.")],
    *,
    templates: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Your own structures, a file or folder, as templates in addition to the known prototypes.",
            show_default="none",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Run the code and programs that a TOML file names.", rich_help_panel=SEARCH),
    ] = False,
    **values: Any,
) -> None:
    """Search for the crystal structures of a composition.

    Options go before the keys of a TOML file. The first stopping criterion that is met ends the search. Everything is
    kept in the run directory; kill it at any moment, and hybridcsp resume goes on.
    """
    with ExitStack() as setup:
        setup.enter_context(setting_up(f"setting up the search for {what}"))
        from hybridcsp import config
        from hybridcsp.archive.archive import is_begun
        from hybridcsp.config.errors import Origin, key_lines

        given = read_given(SETTINGS, values)
        from_file = what.endswith(".toml")
        if from_file:
            raw = config.read(_existing(what))
            lines = key_lines(Path(what).read_text(encoding="utf-8-sig", errors="replace"))
            origin = Origin(what, given.flags, lines)
        else:
            _refuse_other_files(what)
            raw = {"problem": {"formula": what}}
            origin = Origin("the command line", {"problem.formula": "formula"}, options=OPTIONS)
        for table, chosen in config.with_absolute_paths(given.tables, Path.cwd()).items():
            before = raw.get(table, {})
            if isinstance(before, dict):  # what else it is, is a mistake that parsing lists
                raw[table] = {**before, **chosen}
        if templates is not None:
            config.parse(raw, origin, given.mistakes)  # mistakes in the tables come before what is added to them
            raw["search"] = {**raw.get("search", {}), "sources": _with_templates(raw, templates)}
            raw = config.with_absolute_paths(raw, Path.cwd())
        configuration = config.parse(raw, origin, given.mistakes)
        if is_begun(configuration.directory):
            raise InputError(
                "directory",
                str(configuration.directory),
                f"holds a search already: hybridcsp resume {as_argument(configuration.directory)}, "
                "or choose another --directory",
            )
        named = "search.calculator" in given.flags or not from_file
        with nullcontext() if from_file else _in_terms_of_options(origin):
            _run(configuration, setup, trust=trust or named, trust_commands=trust)


@contextmanager
def _in_terms_of_options(origin: Origin) -> Iterator[None]:
    """Let errors about a value name the option that gives it, and what would be right in terms of options."""
    try:
        yield
    except InputError as error:
        by_word = {key.split(".")[1]: flag for key, flag in OPTIONS.items()} | {"source": "--source"}
        first, _, rest = error.key.removeprefix("search.").partition(".")
        name = " ".join(filter(None, [by_word.get(first, first), rest]))
        raise InputError(name, error.value, origin.with_options(error.allowed)) from None


@app.command(
    cls=_Resume,
    epilog="Examples:\n\n"
    "  hybridcsp resume TiO2                     finish what was interrupted\n\n"
    "  hybridcsp resume TiO2 --relaxations 100   and then do 100 more\n\n"
    "  hybridcsp resume TiO2 --hours 8           go on for 8 hours",
)
@with_settings(RESUMED)
def resume(
    directory: Annotated[Path, typer.Argument(help="A run directory.")],
    *,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Run the code and programs that its configuration names.", rich_help_panel=SEARCH),
    ] = False,
    allow_calculator_change: Annotated[
        bool,
        typer.Option(
            "--allow-calculator-change",
            help="Go on with another calculator or other parameters of it; its energies are ranked by themselves.",
            rich_help_panel=SEARCH,
        ),
    ] = False,
    **values: Any,
) -> None:
    """Take up a search again where it stopped or was killed.

    Of --relaxations, --force-calls and --hours, those that are given replace the ones of the search; the first two
    count from what is done.
    """
    with ExitStack() as setup:
        setup.enter_context(setting_up(f"reading the search in {directory}"))
        from hybridcsp import config

        configuration = _changed(config.of_directory(directory), directory, values)
        _run(configuration, setup, trust=trust, trust_commands=trust, allow_calculator_change=allow_calculator_change)


def _changed(configuration: Configuration, directory: Path, values: Mapping[str, Any]) -> Configuration:
    """Return the configuration of a run directory with the options that resume was given."""
    from hybridcsp import config
    from hybridcsp.archive.archive import Archive
    from hybridcsp.config.errors import Origin

    lifted = [key for key in _LIFTED if values.get(key) == "none"]
    given = read_given(RESUMED, {key: value for key, value in values.items() if key not in lifted})
    tables = config.with_absolute_paths(given.tables, Path.cwd())
    origin = Origin("the command line", options=OPTIONS)
    read = config.parse({"problem": configuration.problem.describe(), **tables}, origin, given.mistakes)
    budget: dict[str, Any] = {key: getattr(read.budget, key) for key in given.tables.get("budget", {})}
    if any(key in budget for key in _AMOUNTS):
        budget = {**dict.fromkeys(_AMOUNTS), **budget}
        with Archive(directory) as archive:
            done = {"relaxations": archive.state.relaxations, "force_calls": archive.state.cost.force_calls}
        budget |= {key: done[key] + budget[key] for key in done if budget[key] is not None}
    budget |= dict.fromkeys(lifted)
    changes: dict[str, Any] = {"budget": replace(configuration.budget, **budget)}
    for table in ("limits", "retraining"):
        chosen = {key: getattr(getattr(read, table), key) for key in given.tables.get(table, {})}
        changes[table] = replace(getattr(configuration, table), **chosen)
    chosen = {key: getattr(read.search, key) for key in given.tables.get("search", {})}
    changes["search"] = configuration.search.model_copy(update=chosen)
    return configuration.model_copy(update=changes)


def _existing(file: str) -> Path:
    """Return the path of a TOML file that exists."""
    path = Path(file)
    if not path.exists():
        near = did_you_mean(path.name, [other.name for other in path.parent.glob("*.toml")])
        formula = f"; for the formula: hybridcsp search {quote(path.stem)}" if _is_formula(path.stem) else ""
        raise InputError("configuration", file, f"there is no such file: {near}a TOML file that can be read{formula}")
    return path


def _refuse_other_files(what: str) -> None:
    """Say how to search with a file or a run directory that is given in the place of a formula."""
    path = Path(what)
    try:
        path.lstat()
    except OSError:  # no file, or no name that a file can have
        return
    if path.is_file():
        allowed = f"a formula or a TOML file; structures of yours are given with --source seeds:{quote(what)}"
        raise InputError("formula", what, allowed)
    if path.is_dir() and not _is_formula(what):
        allowed = f"a formula or a TOML file, not a folder; a run directory goes on with hybridcsp resume {quote(what)}"
        raise InputError("formula", what, allowed)


def _is_formula(text: str) -> bool:
    from hybridcsp.core.problem import Problem

    try:
        return bool(Problem(text, max_atoms=10**6).composition)
    except InputError:
        return False


def _with_templates(raw: Mapping[str, Any], templates: Path) -> list[str]:
    """Return the sources, with the person's own structures in that of prototypes."""
    from hybridcsp.sources.registry import DEFAULT_SOURCES

    sources = list(raw.get("search", {}).get("sources", DEFAULT_SOURCES))
    if "prototypes" not in sources:
        raise InputError("--templates", str(templates), "goes with --source prototypes, which is not among the sources")
    return [f"prototypes:{templates}" if source == "prototypes" else source for source in sources]


def _run(
    configuration: Configuration,
    setup: ExitStack,
    *,
    trust: bool,
    trust_commands: bool,
    allow_calculator_change: bool = False,
) -> None:
    """Build a search, end what shows that it is being set up, run it, and show the result."""
    from hybridcsp.analysis.live_display import display
    from hybridcsp.analysis.report import duration
    from hybridcsp.archive.state import ALL_FAILED
    from hybridcsp.io.export import export as write
    from hybridcsp.search.failures import all_failed

    terminate_in_order()
    with configuration.build(
        trust=trust, trust_commands=trust_commands, allow_calculator_change=allow_calculator_change
    ) as search:
        setup.close()
        _greet(search)
        stopped, failed, begun = "interrupted", None, time.monotonic()
        with display(configuration.budget, console) as live, suppress(KeyboardInterrupt):
            try:
                stopped = search.run(configuration.budget, on_progress=live.update).stopped
            except RelaxationsFailedError as error:
                stopped, failed = ALL_FAILED, error
        archive = search.archive
        show_archive(archive, 10)
        all_minima = ""
        if archive.number_of_minima:
            file = search.directory / "minima.extxyz"
            write(archive.stream_minima(), file, follow=False)
            all_minima = f"all minima: {as_argument(file)}; "
        where = as_argument(search.directory)
        if stopped == "interrupted":
            console.print(
                f"Interrupted; go on with: hybridcsp resume {where}", markup=False, highlight=False, soft_wrap=True
            )
            raise typer.Exit(130)
        state = archive.state
        if state.attempts and not state.successes:
            raise failed or all_failed(state, search.directory)
        without_proposals = stopped in ("no acceptable proposals", "sources exhausted")
        why = _why_nothing(state, search.problem) if without_proposals else ""
        console.print(
            f"Ended after {duration(time.monotonic() - begun)}: {stopped}{why}; {all_minima}"
            f"more: hybridcsp show {where}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        if why:
            raise typer.Exit(1)


def _why_nothing(state: SearchState, problem: Problem) -> str:
    """Say what was wrong with the proposals of a search that ran out of them before it relaxed any."""
    if state.relaxations:
        return ""
    rejected = state.rejected()
    limits = f"the limits: {problem.limits_in_words()}"
    if not rejected:
        return f" (no source offered anything; {limits})"
    return f" (rejected: {', '.join(f'{count} {reason}' for reason, count in rejected.most_common())}; {limits})"


def _greet(search: Search) -> None:
    problem = search.problem
    units = problem.units_in_words
    pressure = f" at {problem.pressure_gpa:g} GPa" if problem.pressure_gpa else ""
    console.print(
        f"[bold]{escape(problem.formula)}[/]{pressure}: {units} formula units, "
        f"calculator {escape(str(search.calculator))}, {search.workers} worker{'s' * (search.workers > 1)}, in "
        f"{escape(as_argument(search.directory))}",
        markup=True,
        highlight=False,
        soft_wrap=True,
    )
    for name, source in search.sources.items():
        if unusable := source.unusable:
            shown = "".join(f"\n  {where}: {reason}" for where, reason in unusable[:5])
            more = f"\n  and {len(unusable) - 5} more" if len(unusable) > 5 else ""
            console.print(
                f"{name}: {len(unusable)} structures cannot be used{shown}{more}", markup=False, highlight=False
            )
