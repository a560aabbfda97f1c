"""What can be named: sources, calculators, formats; ours and those that other packages register.

Another package adds to a registry with an entry point of the group, for example::

    [project.entry-points."hybridcsp.sources"]
    my_source = "my_package:MySource"
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from hybridcsp.errors import InputError, UnknownNameError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that can be named."""

    name: str
    target: str  # "module:attribute", imported only when it is used
    summary: str
    package: str = "hybridcsp"

    def load(self) -> Any:
        """Import and return the object."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


class Registry:
    """Names of one kind, from this package and from entry points of the group ``hybridcsp.<kind>s``.

    Parameters
    ----------
    kind
        In the singular, as error messages say it: "source", "calculator".
    builtin
        Our own entries.
    """

    def __init__(self, kind: str, builtin: tuple[Entry, ...]) -> None:
        self.kind = kind
        self._builtin = {entry.name: entry for entry in builtin}

    def entries(self) -> dict[str, Entry]:
        """Return all entries by name, ours first; another package cannot replace one of ours."""
        found = dict(self._builtin)
        for point in entry_points(group=f"hybridcsp.{self.kind}s"):
            package = point.dist.name if point.dist else "?"
            entry = Entry(name=point.name, target=point.value, summary=f"from {package}", package=package)
            found.setdefault(point.name, entry)
        return found

    def __getitem__(self, name: str) -> Entry:
        entries = self.entries()
        if name not in entries:
            raise UnknownNameError(self.kind, name, entries)
        return entries[name]


def split_argument(text: str, key: str) -> tuple[str, str | None]:
    """Split ``"name:argument"`` at the first colon; the argument is ``None`` where there is no colon.

    Raises
    ------
    InputError
        If the name or the argument is empty.
    """
    name, colon, argument = text.partition(":")
    if not name or (colon and not argument):
        raise InputError(key, text, "write NAME or NAME:ARGUMENT")
    return name, argument if colon else None
