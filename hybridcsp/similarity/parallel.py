"""Descriptions of relaxed structures, worked out ahead of time and in other processes where there are many."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from typing import Self, TypeVar

from ase import Atoms

from hybridcsp.similarity import Descriptors, compute_descriptors

T = TypeVar("T")

#: Structures that are sent to another process at a time.
_CHUNK = 50

#: Fewer are described sooner than another process starts.
MIN_STRUCTURES = 500


class DescriptorPool:
    """Describes structures in other processes, while the caller goes on with those before them.

    Parameters
    ----------
    processes
        How many; with 1 nothing is done ahead, and :meth:`ahead` gives no descriptions.
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

    def ahead(self, batches: Iterable[tuple[T, Sequence[Atoms]]]) -> Iterator[tuple[T, dict[int, Descriptors]]]:
        """Yield what belongs to each batch with the descriptions of its structures, by their place in the batch.

        A structure that has none is left out: one that cannot be described, or all where nothing is done ahead.
        """
        waiting: deque[tuple[T, list[tuple[int, Future[list[Descriptors | None]]]]]] = deque()
        seen = 0
        for belonging, structures in batches:
            seen += len(structures)
            waiting.append((belonging, self._submitted(structures) if seen > MIN_STRUCTURES else []))
            if len(waiting) > 2 * self._processes or self._pool is None:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())

    def _submitted(self, structures: Sequence[Atoms]) -> list[tuple[int, Future[list[Descriptors | None]]]]:
        if self._processes < 2:
            return []
        if self._pool is None:
            context = get_context("spawn")  # nothing of this process's state, its locks above all, is copied
            self._pool = ProcessPoolExecutor(
                self._processes, mp_context=context, initializer=_begin, initargs=(os.getpid(),)
            )
        rest = iter(structures)
        chunks = iter(lambda: list(islice(rest, _CHUNK)), [])
        return [(_CHUNK * n, self._pool.submit(_described, chunk)) for n, chunk in enumerate(chunks)]


def _finished(
    belonging: T, futures: Sequence[tuple[int, Future[list[Descriptors | None]]]]
) -> tuple[T, dict[int, Descriptors]]:
    found = {
        place: described
        for first, future in futures
        for place, described in enumerate(future.result(), start=first)
        if described is not None
    }
    return belonging, found


def _begin(parent: int) -> None:
    """Belong to the parent: end with it, and leave Ctrl-C to it."""
    import signal

    from hybridcsp.utils.process_watch import end_with

    os.environ["OMP_NUM_THREADS"] = "1"
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent, signal.SIGKILL)


def _described(structures: Sequence[Atoms]) -> list[Descriptors | None]:
    return [_described_or_none(atoms) for atoms in structures]


def _described_or_none(atoms: Atoms) -> Descriptors | None:
    try:
        return compute_descriptors(atoms)
    except ValueError:  # said again, in words, when the archive comes to it
        return None
