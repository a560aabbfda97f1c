"""Provide the commands ``hybridcsp search`` and ``hybridcsp resume``."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console
from hybridcsp.cli.options import BY_FLAG, OPTIONS, SETTINGS
from hybridcsp.cli.output import as_argument, print_search
from hybridcsp.cli.progress import setting_up
from hybridcsp.cli.setting import SEARCH
from hybridcsp.cli.settings_command import Given, SettingsCommand, read_given, with_settings
from hybridcsp.errors import InputError, RelaxationsFailedError, did_you_mean, with_hint
from hybridcsp.utils.interrupts import terminate_in_order

if TYPE_CHECKING:
    from hybridcsp.archive.state import SearchState
    from hybridcsp.config.errors import Origin
    from hybridcsp.config.settings import Configuration
    from hybridcsp.core.problem import Problem
    from hybridcsp.core.system import System
    from hybridcsp.search.search import Search

#: Stopping criteria that limit the size of a run. If resume is given one of them, it replaces all of them.
_AMOUNTS = ("relaxations", "force_calls", "hours")

#: Stopping criteria that resume can remove with the value ``none``.
_REMOVABLE = ("stop_at", "stop_after_unchanged")

#: Options of resume, with help texts that differ from those of search.
_RESUME_HELP = {
    "--python": "",
    "--device": "",
    "--workers": "",
    "--one-shot": "",
    "--retrain": "",
    "--then": "",
    "--then-best": "",
    "--then-window": "",
    "--then-every": "",
    "--then-counts": "",
    "--max-steps": "",
    "--time-limit": "",
    "--memory-limit": "",
    "--relaxations": "Stop after MORE relaxations in addition to those done.",
    "--force-calls": "Stop after MORE force calls in addition to those done.",
    "--hours": "Stop this run after this time in hours, or with a unit: 30min.",
    "--stop-after-unchanged": "Stop after N successive relaxations that did not lower the best enthalpy by 1 meV/atom; "
    "none removes this criterion.",
    "--stop-at": "Stop when a minimum matches the structure in FILE, or reaches this enthalpy in eV/atom; none removes "
    "this criterion.",
    "--stop-after-failures": "",
    "--refine": "",
}

#: Settings that may change when a search is resumed.
RESUME_SETTINGS = tuple(
    replace(BY_FLAG[flag], help=text or BY_FLAG[flag].help, default="unchanged")
    if BY_FLAG[flag].key not in ("budget.relaxations", "budget.force_calls")
    else replace(BY_FLAG[flag], help=text, metavar="MORE", default="unchanged")
    for flag, text in _RESUME_HELP.items()
)


class _Search(SettingsCommand):
    settings = SETTINGS


class _Resume(SettingsCommand):
    settings = RESUME_SETTINGS

    def closing(self) -> str:
        """Return the paragraph about settings that cannot change."""
        return "All other settings remain as in config.toml in the run directory."


@app.command(
    cls=_Search,
    epilog="Examples:\n\n"
    "  hybridcsp search TiO2\n\n"
    "  hybridcsp search MgSiO3 --formula-units 2-4 --pressure 25 --relaxations 300\n\n"
    "  hybridcsp search Ti4O8 --formula-units 1 --source random --source seeds:my/\n\n"
    "  hybridcsp search Fe2O3 --magmom Fe=5 --min-distance Fe-O=1.7\n\n"
    "  hybridcsp search TiO2 --spacegroup 136 --templates my_dioxides/\n\n"
    "  hybridcsp search TiO2 --calculator mace:my.model --time-limit 10min\n\n"
    "  hybridcsp search TiO2 --then sevennet:l3i5\n\n"
    "  hybridcsp search TiO2 --xrd pattern.xy --wavelength CuKa\n\n"
    "  hybridcsp search V-O --relaxations 400\n\n"
    "  hybridcsp search Mg-Mn-O --compositions MgMn2O4,MgMnO3 --pressure 10\n\n"
    "  hybridcsp search my_search.toml --directory run2 --seed 2",
)
@with_settings(SETTINGS)
def search(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FORMULA|SYSTEM|FILE.toml", help="Formula such as TiO2, chemical system such as V-O, or TOML file."
        ),
    ],
    *,
    templates: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="File or folder of your own structures, used as prototypes in addition to the known ones.",
            show_default="none",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Allow a TOML file to run the code and programs that it names.", rich_help_panel=SEARCH
        ),
    ] = False,
    **values: Any,
) -> None:
    """Search for stable crystal structures of a composition or a chemical system.

    Options override the settings in a TOML file. The search ends at the first stopping criterion that is met. All
    results are stored in the run directory as they arrive; after an interruption, continue with hybridcsp resume.
    """
    with ExitStack() as setup:
        setup.enter_context(setting_up(f"setting up the search for {what}"))
        from hybridcsp import config
        from hybridcsp.archive.archive import is_begun
        from hybridcsp.config.errors import Origin, key_lines
        from hybridcsp.utils.formulas import elements_of_system

        given = read_given(SETTINGS, values)
        from_file = what.endswith(".toml")
        if from_file:
            raw = config.read(_existing(what))
            lines = key_lines(Path(what).read_text(encoding="utf-8-sig", errors="replace"))
            origin = Origin(what, given.flags, lines)
        else:
            _refuse_other_files(what)
            raw = {"problem": {"elements" if elements_of_system(what) else "formula": what}}
            named = {"problem.formula": "formula", "problem.elements": "system"}
            origin = Origin("the command line", named, options=OPTIONS)
        raw = given.merged_into(raw)
        if templates is not None:
            config.parse(raw, origin, given.mistakes)  # reports mistakes in the tables before templates are added
            raw["search"] = {**raw.get("search", {}), "sources": _with_templates(raw, templates)}
            raw = config.with_absolute_paths(raw, Path.cwd())
        configuration = config.parse(raw, origin, given.mistakes)
        if is_begun(configuration.directory):
            raise InputError(
                "directory",
                configuration.directory,
                "a new directory; this one already contains a search: continue it with hybridcsp resume "
                f"{as_argument(configuration.directory)}, or choose another --directory",
            )
        with nullcontext() if from_file else _in_terms_of_options(origin):
            _run(configuration, setup, trust=trust, trust_commands=trust, named=given.flags)


@app.command(
    cls=_Resume,
    epilog="Examples:\n\n"
    "  hybridcsp resume TiO2                     complete an interrupted search\n\n"
    "  hybridcsp resume TiO2 --relaxations 100   100 more relaxations\n\n"
    "  hybridcsp resume TiO2 --hours 8           8 more hours",
)
@with_settings(RESUME_SETTINGS)
def resume(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Run directory.")],
    *,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Allow the configuration to run the code and programs that it names.",
            rich_help_panel=SEARCH,
        ),
    ] = False,
    allow_calculator_change: Annotated[
        bool,
        typer.Option(
            "--allow-calculator-change",
            help="Continue even if the calculator or its parameters have changed; its energies are ranked separately.",
            rich_help_panel=SEARCH,
        ),
    ] = False,
    **values: Any,
) -> None:
    """Continue a search that has ended or was interrupted.

    If any of --relaxations, --force-calls and --hours is given, it replaces all three limits of the search. The first
    two count in addition to what is done.
    """
    with ExitStack() as setup:
        setup.enter_context(setting_up(f"reading the search in {directory}"))
        from hybridcsp import config

        given = read_given(RESUME_SETTINGS, {key: value for key, value in values.items() if not _removes(key, value)})
        configuration = _changed(config.of_directory(directory), directory, given, values)
        _run(
            configuration,
            setup,
            trust=trust,
            trust_commands=trust,
            named=given.flags,
            allow_calculator_change=allow_calculator_change,
        )


@contextmanager
def _in_terms_of_options(origin: Origin) -> Iterator[None]:
    """Rewrite errors about keys of the configuration as errors about the options that set them."""
    try:
        yield
    except InputError as error:
        by_word = {key.split(".")[1]: flag for key, flag in OPTIONS.items()} | {"source": "--source", "xrd": "--xrd"}
        first, _, rest = error.key.removeprefix("search.").partition(".")
        name = " ".join(filter(None, [by_word.get(first, first), rest]))
        allowed, reason = origin.with_options(error.allowed), origin.with_options(error.reason)
        raise InputError(name, error.value, allowed, reason=reason) from None


def _removes(key: str, value: Any) -> bool:
    """Return whether an option of resume removes a setting."""
    return key in _REMOVABLE and bool(value == "none")


def _changed(configuration: Configuration, directory: Path, given: Given, values: Mapping[str, Any]) -> Configuration:
    """Return the configuration of a run directory, changed by the options of resume."""
    from hybridcsp import config
    from hybridcsp.archive.archive import Archive
    from hybridcsp.config.errors import Origin

    removed = [key for key, value in values.items() if _removes(key, value)]
    tables = config.with_absolute_paths(given.tables, Path.cwd())
    origin = Origin("the command line", options=OPTIONS)
    tables["search"] = {"calculator": configuration.search.calculator, **tables.get("search", {})}
    parsed = config.parse({"problem": configuration.problem.describe(), **tables}, origin, given.mistakes)
    budget: dict[str, Any] = {key: getattr(parsed.budget, key) for key in given.tables.get("budget", {})}
    if any(key in budget for key in _AMOUNTS):
        budget = {**dict.fromkeys(_AMOUNTS), **budget}
        with Archive(directory) as archive:
            done = {"relaxations": archive.state.relaxations, "force_calls": archive.state.cost.force_calls}
        budget |= {key: done[key] + budget[key] for key in done if budget[key] is not None}
    budget |= dict.fromkeys(removed)
    changes: dict[str, Any] = {"budget": replace(configuration.budget, **budget)}
    for table in ("limits", "retraining", "then"):
        chosen = {key: getattr(getattr(parsed, table), key) for key in given.tables.get(table, {})}
        changes[table] = replace(getattr(configuration, table), **chosen)
    chosen = {key: getattr(parsed.search, key) for key in given.tables.get("search", {})}
    changes["search"] = configuration.search.model_copy(update=chosen)
    return configuration.model_copy(update=changes)


def _existing(file: str) -> Path:
    """Return the path of a TOML file, after checking that it exists."""
    path = Path(file)
    if not path.exists():
        near = did_you_mean(path.name, [other.name for other in path.parent.glob("*.toml")])
        formula = (
            f"; run hybridcsp search {quote(path.stem)} to search for this formula" if _is_formula(path.stem) else ""
        )
        reason = with_hint(f"there is no such file{formula}", near)
        raise InputError("configuration", path, reason=reason)
    return path


def _refuse_other_files(what: str) -> None:
    """Check that an argument is not a structure file or a run directory, and explain how to use these."""
    path = Path(what)
    try:
        path.lstat()
    except OSError:  # no such file, or not a possible name of a file
        return
    if path.is_file():
        allowed = f"a formula or a TOML file; add --source seeds:{quote(what)} to start from your own structures"
        raise InputError("formula", what, allowed)
    if path.is_dir() and not _is_formula(what):
        allowed = f"a formula or a TOML file, not a folder; run hybridcsp resume {quote(what)} to continue a search"
        raise InputError("formula", what, allowed)


def _is_formula(text: str) -> bool:
    from hybridcsp.core.problem import Problem

    try:
        return bool(Problem(text, max_atoms=10**6).composition)
    except InputError:
        return False


def _with_templates(raw: Mapping[str, Any], templates: Path) -> list[str]:
    """Return the names of the sources, with the path of the templates added to prototypes."""
    from hybridcsp import config

    default = config.model_of(raw).model_fields["search"].default.sources
    sources = list(raw.get("search", {}).get("sources", default))
    if "prototypes" not in sources:
        reason = "it is allowed only with the source prototypes (--source prototypes)"
        raise InputError("--templates", templates, reason=reason)
    return [f"prototypes:{templates}" if source == "prototypes" else source for source in sources]


def _run(
    configuration: Configuration,
    setup: ExitStack,
    *,
    trust: bool,
    trust_commands: bool,
    named: Collection[str],
    allow_calculator_change: bool = False,
) -> None:
    """Build a search, close the display of the set-up, run the search and print its results."""
    from hybridcsp.analysis.follow_ups import disagreement
    from hybridcsp.analysis.live_display import display
    from hybridcsp.analysis.report import duration
    from hybridcsp.archive.state import ALL_FAILED
    from hybridcsp.io.export import export as write
    from hybridcsp.search.failures import all_failed
    from hybridcsp.search.run import EXHAUSTED, NO_PROPOSALS, ONLY_DUPLICATES

    terminate_in_order()
    with configuration.build(
        trust=trust,
        trust_commands=trust_commands,
        named=named,
        allow_calculator_change=allow_calculator_change,
    ) as search:
        setup.close()
        _print_header(search)
        stopped, failed, begun = "interrupted", None, time.monotonic()
        with display(configuration.budget, console) as live, suppress(KeyboardInterrupt):
            try:
                stopped = search.run(configuration.budget, on_progress=live.update).stopped
            except RelaxationsFailedError as error:
                stopped, failed = ALL_FAILED, error
        archive = search.archive
        print_search(archive, 10)
        where = as_argument(search.directory)
        next_steps = f"Show again: hybridcsp show {where}"
        if archive.number_of_minima:
            file = search.directory / "minima.extxyz"
            write(archive.stream_final_minima(), file, follow=False, disagreement=disagreement(archive))
            next_steps = f"All minima: {as_argument(file)}. {next_steps}"
        if stopped == "interrupted":
            _print(f"Interrupted. Continue: hybridcsp resume {where}")
            raise typer.Exit(130)
        state = archive.state
        if state.worker_results.attempts and not state.worker_results.successes:
            raise failed or all_failed(state, search.directory)
        without_proposals = stopped in (NO_PROPOSALS, ONLY_DUPLICATES, EXHAUSTED)
        why = _why_nothing_was_relaxed(state, search.problem) if without_proposals else ""
        _print(f"Ended after {duration(time.monotonic() - begun)}: {stopped}{why}. {next_steps}")
        if why:
            raise typer.Exit(1)


def _print(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _why_nothing_was_relaxed(state: SearchState, problem: Problem | System) -> str:
    """Return the reasons why a search relaxed no candidate; an empty text if it relaxed any."""
    from hybridcsp.core.problem import Problem

    if state.relaxations:
        return ""
    rejected = state.tallies.rejected()
    limits = f"the limits: {problem.limits_in_words()}" if isinstance(problem, Problem) else "at every composition"
    if not rejected:
        return f" (no source proposed a structure; {limits})"
    return f" (rejected: {', '.join(f'{count} {reason}' for reason, count in rejected.most_common())}; {limits})"


def _print_header(search: Search) -> None:
    """Print the problem, calculator, number of workers and directory, and structures that sources cannot use."""
    from hybridcsp.core.system import System

    problem = search.problem
    pressure = f" at {problem.pressure_gpa:g} GPa" if problem.pressure_gpa else ""
    size = (
        f"{len(problem.compositions)} compositions of {problem.min_atoms} to {problem.max_atoms} atoms"
        if isinstance(problem, System)
        else f"{problem.units_in_words} formula units"
    )
    console.print(
        f"[bold]{escape(problem.formula)}[/]{pressure}: {size}, calculator "
        f"{escape(str(search.settings.choice))}, {search.workers} worker{'s' * (search.workers > 1)}, directory "
        f"{escape(as_argument(search.directory))}",
        markup=True,
        highlight=False,
        soft_wrap=True,
    )
    for name, source in search.sources.items():
        if isinstance(problem, System):
            break  # what cannot be used at one composition may be for another
        if unusable := source.unusable:
            shown = "".join(f"\n  {where}: {reason}" for where, reason in unusable[:5])
            more = f"\n  and {len(unusable) - 5} more" if len(unusable) > 5 else ""
            _print(f"{name}: {len(unusable)} structure{'s' * (len(unusable) > 1)} cannot be used{shown}{more}")
