"""The choice of an objective: what is computed, and which values are preferred."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from hybridcsp.core.registry import OURS
from hybridcsp.errors import InputError
from hybridcsp.objectives.base import MAXIMUM, MINIMUM, REPORTED, Objective
from hybridcsp.objectives.conditions import HEIGHT, Condition
from hybridcsp.objectives.function import SUFFIX, FunctionObjective
from hybridcsp.objectives.registry import OBJECTIVES, build_objective, class_of, entry_of
from hybridcsp.utils.paths import absolute, absolute_argument

#: Words that are probably meant as a goal.
_SYNONYMS = {
    **dict.fromkeys(("maximum", "maximise", "maximize", "highest", "largest", "high", "large"), MAXIMUM),
    **dict.fromkeys(("minimum", "minimise", "minimize", "lowest", "smallest", "low", "small"), MINIMUM),
}

#: Names of values that every minimum has.
_TAKEN = (HEIGHT, "enthalpy", "energy")


@dataclass(frozen=True, kw_only=True)
class ObjectiveChoice:
    """An objective of a search, with its goal and its name.

    Parameters
    ----------
    objective
        Name of an objective (``"density"``), with an argument after a colon if it has one; ``"module:function"`` or
        ``"file.py:function"`` for a function of ``Atoms``; or in Python an
        :class:`~hybridcsp.objectives.base.Objective` or the function itself.
    goal
        ``"min"``, ``"max"``, a number near which values are preferred, or ``"report"`` if the value is only shown and
        may be used in conditions. Default: the natural goal of the objective, if it has one.
    name
        Name of the value in results and conditions: letters, digits and ``_``. Default: the name of the objective or of
        the function.
    unit
        Unit of the value of a function, for tables and plots.
    options
        Keyword arguments of the objective.

    Raises
    ------
    InputError
        If a value is not valid. Nothing is imported or executed for this check.

    Examples
    --------
    >>> from hybridcsp.objectives import ObjectiveChoice
    >>> choice = ObjectiveChoice.of("density:max")
    >>> choice.name, choice.goal
    ('density', 'max')
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid", "arbitrary_types_allowed": True}

    objective: Any
    goal: str | float | None = None
    name: str = ""
    unit: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = self.objective
        if not isinstance(given, str | Objective) and not callable(given):
            allowed = "the name of an objective, an Objective, or a function of Atoms that returns a number"
            raise InputError("objective", given, allowed)
        if isinstance(given, type):
            raise InputError("objective", given, reason=f"this is a class; give an object of it, {given.__name__}()")
        if isinstance(given, str):
            entry_of(given)
        elif self.options:
            raise InputError("objectives.options", dict(self.options), reason="an objective that is built has its own")
        object.__setattr__(self, "goal", _checked_goal(self.goal))  # the way to set a field of a frozen dataclass
        object.__setattr__(self, "name", _checked_name(self.name or _usual_name(given)))
        if not isinstance(self.unit, str) or not isinstance(self.options, Mapping):
            key = "options" if isinstance(self.unit, str) else "unit"
            raise InputError(f"objectives.{key}", getattr(self, key), "a table" if key == "options" else "a text")

    @classmethod
    def of(cls, given: Any) -> ObjectiveChoice:
        """Return the choice that a user gave as such, as a table, as ``"NAME:GOAL"`` or as an objective.

        Raises
        ------
        InputError
            If it is nothing of this kind.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, Mapping):
            known = ("objective", "goal", "name", "unit", "options")
            for key in given:
                if key not in known:
                    raise InputError(f"objectives.{key}", given[key], reason=f"the keys are {', '.join(known)}")
            return cls(**{"objective": None, **given})
        if not isinstance(given, str):
            return cls(objective=given)
        text, goal = _split_goal(given)
        return cls(objective=text, goal=goal)

    @property
    def runs_code(self) -> bool:
        """Whether building the objective executes code in a file or module that the user named."""
        if not isinstance(self.objective, str):
            return False
        entry, _, _ = entry_of(self.objective)
        return entry is None or (entry.package == OURS and self.kind.runs_code)

    @property
    def is_ours(self) -> bool:
        """Whether only code of this package computes the value."""
        return not issubclass(self.kind, FunctionObjective) and self.kind.__module__.split(".")[0] == OURS

    def in_folder(self, folder: Path) -> ObjectiveChoice:
        """Return the choice with an absolute path, if it has one that is relative to ``folder``."""
        given = self.objective
        return replace(self, objective=absolute_objective(given, folder)) if isinstance(given, str) else self

    def with_goal(self, goal: str | float) -> ObjectiveChoice:
        """Return the choice with another goal."""
        return replace(self, goal=goal)

    @property
    def kind(self) -> type[Objective]:
        """Class of the objective, which is known without building it."""
        if isinstance(self.objective, str):
            return class_of(self.objective)
        return type(self.objective) if isinstance(self.objective, Objective) else FunctionObjective

    def build(self) -> Objective:
        """Build the objective.

        Raises
        ------
        InputError, RegistrationError
            If it cannot be built; see :func:`~hybridcsp.objectives.registry.build_objective`.
        """
        given = self.objective
        if isinstance(given, str):
            built = build_objective(given, self.options)
        else:
            built = given if isinstance(given, Objective) else FunctionObjective(given)
        if self.unit:
            built.unit = self.unit
        return built

    def record(self, objective: Objective) -> dict[str, Any]:
        """Return the plain JSON that a run directory keeps of the choice.

        Parameters
        ----------
        objective
            The objective that was built from it.
        """
        given = self.objective
        kind = given if callable(given) and not isinstance(given, Objective) else type(given)
        shown = given if isinstance(given, str) else {"python": f"{kind.__module__}.{kind.__qualname__}"}
        record = {"name": self.name, "objective": shown, "goal": self.goal, "unit": objective.unit}
        record |= {"digest": objective.digest} if objective.digest else {}
        return record | ({"options": dict(self.options)} if self.options else {})


def _split_goal(text: str) -> tuple[str, str | float | None]:
    """Return the objective and the goal of ``"NAME:GOAL"``; the goal is ``None`` if the text ends with none."""
    head, _, tail = text.rpartition(":")
    if not head:
        return text, None
    if tail in (MINIMUM, MAXIMUM, REPORTED):
        return head, tail
    with suppress(ValueError):
        return head, float(tail)
    if meant := _SYNONYMS.get(tail.lower()):
        raise InputError("objective", text, reason=f"{tail!r} is not a goal; did you mean {head}:{meant}?")
    return text, None


def _checked_goal(goal: object) -> str | float | None:
    allowed = f"{MINIMUM}, {MAXIMUM}, {REPORTED}, or a number near which values are preferred"
    if goal is None or (isinstance(goal, str) and goal in (MINIMUM, MAXIMUM, REPORTED)):
        return goal
    if isinstance(goal, str):
        try:
            goal = float(goal)
        except ValueError:
            raise InputError("goal", goal, allowed) from None
    if isinstance(goal, bool) or not isinstance(goal, int | float) or not math.isfinite(goal):
        raise InputError("goal", goal, allowed)
    return float(goal)


def _usual_name(given: Any) -> str:
    if isinstance(given, str):
        entry, name, argument = entry_of(given)
        found = name if entry is not None else str(argument).rpartition(".")[2]
    else:
        found = (
            type(given).__name__ if isinstance(given, Objective) else getattr(given, "__name__", type(given).__name__)
        )
    return re.sub(r"\W", "_", found)


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[^\W\d]\w*", name):
        raise InputError("objectives.name", name, "a word of letters, digits and _ that begins with a letter")
    if name in _TAKEN or name in ("and", "or", "not", "in", "is", "if", "else", "lambda", "None", "True", "False"):
        reason = "this name is in use already; give the objective another one with the key name"
        raise InputError("objectives.name", name, reason=reason)
    return name


def absolute_objective(text: str, folder: Path) -> str:
    """Return the text of an objective with an absolute path, if it contains one that is relative to ``folder``."""
    name, colon, argument = text.partition(":")
    if name.endswith(SUFFIX):
        return f"{absolute(name, folder)}{colon}{argument}"
    if name not in OBJECTIVES or not argument:
        return text
    return absolute_argument(text, folder, path=class_of(text).argument_is_path)


def choices_of(given: Any, where: str = "") -> tuple[ObjectiveChoice, ...]:
    """Return the objectives that a user gave, and those of the names in a condition that need no argument or goal.

    Parameters
    ----------
    given
        One objective or a sequence of them, each as :meth:`ObjectiveChoice.of` takes it.
    where
        A condition on the values of minima.

    Raises
    ------
    InputError
        If an objective is not valid, two have the same name, or the condition is not valid or names no objective.
    """
    several = given if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    choices = [ObjectiveChoice.of(one) for one in several]
    names = [choice.name for choice in choices]
    for name in names:
        if names.count(name) > 1:
            reason = "two objectives have this name; give one of them another with the key name"
            raise InputError("objectives", name, reason=reason)
    for name in Condition(where).names:
        if name in names or name == HEIGHT:
            continue
        if name not in OBJECTIVES:
            known = ", ".join([*names, HEIGHT, *OBJECTIVES.entries()])
            reason = f"{name} is no objective of this search; add it as an objective, or use one of {known}"
            raise InputError("where", where, reason=reason)
        names.append(name)
        choices.append(ObjectiveChoice(objective=name, goal=REPORTED))
    return tuple(choices)
