"""The registry of objectives, and their construction by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from hybridcsp.core.registry import Entry, Registry, split_argument
from hybridcsp.errors import InputError, UnknownNameError, did_you_mean, with_hint
from hybridcsp.objectives.base import Objective

OBJECTIVES = Registry(
    "objective",
    (
        Entry(
            name="density",
            target="hybridcsp.objectives.simple:Density",
            summary="mass density in g/cm³",
        ),
        Entry(
            name="volume_per_atom",
            target="hybridcsp.objectives.simple:VolumePerAtom",
            summary="volume in Å³/atom",
        ),
        Entry(
            name="magnetic_moment",
            target="hybridcsp.objectives.simple:MagneticMoment",
            summary="magnitude of the total magnetic moment in μ_B/atom, by a calculator that has moments (chgnet)",
        ),
        Entry(
            name="bulk_modulus",
            target="hybridcsp.objectives.elastic:BulkModulus",
            summary="bulk modulus in GPa from the stress of two strained cells, with relaxed positions",
        ),
        Entry(
            name="xrd",
            target="hybridcsp.objectives.powder:PowderSimilarity",
            summary="similarity from 0 to 1 to the measured powder pattern in a file (xrd:pattern.xy)",
        ),
        Entry(
            name="predictor",
            target="hybridcsp.predictors.objective:PredictedProperty",
            summary="property that a trained predictor predicts (predictor:FOLDER)",
        ),
    ),
    base="hybridcsp.objectives.base:Objective",
)


def entry_of(text: str) -> tuple[Entry | None, str, str | None]:
    """Return the registered entry (``None`` for a function of the user), the name and the argument of an objective.

    Parameters
    ----------
    text
        ``NAME``, ``NAME:ARGUMENT``, ``module:function`` or ``file.py:function``.

    Raises
    ------
    UnknownNameError, InputError
        If the name is not registered, or the name or the argument is empty.
    """
    name, argument = split_argument(text, "objective")
    if name in OBJECTIVES:
        return OBJECTIVES[name], name, argument
    if argument is None:
        raise UnknownNameError(
            "objective", name, OBJECTIVES.entries(), "or a function of Atoms as module:function or file.py:function"
        )
    return None, name, argument


def class_of(text: str) -> type[Objective]:
    """Return the class of an objective by name; errors are those of :func:`build_objective`."""
    from hybridcsp.objectives.function import FunctionObjective

    entry, _, _ = entry_of(text)
    if entry is None:
        return FunctionObjective
    found: type[Objective] = entry.load()
    return found


def build_objective(text: str, options: Mapping[str, Any] | None = None) -> Objective:
    """Build an objective by name.

    Parameters
    ----------
    text
        ``NAME``, ``NAME:ARGUMENT``, ``module:function`` or ``file.py:function``.
    options
        Keyword arguments of the objective.

    Raises
    ------
    UnknownNameError, InputError
        If the objective is not known, or does not accept its argument or an option.
    RegistrationError
        If another package registers an objective that cannot be used.
    """
    entry, _, argument = entry_of(text)
    kind = class_of(text)
    _check_options(kind, text, options or {})
    if entry is None:
        return kind(text, **(options or {}))
    built: Objective = entry.build(argument, **(options or {}))
    return built


def _check_options(kind: type[Objective], text: str, options: Mapping[str, Any]) -> None:
    """Check that an objective accepts keyword arguments.

    Raises
    ------
    InputError
        If it does not accept one of them.
    """
    parameters = list(inspect.signature(kind).parameters.values())
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.POSITIONAL_ONLY]
    known = [name for name in known if name != "argument"]
    for name, value in options.items():
        if name not in known:
            which = f"it has only {', '.join(known)}" if known else "it has no options"
            reason = with_hint(f"the objective {text} has no such option; {which}", did_you_mean(name, known))
            raise InputError(f"objectives.options.{name}", value, reason=reason)
