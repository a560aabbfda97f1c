"""Computation of descriptors in parallel processes."""

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

# Number of structures that are sent to another process at a time.
_CHUNK = 50

#: Fewer structures are handled in less time than another process needs to start.
MIN_STRUCTURES = 500


class DescriptorPool:
    """Computes descriptors in other processes while the caller handles earlier structures.

    Parameters
    ----------
    processes
        Number of processes; with 1, :meth:`ahead` yields no descriptors.
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
        """Yield each batch's payload with the descriptors of its structures by their position in the batch.

        Structures without descriptors are left out: those for which the computation failed, or all if nothing is
        computed ahead.
        """
        waiting: deque[tuple[T, list[tuple[int, Future[list[Descriptors | None]]]]]] = deque()
        seen = 0
        for payload, structures in batches:
            seen += len(structures)
            waiting.append((payload, self._submitted(structures) if seen > MIN_STRUCTURES else []))
            if len(waiting) > 2 * self._processes or self._pool is None:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())

    def _submitted(self, structures: Sequence[Atoms]) -> list[tuple[int, Future[list[Descriptors | None]]]]:
        if self._processes < 2:
            return []
        if self._pool is None:
            context = get_context("spawn")  # locks and other state of this process must not be copied
            self._pool = ProcessPoolExecutor(
                self._processes, mp_context=context, initializer=_begin, initargs=(os.getpid(),)
            )
        rest = iter(structures)
        chunks = iter(lambda: list(islice(rest, _CHUNK)), [])
        return [(_CHUNK * n, self._pool.submit(_descriptors, chunk)) for n, chunk in enumerate(chunks)]


def _finished(
    payload: T, futures: Sequence[tuple[int, Future[list[Descriptors | None]]]]
) -> tuple[T, dict[int, Descriptors]]:
    found = {
        position: descriptors
        for first, future in futures
        for position, descriptors in enumerate(future.result(), start=first)
        if descriptors is not None
    }
    return payload, found


def _begin(parent: int) -> None:
    """End with the parent process, and leave Ctrl-C to it."""
    import signal

    from hybridcsp.utils.process_watch import end_with

    os.environ["OMP_NUM_THREADS"] = "1"
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent, signal.SIGKILL)


def _descriptors(structures: Sequence[Atoms]) -> list[Descriptors | None]:
    return [_descriptors_or_none(atoms) for atoms in structures]


def _descriptors_or_none(atoms: Atoms) -> Descriptors | None:
    try:
        return compute_descriptors(atoms)
    except ValueError:  # the archive reports the error when it handles the structure
        return None
