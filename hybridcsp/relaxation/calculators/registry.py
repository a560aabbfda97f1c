"""Calculators by name: the registry, checks of names, and construction.

A calculator is named ``chgnet``, ``emt``, ``lj``, ``mace:PATH_OR_NAME``, a name that another package registers, or
``package.module:factory``, or by the path of a calculator file. In Python it may also be an ASE calculator, a function
without arguments that returns one, or a :class:`~hybridcsp.relaxation.calculators.choice.CalculatorChoice`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TypeAlias

from ase.calculators.calculator import BaseCalculator, Calculator

from hybridcsp.core.registry import OURS, Entry, Registry, split_argument
from hybridcsp.errors import (
    CalculatorError,
    HybridCSPError,
    InputError,
    UnknownNameError,
    did_you_mean,
    message_of,
    with_hint,
)
from hybridcsp.relaxation.calculators.choice import DFT, CalculatorChoice
from hybridcsp.relaxation.calculators.dft.chosen import dft_file, is_dft
from hybridcsp.relaxation.calculators.interpreters import Interpreter, find_interpreter
from hybridcsp.relaxation.calculators.models import check_package, download_model, model_file
from hybridcsp.relaxation.calculators.remote import RemoteCalculator, check_interpreter
from hybridcsp.relaxation.calculators.server.builders import (
    BUILDERS,
    build,
    build_from_function,
    build_from_module,
    check_device,
    check_options,
)
from hybridcsp.relaxation.calculators.server.exceptions import BuildError, OptionError
from hybridcsp.relaxation.calculators.server.identity import describe, digest_of_file, digest_of_source
from hybridcsp.relaxation.calculators.server.models import PACKAGES
from hybridcsp.relaxation.calculators.server.sevennet import MODELS
from hybridcsp.relaxation.calculators.suggestions import how_to_use
from hybridcsp.utils.activity import announce
from hybridcsp.utils.interrupts import exits_contained
from hybridcsp.utils.modules import locate
from hybridcsp.utils.quiet import quiet

CalculatorLike: TypeAlias = str | Calculator | Callable[[], Calculator] | CalculatorChoice

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
            target="hybridcsp.relaxation.calculators.server.builders:build_emt",
            summary="effective medium theory: Al, Cu, Ag, Au, Ni, Pd, Pt",
        ),
        Entry(
            name="lj",
            target="hybridcsp.relaxation.calculators.server.builders:build_lj",
            summary="Lennard-Jones with ε = 0.1 eV, σ = 2.5 Å for every pair; for tests",
        ),
        Entry(
            name="committee",
            target="hybridcsp.potentials.calculator:build_committee",
            summary="committee of potentials that hybridcsp potential train has trained: committee:FOLDER",
        ),
        Entry(
            name="dft",
            target="hybridcsp.relaxation.calculators.dft.calculator:build_dft",
            summary="a DFT code: dft:FILE.toml, or just FILE.toml (hybridcsp calculators template CODE)",
        ),
        Entry(
            name="mace",
            target="hybridcsp.relaxation.calculators.server.mace:build_mace",
            summary="MACE: mace:NAME of a foundation model, which is downloaded, or mace:PATH; executes code in it",
        ),
        Entry(
            name="sevennet",
            target="hybridcsp.relaxation.calculators.server.sevennet:build_sevennet",
            summary="SevenNet-0; also sevennet:l3i5, sevennet:mf:pbe, sevennet:mf:r2scan; sevennet:PATH executes code",
        ),
    ),
)


# A module that uses one of these may define names that do not occur in its source.
_DYNAMIC = {"*", "__getattr__", "__dict__", "globals", "vars", "locals", "setattr", "exec", "eval", "modules"}


def check_calculator(spec: CalculatorLike) -> None:
    """Check cheaply whether a calculator can be built, without importing its module.

    Another interpreter is started once to find out whether it can run calculators and has the device, and torch is
    imported if a device is given.

    Raises
    ------
    UnknownNameError
        If the name is not registered.
    InputError
        If an argument is missing or superfluous, the module or the name in it does not exist, an option cannot be used
        with the calculator, or the interpreter cannot run it.
    CalculatorError
        If a model file is missing.
    RegistrationError
        If another package registers a module that does not exist.
    """
    choice = CalculatorChoice.of(spec)
    check_name(choice)
    interpreter = find_interpreter(choice)
    if interpreter is not None:
        check_interpreter(interpreter, choice.device)
    elif choice.device is not None:
        try:
            check_device(choice.device)
        except OptionError as error:
            raise InputError(error.option, error.value, reason=error.reason) from error


def check_name(choice: CalculatorChoice) -> None:
    """Check a choice as far as that is possible without starting another interpreter or importing torch.

    Errors are those of :func:`check_calculator`.
    """
    calculator = choice.calculator
    if not isinstance(calculator, str):
        _check_object(choice)
        return
    entry, name, argument = _parse(calculator)
    interpreter = find_interpreter(choice)
    if interpreter is not None and entry is not None and name not in BUILDERS:
        reason = f"the calculator {name} runs only in the interpreter of hybridcsp; leave python out"
        raise InputError("python", interpreter.path, reason=reason)
    if entry is None:
        if interpreter is None:
            _check_module(calculator, name, str(argument))
    elif entry.name in PACKAGES:
        if entry.name == "mace" and argument is None:
            raise InputError(
                "calculator", calculator, "a name with a model, mace:PATH or mace:NAME, for example mace:medium-mpa-0"
            )
        model_file(entry.name, argument)
        if interpreter is None:
            check_package(entry.name)
    elif entry.name == "committee":
        model_file(entry.name, argument)
        check_package("mace")
    elif entry.name == DFT:
        dft_file(choice).check()
    elif entry.package != OURS:
        if locate(entry.target.partition(":")[0]) is None:
            raise entry.broken("cannot be imported: there is no such module")
    elif argument is not None:
        raise InputError("calculator", calculator, reason=f"{name} takes no argument")


def _check_module(spec: str, module: str, factory: str) -> None:
    """Check that there is a module and that it may define a name, without importing it.

    Raises
    ------
    InputError
        If not.
    """
    if locate(module) is None:
        hint = did_you_mean(module, CALCULATORS.entries())
        there = f"there is no Python module {module!r} (a file in this directory is found if PYTHONPATH holds it)"
        raise InputError("calculator", spec, reason=with_hint(there, hint))
    names = _names_in(module)
    if names is not None and factory not in names:
        hint = did_you_mean(factory, names)
        there = f"there is no {factory!r} in the module {module}"
        raise InputError("calculator", spec, reason=with_hint(there, hint))


def _check_object(choice: CalculatorChoice) -> None:
    """Check the options of a calculator that is given as an object or a function.

    Raises
    ------
    InputError
        If they can only be used with the name of a calculator.
    """
    if choice.python is not None:
        reason = "another interpreter can build calculators by their names only; name the function as module:function"
        raise InputError("python", choice.python, reason=reason)
    if isinstance(choice.calculator, BaseCalculator):
        for option, value in choice.options.items():
            reason = "an ASE calculator is given, which has chosen it already; leave it out"
            raise InputError(option, value, reason=reason)


def build_calculator(spec: CalculatorLike) -> tuple[Calculator, str]:
    """Build a calculator.

    Parameters
    ----------
    spec
        Name of a calculator, an ASE calculator, a function without arguments that returns one, or a choice of one of
        these with its interpreter, device and precision.

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
    choice = CalculatorChoice.of(spec)
    check_calculator(choice)
    calculator = choice.calculator
    if isinstance(calculator, BaseCalculator):
        label = calculator.label if isinstance(calculator, RemoteCalculator) else describe(calculator)
        return calculator, label
    interpreter = find_interpreter(choice)
    if interpreter is not None:
        return _built_remotely(choice, interpreter)
    shown = calculator if isinstance(calculator, str) else getattr(calculator, "__qualname__", repr(calculator))
    try:
        with exits_contained():
            return _built(calculator, shown, choice)
    except HybridCSPError:
        raise
    except OptionError as error:
        raise InputError(error.option, error.value, reason=error.reason) from error
    except BuildError as error:
        raise CalculatorError(str(error)) from error
    except Exception as error:  # third-party code may raise anything
        raise CalculatorError(f"the calculator {shown} cannot be built: {message_of(error)}") from error


def _built(spec: str | Callable[[], Calculator], shown: str, choice: CalculatorChoice) -> tuple[Calculator, str]:
    """Build a calculator in this interpreter."""
    if choice.device is not None:
        check_device(choice.device)
    if not isinstance(spec, str):
        with quiet():
            calculator = build_from_function(spec, shown, choice.options)
        precision = {"precision": choice.precision} if choice.precision else {}
        return calculator, describe(calculator, precision)
    entry, name, argument = _parse(spec)
    if entry is not None and (entry.package != OURS or name not in BUILDERS):
        return _from_entry(entry, argument, choice.options)
    with quiet():
        if entry is not None:
            return build(name, argument, device=choice.device, precision=choice.precision)
        return build_from_module(name, str(argument), choice.options)


def _built_remotely(choice: CalculatorChoice, interpreter: Interpreter) -> tuple[Calculator, str]:
    """Build a calculator in a server of another interpreter."""
    name, argument = split_argument(str(choice.calculator), "calculator")
    device, precision = choice.device, choice.precision
    calculator = RemoteCalculator(name, argument, interpreter=interpreter, device=device, precision=precision)
    return calculator, calculator.label


def parameters_ahead(spec: CalculatorLike) -> dict[str, str]:
    """Return the parameters of a calculator's label that are known without building it.

    These are hashes: ``weights`` of the model file of a potential, ``source`` of the module of a factory that is not
    installed, and ``settings`` and ``pseudopotentials`` of a DFT file.
    """
    choice = CalculatorChoice.of(spec)
    if not isinstance(choice.calculator, str):
        return {}
    entry, name, argument = _parse(choice.calculator)
    if is_dft(choice):
        last = dft_file(choice).last
        return {"pseudopotentials": last.digest_of_files(), "settings": last.digest}
    if entry is None:
        spec_of_module = locate(name) if find_interpreter(choice) is None else None
        found = {"source": digest_of_source(spec_of_module)}
    else:
        file = model_file(entry.name, argument)
        found = {} if file is None else {"weights": digest_of_file(file)}
    return {key: value for key, value in found.items() if value is not None}


def prepare_calculator(spec: CalculatorLike) -> None:
    """Download the model that a calculator needs, if this machine does not have it.

    It is called before the workers start, which may run where there is no network.

    Raises
    ------
    CalculatorError
        If the download fails.
    """
    choice = CalculatorChoice.of(spec)
    if isinstance(choice.calculator, str):
        entry, name, argument = _parse(choice.calculator)
        if entry is not None and entry.package == OURS:
            download_model(name, argument)


def try_calculator(spec: CalculatorLike) -> None:
    """Build a calculator once if the user named an interpreter for it.

    It is called before a run directory is made. What is in that interpreter cannot be known in another way; those of
    environments that hybridcsp has installed are known to work.

    Raises
    ------
    InputError, CalculatorError
        If the calculator cannot be built.
    """
    choice = CalculatorChoice.of(spec)
    if choice.python is not None:
        announce(f"building {choice} once")
        calculator, _ = build_calculator(choice)
        if isinstance(calculator, RemoteCalculator):
            calculator.close()


def runs_code(spec: CalculatorLike) -> bool:
    """Return whether building a calculator executes code in a file, module or interpreter that the user named."""
    choice = CalculatorChoice.of(spec)
    if not isinstance(choice.calculator, str):
        return False
    entry, _, argument = _parse(choice.calculator)
    of_file = (
        entry is None or entry.name in ("mace", DFT) or (entry.name == "sevennet" and (argument or "") not in MODELS)
    )
    return choice.python is not None or of_file


def _parse(spec: str) -> tuple[Entry | None, str, str | None]:
    """Return the registered entry (``None`` for ``module:factory``), the name and the argument."""
    name, argument = split_argument(spec, "calculator")
    if name in CALCULATORS:
        return CALCULATORS[name], name, argument
    if argument is None:
        known = [*CALCULATORS.entries(), "package.module:factory"]
        raise UnknownNameError("calculator", name, known, how_to_use(name))
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


def _from_entry(entry: Entry, argument: str | None, options: dict[str, str]) -> tuple[Calculator, str]:
    check_options(entry.load(), entry.name, options)
    built = entry.build(argument, **options)
    match built:
        case (BaseCalculator() as calculator, str(label)) if label:
            return calculator, label
    raise entry.broken(f"returns {built!r} instead of an ASE calculator and a label with its version")
