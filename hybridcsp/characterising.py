"""What an archive works out of each relaxed structure, ahead of time and in other processes where there are many."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from typing import Self, TypeVar

from ase import Atoms

from hybridcsp.similarity import Described, describe
from hybridcsp.structure import SYMPREC, SYMPREC_LOOSE, spacegroup

T = TypeVar("T")

#: Structures that are sent to another process at a time.
_CHUNK = 50

#: Fewer are characterised sooner than another process starts.
FEWEST = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Character:
    """What is worked out of one structure.

    Attributes
    ----------
    described
        For the comparison with other structures.
    spacegroup, spacegroup_loose
        Space group numbers at 0.01 Å and at 0.1 Å.
    """

    described: Described
    spacegroup: int
    spacegroup_loose: int


def characterise(atoms: Atoms) -> Character:
    """Work it out."""
    strict, loose = spacegroups(atoms)
    return Character(described=describe(atoms), spacegroup=strict, spacegroup_loose=loose)


def spacegroups(atoms: Atoms) -> tuple[int, int]:
    """Return space group numbers at 0.01 Å and at 0.1 Å; what has no symmetry at 0.1 Å has none at 0.01 Å."""
    loose = spacegroup(atoms, SYMPREC_LOOSE)
    return (1 if loose == 1 else spacegroup(atoms, SYMPREC)), loose


class Characteriser:
    """Characterises structures in other processes, while the caller goes on with those before them.

    Parameters
    ----------
    processes
        How many; with 1 nothing is done ahead, and :meth:`ahead` gives no characters.
    """

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def ahead(self, batches: Iterable[tuple[T, Sequence[Atoms]]]) -> Iterator[tuple[T, dict[int, Character]]]:
        """Yield what belongs to each batch with the characters of its structures, by their place in the batch.

        A structure that has none is left out: one that cannot be described, or all where nothing is done ahead.
        """
        waiting: deque[tuple[T, list[tuple[int, Future[list[Character | None]]]]]] = deque()
        seen = 0
        for belonging, structures in batches:
            seen += len(structures)
            waiting.append((belonging, self._submitted(structures) if seen > FEWEST else []))
            if len(waiting) > 2 * self._processes or self._pool is None:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())

    def _submitted(self, structures: Sequence[Atoms]) -> list[tuple[int, Future[list[Character | None]]]]:
        if self._processes < 2:
            return []
        if self._pool is None:
            context = get_context("spawn")  # nothing of this process's state, its locks above all, is copied
            self._pool = ProcessPoolExecutor(
                self._processes, mp_context=context, initializer=_begin, initargs=(os.getpid(),)
            )
        rest = iter(structures)
        chunks = iter(lambda: list(islice(rest, _CHUNK)), [])
        return [(_CHUNK * n, self._pool.submit(_characterised, chunk)) for n, chunk in enumerate(chunks)]


def _finished(
    belonging: T, futures: Sequence[tuple[int, Future[list[Character | None]]]]
) -> tuple[T, dict[int, Character]]:
    found = {
        place: character
        for first, future in futures
        for place, character in enumerate(future.result(), start=first)
        if character is not None
    }
    return belonging, found


def _begin(parent: int) -> None:
    """Belong to the parent: end with it, and leave Ctrl-C to it."""
    import signal

    from hybridcsp.orphans import end_with

    os.environ["OMP_NUM_THREADS"] = "1"
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent, signal.SIGKILL)


def _characterised(structures: Sequence[Atoms]) -> list[Character | None]:
    return [_characterised_or_none(atoms) for atoms in structures]


def _characterised_or_none(atoms: Atoms) -> Character | None:
    try:
        return characterise(atoms)
    except ValueError:  # said again, in words, when the archive comes to it
        return None
