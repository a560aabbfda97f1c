"""Calculators by name: the registry, checks of names, and construction.

A calculator is named ``chgnet``, ``emt``, ``lj``, ``mace:PATH_OR_NAME``, a name that another package registers, or
``package.module:factory``. In Python it may also be an ASE calculator or a function without arguments that returns one.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any, TypeAlias

from ase.calculators.calculator import BaseCalculator, Calculator

from hybridcsp.core.registry import OURS, Entry, Registry, split_argument
from hybridcsp.errors import (
    CalculatorError,
    HybridCSPError,
    InputError,
    UnknownNameError,
    did_you_mean,
    message_of,
)
from hybridcsp.relaxation.calculators.identity import describe, digest_of_file, digest_of_module
from hybridcsp.relaxation.calculators.mace import find_model
from hybridcsp.relaxation.calculators.suggestions import how_to_use
from hybridcsp.utils.interrupts import exits_contained
from hybridcsp.utils.modules import locate
from hybridcsp.utils.quiet import quiet

CalculatorLike: TypeAlias = str | Calculator | Callable[[], Calculator]

CALCULATORS = Registry(
    "calculator",
    (
        Entry(
            name="chgnet",
            target="hybridcsp.relaxation.calculators.chgnet:build_chgnet",
            summary="CHGNet, a universal potential with magnetic moments; works offline (default)",
        ),
        Entry(
            name="emt",
            target="hybridcsp.relaxation.calculators.registry:build_emt",
            summary="effective medium theory: Al, Cu, Ag, Au, Ni, Pd, Pt",
        ),
        Entry(
            name="lj",
            target="hybridcsp.relaxation.calculators.registry:build_lj",
            summary="Lennard-Jones with ε = 0.1 eV, σ = 2.5 Å for every pair; for tests",
        ),
        Entry(
            name="mace",
            target="hybridcsp.relaxation.calculators.mace:build_mace",
            summary="mace:PATH of a MACE model or mace:NAME of a downloaded one; executes code in the file",
        ),
    ),
)


# A module that uses one of these may define names that do not occur in its source.
_DYNAMIC = {"*", "__getattr__", "__dict__", "globals", "vars", "locals", "setattr", "exec", "eval", "modules"}


class IsolatedAtomsError(Exception):
    """Atom without neighbours within the cutoff of a calculator: the structure has fallen apart."""


def check_calculator(spec: CalculatorLike) -> None:
    """Check cheaply whether a calculator can be built, without importing its module.

    Raises
    ------
    UnknownNameError
        If the name is not registered.
    InputError
        If an argument is missing or superfluous, or the module or the name in it does not exist.
    CalculatorError
        If a model file is missing.
    RegistrationError
        If another package registers a module that does not exist.
    """
    if not isinstance(spec, str):
        if not isinstance(spec, BaseCalculator) and not callable(spec):
            raise InputError(
                "calculator", spec, "a name, an ASE calculator, or a function without arguments that returns one"
            )
        return
    entry, name, argument = _parse(spec)
    if entry is None:
        if locate(name) is None:
            hint = did_you_mean(name, CALCULATORS.entries())
            raise InputError(
                "calculator",
                spec,
                f"{hint}there is no Python module {name!r} (a file in this directory is found if PYTHONPATH holds it)",
            )
        names = _names_in(name)
        if names is not None and argument not in names:
            hint = did_you_mean(str(argument), names)
            raise InputError("calculator", spec, f"{hint}there is no {argument!r} in the module {name}")
    elif entry.name == "mace":
        if argument is None:
            raise InputError(
                "calculator", spec, "a name with a model: mace:PATH or mace:NAME, for example mace:medium-mpa-0"
            )
        find_model(argument)
    elif entry.package != OURS:
        if locate(entry.target.partition(":")[0]) is None:
            raise entry.broken("cannot be imported: there is no such module")
    elif argument is not None:
        raise InputError("calculator", spec, f"{name} without an argument")


def build_calculator(spec: CalculatorLike) -> tuple[Calculator, str]:
    """Build a calculator.

    Parameters
    ----------
    spec
        Name of a calculator, an ASE calculator, or a function without arguments that returns one.

    Returns
    -------
    tuple of Calculator and str
        The calculator and its label with the version; only energies with the same label are compared.

    Raises
    ------
    UnknownNameError, InputError
        As in :func:`check_calculator`.
    RegistrationError
        If the entry of another package is invalid.
    CalculatorError
        If the construction fails for any reason; the cause is chained.

    Examples
    --------
    >>> calculator, label = build_calculator("emt")
    >>> label.split()[0]
    'emt'
    """
    check_calculator(spec)
    if isinstance(spec, BaseCalculator):
        return spec, describe(spec)
    shown = spec if isinstance(spec, str) else getattr(spec, "__qualname__", repr(spec))
    try:
        with exits_contained():
            calculator, label = _built(spec)
    except HybridCSPError:
        raise
    except Exception as error:  # third-party code may raise anything
        raise CalculatorError(f"the calculator {shown} cannot be built: {message_of(error)}") from error
    if not isinstance(calculator, BaseCalculator):
        raise CalculatorError(f"the calculator {shown} must be an ASE calculator; it is a {type(calculator).__name__}")
    return calculator, label


def _built(spec: str | Callable[[], Calculator]) -> tuple[Any, str]:
    if not isinstance(spec, str):
        with quiet():
            calculator = spec()
        return calculator, describe(calculator)
    entry, name, argument = _parse(spec)
    if entry is not None:
        return _from_entry(entry, argument)
    with quiet():
        calculator = getattr(import_module(name), str(argument))()
    return calculator, f"{spec} {describe(calculator, parameters_ahead(spec))}"


def parameters_ahead(spec: CalculatorLike) -> dict[str, str]:
    """Return the parameters of a calculator's label that are known without building it.

    These are hashes: ``weights`` of a MACE model, and ``source`` of the module of a factory that is not installed.
    """
    if not isinstance(spec, str):
        return {}
    entry, name, argument = _parse(spec)
    if entry is None:
        found = {"source": digest_of_module(name)}
    elif entry.name == "mace" and argument is not None:
        found = {"weights": digest_of_file(find_model(argument))}
    else:
        found = {}
    return {key: value for key, value in found.items() if value is not None}


def runs_code(spec: CalculatorLike) -> bool:
    """Return whether building a calculator executes code in a file or module that the user named."""
    if not isinstance(spec, str):
        return False
    entry, _, _ = _parse(spec)
    return entry is None or entry.name == "mace"


def build_emt(argument: str | None = None) -> tuple[Calculator, str]:
    """Build the effective medium theory of ASE; the argument is not used."""
    from ase.calculators.emt import EMT

    return EMT(), f"emt (ase {version('ase')})"


def build_lj(argument: str | None = None) -> tuple[Calculator, str]:
    """Build a Lennard-Jones potential that is the same for all elements; the argument is not used.

    ε = 0.1 eV and σ = 2.5 Å, smoothly cut off at 3 σ, give nearest neighbours at 2.7 Å and the stiffness of a metal.
    """
    from ase.calculators.lj import LennardJones

    return LennardJones(epsilon=0.1, sigma=2.5, rc=7.5, smooth=True), f"lj 0.1 eV 2.5 Å (ase {version('ase')})"


def _parse(spec: str) -> tuple[Entry | None, str, str | None]:
    """Return the registered entry (``None`` for ``module:factory``), the name and the argument."""
    name, argument = split_argument(spec, "calculator")
    entries = CALCULATORS.entries()
    if name in entries:
        return entries[name], name, argument
    if argument is None:
        raise UnknownNameError("calculator", name, [*entries, "package.module:factory"], how_to_use(name))
    return None, name, argument


def _names_in(module: str) -> set[str] | None:
    """Return all names that the source of a module assigns, without running it.

    The names include those inside functions. The result is ``None`` if the module may define other names when it runs,
    or if its source is not available.
    """
    spec = locate(module)
    read = getattr(spec and spec.loader, "get_source", None)
    try:
        tree = ast.parse((read and read(module)) or "")
    except (SyntaxError, ImportError):  # the import will report the error
        return None
    given: set[str] = set()
    used: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                given.add(name)
            case ast.alias():
                given.add(node.asname or node.name.partition(".")[0])
            case ast.Name(id=name, ctx=ast.Store()):
                given.add(name)
            case ast.Name(id=name) | ast.Attribute(attr=name):
                used.add(name)
    return None if not given or (given | used) & _DYNAMIC else given


def _from_entry(entry: Entry, argument: str | None) -> tuple[Calculator, str]:
    built = entry.build(argument)
    match built:
        case (BaseCalculator() as calculator, str(label)) if label:
            return calculator, label
    raise entry.broken(f"returns {built!r} instead of an ASE calculator and a label with its version")
