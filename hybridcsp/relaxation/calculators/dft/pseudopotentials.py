"""Pseudopotentials: files by element, or a folder with a rule for the names of its files."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols
from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator

from hybridcsp.errors import InputError
from hybridcsp.relaxation.calculators.server.identity import digest_of_file
from hybridcsp.utils.paths import absolute

#: Part of a pattern that stands for the symbol of an element.
ELEMENT = "{element}"

_SYMBOLS = frozenset(chemical_symbols[1:])

#: Number of files that an error lists.
_SHOWN = 5


class Pseudopotentials(BaseModel):
    """A table with a folder, a pattern for the names of files in it, and names by element.

    Attributes
    ----------
    folder
        Folder of all files; absolute.
    pattern
        Names of the files of all other elements, with ``{element}`` for the symbol and ``*`` and ``?`` for any text.
        Upper and lower case of the symbol do not matter.
    names
        Names of files by element.

    Examples
    --------
    >>> given = {"folder": "/usr/share/espresso/pseudo", "pattern": "{element}.pbe-*.UPF", "Si": "Si.pz-vbc.UPF"}
    >>> Pseudopotentials.model_validate(given).names
    {'Si': 'Si.pz-vbc.UPF'}
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    pattern: str | None = None
    names: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _sort(cls, raw: Any, info: ValidationInfo) -> Any:
        """Separate the elements from the other keys, and make the folder absolute."""
        if not isinstance(raw, dict) or "names" in raw:
            return raw
        names = {key: name for key, name in raw.items() if key in _SYMBOLS}
        found: dict[str, Any] = {key: value for key, value in raw.items() if key not in _SYMBOLS} | {"names": names}
        base = (info.context or {}).get("folder")
        if isinstance(found.get("folder"), str):
            found["folder"] = Path(absolute(found["folder"], base or Path.cwd()))
        return found

    @model_validator(mode="after")
    def _check(self) -> Pseudopotentials:
        if self.pattern is None and not self.names:
            raise InputError("pattern", None, "a rule for names such as '{element}.*.UPF', or names by element")
        if self.pattern is not None and (self.pattern.count(ELEMENT) != 1 or os.sep in self.pattern):
            raise InputError("pattern", self.pattern, "a name that contains {element} once, such as '{element}.*.UPF'")
        for element, name in self.names.items():
            if not name or os.sep in name or "\0" in name:
                raise InputError(element, name, "the name of a file in the folder of the pseudopotentials")
        if not self.folder.is_dir():
            raise InputError("folder", self.folder, "an existing folder")
        return self

    def file(self, element: str) -> Path:
        """Return the file, or the folder, of an element.

        Raises
        ------
        InputError
            If there is none, or the pattern matches several.
        """
        key = f"pseudopotentials.{element}"
        if (name := self.names.get(element)) is not None:
            if not (self.folder / name).exists():
                raise InputError(key, name, f"the name of a file in {self.folder}")
            return self.folder / name
        matching = self._matching.get(element, [])
        if len(matching) == 1:
            return self.folder / matching[0]
        if self.pattern is None:
            raise InputError(key, None, f"the name of a file in {self.folder}")
        if not matching:
            raise InputError(key, None, f"the name of a file in {self.folder}, because none matches {self.pattern!r}")
        listed = ", ".join(matching[:_SHOWN]) + (" …" if len(matching) > _SHOWN else "")
        raise InputError(
            key, None, f"the name of one of the {len(matching)} files that match {self.pattern!r} ({listed})"
        )

    @property
    def elements(self) -> list[str]:
        """Elements that have exactly one file, those that are named first."""
        return [*self.names, *(one for one, files in self._matching.items() if len(files) == 1)]

    def digest(self, inside: str = "") -> str:
        """Return a hash of the contents of all files that may be used, by element.

        Parameters
        ----------
        inside
            Name of the file in each element's folder; empty if the elements have files.
        """
        found = hashlib.sha256()
        for element in sorted(self.elements):
            path = self.file(element)
            found.update(f"{element} {digest_of_file(path / inside if inside else path)}\0".encode())
        return found.hexdigest()[:16]

    @cached_property
    def _matching(self) -> dict[str, list[str]]:
        """Names that match the pattern, by element, for the elements that are not named."""
        if self.pattern is None:
            return {}
        listed = sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))
        found = {one: _matches(self.pattern, one, listed) for one in chemical_symbols[1:] if one not in self.names}
        return {element: names for element, names in found.items() if names}


def _matches(pattern: str, element: str, listed: Iterable[str]) -> list[str]:
    """Return the names that match a pattern in which the symbol of an element is not the beginning of another one."""
    before, after = pattern.split(ELEMENT)
    symbol = "".join(f"[{letter.upper()}{letter.lower()}]" for letter in element)
    head, rest = (fnmatch.translate(part)[:-2] for part in (before, after))  # without the mark of the end
    bound = "(?<![A-Za-z])" if before.endswith(("*", "?")) else ""
    rule = re.compile(rf"{head}{bound}{symbol}(?![a-z]){rest}\Z")
    return [name for name in listed if rule.match(name)]
