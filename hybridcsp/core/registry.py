"""Registries of sources, generators, calculators, formats and operators, ours and those of other packages.

Another package adds to a registry with an entry point of its group, for example::

    [project.entry-points."hybridcsp.sources"]
    my_source = "my_package:MySource"
"""

from __future__ import annotations

import contextlib
import inspect
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from hybridcsp.errors import InputError, RegistrationError, UnknownNameError, message_of
from hybridcsp.utils.interrupts import exits_contained

#: Name of this package, whose entries are built in.
OURS = "hybridcsp"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of a registry.

    Attributes
    ----------
    name
        Name by which users refer to it.
    target
        ``"module:attribute"`` of the object, which is imported only when it is used.
    summary
        Description in one line.
    package
        Name of the package that registers it.
    methods
        Names of attributes that it must have.
    base
        ``"module:Class"`` of the class that it must be a subclass of, imported when it is checked; empty for none.
    """

    name: str
    target: str
    summary: str
    package: str = OURS
    methods: tuple[str, ...] = ()
    base: str = ""

    def load(self) -> Any:
        """Import and return the object.

        Raises
        ------
        RegistrationError
            If an entry of another package cannot be imported, for whatever reason, or is not of its kind.
        """
        point = EntryPoint(name=self.name, value=self.target, group="")
        if self.package == OURS:
            return point.load()
        try:
            with exits_contained():
                loaded = point.load()
        except Exception as error:  # third-party code runs when it is imported, and may fail in any way
            raise self.broken(f"cannot be imported: {message_of(error)}") from error
        self.require(loaded, self.methods)
        if self.base:
            self.require_subclass(loaded)
        return loaded

    def build(self, *arguments: Any, **options: Any) -> Any:
        """Return the result of calling the object with arguments.

        Raises
        ------
        RegistrationError
            As for :meth:`load`, or if it cannot be called with this number of arguments.
        """
        make = self.load()
        try:
            with contextlib.suppress(ValueError):  # some callables written in C have no signature
                inspect.signature(make).bind(*arguments, **options)
        except TypeError as error:
            wanted = f"{len(arguments)} argument{'s' * (len(arguments) != 1)}" if arguments else "no arguments"
            raise self.broken(f"cannot be called with {wanted}: {error}") from error
        return make(*arguments, **options)

    def require(self, thing: object, attributes: tuple[str, ...]) -> None:
        """Raise :class:`RegistrationError` if an object that the entry gave lacks an attribute."""
        missing = [attribute for attribute in attributes if not hasattr(thing, attribute)]
        if missing:
            shown = thing.__qualname__ if isinstance(thing, type) else type(thing).__qualname__
            raise self.broken(f"gives {shown}, which lacks {', '.join(missing)}")

    def require_subclass(self, thing: object) -> None:
        """Raise :class:`RegistrationError` unless ``thing`` is a class that implements the abstract base class."""
        base = EntryPoint(name="", value=self.base, group="").load()
        shown = thing.__qualname__ if isinstance(thing, type) else repr(thing)
        if not (isinstance(thing, type) and issubclass(thing, base)):
            raise self.broken(f"is {shown}, which must be a subclass of {base.__module__}.{base.__qualname__}")
        if missing := sorted(getattr(thing, "__abstractmethods__", ())):
            raise self.broken(f"is {shown}, which must implement {', '.join(missing)}")

    def broken(self, why: str) -> RegistrationError:
        """Return the error for an entry that cannot be used, with the reason."""
        return RegistrationError(f"{self.name!r}, which the package {self.package} registers as {self.target}, {why}")


class Registry:
    """The entries of one kind, from this package and from entry points of the group ``hybridcsp.<kind>s``.

    Parameters
    ----------
    kind
        Name of the kind in the singular, as error messages use it: "source", "calculator".
    builtin
        Entries of this package.
    methods
        Names of attributes that entries of other packages must have.
    base
        ``"module:Class"`` of the class that entries of other packages must be subclasses of; empty for none.
    """

    def __init__(self, kind: str, builtin: tuple[Entry, ...], methods: tuple[str, ...] = (), base: str = "") -> None:
        self.kind = kind
        self.methods = methods
        self.base = base
        self._builtin = {entry.name: entry for entry in builtin}

    def entries(self) -> dict[str, Entry]:
        """Return all entries by name, built-in ones first; another package cannot replace a built-in entry."""
        found = dict(self._builtin)
        for point in entry_points(group=f"hybridcsp.{self.kind}s"):
            package, summary = "?", ""
            if point.dist:
                package, summary = point.dist.name, str(point.dist.metadata.json.get("summary", ""))
            entry = Entry(
                name=point.name,
                target=point.value,
                summary=summary,
                package=package,
                methods=self.methods,
                base=self.base,
            )
            found.setdefault(point.name, entry)
        return found

    def __contains__(self, name: str) -> bool:
        # The metadata of all packages are read for other names only.
        return name in self._builtin or name in self.entries()

    def __getitem__(self, name: str) -> Entry:
        if name in self._builtin:
            return self._builtin[name]
        entries = self.entries()
        if name not in entries:
            raise UnknownNameError(self.kind, name, entries)
        return entries[name]


def split_argument(text: str, key: str) -> tuple[str, str | None]:
    """Split ``"name:argument"`` at the first colon; the argument is ``None`` if there is no colon.

    Raises
    ------
    InputError
        If the name or the argument is empty.
    """
    name, colon, argument = text.partition(":")
    if not name or (colon and not argument):
        raise InputError(key, text, "a name, or a name with an argument, written NAME:ARGUMENT")
    return name, argument if colon else None
