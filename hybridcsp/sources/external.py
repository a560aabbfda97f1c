"""Provide the source of structures from files of other programs."""

from __future__ import annotations

from hybridcsp.core.problem import Problem
from hybridcsp.io.frames import Frame, ReadFailure
from hybridcsp.sources.seeds import SeedsSource


class ExternalSource(SeedsSource):
    """Propose each structure that another program wrote once, in order.

    Like :class:`~hybridcsp.sources.seeds.SeedsSource`, but for output of many compositions: a folder, an extxyz file, a
    zip archive of CIFs, or a table with a column of CIFs. It is read as a stream; structures with the contents of the
    problem are kept, and the others are counted.

    Parameters
    ----------
    problem
        The problem of the search.
    argument
        The file or folder.

    Raises
    ------
    InputError
        If there is nothing at that path, or no structure there can be used.
    """

    kind = "external"
    operator = "external"

    def __init__(self, problem: Problem, argument: str | None = None) -> None:
        self._path = str(argument)
        self._others = 0
        super().__init__(problem, argument)
        self._report_others()

    def _take(self, found: Frame | ReadFailure, problem: Problem) -> None:
        if isinstance(found, Frame) and problem.units_of(found.atoms.numbers) is None:
            self._others += 1
        else:
            super()._take(found, problem)

    def _complaint(self, problem: Problem) -> str:
        self._report_others()
        return super()._complaint(problem)

    def _report_others(self) -> None:
        if self._others:
            self.unusable.append((self._path, f"{self._others} structures of other contents"))
