"""What can go wrong, and the words to say it with.

Every error a user can cause says what was wrong, where, and what would be right. A failing *candidate* is never an
exception: it is a :class:`~hybridcsp.core.records.Failed` or :class:`~hybridcsp.core.records.Rejected` outcome.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class HybridCSPError(Exception):
    """Base of every error that hybridcsp raises on purpose."""


class InputError(HybridCSPError, ValueError):
    """A value that a person gave is not usable.

    Parameters
    ----------
    key
        The name of the offending option, as the person wrote it.
    value
        What they gave.
    allowed
        What would be right, in words.
    """

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(f"{key} = {value!r}: {allowed}")
        self.key = key
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are unpickled by calling their class with what they print; this one takes more than that.
        return _again, (type(self), self.args, self.__dict__)


class UnreadableError(HybridCSPError, ValueError):
    """A file cannot be read, or a limit of what is read was reached.

    Parameters
    ----------
    file
        The file.
    reason
        What is wrong with it, in words.
    line
        Where; lines count from 1.
    """

    def __init__(self, file: Path, reason: str, *, line: int = 1) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason
        self.line = line

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, self.__dict__)


class UnknownNameError(InputError):
    """A name that is not registered; says which are, which one was probably meant, and what may stand there instead."""

    def __init__(self, kind: str, name: str, known: Iterable[str], instead: str = "") -> None:
        names = sorted(known)
        more = f"; {instead}" if instead else ""
        super().__init__(kind, name, f"{did_you_mean(name, names)}known: {', '.join(names)}{more}")


class CommandLineError(HybridCSPError):
    """A command line that cannot be understood: an unknown command or option, or one too many or too few."""


class RegistrationError(HybridCSPError):
    """What another package registers is broken, or is not what it is registered as."""


class CalculatorError(HybridCSPError):
    """A calculator cannot be built."""


class ArchiveError(HybridCSPError):
    """A run directory or its database cannot be used."""


class LockedError(ArchiveError):
    """Somebody else is writing to this run directory."""


class GeneratorError(HybridCSPError):
    """A generator came to nothing: it raised, hung, or made nothing that can be used."""


class RelaxationsFailedError(HybridCSPError):
    """Every relaxation of a search has failed; the run directory is intact and the search can be resumed."""


class BackendError(HybridCSPError):
    """The machinery that runs jobs broke; the run directory can be resumed."""


def _again(kind: type[HybridCSPError], args: tuple[Any, ...], state: dict[str, Any]) -> HybridCSPError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class ExitRaisedError(Exception):
    """Other code has raised what ends a process (``SystemExit``, ``KeyboardInterrupt``), though nobody asked for it."""


#: Characters of a message of other code that are kept.
_LONGEST = 2000


def message_of(error: BaseException) -> str:
    """Return ``"TypeName: message"`` of an exception that any code has raised, also where its message cannot be had."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - an exception of others may fail at this too
        message = "(its message cannot be shown)"
    return (message if isinstance(error, ExitRaisedError) else f"{type(error).__name__}: {message}")[:_LONGEST]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"did you mean 'x'? "`` for the nearest known names, or an empty string.

    Case does not matter, nor whether words are joined by ``-``, ``_`` or a space. Where several names are as near, all
    of them are returned.
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
