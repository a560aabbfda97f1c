"""Paths in a configuration, which are relative to the folder of its file, and the file in a run directory."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hybridcsp.errors import InputError
from hybridcsp.objectives.choice import absolute_objective
from hybridcsp.relaxation.backends.executors.registry import absolute_executor
from hybridcsp.relaxation.calculators.choice import absolute_calculator
from hybridcsp.utils.paths import absolute, absolute_argument, absolute_if_there, absolute_program

#: The resolved configuration in a run directory.
FILE = "config.toml"

#: Sources whose argument is always a path.
_WITH_PATHS = ("seeds", "prototypes")


def with_absolute_paths(raw: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a copy of the tables in which paths relative to ``folder`` are absolute."""
    result = copy.deepcopy(dict(raw))
    search, budget, retraining, then = (result.get(table) for table in ("search", "budget", "retraining", "then"))
    xrd = result.get("xrd")
    external = result.get("external")
    commands = external if isinstance(external, dict) else {}
    for command in commands.values():
        if isinstance(command, dict) and isinstance(command.get("command"), list):
            command["command"] = [
                absolute_if_there(part, folder) if isinstance(part, str) and part else part
                for part in command["command"]
            ]
    if isinstance(search, dict):
        if isinstance(search.get("directory"), str):
            search["directory"] = str(folder / search["directory"])
        if isinstance(search.get("calculator"), str):
            search["calculator"] = absolute_calculator(search["calculator"], folder)
        if isinstance(search.get("executor"), str):
            search["executor"] = absolute_executor(search["executor"], folder)
        if isinstance(search.get("python"), str):
            search["python"] = absolute_program(search["python"], folder)
        if isinstance(search.get("references"), list):
            search["references"] = [
                absolute(path, folder) if isinstance(path, str) else path for path in search["references"]
            ]
        if isinstance(search.get("sources"), list):
            named = {f"external:{name}" for name in commands}
            search["sources"] = [
                _absolute_source(source, folder) if isinstance(source, str) and source not in named else source
                for source in search["sources"]
            ]
        if isinstance(search.get("objectives"), list):
            search["objectives"] = [_objective_with_path(one, folder) for one in search["objectives"]]
    if isinstance(then, dict) and isinstance(then.get("calculators"), list):
        then["calculators"] = [
            absolute_calculator(name, folder) if isinstance(name, str) else name for name in then["calculators"]
        ]
    if isinstance(budget, dict) and isinstance(budget.get("stop_at"), str):
        with suppress(ValueError):
            budget["stop_at"] = float(budget["stop_at"])
        if isinstance(budget["stop_at"], str):
            budget["stop_at"] = absolute(budget["stop_at"], folder)
    for table, key in ((retraining, "replay_data"), (xrd, "pattern")):
        if isinstance(table, dict) and isinstance(table.get(key), str):
            table[key] = absolute(table[key], folder)
    return result


def _objective_with_path(given: Any, folder: Path) -> Any:
    """Return an objective, a text or a table, with an absolute path; anything else is left for the validation."""
    with suppress(InputError):
        if isinstance(given, str):
            return absolute_objective(given, folder)
        if isinstance(given, dict) and isinstance(given.get("objective"), str):
            return {**given, "objective": absolute_objective(given["objective"], folder)}
    return given


def _absolute_source(text: str, folder: Path) -> str:
    return absolute_argument(text, folder, path=text.partition(":")[0] in _WITH_PATHS)
