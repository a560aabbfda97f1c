"""The choice of a calculator: what it is, the interpreter that runs it, its device and its precision."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ase.calculators.calculator import BaseCalculator, Calculator

from hybridcsp.errors import InputError, UnreadableError, did_you_mean, with_hint
from hybridcsp.relaxation.calculators.server.builders import PRECISIONS
from hybridcsp.relaxation.calculators.server.mace import FOUNDATION_MODELS
from hybridcsp.relaxation.calculators.server.sevennet import MODELS
from hybridcsp.utils.paths import absolute, absolute_argument, absolute_program, expanded
from hybridcsp.utils.reading import read_toml

#: End of the name of a calculator file.
SUFFIX = ".toml"

#: Name of the calculator of a DFT file, whose argument is its path, and the key by which such a file is recognised.
DFT, CODE = "dft", "code"

# Names of models by their calculators.
_MODELS: Mapping[str, Collection[str]] = {"mace": FOUNDATION_MODELS, "sevennet": MODELS}


@dataclass(frozen=True, kw_only=True)
class CalculatorChoice:
    """A calculator together with the interpreter, the device and the precision in which it computes.

    Parameters
    ----------
    calculator
        A name (``"chgnet"``, ``"mace:PATH"``, ``"module:factory"``), the path of a calculator file (``"vasp.toml"``),
        an ASE calculator, or a function without required arguments that returns one.
    python
        Path of a Python interpreter, or its name on the ``PATH``; the calculator is built and evaluated in a process of
        this interpreter, in which only ASE must be installed. Default: that of the environment that was installed for
        the calculator, or else the interpreter of hybridcsp.
    device
        Device of torch, such as ``"cuda"``. Default: the calculator's own.
    precision
        ``"float32"`` or ``"float64"``. Default: the calculator's own.

    Raises
    ------
    InputError
        If an option is not text, or the precision has another name.

    Examples
    --------
    >>> CalculatorChoice(calculator="emt", precision="float64").calculator
    'emt'
    """

    calculator: str | Calculator | Callable[..., Calculator]
    python: str | None = None
    device: str | None = None
    precision: str | None = None

    def __post_init__(self) -> None:
        for option in ("python", "device", "precision"):
            value = getattr(self, option)
            if value is not None and (not isinstance(value, str) or not value or "\0" in value):
                raise InputError(option, value, _MEANINGS[option])
        if self.precision not in (None, *PRECISIONS):
            raise InputError("precision", self.precision, _MEANINGS["precision"])

    def __str__(self) -> str:
        calculator = self.calculator
        kind = type(calculator).__qualname__
        name = calculator if isinstance(calculator, str) else getattr(calculator, "__qualname__", kind)
        options = [f"{option} {value}" for option, value in {"python": self.python, **self.options}.items() if value]
        return f"{name} ({', '.join(options)})" if options else name

    @property
    def options(self) -> dict[str, str]:
        """The device and the precision that are given."""
        given = {"device": self.device, "precision": self.precision}
        return {key: value for key, value in given.items() if value is not None}

    def changed(self, **options: str | None) -> CalculatorChoice:
        """Return this choice with other options, apart from those that are ``None``."""
        return replace(self, **{key: text for key, text in options.items() if text is not None})

    @classmethod
    def of(cls, spec: Any) -> CalculatorChoice:
        """Return the choice that anything which stands for a calculator makes; calculator files are read.

        Parameters
        ----------
        spec
            A choice, or what its ``calculator`` may be. Options of a choice replace those of its calculator file.

        Raises
        ------
        InputError
            If the calculator is nothing of this kind, or its file cannot be read.
        """
        choice = spec if isinstance(spec, CalculatorChoice) else cls(calculator=spec)
        calculator = choice.calculator
        if not isinstance(calculator, (str, BaseCalculator)) and not callable(calculator):
            allowed = "a name, an ASE calculator, or a function without arguments that returns one"
            raise InputError("calculator", calculator, allowed)
        if not isinstance(calculator, str) or not calculator.endswith(SUFFIX) or calculator.startswith(f"{DFT}:"):
            return choice
        return cls.read(Path(calculator)).changed(python=choice.python, **choice.options)

    @classmethod
    def read(cls, path: Path) -> CalculatorChoice:
        """Read a calculator file.

        It is a TOML file with the keys ``calculator``, ``python``, ``device`` and ``precision``, of which the first is
        required. Paths are relative to the folder of the file. A file with the key ``code`` is a DFT file
        (:mod:`hybridcsp.relaxation.calculators.dft`), which is checked elsewhere.

        Raises
        ------
        InputError
            If the file does not exist, is not TOML, or has an unknown key or a wrong value.
        """
        path = expanded(path)
        try:
            raw = read_toml(path)
        except UnreadableError as error:
            raise InputError("calculator", path, reason=error.reason) from None
        if CODE in raw:
            return cls(calculator=f"{DFT}:{absolute(str(path), Path.cwd())}")
        known = [one.name for one in fields(cls)]
        for key, value in raw.items():
            if key not in known:
                hint = did_you_mean(key, known)
                reason = with_hint(
                    f"a calculator file has only the keys {', '.join(known)}, and a DFT file has the key {CODE} too",
                    hint,
                )
                raise _in_file(path, InputError(key, value, reason=reason))
        calculator = raw.get("calculator")
        if not isinstance(calculator, str) or not calculator or calculator.endswith(SUFFIX):
            allowed = 'the name of a calculator, such as "mace:PATH" or "module:factory"'
            raise _in_file(path, InputError("calculator", calculator, allowed))
        raw["calculator"] = absolute_calculator(calculator, path.parent)
        if isinstance(raw.get("python"), str):
            raw["python"] = absolute_program(raw["python"], path.parent)
        try:
            return cls(**raw)
        except InputError as error:
            raise _in_file(path, error) from None


_MEANINGS = {
    "python": "the path of a Python interpreter, such as ~/envs/vasp/bin/python",
    "device": "the name of a device of torch, such as cuda",
    "precision": f"one of {', '.join(PRECISIONS)}",
}


def _in_file(path: Path, error: InputError) -> InputError:
    """Return an error about a calculator file that contains the error about one of its keys."""
    return InputError("calculator", path, reason=f"it contains a mistake: {error}")


def absolute_calculator(text: str, folder: Path) -> str:
    """Return the name of a calculator with an absolute path, if it contains one that is relative to ``folder``.

    The name of a model stays one, even if there is a file or folder of this name.
    """
    name, _, argument = text.partition(":")
    if argument in _MODELS.get(name, ()):
        return text
    if name == DFT:
        return absolute_argument(text, folder, path=True)
    return absolute(text, folder) if text.endswith(SUFFIX) else absolute_argument(text, folder)
