"""Provide the versions of one generator: the initial one and those that were retrained during the search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from hybridcsp.generators.base import Generator
from hybridcsp.utils.activity import announce


class ModelVersions:
    """Versions of one generator, of which one or two are in use.

    Parameters
    ----------
    initial
        Version 0, which the search starts with.
    trained
        Whether version 0 is in use. An untrained generator proposes nothing before its first training.

    Attributes
    ----------
    in_use
        Numbers of the versions in use: one, or two while the newer one is on trial.
    """

    def __init__(self, initial: Generator, *, trained: bool = True) -> None:
        self.in_use: tuple[int, ...] = (0,) if trained else ()
        self._loaded: dict[int, Generator] = {0: initial}
        self._folders: dict[int, Path] = {}
        self._proposals: Counter[int] = Counter()

    @property
    def initial(self) -> Generator:
        """Version 0."""
        return self._loaded[0]

    def load(self, version: int) -> Generator:
        """Return one version; read its weights if they are not in memory."""
        if version not in self._loaded:
            announce(f"loading version {version} of {self.initial.name}")
            self._loaded[version] = type(self.initial).load(self._folders[version])
        return self._loaded[version]

    def adopt(self, in_use: Sequence[int], folders: Mapping[int, Path]) -> None:
        """Change the versions in use.

        Parameters
        ----------
        in_use
            Numbers of the versions to use from now on.
        folders
            Folders of the weights of versions that were not in use before.
        """
        self._folders.update(folders)
        self.in_use = tuple(in_use)
        self._proposals = Counter()
        for version in set(self._loaded) - {0, *in_use}:
            del self._loaded[version]

    def next_in_turn(self) -> list[int]:
        """Return the versions in use, those with the fewest proposals first and the newest first among equals."""
        return sorted(self.in_use, key=lambda version: (self._proposals[version], -version))

    def proposed(self, version: int) -> None:
        """Count a proposal of a version."""
        self._proposals[version] += 1
