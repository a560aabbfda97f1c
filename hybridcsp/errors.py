"""The errors that hybridcsp raises.

The message of every error that a user can cause says what was wrong, where, and what would be right. A failing
*candidate* is never an exception: it is a :class:`~hybridcsp.core.records.Failed` or
:class:`~hybridcsp.core.records.Rejected` outcome.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class HybridCSPError(Exception):
    """Base class of all errors that hybridcsp raises on purpose."""


class InputError(HybridCSPError, ValueError):
    """An invalid value of an option, parameter or file.

    Parameters
    ----------
    key
        Name of the option or parameter, as the user wrote it.
    value
        Given value.
    allowed
        Description of the values that are allowed.
    """

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(f"{key} = {value!r}: {allowed}")
        self.key = key
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are unpickled by calling their class with ``args``, but this class has other parameters.
        return _again, (type(self), self.args, self.__dict__)


class UnreadableError(HybridCSPError, ValueError):
    """A file that cannot be read, or that exceeds a limit of the reader.

    Parameters
    ----------
    file
        Path of the file.
    reason
        Description of the problem.
    line
        Number of the line, from 1.
    """

    def __init__(self, file: Path, reason: str, *, line: int = 1) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason
        self.line = line

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, self.__dict__)


class UnknownNameError(InputError):
    """A name that is not registered; the message lists the known names and the one that was probably meant.

    Parameters
    ----------
    kind
        Kind of the name, for example "source".
    name
        Given name.
    known
        Registered names.
    instead
        Description of other values that are allowed; may be empty.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], instead: str = "") -> None:
        names = sorted(known)
        more = f"; {instead}" if instead else ""
        super().__init__(kind, name, f"{did_you_mean(name, names)}known: {', '.join(names)}{more}")


class CommandLineError(HybridCSPError):
    """A command line with an unknown command or option, or with too many or too few arguments."""


class RegistrationError(HybridCSPError):
    """An entry of another package that is broken, or is not of the kind that it is registered as."""


class CalculatorError(HybridCSPError):
    """A calculator that cannot be built."""


class InstallationError(HybridCSPError):
    """An environment of a calculator that cannot be installed or removed."""


class ArchiveError(HybridCSPError):
    """A run directory or database that cannot be used."""


class LockedError(ArchiveError):
    """A run directory to which another process writes."""


class GeneratorError(HybridCSPError):
    """A generator that failed: it raised an error, hung, or made no usable structure."""


class RelaxationsFailedError(HybridCSPError):
    """A search in which every relaxation failed; its run directory is intact, and it can be resumed."""


class BackendError(HybridCSPError):
    """A failure of the backend that runs jobs; the search can be resumed."""


def _again(kind: type[HybridCSPError], args: tuple[Any, ...], state: dict[str, Any]) -> HybridCSPError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class ExitRaisedError(Exception):
    """A ``SystemExit`` or ``KeyboardInterrupt`` that other code raised, although the user did not interrupt."""


# Number of characters that are kept of a message of other code.
_LONGEST = 2000


def message_of(error: BaseException) -> str:
    """Return ``"TypeName: message"`` for any exception, even for one whose message cannot be formatted."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - formatting an exception of other code may fail in any way
        message = "(its message cannot be shown)"
    return (message if isinstance(error, ExitRaisedError) else f"{type(error).__name__}: {message}")[:_LONGEST]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"did you mean 'x'? "`` for the nearest known names, or an empty string.

    Case does not matter, nor whether words are joined by ``-``, ``_`` or a space. If several names are equally near,
    all of them are returned.
    """
    by_form: dict[str, list[str]] = {}
    for other in known:
        by_form.setdefault(_plain(other), []).append(other)
    form = _plain(name)
    near = [form] if form in by_form else difflib.get_close_matches(form, list(by_form), n=1)
    if not near and len(form) >= 4:  # "pressure" for "pressure_gpa"
        near = [other for other in by_form if other.startswith(form) or (len(other) >= 4 and form.startswith(other))][
            :1
        ]
    names = " or ".join(repr(one) for form in near for one in by_form[form])
    return f"did you mean {names}? " if names else ""


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-").replace(" ", "-").lstrip("-")
