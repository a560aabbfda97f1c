"""Construction of calculators by name, and of those that a function of a module returns."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from ase.calculators.calculator import BaseCalculator

from .exceptions import BuildError, OptionError
from .identity import describe, digest_of_source

#: Builders by the name of their calculator, as ``module:function`` with a module of this package.
#:
#: A builder is called as ``builder(argument, device=None, precision=None)`` and returns the calculator and its label.
#: It raises :class:`BuildError` with a full sentence if the user can mend the cause.
BUILDERS = {
    "emt": ".builders:build_emt",
    "lj": ".builders:build_lj",
    "mace": ".mace:build_mace",
    "sevennet": ".sevennet:build_sevennet",
}

#: Names of the precisions in which a potential may compute.
PRECISIONS = ("float32", "float64")


def build(
    name: str, argument: str | None = None, *, device: str | None = None, precision: str | None = None
) -> tuple[Any, str]:
    """Build a calculator.

    Parameters
    ----------
    name
        A key of :data:`BUILDERS`, or the name of a module.
    argument
        Argument of the calculator; of a module, the name of a function without required arguments that returns a
        calculator.
    device
        Device of torch on which the calculator computes, such as ``"cuda"``; ``None`` for the calculator's default.
    precision
        One of :data:`PRECISIONS`, or ``None`` for the calculator's default.

    Returns
    -------
    tuple of Calculator and str
        The calculator and its label, which contains the precision if it is not the default, and never the device.

    Raises
    ------
    BuildError
        If the user can mend the cause: an unknown model, device or precision, or a package that is missing.
    """
    options = {key: value for key, value in (("device", device), ("precision", precision)) if value is not None}
    if device is not None:
        check_device(device)
    if name not in BUILDERS:
        return build_from_module(name, str(argument), options)
    module, _, function = BUILDERS[name].partition(":")
    calculator, label = getattr(importlib.import_module(module, __package__), function)(argument, **options)
    return calculator, label


def build_from_module(module: str, name: str, options: dict[str, str] | None = None) -> tuple[Any, str]:
    """Build a calculator with a function of a module.

    Parameters
    ----------
    module, name
        The module and the function in it.
    options
        Keyword arguments of the function, ``device`` or ``precision``.

    Returns
    -------
    tuple of BaseCalculator and str
        The calculator and its label, which contains a hash of the module's source unless it is installed.
    """
    shown = f"{module}:{name}"
    calculator = build_from_function(getattr(importlib.import_module(module), name), shown, options)
    more = {"source": digest_of_source(sys.modules[module].__spec__)}
    if options and "precision" in options:
        more["precision"] = options["precision"]
    return calculator, f"{shown} {describe(calculator, {key: text for key, text in more.items() if text is not None})}"


def build_from_function(make: Callable[..., Any], shown: str, options: dict[str, str] | None = None) -> Any:
    """Return the calculator that a function returns.

    Parameters
    ----------
    make
        The function.
    shown
        Name of the function in messages.
    options
        Keyword arguments of the function, ``device`` or ``precision``.

    Raises
    ------
    OptionError
        If the function does not accept an option.
    BuildError
        If the function returns something else.
    """
    check_options(make, shown, options or {})
    calculator = make(**(options or {}))
    if not isinstance(calculator, BaseCalculator):
        raise BuildError(f"the calculator {shown} must be an ASE calculator; it is a {type(calculator).__name__}")
    return calculator


def check_options(make: Callable[..., Any], shown: str, options: dict[str, str]) -> None:
    """Check that a function that builds a calculator accepts keyword arguments.

    Raises
    ------
    OptionError
        If it does not accept one of them.
    """
    if not options:
        return
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # some callables written in C have no signature
        return
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    named = {parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.POSITIONAL_ONLY}
    for option, value in options.items():
        if option not in named:
            raise OptionError(option, value, f"the calculator {shown} has no parameter {option}; leave it out")


def check_device(device: str) -> None:
    """Check that torch can compute on a device.

    Parameters
    ----------
    device
        Name of a device of torch, such as ``"cuda"`` or ``"cuda:1"``.

    Raises
    ------
    OptionError
        If there is no such device.
    """
    if device == "cpu":
        return
    try:
        import torch
    except ImportError as error:
        reason = f"torch, which computes on devices, cannot be imported here ({error}); leave the device out"
        raise OptionError("device", device, reason) from None
    try:
        kind, index = torch.device(device).type, torch.device(device).index
    except (RuntimeError, ValueError):
        reason = "torch has no such device; it must be the name of a device, such as cpu, cuda, cuda:1 or mps"
        raise OptionError("device", device, reason) from None
    if kind == "cuda" and not torch.cuda.is_available():
        reason = f"torch {torch.__version__} finds no CUDA device here; leave the device out to compute on the CPU"
        raise OptionError("device", device, reason)
    if kind == "cuda" and (index or 0) >= torch.cuda.device_count():
        reason = f"torch finds {torch.cuda.device_count()} CUDA devices here, which are numbered from 0"
        raise OptionError("device", device, reason)
    if kind == "mps" and not torch.backends.mps.is_available():
        reason = f"torch {torch.__version__} finds no MPS device here; leave the device out to compute on the CPU"
        raise OptionError("device", device, reason)


def build_emt(argument: str | None = None, *, device: str | None = None, precision: str | None = None) -> Any:
    """Build the effective medium theory of ASE; the argument is not used."""
    from ase.calculators.emt import EMT

    _check_plain("emt", device, precision)
    return EMT(), f"emt (ase {version('ase')})"


def build_lj(argument: str | None = None, *, device: str | None = None, precision: str | None = None) -> Any:
    """Build a Lennard-Jones potential that is the same for all elements; the argument is not used.

    ε = 0.1 eV and σ = 2.5 Å, smoothly cut off at 3 σ, give nearest neighbours at 2.7 Å and the stiffness of a metal.
    """
    from ase.calculators.lj import LennardJones

    _check_plain("lj", device, precision)
    return LennardJones(epsilon=0.1, sigma=2.5, rc=7.5, smooth=True), f"lj 0.1 eV 2.5 Å (ase {version('ase')})"


def _check_plain(name: str, device: str | None, precision: str | None) -> None:
    """Check the options of a calculator that computes with numpy.

    Raises
    ------
    OptionError
        For another device than the CPU, or another precision than float64.
    """
    if device not in (None, "cpu"):
        raise OptionError("device", device, f"the calculator {name} computes on the CPU only; leave it out")
    if precision not in (None, "float64"):
        raise OptionError("precision", precision, f"the calculator {name} computes in float64 only; leave it out")
