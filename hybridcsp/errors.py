"""The errors that hybridcsp raises.

The message of every error that a user can cause says what was wrong, where, and what would be right. A failing
*candidate* is never an exception: it is a :class:`~hybridcsp.core.outcomes.Failed` or
:class:`~hybridcsp.core.outcomes.Rejected` outcome.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any


class HybridCSPError(Exception):
    """Base class of all errors that hybridcsp raises on purpose."""


class InputError(HybridCSPError, ValueError):
    """An invalid value of an option, parameter or file.

    The message is one sentence: ``workers = 0 is not valid: it must be a whole number from 1.`` or, with a reason,
    ``sources = 'swarm' cannot be used: it cannot run alone.``

    Parameters
    ----------
    key
        Name of the option or parameter, as the user wrote it.
    value
        Given value; ``None`` if it is missing. A path is shown in full, other long values are shortened.
    allowed
        Noun phrase that names the allowed values, such as "a whole number from 1"; "it must be" is put before it.
    reason
        Clause that says why the value cannot be used, in place of ``allowed``, such as "there is no such file". More
        sentences may follow it.

    Attributes
    ----------
    key, value, allowed, reason
        The parameters; one of ``allowed`` and ``reason`` is empty.
    """

    def __init__(self, key: str, value: object, allowed: str = "", *, reason: str = "") -> None:
        self.key = key
        self.value = value
        self.allowed = allowed
        self.reason = reason
        if value is None:
            super().__init__(with_full_stop(f"{key} is missing: {self.clause}"))
        else:
            super().__init__(f"{key} = {shown(value)} {verdict(allowed, reason)}")

    @property
    def clause(self) -> str:
        """The part of the message that says what is wrong or what would be right, without the key and the value."""
        return f"it must be {self.allowed}" if self.allowed else self.reason

    def renamed(self, key: str, value: object = None) -> InputError:
        """Return the same error about a key that the user knows, and the value as the user gave it."""
        return InputError(key, self.value if value is None else value, self.allowed, reason=self.reason)

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are unpickled by calling their class with ``args``, but this class has other parameters.
        return _again, (type(self), self.args, self.__dict__)


class NothingUsableError(InputError):
    """A file or folder of structures none of which has the contents of the problem."""


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
        Other values that are allowed, or advice, which follows the names; may be empty.
    """

    def __init__(self, kind: str, name: str, known: Collection[str], instead: str = "") -> None:
        allowed = one_of(sorted(known)) + (f"; {instead}" if instead else "")
        if hint := did_you_mean(name, known):
            super().__init__(kind, name, reason=f"{hint}It must be {allowed}")
        else:
            super().__init__(kind, name, allowed)


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


# Longest text, which may be a path, and longest other value in characters that a message shows in full.
_LONGEST_TEXT = 200
_LONGEST_VALUE = 80


def shown(value: object) -> str:
    """Return a value as messages show it: a path in full, of any other long value the beginning and the end."""
    if isinstance(value, os.PathLike):
        return repr(os.fspath(value))
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - formatting an object of other code may fail in any way
        text = f"<{type(value).__name__}>"
    longest = _LONGEST_TEXT if isinstance(value, str) else _LONGEST_VALUE
    return text if len(text) <= longest else f"{text[: longest - 25]}…{text[-25:]}"


def verdict(allowed: str, reason: str = "") -> str:
    """Return the end of the sentence about a value: that it is not valid, or why it cannot be used."""
    if allowed:
        return with_full_stop(f"is not valid: it must be {allowed}")
    return with_full_stop(f"cannot be used: {reason}")


def with_full_stop(text: str) -> str:
    """Return a sentence with a full stop at its end, unless it ends with a question mark or full stop already."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def with_hint(reason: str, hint: str) -> str:
    """Return a reason, followed by what :func:`did_you_mean` returned if that is not empty."""
    return f"{reason}; {hint.rstrip()}" if hint else reason


def one_of(names: Sequence[str]) -> str:
    """Return ``"one of a, b, c"``, or the only name."""
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


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
