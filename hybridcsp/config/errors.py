"""Mistakes in a configuration: where each is, and what would be right."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from hybridcsp.core.problem import Problem
from hybridcsp.core.system import System
from hybridcsp.errors import InputError, did_you_mean, shown, verdict
from hybridcsp.utils.quantities import read_quantity

#: Units of numbers by key, which may be written after them. Under keys with several numbers each has the unit.
UNITS = {
    "problem.pressure_gpa": "GPa",
    "problem.length_bounds": "Å",
    "problem.angle_bounds": "degrees",
    "problem.volume_per_atom": "Å^3",
    "problem.min_distances": "Å",
    "problem.initial_magmoms": "μ_B",
    "problem.initial_charges": "e",
    "budget.hours": "hours",
    "relaxation.max_force": "eV/Å",
    "relaxation.refine_max_force": "eV/Å",
    "relaxation.force_explosion": "eV/Å",
    "relaxation.max_stress_gpa": "GPa",
    "relaxation.max_volume_per_atom": "Å^3",
    "relaxation.min_volume_per_atom": "Å^3",
    "then.window": "eV/atom",
    "then.disagreement": "eV/atom",
    "limits.seconds": "seconds",
    "limits.memory": "bytes",
}

#: Keys that are true or false.
TRUTH_VALUES = ("problem.charge_neutral", "retraining.posterior", "search.keep_evaluations", "then.counts")

#: Names that other programs use for a key, and names that users are likely to try.
ALIASES = {
    "pressure": "problem.pressure_gpa",
    "external_pressure": "problem.pressure_gpa",
    "composition": "problem.formula",
    "z": "problem.formula_units",
    "num_atoms": "problem.max_atoms",
    "volume": "problem.volume_per_atom",
    "min_distance": "problem.min_distances",
    "mindist": "problem.min_distances",
    "ion_distances": "problem.min_distances",
    "space_group": "problem.spacegroups",
    "spg": "problem.spacegroups",
    "symmetry": "problem.spacegroups",
    "magmom": "problem.initial_magmoms",
    "magmoms": "problem.initial_magmoms",
    "charge": "problem.initial_charges",
    "lattice": "problem.cell",
    "potential": "search.calculator",
    "model": "search.calculator",
    "strategy": "search.sources",
    "generator": "search.sources",
    "cores": "search.workers",
    "ncores": "search.workers",
    "nproc": "search.workers",
    "processes": "search.workers",
    "jobs": "search.workers",
    "parallel": "search.workers",
    "random_seed": "search.seed",
    "output": "search.directory",
    "outdir": "search.directory",
    "population": "budget.relaxations",
    "generations": "budget.relaxations",
    "structures": "budget.relaxations",
    "samples": "budget.relaxations",
    "time": "budget.hours",
    "walltime": "budget.hours",
    "max_time": "budget.hours",
    "target": "budget.stop_at",
    "fmax": "relaxation.max_force",
    "force_tolerance": "relaxation.max_force",
    "smax": "relaxation.max_stress_gpa",
    "steps": "limits.force_calls",
    "max_steps": "limits.force_calls",
    "max_force_calls": "limits.force_calls",
    "timeout": "limits.seconds",
    "time_limit": "limits.seconds",
    "memory_limit": "limits.memory",
    "retrain": "retraining.new_minima",
    "xrd_pattern": "xrd.pattern",
    "powder_pattern": "xrd.pattern",
}

#: Fields of RelaxationSettings that the problem determines; they are not keys of the file.
SET_BY_PROBLEM = ("pressure_gpa", "fixed_cell")

_OF_SYSTEM = "it belongs to a search of a chemical system, such as V-O (elements in place of formula)"

#: The allowed values in words, by the first word of pydantic's type of error.
_ALLOWED = {
    "int": "a whole number",
    "float": "a number",
    "string": "text, in quotes",
    "tuple": "a list, in brackets",
    "list": "a list, in brackets",
    "dict": "a table, in braces",
    "mapping": "a table, in braces",
    "model": "a table",
    "dataclass": "a table",
}


@dataclass(frozen=True)
class Origin:
    """Places where the keys of a configuration were written.

    Attributes
    ----------
    name
        The file, or "the command line".
    flags
        Command-line options that were given, by key: ``{"search.workers": "--workers"}``.
    lines
        Lines of the file, by key.
    options
        Command-line options of all keys if there is no file; errors then name options instead of keys.
    """

    name: str
    flags: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)

    def label(self, path: list[str]) -> str:
        """Return the name of a key in an error: the option that gave it, or the key with its line."""
        flag = self.flags.get(".".join(path[:2])) or self.options.get(".".join(path[:2]))
        if flag is not None:
            rest = [part for part in path[2:] if not part.isdigit()]
            return " ".join([flag, *rest])
        key = ".".join(path)
        for size in range(len(path), 0, -1):
            line = self.lines.get(".".join(path[:size]))
            if line is not None:
                return f"{key} (line {line})"
        return key

    def with_options(self, text: str) -> str:
        """Return a text with options in place of keys: ``max_atoms = 24`` becomes ``--max-atoms 24``.

        An option without a value replaces ``charge_neutral = true``.
        """
        for key, flag in self.options.items():
            text = re.sub(rf"\b{key.split('.')[1]} = true\b", flag, text)
            text = re.sub(rf"\b{key.split('.')[1]} = (?=\S)", f"{flag} ", text)
        return text


class ConfigurationError(InputError):
    """A configuration has one or more mistakes, which the message lists.

    Parameters
    ----------
    origin
        The file, or "the command line".
    mistakes
        One message for each mistake.
    """

    def __init__(self, origin: str, mistakes: list[str]) -> None:
        super().__init__(origin, len(mistakes), "")
        self.args = ("\n  ".join([f"{origin} has {len(mistakes)} mistake{'s' * (len(mistakes) > 1)}:", *mistakes]),)


@dataclass(frozen=True)
class Mistake:
    """A mistake in a configuration.

    Attributes
    ----------
    path
        The table and the key, and deeper keys if there are any.
    given
        The key and the value that was given, as the error shows them.
    allowed
        Noun phrase that names the allowed values.
    reason
        Why the value cannot be used, in place of ``allowed``. If both are empty, the key is missing.
    """

    path: tuple[str, ...]
    given: str
    allowed: str = ""
    reason: str = ""


def read_quantities(raw: Mapping[str, Any], origin: Origin) -> tuple[dict[str, Any], list[Mistake]]:
    """Return the tables with quantities such as ``"50 GPa"`` as numbers, and the mistakes found among them.

    A truth value is a mistake as well, except for :data:`TRUTH_VALUES`: Python would count it as 0 or 1.
    """
    mistakes: list[Mistake] = []

    def plain(value: Any, path: list[str]) -> Any:
        unit = UNITS.get(".".join(path[:2]))
        if isinstance(value, Mapping):
            return {key: plain(item, [*path, str(key)]) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item, [*path, str(number)]) for number, item in enumerate(value)]
        try:
            if isinstance(value, bool) and ".".join(path) not in TRUTH_VALUES:
                raise InputError(origin.label(path), value, reason="this key takes no truth value (true, false)")
            if isinstance(value, str) and unit is not None:
                number = read_quantity(origin.label(path), value, unit)
                return int(number) if unit == "bytes" else number
        except InputError as error:
            mistakes.append(Mistake(tuple(path), f"{error.key} = {shown(error.value)}", error.allowed, error.reason))
        return value

    return {table: plain(values, [table]) for table, values in raw.items()}, mistakes


def explain(details: Mapping[str, Any], model: type[BaseModel], origin: Origin) -> Mistake:
    """Return the mistake that an error of pydantic about a configuration describes.

    Parameters
    ----------
    details
        One item of ``ValidationError.errors()``.
    model
        The class of the configuration.
    origin
        Places where the keys were written.
    """
    path = [str(part) for part in details["loc"]]
    path = [part for part in path if not part.startswith(("tuple[", "function-", "constrained-"))]
    if len(path) > 2 and path[-1] in ("int", "float", "str"):
        path = path[:-1]  # the name of a member of a union
    error = details.get("ctx", {}).get("error")
    if isinstance(error, InputError):
        if len(path) == 1 or path[0] == "external":  # a check of the whole table names the key
            path = [*path[: 2 if path[0] == "external" else 1], *error.key.split(".")]
        return Mistake(tuple(path), f"{origin.label(path)} = {shown(error.value)}", error.allowed, error.reason)
    if details["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return unknown_key(path, model, origin)
    if details["type"] == "missing":
        return Mistake(tuple(path), origin.label(path))
    return Mistake(tuple(path), f"{origin.label(path)} = {shown(details['input'])}", _allowed_values(details))


def unknown_key(path: Sequence[str], model: type[BaseModel], origin: Origin) -> Mistake:
    """Return the mistake of a key that does not exist, with the key that was probably meant."""
    other = _of_other_problem(path[-1], model) if len(path) == 2 and path[0] == "problem" else ""
    reason = other or f"there is no such key; {_suggestion(list(path), model)}"
    return Mistake(tuple(path), origin.label(list(path)), reason=reason)


def messages(mistakes: Sequence[Mistake], origin: Origin) -> list[str]:
    """Return one sentence for each key, which names all kinds of values that are allowed."""
    by_key: dict[str, list[Mistake]] = {}
    for mistake in mistakes:
        by_key.setdefault(mistake.given, []).append(mistake)
    return [f"{given} {_verdict(several, origin)}" for given, several in by_key.items()]


def _verdict(mistakes: Sequence[Mistake], origin: Origin) -> str:
    allowed = dict.fromkeys(origin.with_options(mistake.allowed) for mistake in mistakes if mistake.allowed)
    reasons = dict.fromkeys(origin.with_options(mistake.reason) for mistake in mistakes if mistake.reason)
    if not allowed and not reasons:
        return "is missing."
    return verdict("; ".join([" or ".join(allowed), *reasons]) if allowed else "", "; ".join(reasons))


def keys_of(model: type[BaseModel], table: str) -> list[str]:
    """Return the keys of a table; for ``external``, those that each of its tables may have."""
    section = model.model_fields[table].annotation
    if table == "external":
        section = section.__args__[1]  # type: ignore[union-attr]
    if isinstance(section, type) and issubclass(section, BaseModel):
        return sorted(section.model_fields)
    hidden = SET_BY_PROBLEM if table == "relaxation" else ()
    return sorted(one.name for one in dataclasses.fields(section) if one.name not in hidden)  # type: ignore[arg-type]


def key_lines(text: str) -> dict[str, int]:
    """Return the number of the line, from 1, on which each key of a TOML file first occurs.

    Keys in inline tables and in quotes are left out.
    """
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            table = header[1] + "."
            lines.setdefault(header[1], number)
        elif key := re.match(r"\s*([\w-]+(?:\s*\.\s*[\w-]+)*)\s*=", line):
            lines.setdefault(table + re.sub(r"\s", "", key[1]), number)
    return lines


def find_key(word: str, model: type[BaseModel]) -> str | None:
    """Return the key, with its table, that a word stands for; ``None`` if there is no such key or there are several."""
    word = word.replace("-", "_").lower()
    exact = [f"{table}.{key}" for table in model.model_fields for key in keys_of(model, table) if key == word]
    if len(exact) == 1:
        return exact[0]
    return None if exact else ALIASES.get(word)


def _suggestion(path: list[str], model: type[BaseModel]) -> str:
    key = path[-1]
    if len(path) == 1:
        known = sorted(model.model_fields)
        meant = did_you_mean(key, known)
    else:
        known = keys_of(model, path[0])
        meant = did_you_mean(key, known)
    elsewhere = find_key(key, model)
    if elsewhere is not None and len(path) < 3 and (not meant or len(path) == 1):
        table, name = elsewhere.split(".")
        if name != key:
            meant = f"did you mean {name!r} in [{table}]? " if table != path[0] else f"did you mean {name!r}? "
        else:
            return f"it belongs in the table [{table}]"
    keys = ", ".join(known)
    return f"{meant}The known keys are {keys}" if meant else f"the known keys are {keys}"


def _of_other_problem(key: str, model: type[BaseModel]) -> str:
    """Return a sentence about a key that problems of the other kind have; empty if there is no such key."""
    own = model.model_fields["problem"].annotation
    others = {Problem: "it belongs to a search of one formula", System: _OF_SYSTEM}
    found = [
        text
        for kind, text in others.items()
        if kind is not own and key in {one.name for one in dataclasses.fields(kind)}
    ]
    return found[0] if found else ""


def _allowed_values(details: Mapping[str, Any]) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "greater_than_equal":
        return f"a number from {context['ge']}"
    if kind in ("too_long", "tuple_wrong_length", "missing_argument"):
        return f"a different number of values: {details['msg']}"
    return _ALLOWED.get(kind.partition("_")[0], str(details["msg"]))
