"""Provide the command ``hybridcsp resume``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.options import BY_FLAG, OPTIONS
from hybridcsp.cli.progress import setting_up
from hybridcsp.cli.running import run_search
from hybridcsp.cli.setting import SEARCH
from hybridcsp.cli.settings_command import Given, SettingsCommand, read_given, with_settings

if TYPE_CHECKING:
    from hybridcsp.config.settings import Configuration

#: Stopping criteria that limit the size of a run. If resume is given one of them, it replaces all of them.
_AMOUNTS = ("relaxations", "force_calls", "hours")

#: Stopping criteria that resume can remove with the value ``none``.
_REMOVABLE = ("stop_at", "stop_after_unchanged")

#: Options of resume, with help texts that differ from those of search.
_RESUME_HELP = {
    "--python": "",
    "--device": "",
    "--workers": "",
    "--executor": "",
    "--batch": "",
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


class _Resume(SettingsCommand):
    settings = RESUME_SETTINGS

    def closing(self) -> str:
        """Return the paragraph about settings that cannot change."""
        return "All other settings remain as in config.toml in the run directory."


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
        run_search(
            configuration,
            setup,
            trust=trust,
            trust_commands=trust,
            named=given.flags,
            allow_calculator_change=allow_calculator_change,
        )


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
